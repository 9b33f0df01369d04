"""A small GPT-2 at work: every way of making the same tokens gives the same bits."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import tokenizers

import edgeq
from edgeq.errors import FormatError, UsageError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.writer import compile_bundle
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.decoder import Decoder, logits_along
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.settings import GenerationSettings

PROMPTS = [[5, 80, 200, 17, 45, 6, 99, 3, 120, 121, 122, 123, 44], [9], [250, 251, 3], [30, 31] * 10]
SAMPLED = Sampling(temperature=1.5, top_k=60, top_p=0.95, repetition_penalty=1.3, seed=11)


@pytest.fixture(scope="module")
def bundle(gpt2_bundle):
    return edgeq.load(gpt2_bundle, threads=2)


@pytest.fixture(scope="module")
def alone(bundle):
    """128 greedy tokens of each prompt with their logits, one prompt at a time."""
    return [_generate(bundle, [prompt], 128)[0] for prompt in PROMPTS]


def _generate(bundle, prompts, count, **options):
    options = {"ignore_end": True, "keep_logits": True, **options}
    return bundle.generate(prompts, max_new_tokens=count, **options).results()


def test_the_bundle_says_what_it_keeps(bundle):
    manifest = bundle.manifest
    assert (manifest.model.task, manifest.model.max_length) == ("generate", 150)
    assert (manifest.generation.context, manifest.generation.capacity, manifest.generation.end_ids) == (150, 160, (2,))
    assert [spec.shape for spec in manifest.state] == [
        ("batch", 3, "context_blocks", 12, 16),
        ("batch", 3, "context", 12),
    ] * 2
    assert bundle.new_state(3).bytes == 3 * 2 * 2 * 160 * 36 * 2


def test_the_self_test_is_a_prompt_and_greedy_steps(bundle):
    runs = bundle.golden_runs()
    assert [inputs["input_ids"].shape for _, inputs, _ in runs] == [(2, 13)] + [(2, 1)] * 6
    for (_, _, before), (_, inputs, _) in itertools.pairwise(runs):
        np.testing.assert_array_equal(inputs["input_ids"][:, 0], before["logits"].argmax(1))
    result = bundle.self_test()
    assert result.ok
    assert f"{7 * 2 * 283} output values agree" in result.detail


def test_the_self_test_sees_a_changed_bit_of_the_last_step(gpt2_bundle, copy_of):
    damaged = copy_of(gpt2_bundle)
    data = bytearray((damaged / "golden.bin").read_bytes())
    data[read_manifest(damaged).golden[-1].outputs[0].offset] ^= 1
    (damaged / "golden.bin").write_bytes(data)
    result = edgeq.load(damaged, verify=False).self_test()
    assert not result.ok
    assert "differs from the golden one in 1 of 566 values" in result.detail


def test_a_batch_gives_the_bits_of_each_prompt_alone(bundle, alone):
    for together, single in zip(_generate(bundle, PROMPTS, 128), alone, strict=True):
        assert together.ids == single.ids
        np.testing.assert_array_equal(together.logits, single.logits)
    for together, single in zip(_generate(bundle, PROMPTS, 128, batch=3), alone, strict=True):
        assert together.ids == single.ids


def test_threads_do_not_change_a_bit(gpt2_bundle, alone):
    found = _generate(edgeq.load(gpt2_bundle, threads=1), PROMPTS[:2], 128)
    for result, single in zip(found, alone, strict=False):
        np.testing.assert_array_equal(result.logits, single.logits)


@pytest.mark.parametrize("use_cache", [True, False])
def test_with_and_without_cache_the_logits_are_the_same(bundle, alone, use_cache):
    ids = [*PROMPTS[0], *alone[0].ids]
    found = logits_along(bundle, ids[:-1], prompt=len(PROMPTS[0]), use_cache=use_cache)
    np.testing.assert_array_equal(found, alone[0].logits)


def test_sampled_prompts_are_the_same_alone_and_together(bundle):
    together = [result.ids for result in _generate(bundle, PROMPTS, 40, sampling=SAMPLED)]
    alone = [_generate(bundle, [prompt], 40, sampling=SAMPLED)[0].ids for prompt in PROMPTS]
    assert together == alone
    assert len({tuple(ids) for ids in together}) == len(PROMPTS)
    other = Sampling(temperature=1.5, top_k=60, top_p=0.95, repetition_penalty=1.3, seed=12)
    assert [result.ids for result in _generate(bundle, PROMPTS, 40, sampling=other)] != together


def test_the_settings_of_the_bundle_count_where_nothing_else_is_said(gpt2_bundle, with_settings, bundle):
    settings = GenerationSettings(SAMPLED, no_repeat_ngram_size=2, min_length=16, max_length=24)
    changed = edgeq.load(with_settings(gpt2_bundle, settings))
    found = changed.generate(PROMPTS).results()
    for result, prompt in zip(found, PROMPTS, strict=True):
        explicit = {
            "max_new_tokens": 24 - len(prompt), "min_new_tokens": max(16 - len(prompt), 0), "sampling": SAMPLED,
            "no_repeat_ngram_size": 2, "ignore_end": False,
        }  # fmt: skip
        assert result.ids == bundle.generate([prompt], **explicit).results()[0].ids
    with pytest.raises(UsageError, match="min_new_tokens must be an integer"):
        bundle.generate("a", min_new_tokens=-1)


def test_a_prompt_in_pieces_gives_the_bits_of_a_prompt_at_once(bundle):
    ids = [(7 * i) % 283 for i in range(150)]
    at_once = Decoder(bundle).append([ids])
    pieces = Decoder(bundle)
    for start in range(0, 150, 37):
        found = pieces.append([ids[start : start + 37]])
    np.testing.assert_array_equal(found, at_once)
    assert pieces.lengths == [150]
    with pytest.raises(UsageError, match="would have 151 tokens, the bundle's context holds 150"):
        pieces.append([[1]])


def _changed(bundle, *, context=150, end_ids=(2,)):
    """Gives a copy of a bundle another context, or other tokens that end a text; its code fits any."""
    manifest = read_manifest(bundle)
    lengths = [dataclasses.replace(spec, maximum=context) for spec in manifest.inputs[1:]]
    main = dataclasses.replace(manifest.functions["main"], inputs=(manifest.inputs[0], *lengths))
    changed = dataclasses.replace(
        manifest,
        model=dataclasses.replace(manifest.model, max_length=context),
        functions={"main": main},
        generation=dataclasses.replace(manifest.generation, context=context, end_ids=end_ids),
    )
    write_manifest(bundle, changed)
    return edgeq.load(bundle)


def test_a_shorter_context_changes_nothing_but_the_end(gpt2_bundle, copy_of, alone):
    short = _changed(copy_of(gpt2_bundle), context=20)
    assert short.manifest.generation.capacity == 32
    assert short.self_test().ok
    (result,) = _generate(short, [PROMPTS[0]], 128)
    assert (result.finish, len(result.ids)) == ("context", 20 - 13 + 1)
    np.testing.assert_array_equal(result.logits, alone[0].logits[:8])
    (full,) = _generate(short, [PROMPTS[3]], 5)
    assert (full.finish, len(full.ids)) == ("context", 1)


def test_the_end_token_ends_a_text_unless_it_is_ignored(gpt2_bundle, copy_of, alone):
    end = alone[0].ids[5]
    ending = _changed(copy_of(gpt2_bundle), end_ids=(2, end))
    (result,) = _generate(ending, [PROMPTS[0]], 128, ignore_end=False)
    assert result.finish == "end"
    assert result.ids == alone[0].ids[: alone[0].ids.index(end) + 1]
    assert _generate(ending, [PROMPTS[0]], 128)[0].finish == "length"


def test_pieces_make_the_text_that_the_tokenizer_gives(bundle, gpt2_bundle):
    generation = bundle.generate(["the quick cat", "a lazy dog"], max_new_tokens=30, ignore_end=True, sampling=SAMPLED)
    pieces = list(generation)
    tokenizer = tokenizers.Tokenizer.from_file(str(gpt2_bundle / "tokenizer.json"))
    for number, result in enumerate(generation.results()):
        assert [piece.token for piece in pieces if piece.prompt == number] == result.ids
        assert "".join(piece.text for piece in pieces if piece.prompt == number) == result.text
        assert result.text == tokenizer.decode(result.ids)
    speed = generation.speed
    assert (speed.prompt_tokens, speed.new_tokens) == (sum(r.prompt_tokens for r in generation.results()), 58)
    assert speed.tokens_per_second > 0


def test_a_stop_text_ends_the_text_before_it(bundle):
    (plain,) = _generate(bundle, ["the quick cat"], 40, sampling=SAMPLED)
    stop = plain.text[8:11]
    (result,) = _generate(bundle, ["the quick cat"], 40, sampling=SAMPLED, stop=["never to be seen", stop])
    assert result.finish == "stop"
    assert result.text == plain.text[: plain.text.index(stop)]
    assert result.ids == plain.ids[: len(result.ids)]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ("", {}, "prompt 1 is empty; give at least one word"),
        (["a", []], {}, "prompt 2 is empty"),
        ([], {}, "there is no text; give at least one"),
        ([[3] * 151], {}, "prompt 1 has 151 tokens"),
        ([[283]], {}, r"prompt 1 holds 283; ids lie in 0\.\.282"),
        ([[-1]], {}, "prompt 1 holds -1; ids lie in"),
        ([3, 4], {}, "prompt 1 must be a text or a list of token ids"),
        (["\ud800"], {}, "prompt 1 is not valid Unicode"),
        ("a", {"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1, found 0"),
        ("a", {"max_new_tokens": 2.0}, "max_new_tokens must be"),
        ("a", {"batch": 0}, "batch must be"),
        ("a", {"stop": "end"}, "stop must be a list of texts"),
        ("a", {"stop": [""]}, "stop must be"),
    ],
)
def test_wrong_prompts_and_options_are_a_sentence(bundle, prompts, options, message):
    with pytest.raises(UsageError, match=message):
        bundle.generate(prompts, **{"max_new_tokens": 3, **options})


def test_a_bundle_that_makes_no_text_says_so(host_bundle, bundle):
    encoder = edgeq.load(host_bundle)
    for ask in (lambda: encoder.generate("a", max_new_tokens=1), encoder.new_state, lambda: Decoder(encoder)):
        with pytest.raises(UsageError, match="generates no text: TinyModel is for 'embed'"):
            ask()
    from edgeq.targets.runtime.text import run_texts

    with pytest.raises(UsageError, match="generates text from prompts; use `edgeq generate`"):
        run_texts(bundle, ["a"])


def test_lengths_are_checked_before_compiled_code_sees_them(bundle):
    ids = np.array([[1, 2, 3]])
    assert bundle(input_ids=ids, new_lengths=np.array([3]))["logits"].shape == (1, 283)
    for lengths, message in [
        ({"new_lengths": [4]}, "a row of 'input_ids' has 3 tokens"),
        ({"new_lengths": [3], "past_lengths": [148]}, "3 tokens after 148 do not fit the bundle's context of 150"),
        ({"new_lengths": [-1]}, "holds -1"),
        ({"new_lengths": [3], "past_lengths": [1 << 62]}, "values lie in 0..150"),
        ({}, "'new_lengths' is missing"),
    ]:
        with pytest.raises(UsageError, match=message):
            bundle(input_ids=ids, **{name: np.array(value) for name, value in lengths.items()})
    with pytest.raises(UsageError, match="the state is for 2 sequences, the inputs hold 1"):
        bundle.run({"input_ids": ids, "new_lengths": np.array([3])}, state=bundle.new_state(2))
    with pytest.raises(UsageError, match="needs at least one token"):
        Decoder(bundle, batch=2).append([[1], []])


@pytest.mark.slow
@pytest.mark.needs("arm64-emulator")
@pytest.mark.parametrize("core", [pytest.param("cortex-a72", marks=pytest.mark.slow), "cortex-a76"])
def test_arm_makes_the_tokens_and_logits_of_this_machine(gpt2_board, alone, bundle, core):
    board = gpt2_board(core)
    assert emulator.self_test(board).ok
    made = emulator.generate(board, PROMPTS, max_new_tokens=32, ignore_end=True)
    assert made == [result.ids[:32] for result in alone]
    sampled = [result.ids for result in _generate(bundle, PROMPTS, 32, sampling=SAMPLED)]
    assert emulator.generate(board, PROMPTS, max_new_tokens=32, ignore_end=True, sampling=SAMPLED) == sampled
    sets = [{"input_ids": [PROMPTS[0]], "new_lengths": [13]}]
    for step, token in enumerate(alone[0].ids[:31]):
        sets.append({"input_ids": [[token]], "past_lengths": [13 + step], "new_lengths": [1]})
    logits = [outputs["logits"][0] for outputs in emulator.run_many(board, sets)]
    np.testing.assert_array_equal(np.stack(logits), alone[0].logits[:32])


def _config(folder, **changes):
    for name in ("config.json", "generation_config.json"):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))


@pytest.mark.parametrize(
    ("context", "changes", "error", "message"),
    [
        (165, {}, UsageError, r"--context must lie in 1\.\.164, the positions that the model has, found 165"),
        (0, {}, UsageError, "--context must lie in"),
        (None, {"n_positions": "many"}, FormatError, "'n_positions' must be a positive integer"),
        (None, {"eos_token_id": "</s>"}, FormatError, "'eos_token_id' must be one or several token ids"),
        (5, {"architectures": ["BertModel"]}, UsageError, "--context is for models that generate text"),
    ],
)
def test_a_wrong_context_or_configuration_is_found_before_compiling(
    gpt2_onnx, copy_of, tmp_path, context, changes, error, message
):
    folder = copy_of(gpt2_onnx)
    _config(folder, **changes)
    with pytest.raises(error, match=message):
        compile_bundle(folder, tmp_path / "out", target=load_target("host"), context=context)
    assert not (tmp_path / "out").exists()


def test_an_end_that_no_token_has_ends_nothing(gpt2_onnx, copy_of, tmp_path):
    """GPT-2's 50256 stands in the configuration of many a model with fewer tokens; transformers never finds it."""
    folder = copy_of(gpt2_onnx)
    _config(folder, eos_token_id=[2, 50256])
    compile_bundle(folder, tmp_path / "out", target=load_target("host"), context=150)
    assert read_manifest(tmp_path / "out").generation.end_ids == (2,)
