"""The zoo's models at full length: threads, batches, caches, the C runner and emulated cores give the same bits."""

from pathlib import Path

import numpy as np
import pytest
import tokenizers

import edgeq
from edgeq.targets.builtin.target import load_target
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.decoder import logits_along
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.source_decoder import SourceDecoder

pytestmark = pytest.mark.slow

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"
CONTEXT, NEW, NEW_EMULATED = 192, 128, 32
NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
CORES = ["cortex-a76", "cortex-a72", "cortex-a7"]
TEXTS = [
    "The river rose in the night , and by morning the bridge was gone .",
    "She",
    "In 1942 the regiment",
    "We propose a method that learns a compact representation of sentences for retrieval tasks",
]
GREEDY = {"max_new_tokens": NEW, "ignore_end": True, "no_repeat_ngram_size": 0, "min_new_tokens": 0}


@pytest.fixture(scope="module", params=sorted(path.parent.name for path in ZOO.glob("*/config.json")))
def model(request, tmp_path_factory):
    """Compressed, exported, and compiled for this machine."""
    root = tmp_path_factory.mktemp(request.param)
    edgeq.compress_model(ZOO / request.param, root / "checkpoint", recipe="ptq-w4a8")
    edgeq.export_onnx(root / "checkpoint", root / "onnx")
    edgeq.compile_bundle(root / "onnx", root / "host", target=load_target("host"), context=CONTEXT)
    return root


@pytest.fixture(scope="module")
def bundle(model):
    return edgeq.load(model / "host", threads=2)


@pytest.fixture(scope="module")
def sourced(bundle):
    return bundle.generation.source is not None


@pytest.fixture(scope="module")
def texts(model):
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "host" / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in TEXTS]


@pytest.fixture(scope="module")
def alone(bundle, sourced, texts):
    """128 greedy tokens of every text, made one text at a time, with the logits that they were chosen from."""
    return [_alone(bundle, sourced, text) for text in texts]


def _alone(bundle, sourced, text):
    (ids,) = _ids(bundle, sourced, [text])
    return ids, _logits(bundle, sourced, text, ids)


def _ids(bundle, sourced, texts):
    if sourced:
        return [result.ids for result in bundle.rewrite(texts, beams=Beams(), **GREEDY)]
    return [result.ids for result in bundle.generate(texts, **GREEDY).results()]


def _logits(bundle, sourced, text, ids, *, use_cache=True):
    """Logits before every token; forced tokens included, whose logits are what the model says all the same."""
    if not sourced:
        return logits_along(bundle, [*text, *ids[:-1]], prompt=len(text), use_cache=use_cache)
    written = [bundle.generation.source.start_id, *ids[:-1]]
    if use_cache:
        decoder = SourceDecoder(bundle, [text])
        return np.stack([decoder.append([[token]])[0] for token in written])
    return np.stack([SourceDecoder(bundle, [text]).append([written[: n + 1]])[0] for n in range(len(written))])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_a_batch_change_no_bit(model, sourced, texts, alone, threads):
    loaded = edgeq.load(model / "host", threads=threads)
    assert _ids(loaded, sourced, texts) == [ids for ids, _ in alone]
    np.testing.assert_array_equal(_logits(loaded, sourced, texts[0], alone[0][0]), alone[0][1])
    if not sourced:
        together = loaded.generate(texts, keep_logits=True, **GREEDY).results()
        for result, (_, logits) in zip(together, alone, strict=True):
            np.testing.assert_array_equal(result.logits, logits)
        return
    decoder = SourceDecoder(loaded, texts)
    start = loaded.generation.source.start_id
    written = [[start, *ids[:-1]] for ids, _ in alone]
    for step in range(NEW):
        for row, logits in enumerate(decoder.append([[ids[step]] for ids in written])):
            np.testing.assert_array_equal(logits, alone[row][1][step])


def test_without_the_cache_every_bit_is_the_same(bundle, sourced, texts, alone):
    for text, (ids, logits) in zip(texts[:2], alone, strict=False):
        assert len(ids) == NEW
        np.testing.assert_array_equal(_logits(bundle, sourced, text, ids, use_cache=False), logits)


def _board(model, name):
    out = model / name
    if not out.is_dir():
        edgeq.compile_bundle(
            model / "onnx", out, target=load_target(name), context=CONTEXT, host_bundle=model / "host"
        )
    return out


def _runner_logits(board, sourced, text, ids, start):
    """Logits along the same tokens from ``edgeq-run``."""
    if not sourced:
        steps = [{"input_ids": [text], "new_lengths": [len(text)]}]
        steps += [
            {"input_ids": [[token]], "past_lengths": [len(text) + n], "new_lengths": [1]}
            for n, token in enumerate(ids[:-1])
        ]
        return np.stack([outputs["logits"][0] for outputs in emulator.run_many(board, steps)])
    lengths = [len(text)]
    source = {"input_ids": [text], "attention_mask": [[1] * len(text)], "source_lengths": lengths}
    steps = [
        {"input_ids": [[token]], "past_lengths": [n], "new_lengths": [1], "source_lengths": lengths}
        for n, token in enumerate([start, *ids[:-1]])
    ]
    _, outputs = emulator.run_with_source(board, source, steps)
    return np.stack([given["logits"][0] for given in outputs])


def _generated(board, sourced, texts, **options):
    beams = {"beams": Beams()} if sourced else {}
    return emulator.generate(board, texts, **{**GREEDY, **beams, **options})


def test_the_c_runner_changes_no_bit(model, bundle, sourced, texts, alone):
    board = _board(model, NATIVE)
    expected = [ids for ids, _ in alone]
    for threads, batch in ((1, 1), (2, 4)):
        assert _generated(board, sourced, texts, threads=threads, batch=batch) == expected
    start = bundle.generation.source.start_id if sourced else None
    found = _runner_logits(board, sourced, texts[0], alone[0][0], start)
    np.testing.assert_array_equal(found, alone[0][1])


def test_beams_are_the_same_in_c(model, bundle, sourced, texts):
    if not sourced:
        pytest.skip("beam search is for models that read a source")
    options = {"beams": Beams(4, 2.0, early_stopping=True), "no_repeat_ngram_size": 3, "max_new_tokens": 60}
    expected = [result.ids for result in bundle.rewrite(texts, **options)]
    assert emulator.generate(_board(model, NATIVE), texts, **options) == expected


@pytest.mark.parametrize("core", CORES)
def test_emulated_cores_change_no_bit(model, bundle, sourced, texts, alone, core, needs_core):
    needs_core(core)
    board = _board(model, core)
    assert emulator.self_test(board).ok
    expected = _shortened(bundle, sourced, texts)
    assert _generated(board, sourced, texts, max_new_tokens=NEW_EMULATED) == expected
    start = bundle.generation.source.start_id if sourced else None
    ids, logits = alone[0]
    found = _runner_logits(board, sourced, texts[0], ids[:NEW_EMULATED], start)
    np.testing.assert_array_equal(found, logits[:NEW_EMULATED])


def _shortened(bundle, sourced, texts):
    """32 tokens; not the beginning of 128 where the last token is a forced one."""
    if sourced:
        results = bundle.rewrite(texts, beams=Beams(), **{**GREEDY, "max_new_tokens": NEW_EMULATED})
    else:
        results = bundle.generate(texts, **{**GREEDY, "max_new_tokens": NEW_EMULATED}).results()
    return [result.ids for result in results]
