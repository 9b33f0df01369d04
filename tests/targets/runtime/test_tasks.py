"""Labels of parts, answers, fillings and ranks, beside the pipelines of transformers on the same numbers.

The bundles have a number or several for each token of the vocabulary and no further layers: what is shown is everything
between a text and a result.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import edgeq
from edgeq.errors import UsageError
from edgeq.evaluate.spans import best_span, windows_of

SENTENCES = (
    "the river rose and Jane Doe of New York's U.N. bank left (Paris) in 1999, then Karl-Heinz Müller came: straße "
    "café Москва 東京 naïve isn't it? We'll see! Ελλάδα hotel_name e-mail co-operate 12,345.67 well... «quoted» – dash"
)
WORDS = SENTENCES.split()
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "B-X-Y")
LONGEST = 48


def _text(chance: random.Random, words: int) -> str:
    return chance.choice(["", "", " "]) + " ".join(chance.choices(WORDS, k=words)) + chance.choice(["", ".", "  "])


@functools.cache
def _lines() -> list[str]:
    return [_text(random.Random(seed), 12) for seed in range(200)]  # noqa: S311


def _pieces(tokenizer: Tokenizer, lines: list[str], *, characters: int, longer: int = 45) -> list[tuple[str, int]]:
    """The most frequent characters and longer parts of words with their counts.

    Trainers of `tokenizers` give another vocabulary each time, since they break ties by the order of a hash table.
    """
    found: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for line in lines:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(line)):
            found[0].update(word)
            found[1].update(word[at : at + size] for size in (2, 3, 4, 5) for at in range(len(word) - size + 1))
    return [
        pair
        for counts, limit in zip(found, (characters, longer), strict=True)
        for pair in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
    ]


def _bert() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = _pieces(tokenizer, _lines(), characters=30)
    inside = [f"##{piece}" for piece, _ in pieces]
    vocabulary = [*specials, *(piece for piece, _ in pieces), *inside]
    tokenizer.model = models.WordPiece({piece: at for at, piece in enumerate(vocabulary)}, unk_token="[UNK]")  # noqa: S106
    tokenizer.add_special_tokens(specials)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    roles = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    return tokenizer, {f"{role}_token": specials[number] for role, number in roles.items()}


def _roberta() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_lines(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    roles = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    return tokenizer, {f"{role}_token": token for role, token in roles.items()} | {"mask_token": specials[4]}


def _xlm_roberta() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = _pieces(tokenizer, [line[:40] for line in _lines()], characters=60, longer=80)
    every = sum(count for _, count in pieces)
    scores = [*((name, 0.0) for name in specials), *((piece, math.log(count / every)) for piece, count in pieces)]
    tokenizer.model = models.Unigram(scores, specials.index("<unk>"))
    tokenizer.add_special_tokens(specials)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    roles = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    return tokenizer, {f"{role}_token": token for role, token in roles.items()}


TOKENIZERS: dict[str, Callable[[], tuple[Tokenizer, dict[str, Any]]]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
}
HEADS = {"tag": ("logits", len(LABELS)), "fill": ("logits", None), "classify": ("logits", 1)}


def _relax_module(tables: dict[str, tuple[int, int]], *, sums: bool) -> Any:
    """Looks each token up in tables by output name, and adds the tokens up if ``sums``.

    Width 1 gives no last axis; what a token's place adds there lets no two answers have one score.
    """
    from edgeq.targets.compiler.tvm_import import import_tvm

    tvm = import_tvm()
    from tvm import relax

    batch, sequence = tvm.tirx.Var("batch", "int64"), tvm.tirx.Var("sequence", "int64")
    builder = relax.BlockBuilder()
    ids = relax.Var("input_ids", relax.TensorType((batch, sequence), "int64"))
    mask = relax.Var("attention_mask", relax.TensorType((batch, sequence), "int64"))
    weights = [relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in tables.items()]
    places = relax.Var("places", relax.TensorType((LONGEST,), "float32"))
    with builder.function("main", [ids, mask, *weights, places]):
        with builder.dataflow():
            flat = builder.emit(relax.op.reshape(ids, (batch * sequence,)))
            keep = builder.emit(relax.op.astype(mask, "float32"))
            added = builder.emit(relax.op.strided_slice(places, [0], [0], [sequence], assume_inbound=True))
            added = builder.emit(relax.op.reshape(added, (1, sequence)))
            found = []
            for table, (_, width) in zip(weights, tables.values(), strict=True):
                rows = builder.emit(relax.op.take(table, flat, axis=0))
                shape = (batch, sequence) if width == 1 and not sums else (batch, sequence, width)
                rows = builder.emit(relax.op.reshape(rows, shape))
                if len(shape) == 3:
                    kept = builder.emit(relax.op.expand_dims(keep, 2))
                    rows = builder.emit(relax.op.multiply(rows, kept))
                else:
                    rows = builder.emit(relax.op.multiply(builder.emit(relax.op.add(rows, added)), keep))
                found.append(builder.emit(relax.op.sum(rows, axis=1)) if sums else rows)
            output = builder.emit_output(relax.Tuple(found))
        builder.emit_func_output(output)
    return builder.get()


def _compiled(tables: dict[str, tuple[int, int]], *, sums: bool) -> tuple[Any, list[Any]]:
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.compiler.compile import CompiledFunction, TensorInfo, compile_module
    from edgeq.targets.compiler.importer import WeightTensor

    target = load_target("host")
    vocabulary = next(iter(tables.values()))[0]
    chance = np.random.default_rng(5)
    weights = [
        WeightTensor(name, chance.standard_normal(shape).astype(np.float32) * 2)
        for name, shape in [*tables.items(), ("places", (LONGEST,))]
    ]
    inputs = [
        TensorInfo("input_ids", "int64", ("batch", "sequence"), vocabulary - 1),
        TensorInfo("attention_mask", "int64", ("batch", "sequence")),
    ]
    outputs: list[Any] = []
    for name, (_, width) in tables.items():
        shape: tuple[Any, ...] = ("batch", width) if sums else ("batch", "sequence", width)
        outputs.append(TensorInfo(name, "float32", shape[:2] if width == 1 and not sums else shape))
    function = {"main": CompiledFunction(inputs, outputs, [])}
    module = _relax_module(tables, sums=sums)
    return [compile_module(module, function, weights, kind) for kind in target.kinds], outputs


def _make(folder: Path, task: str, tokenizer: Tokenizer, roles: dict[str, Any], **text: Any) -> None:
    """Writes a bundle, and the tokenizer's folder of transformers beside it."""
    import transformers

    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.bundle.content import Content
    from edgeq.targets.bundle.golden import GoldenRun, golden_inputs
    from edgeq.targets.bundle.writer import write_bundle
    from edgeq.targets.runtime.names import MAIN
    from edgeq.targets.runtime.schema import FunctionInfo, ModelInfo, TensorSpec
    from edgeq.targets.runtime.text_info import TextInfo
    from edgeq.targets.toolchain.linkers import find_linker

    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **roles)
    fast.model_input_names = ["input_ids", "attention_mask"]
    fast.save_pretrained(folder / "tokenizer")
    vocabulary = tokenizer.get_vocab_size()
    widths = {"start_logits": 1, "end_logits": 1} if task == "answer" else dict([HEADS[task]])
    compiled, outputs = _compiled(
        {name: (vocabulary, width or vocabulary) for name, width in widths.items()}, sums=task == "classify"
    )
    inputs = (
        TensorSpec("input_ids", "int64", ("batch", "sequence"), 0, vocabulary - 1),
        TensorSpec("attention_mask", "int64", ("batch", "sequence"), 0, 1, 1),
    )
    specs = tuple(TensorSpec(one.name, one.dtype, one.shape) for one in outputs)
    model = ModelInfo("TinyModel", task, "none", False, LABELS if task == "tag" else (), LONGEST)
    golden = golden_inputs(inputs, model)
    tables = {weight.name: weight.array for weight in compiled[0].weights}
    places = tables["places"] if task == "answer" else np.zeros(LONGEST, np.float32)
    expected = {name: _outputs(tables[name], golden, places, sums=task == "classify") for name in widths}
    target = load_target("host")
    content = Content(
        model,
        {MAIN: FunctionInfo(inputs, specs, (), {})},
        [GoldenRun(MAIN, golden, expected)],
        {"name": "none"},
        folder / "tokenizer",
        text=TextInfo(**{"scores": "none", **text}),
    )
    write_bundle(compiled, folder / "host", target=target, linker=find_linker(target), content=content)


def _outputs(table: np.ndarray, inputs: dict[str, np.ndarray], places: np.ndarray, *, sums: bool) -> np.ndarray:
    rows = table[inputs["input_ids"]] + places[: inputs["input_ids"].shape[1], None]
    rows = rows * inputs["attention_mask"][..., None].astype(np.float32)
    if sums:
        return rows.sum(axis=1, dtype=np.float32)
    return rows[..., 0] if rows.shape[-1] == 1 else rows


@pytest.fixture(scope="session")
def made(make_once: Any) -> Callable[[str, str], Any]:
    """Returns a function that gives a task's loaded bundle with a tokenizer, made once a run."""

    @functools.cache
    def make(task: str, family: str) -> Any:
        folder = make_once(f"task-{task}-{family}", lambda folder: _make(folder, task, *TOKENIZERS[family]()))
        return edgeq.load(folder / "host")

    return make


def _pipeline(task: str, bundle: Any) -> Any:
    """A pipeline of transformers whose model is the bundle."""
    import torch
    import transformers
    from transformers import modeling_outputs

    name, output = {
        "token-classification": ("BertForTokenClassification", "TokenClassifierOutput"),
        "question-answering": ("BertForQuestionAnswering", "QuestionAnsweringModelOutput"),
        "fill-mask": ("BertForMaskedLM", "MaskedLMOutput"),
    }[task]
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    config = transformers.BertConfig(vocab_size=8, **sizes, id2label=dict(enumerate(LABELS)))
    model = getattr(transformers, name)(config).eval()

    def forward(input_ids: Any, attention_mask: Any, **_others: Any) -> Any:
        found = bundle(input_ids=input_ids.numpy(), attention_mask=attention_mask.numpy())
        return getattr(modeling_outputs, output)(**{key: torch.from_numpy(value) for key, value in found.items()})

    model.forward = forward
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle.path.parent / "tokenizer")
    return transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")


def _assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]], what: Any) -> None:
    """Everything but scores is equal, in this order; those differ by the rounding of float32."""
    def without(table: dict[str, Any]) -> dict[str, Any]:
        return {**table, "score": None}

    assert [list(one) for one in found] == [list(one) for one in expected], what
    assert list(map(without, found)) == list(map(without, expected)), what
    scores = [float(one["score"]) for one in expected]
    np.testing.assert_allclose([one["score"] for one in found], scores, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("family", TOKENIZERS)
@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_tags_are_those_of_transformers(made: Any, family: str, aggregation: str) -> None:
    bundle = made("tag", family)
    pipeline = _pipeline("token-classification", bundle)
    chance = random.Random(aggregation)  # noqa: S311
    for _ in range(15):
        text = _text(chance, chance.randint(1, 6))
        (result,) = bundle.tag(text, aggregation=aggregation, on_long="cut")
        _assert_same(result.to_json()["entities"], pipeline(text, aggregation_strategy=aggregation), text)
    if aggregation != "none":
        text = _text(chance, 40)
        (result,) = bundle.tag(text, aggregation=aggregation, on_long="split", overlap=7)
        assert result.rows > 2
        expected = pipeline(text, aggregation_strategy=aggregation, stride=7)
        _assert_same(result.to_json()["entities"], expected, text)


def test_labels_that_are_asked_for_are_left_out(made: Any) -> None:
    bundle = made("tag", "bert")
    text = " ".join(WORDS[:12])
    everything = bundle.tag(text, ignore_labels=())[0].entities
    assert {entity.label for entity in everything} > {"O", "PER"}
    kept = bundle.tag([text], ignore_labels=["PER", "O"])[0].entities
    assert kept == [entity for entity in everything if entity.label not in ("PER", "O")]
    for entity in everything:
        word = entity.word.replace("##", "").replace(" ", "")
        assert word == text[entity.start : entity.end].replace(" ", "")


def _assert_same_answers(found: list[Any], expected: list[dict[str, Any]], context: str, what: Any) -> None:
    """Numpy leaves the order of equal numbers open, so equal answers may be at one place or another."""
    assert [answer.answer.lower() for answer in found] == [answer["answer"].lower() for answer in expected], what
    scores = [float(answer["score"]) for answer in expected]
    np.testing.assert_allclose([answer.score for answer in found], scores, rtol=1e-5, atol=1e-9)
    for answer, other in zip(found, expected, strict=True):
        assert list(answer.to_json()) == list(other)
        assert context[answer.start : answer.end] == answer.answer
        if context.lower().count(answer.answer.lower()) == 1:
            assert (answer.start, answer.end) == (other["start"], other["end"]), what


@pytest.mark.parametrize("family", TOKENIZERS)
def test_answers_are_those_of_transformers(made: Any, family: str) -> None:
    bundle = made("answer", family)
    pipeline = _pipeline("question-answering", bundle)
    chance = random.Random(family)  # noqa: S311
    for _ in range(40):
        # A longer question would leave fewer tokens than the 24 by which rows overlap.
        question, context = _text(chance, chance.randint(1, 2)), _text(chance, chance.choice([8, 20, 60]))
        how = {
            "top_k": chance.choice([1, 3]),
            "max_answer_len": chance.choice([4, 15]),
            "handle_impossible_answer": chance.choice([False, True]),
            "align_to_words": chance.choice([False, True]),
            **chance.choice([{}, {"doc_stride": 5, "max_seq_len": 44}]),
        }
        (result,) = bundle.answer((question, context), **how)
        expected = pipeline(question=question, context=context, **how)
        expected = expected if isinstance(expected, list) else [expected]
        _assert_same_answers(result.answers, expected, context, (question, context, how))


def test_evaluation_decodes_the_answers_that_a_bundle_gives(made: Any) -> None:
    """``edgeq.evaluate`` decodes the logits of every backend alike; what is shipped decodes them in C."""
    bundle = made("answer", "bert")
    tokenizer = _pipeline("question-answering", bundle).tokenizer
    chance = random.Random(5)  # noqa: S311
    for words in (8, 20, 60):
        question, context = _text(chance, 2), _text(chance, words)
        windows = windows_of(tokenizer, question, context, max_length=LONGEST)
        logits = []
        names = {spec.name for spec in bundle.inputs}  # this model has no token types
        for window in windows:
            given = {name: np.array([values]) for name, values in window.tokens.items() if name in names}
            outputs = bundle.run({**given, "attention_mask": np.ones_like(given["input_ids"])})
            logits.append((outputs["start_logits"][0], outputs["end_logits"][0]))
        found = best_span(context, windows, logits, may_be_none=True)
        (result,) = bundle.answer((question, context), handle_impossible_answer=True)
        assert result.answers[0].answer.lower() == found.text.lower()
        assert result.answers[0].score == pytest.approx(found.score, rel=1e-5)


def test_answers_that_read_the_same_count_together(made: Any) -> None:
    """Their letters may differ in case alone."""
    bundle = made("answer", "bert")
    pipeline = _pipeline("question-answering", bundle)
    context = "Paris left. PARIS left. paris left, and Müller saw MÜLLER; Ελλάδα and ΕΛΛΆΔΑ"
    for size in (1, 2, 6):
        found = bundle.answer(("the river", context), max_answer_len=size, top_k=5)[0].answers
        expected = pipeline(question="the river", context=context, max_answer_len=size, top_k=5)
        _assert_same_answers(found, expected, context, size)


@pytest.mark.parametrize("family", TOKENIZERS)
def test_fillings_are_those_of_transformers(made: Any, family: str) -> None:
    bundle = made("fill", family)
    pipeline = _pipeline("fill-mask", bundle)
    chance, mask = random.Random(family), pipeline.tokenizer.mask_token  # noqa: S311
    for _ in range(25):
        words = chance.choices(WORDS, k=chance.randint(2, 5))
        for _ in range(chance.choice([1, 1, 2])):
            words.insert(chance.randint(0, len(words)), mask)
        text, top_k = " ".join(words), chance.choice([1, 5])
        targets = chance.choice([None, ["the", "a", "river", "Paris"]])
        (result,) = bundle.fill(text, top_k=top_k, targets=targets)
        expected = pipeline(text, top_k=top_k, **({} if targets is None else {"targets": targets}))
        masks = expected if isinstance(expected[0], list) else [expected]
        assert len(masks) == len(result.masks)
        for found, wanted in zip(result.masks, masks, strict=True):
            _assert_same([filling.to_json() for filling in found], wanted, (text, targets))
        assert len(result.to_json()["fillings"]) == (top_k if words.count(mask) == 1 else words.count(mask)) or targets


@pytest.mark.parametrize("family", TOKENIZERS)
def test_documents_are_sorted_by_their_scores(made: Any, family: str) -> None:
    bundle = made("classify", family)
    chance = random.Random(family)  # noqa: S311
    documents = [_text(chance, chance.randint(1, 30)) for _ in range(20)]
    ranked = bundle.rank("the river", documents, on_long="cut")
    alone = [bundle.predict([("the river", document)], on_long="cut")[0].scores.score for document in documents]
    assert [one.index for one in ranked] == sorted(range(20), key=lambda index: -alone[index])
    assert [one.score for one in ranked] == [alone[one.index] for one in ranked]
    assert [one.text for one in ranked] == [documents[one.index] for one in ranked]
    assert any(one.truncated for one in ranked)
    assert bundle.rank("the river", documents, top_k=3, on_long="cut") == ranked[:3]
    assert bundle.rank("the river", []) == []
    equal = bundle.rank("the river", ["it left", "it left", "it left"])
    assert [one.index for one in equal] == [0, 1, 2]


def test_results_do_not_depend_on_what_runs_together(made: Any) -> None:
    chance = random.Random(1)  # noqa: S311
    texts = [_text(chance, chance.randint(1, 30)) for _ in range(30)]
    bundle = made("tag", "bert")
    together = bundle.tag(texts, on_long="split", token_budget=300)
    assert together == [bundle.tag(text, on_long="split")[0] for text in texts]
    assert together == bundle.tag(texts, on_long="split", token_budget=1)


@pytest.mark.parametrize(
    ("task", "call", "message"),
    [
        ("tag", lambda b: b.tag("x", aggregation="mean"), "one of none, simple, first, average, max, found 'mean'"),
        ("tag", lambda b: b.tag([" ".join(WORDS)]), "text 1 has [0-9]+ tokens, the model takes at most 48"),
        ("tag", lambda b: b.tag([("a", "b")]), "parts of single texts are labelled"),
        ("tag", lambda b: b.answer(("a", "b")), "is for 'tag', not for 'answer'"),
        ("tag", lambda b: b.encode(["a"]), "neither embeddings nor labels of texts; use `Bundle.tag`"),
        ("answer", lambda b: b.answer(("a", "")), "text 1 is empty"),
        ("answer", lambda b: b.answer([("a", "b", "c")]), "text 1 should be a text or a pair of texts"),
        ("answer", lambda b: b.answer(["a"]), "a question needs a context"),
        ("answer", lambda b: b.answer((" ".join(WORDS * 2), "b")), "its first text alone leaves no token of 48"),
        ("answer", lambda b: b.answer(("a", SENTENCES), doc_stride=44), "rows that overlap by 44 tokens need more"),
        ("answer", lambda b: b.answer(("a", "b"), top_k=0), "at least one answer must be asked for, found 0"),
        ("answer", lambda b: b.answer(("a", "b"), max_answer_len=0), "an answer has at least 1 token, found 0"),
        ("fill", lambda b: b.fill(["a"]), r"text 1 has no '\[MASK\]' where a token is to be filled in"),
        ("fill", lambda b: b.fill("[MASK]", top_k=0), "tokens to fill in, found 0"),
        ("fill", lambda b: b.fill("[MASK]", targets=[]), "at least one target is expected"),
        ("fill", lambda b: b.fill("[MASK]", targets=[""]), "a target is empty"),
        ("classify", lambda b: b.rank("a", ["b", ""]), "document 2 is empty"),
        ("classify", lambda b: b.rank("", ["b"]), "document 1 is empty"),
        ("classify", lambda b: b.rank("a", ["b"], top_k=0), "at least one document must be asked for, found 0"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(made: Any, task: str, call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(made(task, "bert"))


def test_models_with_several_classes_do_not_rank(host_bundle: Path, copy_of: Any) -> None:
    from edgeq.targets.runtime.manifest import read_manifest, write_manifest

    copy = copy_of(host_bundle)
    manifest = read_manifest(copy)
    model = dataclasses.replace(manifest.model, task="classify", pooling="none")
    write_manifest(copy, dataclasses.replace(manifest, model=model))
    with pytest.raises(UsageError, match="ranked by a model with one class, and this one has 12"):
        edgeq.load(copy).rank("w1", ["w2"])
