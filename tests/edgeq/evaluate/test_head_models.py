"""Models with heads on evaluation data: what is read from their logits is what transformers' pipelines read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.errors import UsageError
from edgeq.evaluate.answers import Question, Questions
from edgeq.evaluate.kinds import READERS, read_evaluation_data
from edgeq.evaluate.masks import MaskedTexts
from edgeq.evaluate.ranking import Query, Rankings
from edgeq.evaluate.spans import best_span, windows_of
from edgeq.evaluate.tags import TaggedText, TaggedTexts, tokens_of_words
from edgeq.evaluate.tasks import evaluate
from edgeq.formats.tasks import TASKS
from edgeq.models import TorchEncoder

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
WORDS = [
    *("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "cat", "sat", "on", "mat"),
    *("good", "movie", "word1", "word2", "word3", "w9"),
]


def _words(count: int, seed: int) -> list[str]:
    return np.random.default_rng(seed).choice(WORDS, count).tolist()


def _evaluate(checkpoint: Checkpoint, data: Any, **options: Any) -> Any:
    return evaluate(
        TorchBackend(TorchEncoder(checkpoint.model, checkpoint.adapter)),
        checkpoint.tokenizer,
        data,
        labels=checkpoint.adapter.labels,
        max_length=checkpoint.adapter.max_positions,
        **options,
    )


@pytest.fixture(scope="module", params=["BertForTokenClassification", "RobertaForTokenClassification"])
def tagger(
    request: pytest.FixtureRequest, make_bert: Callable[..., Path], make_bert_relative: Callable[..., Path]
) -> Checkpoint:
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    make: Any = make_bert if request.param.startswith("Bert") else make_bert_relative
    return load_checkpoint(make(request.param, num_hidden_layers=1, initializer_range=0.5, **names))


def test_the_tag_of_a_word_is_that_of_its_first_token(tagger: Checkpoint) -> None:
    sentences = [_words(count, seed) for seed, count in enumerate((3, 5, 2, 6))]
    pipeline = transformers.pipeline(
        "token-classification", tagger.model, tokenizer=tagger.tokenizer, ignore_labels=[], device="cpu"
    )
    wanted = []
    for words in sentences:
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
        found = {one["start"]: one["entity"] for one in reversed(pipeline(" ".join(words)))}
        # A byte-level token may begin with the space before its word.
        wanted.append(tuple(found.get(start) or found[start - 1] for start in starts))
    data = TaggedTexts(
        Path("x"), [TaggedText(tuple(w), tags, "") for w, tags in zip(sentences, wanted, strict=True)]
    )
    result = _evaluate(tagger, data)
    assert result.metric == "entity-f1"
    assert result.others["word accuracy"] == 1.0
    assert result.value == (1.0 if any(tag != "O" for tags in wanted for tag in tags) else 0.0)
    assert result.decisions.tolist() == [LABELS.index(tag) for tags in wanted for tag in tags]


def test_a_sentence_that_is_too_long_is_read_in_parts(tagger: Checkpoint) -> None:
    words = tuple(_words(60, 5))
    result = _evaluate(tagger, TaggedTexts(Path("x"), [TaggedText(words, ("O",) * 60, "line 1")]))
    assert len(result.decisions) == 60
    with pytest.raises(UsageError, match=r"x, line 1: tag 'B-ORG' is none of the model's labels \(O, B-PER"):
        _evaluate(tagger, TaggedTexts(Path("x"), [TaggedText(words[:2], ("O", "B-ORG"), "line 1")]))


def test_words_that_a_tokenizer_leaves_out_have_no_token(tagger: Checkpoint) -> None:
    found = tokens_of_words(tagger.tokenizer, ["the", "cat", "mat"])
    assert all(first is not None for first in found.firsts)
    assert len(set(found.firsts)) == 3


@pytest.fixture(scope="module", params=["BertForQuestionAnswering", "RobertaForQuestionAnswering"])
def reader(
    request: pytest.FixtureRequest, make_bert: Callable[..., Path], make_bert_relative: Callable[..., Path]
) -> Checkpoint:
    make: Any = make_bert if request.param.startswith("Bert") else make_bert_relative
    checkpoint = load_checkpoint(make(request.param, num_hidden_layers=1, initializer_range=0.5))
    if not request.param.startswith("Bert"):
        checkpoint.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # as RoBERTa's own class has it
    return checkpoint


@pytest.mark.parametrize("may_be_none", [False, True])
def test_answers_are_those_of_the_pipeline(reader: Checkpoint, may_be_none: bool) -> None:
    pipeline = transformers.pipeline("question-answering", reader.model, tokenizer=reader.tokenizer, device="cpu")
    longest = reader.adapter.max_positions
    for seed in range(8):
        question, context = " ".join(_words(2, seed)), " ".join(_words(4 + 5 * seed, 100 + seed))
        want = pipeline(
            question=question, context=context, handle_impossible_answer=may_be_none, max_seq_len=longest
        )
        windows = windows_of(reader.tokenizer, question, context, max_length=longest)
        logits = []
        for window in windows:
            given = {key: torch.tensor([values]) for key, values in window.tokens.items()}
            if "token_type_ids" not in reader.adapter.input_names:
                del given["token_type_ids"]
            with torch.no_grad():
                output = reader.model(**given)
            logits.append((output.start_logits[0].numpy(), output.end_logits[0].numpy()))
        found = best_span(context, windows, logits, may_be_none=may_be_none)
        assert (found.text, found.start, found.end) == (want["answer"], want["start"], want["end"])
        assert found.score == pytest.approx(want["score"], rel=1e-4, abs=1e-7)


def test_answers_of_a_model_are_graded(reader: Checkpoint) -> None:
    contexts = [" ".join(_words(count, count)) for count in (8, 50)]
    questions = [Question("the cat", context, ("no such answer",), (-1,), "question 1") for context in contexts]
    result = _evaluate(reader, Questions(Path("x"), questions))
    spans = [divmod(number, 1 << 24) for number in result.decisions.tolist()]
    own = [context[start:end] for context, (start, end) in zip(contexts, spans, strict=True)]
    assert all(own)
    right = [
        Question("the cat", context, (answer,), (-1,), "") for context, answer in zip(contexts, own, strict=True)
    ]
    assert _evaluate(reader, Questions(Path("x"), right)).value == 1.0
    assert _evaluate(reader, Questions(Path("x"), right)).others == {"exact match": 1.0}
    long = Question(" ".join(_words(40, 0)), "the cat", ("cat",), (4,), "question 3")
    with pytest.raises(UsageError, match="question 3: the question leaves no place for its context"):
        _evaluate(reader, Questions(Path("x"), [long]))


def test_masked_words_are_those_of_the_pipeline(make_bert: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(make_bert("BertForMaskedLM", num_hidden_layers=1), task="fill-mask")
    pipeline = transformers.pipeline("fill-mask", checkpoint.model, tokenizer=checkpoint.tokenizer, device="cpu")
    texts = ["the quick fox", "a cat sat on the mat", "word1 word2"]
    result = _evaluate(checkpoint, MaskedTexts(Path("x"), texts))
    assert (result.metric, result.count) == ("top-1", 3)  # one of each text
    for number, text in enumerate(texts):
        candidates = []
        words = text.split()
        for place in range(len(words)):
            masked = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
            candidates.append(pipeline(masked, top_k=1)[0]["token"])
        assert result.decisions[number] in candidates


def test_a_reranker_and_an_embedding_model_rank(make_bert: Callable[..., Path]) -> None:
    queries = [Query("the cat", ("a dog", "the cat sat", "movie"), (0.0, 1.0, 0.0)), Query("fox", ("a", "fox"), (0, 2))]
    data = Rankings(Path("x"), queries)
    reranker = load_checkpoint(make_bert("BertForSequenceClassification", num_labels=1))
    graded = _evaluate(reranker, data)
    scores = [
        [_logit(reranker, one.query, document) for document in one.documents] for one in queries
    ]
    assert graded.decisions.tolist() == [int(np.argmax(row)) for row in scores]
    assert graded.metric == "ndcg@10"
    assert set(graded.others) == {"mrr@10"}
    embedder = load_checkpoint(make_bert())
    compared = evaluate(
        TorchBackend(TorchEncoder(embedder.model, embedder.adapter)),
        embedder.tokenizer,
        data,
        sentence=embedder.sentence,
    )
    assert compared.rows.shape == (2, 2)
    with pytest.raises(UsageError, match="ranks documents, which needs an embedding model"):
        _evaluate(load_checkpoint(make_bert("BertForSequenceClassification", num_labels=3)), data)


def _logit(checkpoint: Checkpoint, first: str, second: str) -> float:
    with torch.no_grad():
        return float(checkpoint.model(**checkpoint.tokenizer(first, second, return_tensors="pt")).logits[0, 0])


def test_data_of_another_task_are_refused(make_bert: Callable[..., Path]) -> None:
    embedder = load_checkpoint(make_bert())
    for data, reason in (
        (TaggedTexts(Path("x"), [TaggedText(("a",), ("O",), "")]), "labels"),
        (Questions(Path("x"), [Question("the", "cat", ("cat",), (0,), "")]), "need a model that answers questions"),
        (MaskedTexts(Path("x"), ["the cat"]), "needs a masked language model"),
    ):
        with pytest.raises(UsageError, match=reason):
            _evaluate(embedder, data)


def test_every_task_but_generation_has_a_reader(tmp_path: Path) -> None:
    assert set(READERS) == {name for name, task in TASKS.items() if not task.generates}
    (tmp_path / "a.tsv").write_text("query\tdocument\trelevance\nq\ta\t1\nq\tb\t0\n")
    assert isinstance(read_evaluation_data(tmp_path / "a.tsv", "classify"), Rankings)
    (tmp_path / "b.tsv").write_text("sentence\tlabel\na\t1\n")
    assert read_evaluation_data(tmp_path / "b.tsv", "classify").examples[0].target == "1"
