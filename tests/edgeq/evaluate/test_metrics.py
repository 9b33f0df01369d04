"""Metrics by hand, and by the libraries that define them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import FormatError, UsageError
from edgeq.evaluate.answers import Question, grade, read_questions
from edgeq.evaluate.entities import entities
from edgeq.evaluate.masks import masked_tokens, read_masked_texts
from edgeq.evaluate.metrics import METRICS, ranking_row
from edgeq.evaluate.ranking import Query, read_rankings
from edgeq.evaluate.tags import TaggedText, read_tagged_texts

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "LOC"])


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER I-PER O I-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),  # IOB1, as CoNLL-2003 was published
        ("B-PER B-PER I-PER", {("PER", 0, 0), ("PER", 1, 2)}),
        ("B-PER I-LOC", {("PER", 0, 0), ("LOC", 1, 1)}),
        ("O I-PER E-PER S-PER", {("PER", 1, 2), ("PER", 3, 3)}),  # BIOES without its beginning
        ("B-PER E-PER I-PER", {("PER", 0, 1), ("PER", 2, 2)}),
        ("PER PER O", {("PER", 0, 1)}),
        ("O O", set()),
        ("", set()),
        ("B-LOC-1 I-LOC-1", {("LOC-1", 0, 1)}),
    ],
)
def test_entities_of_tags(tags: str, found: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == found


@given(st.lists(TAGS))
def test_entities_are_stretches_of_one_kind_that_do_not_overlap(tags: list[str]) -> None:
    found = sorted(entities(tags), key=lambda one: one[1])
    covered = [word for _, first, last in found for word in range(first, last + 1)]
    assert covered == [word for word, tag in enumerate(tags) if tag != "O"]
    for kind, first, last in found:
        assert {tag.rpartition("-")[2] for tag in tags[first : last + 1]} == {kind}


def test_f1_by_entity_is_that_of_all_sentences_together() -> None:
    rows = np.array([[1, 2, 1], [0, 0, 2], [2, 2, 2]], np.float64)
    precision, recall = 3 / 4, 3 / 5
    assert METRICS["entity-f1"].of(rows) == pytest.approx(2 * precision * recall / (precision + recall))
    assert METRICS["entity-f1"].of(np.zeros((2, 3))) == 0


@pytest.mark.parametrize(
    ("found", "answers", "f1", "exact"),
    [
        ("the Eiffel Tower!", ("Eiffel tower",), 1, 1),
        ("a big red cat", ("red cat", "dog"), 2 * (2 / 3) * 1 / (2 / 3 + 1), 0),
        ("cat cat", ("cat",), 2 / 3, 0),
        ("", (), 1, 1),
        ("something", (), 0, 0),
        ("", ("something",), 0, 0),
        ("a", ("The.",), 1, 1),  # right answers of articles alone are none
    ],
)
def test_answers_are_graded_as_by_squad(found: str, answers: tuple[str, ...], f1: float, exact: float) -> None:
    assert grade(found, answers) == (pytest.approx(f1), exact)


def test_rankings_by_hand() -> None:
    relevance = np.array([0.0, 1.0, 0.0, 1.0])
    gain, reciprocal = ranking_row(np.array([0.9, 0.8, 0.1, 0.2]), relevance)
    assert reciprocal == 1 / 2
    assert gain == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3)))
    assert ranking_row(np.arange(20.0), np.r_[1.0, np.zeros(19)]) == (0, 0)  # behind the first ten
    assert ranking_row(np.zeros(3), np.array([0.0, 0.0, 1.0]))[1] == pytest.approx(1 / 3)  # as they were given


def test_masks_are_the_same_in_every_run_and_leave_special_tokens() -> None:
    tokens = {"input_ids": [1, *range(10, 30), 2], "token_type_ids": [0] * 22}
    masked = masked_tokens(tokens, [1, 2], mask=4, seed=7)
    assert len(masked.places) == 3
    assert masked_tokens(tokens, [1, 2], mask=4, seed=7).places.tolist() == masked.places.tolist()
    assert masked_tokens(tokens, [1, 2], mask=4, seed=8).places.tolist() != masked.places.tolist()
    ids = np.array(masked.tokens["input_ids"])
    assert set(ids[masked.places]) == {4}
    ids[masked.places] = masked.wanted
    assert ids.tolist() == tokens["input_ids"]
    assert len(masked_tokens({"input_ids": [1, 9, 2]}, [1, 2], mask=4, seed=0).places) == 1
    assert len(masked_tokens({"input_ids": [1, 2]}, [1, 2], mask=4, seed=0).places) == 0


def test_tags_in_columns_and_in_json(tmp_path: Path) -> None:
    columns = tmp_path / "dev.conll"
    columns.write_text(
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter\tNNP\tI-PER\nBlackburn\tNNP\tI-PER\n"
    )
    data = read_tagged_texts(columns)
    assert data.examples == [
        TaggedText(("EU", "rejects"), ("B-ORG", "O"), "line 3"),
        TaggedText(("Peter", "Blackburn"), ("I-PER", "I-PER"), "line 7"),
    ]
    assert len(read_tagged_texts(columns, limit=1).examples) == 1
    lines = tmp_path / "dev.jsonl"
    lines.write_text(json.dumps({"id": "0", "tokens": ["EU", "rejects"], "ner_tags": [3, 0]}) + "\n")
    assert read_tagged_texts(lines).examples == [TaggedText(("EU", "rejects"), ("3", "0"), "line 1")]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.conll", "word\n", "line 1: expected a word and its tag"),
        ("a.conll", "\n\n", "is empty"),
        ("a.jsonl", '{"tokens": ["a"]}', "expected one list called tags or ner_tags"),
        ("a.jsonl", '{"tokens": ["a"], "tags": ["O"], "ner_tags": [0]}', "expected one list called tags"),
        ("a.jsonl", '{"tokens": ["a"], "tags": ["O", "O"]}', "as many tags as words"),
        ("a.jsonl", '{"tokens": ["a"], "tags": [0.5]}', "a tag is a name or the number"),
        ("a.jsonl", '{"tokens": ["a"], "tags": ["O"], "mood": 1}', "what 'mood' is for"),
        ("a.jsonl", "[1]", "expected a JSON object"),
    ],
)
def test_tags_that_cannot_be_read_are_named(name: str, content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises((FormatError, UsageError), match=reason):
        read_tagged_texts(tmp_path / name)


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "x",
            "paragraphs": [
                {
                    "context": "Paris is in France.",
                    "qas": [
                        {"id": "1", "question": "Where?", "answers": [{"text": "France", "answer_start": 12}]},
                        {"id": "2", "question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": []},
                    ],
                }
            ],
        }
    ],
}


def test_questions_of_squad_and_of_lines(tmp_path: Path) -> None:
    file = tmp_path / "dev.json"
    file.write_text(json.dumps(SQUAD))
    data = read_questions(file)
    first = Question("Where?", "Paris is in France.", ("France",), (12,), "question 1")
    assert data.examples == [first, Question("Why?", "Paris is in France.", (), (), "question 2")]
    assert data.some_have_none
    assert not read_questions(file, limit=1).some_have_none
    lines = tmp_path / "dev.jsonl"
    rows = [
        {"question": "Where?", "context": "Paris is in France.", "answers": {"text": ["France"], "answer_start": [12]}},
        {"question": "Where?", "context": "Paris is in France.", "answers": ["France"]},
    ]
    lines.write_text("\n".join(map(json.dumps, rows)))
    assert [one.starts for one in read_questions(lines).examples] == [(12,), (-1,)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"context": "c", "answers": []}, "'question' and 'context' should be texts"),
        ({"question": "q", "context": "c"}, "there are no 'answers'"),
        ({"question": "q", "context": "c", "answers": [{"text": "d", "answer_start": 0}]}, "has no 'd' at character 0"),
        ({"question": "q", "context": "c", "answers": {"text": ["c"], "answer_start": []}}, "as many starts as texts"),
        ({"question": "q", "context": "c", "answers": [7]}, "an answer should be a text"),
        ({"question": "q", "context": "c", "answers": "c"}, "'answers' should be a list"),
        ({"question": "q", "context": "c", "answers": ["c"], "is_impossible": True}, "impossible to answer, and has"),
        ({"question": "q", "context": "c", "answers": [], "level": 3}, "what 'level' is for"),
    ],
)
def test_questions_that_cannot_be_read_are_named(row: dict[str, object], reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises((FormatError, UsageError), match=reason):
        read_questions(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": 3}]}))
    with pytest.raises(FormatError, match="not as SQuAD's files are"):
        read_questions(tmp_path / "a.json")


def test_rankings_in_all_their_forms(tmp_path: Path) -> None:
    want = [Query("q", ("a", "b"), (1.0, 0.0))]
    (tmp_path / "a.tsv").write_text("query\tdocument\trelevance\nq\ta\t1\nother\tc\t1\nq\tb\t0\n")
    assert read_rankings(tmp_path / "a.tsv").examples == want  # one document alone ranks nothing
    for row in (
        {"query": "q", "documents": ["a", "b"], "relevance": [1, 0]},
        {"query": "q", "positive": ["a"], "negative": ["b"]},
    ):
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        assert read_rankings(tmp_path / "a.jsonl").examples == want
    rows = [{"query": "q", "passage": "a", "label": 1}, {"query": "q", "passage": "b", "label": 0}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_rankings(tmp_path / "a.jsonl").examples == want


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": "q", "documents": ["a"], "relevance": [1, 0]}, "a list as long as 'documents'"),
        ({"query": "q", "documents": ["a", "b"], "relevance": [1, -1]}, "a relevance is a number of 0 or more"),
        ({"query": "q", "documents": ["a", 3], "relevance": [1, 0]}, "a document should be a text"),
        ({"query": "q", "positive": ["a"]}, "expected the lists documents and relevance"),
        ({"query": "q", "positive": ["a"], "negative": ["b"], "mood": 1}, "what 'mood' is for"),
        ({"query": "q", "positive": ["a"], "negative": []}, "no query with documents of which some"),
    ],
)
def test_rankings_that_cannot_be_read_are_named(row: dict[str, object], reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises((FormatError, UsageError), match=reason):
        read_rankings(tmp_path / "a.jsonl")


def test_texts_to_be_masked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo words\n")
    assert read_masked_texts(tmp_path / "a.txt").examples == ["one", "two words"]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert read_masked_texts(tmp_path / "a.jsonl", limit=1).examples == ["one"]
    (tmp_path / "a.tsv").write_text("query\nx\n")
    with pytest.raises(UsageError, match="should have a column sentence or text, found query"):
        read_masked_texts(tmp_path / "a.tsv")
