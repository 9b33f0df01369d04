from pathlib import Path

import pytest

from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.evaluate.data import Example, read_evaluation_set

DEMO = Path(__file__).parents[3] / "benchmarks" / "data" / "demo_sts.tsv"


def _file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_ten_columns_as_in_sts_b(tmp_path: Path) -> None:
    # GLUE's files hold unbalanced quotation marks that mean themselves.
    text = (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        '0\tg\tf\t2012\t1\tnone\tnone\tA "man runs.\tA man is running.\t4.500\n'
        "1\tg\tf\t2012\t2\tnone\tnone\tRain.\tSun.\t0\n"
    )
    data = read_evaluation_set(_file(tmp_path, "dev.tsv", text))
    assert data.kind == "similarity"
    assert data.examples == [Example('A "man runs.', "A man is running.", 4.5), Example("Rain.", "Sun.", 0.0)]


def test_sentences_and_labels_as_in_sst_2(tmp_path: Path) -> None:
    data = read_evaluation_set(
        _file(tmp_path, "dev.tsv", "sentence\tlabel\r\na fine film\t1\r\ndull \t0\r\n\r\n")
    )
    assert data.kind == "classification"
    assert data.examples == [Example("a fine film", None, "1"), Example("dull ", None, "0")]


def test_csv_with_quoted_fields_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufeffscore,sentence1,sentence2\n3.5,"one, two\nthree","say ""hi"""\n'
    data = read_evaluation_set(_file(tmp_path, "dev.csv", text))
    assert data.examples == [Example("one, two\nthree", 'say "hi"', 3.5)]


def test_json_lines(tmp_path: Path) -> None:
    first = '{"sentence1": "a\\u2028b", "sentence2": "c", "score": 2}'
    text = first + '\n\n{"sentence1":"d","sentence2":"","score":"1.5"}\n'
    data = read_evaluation_set(_file(tmp_path, "dev.jsonl", text))
    assert data.examples == [Example("a\u2028b", "c", 2.0), Example("d", "", 1.5)]
    labelled = '{"sentence": "x", "label": 1}\n{"sentence": "y", "label": "good"}\n'
    examples = read_evaluation_set(_file(tmp_path, "l.jsonl", labelled)).examples
    assert [e.target for e in examples] == ["1", "good"]


def test_pairs_with_labels(tmp_path: Path) -> None:
    data = read_evaluation_set(_file(tmp_path, "p.tsv", "sentence1\tsentence2\tlabel\na\tb\tyes\n"))
    assert data.kind == "classification"
    assert data.examples == [Example("a", "b", "yes")]


def test_line_separators_inside_a_sentence_end_no_line(tmp_path: Path) -> None:
    data = read_evaluation_set(_file(tmp_path, "d.tsv", "sentence\tlabel\na\u2028b\x85c\t1\n"))
    assert data.examples[0].first == "a\u2028b\x85c"


def test_a_row_with_more_cells_than_columns_is_refused(tmp_path: Path) -> None:
    # A tab inside a sentence would move a part of it into the column of labels.
    with pytest.raises(FormatError, match="line 3: expected 2 columns, found 3"):
        read_evaluation_set(_file(tmp_path, "d.tsv", "sentence\tlabel\nb\t0\na\t1\textra\n"))


GLUE = {
    "CoLA": ("gj04\t1\t\tOur friends.\nks08\t0\t*\tBooks \"the.\n", "classification",
             [Example("Our friends.", None, "1"), Example('Books "the.', None, "0")]),
    "MRPC": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tA said.\tB said.\r\n", "classification",
             [Example("A said.", "B said.", "1")]),
    "QNLI": ("index\tquestion\tsentence\tlabel\n0\tWhen?\tThen.\tentailment\n", "classification",
             [Example("When?", "Then.", "entailment")]),
    "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tHow?\tWhy?\t0\n", "classification",
            [Example("How?", "Why?", "0")]),
    "RTE": ("index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n", "classification",
            [Example("A.", "B.", "not_entailment")]),
    "WNLI": ("index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n", "classification", [Example("A.", "B.", "1")]),
    "MNLI": ("index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
             "sentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
             "0\t1\t1n\tfiction\t( A )\t( B )\t(S A)\t(S B)\tA.\tB.\tneutral\tneutral\tx\ty\tz\tneutral\n",
             "classification", [Example("A.", "B.", "neutral")]),
    "the STS benchmark": ("main-news\tMSRpar\t2012test\t0024\t2.6\tA, b.\tC.\n"
                          "main-news\tMSRpar\t2012test\t0025\t0\tD.\tE.\tsource\tsource\n", "similarity",
                          [Example("A, b.", "C.", 2.6), Example("D.", "E.", 0.0)]),
}  # fmt: skip


@pytest.mark.parametrize("name", GLUE)
def test_data_sets_as_they_are_published(name: str, tmp_path: Path) -> None:
    text, kind, examples = GLUE[name]
    suffix = ".csv" if name.startswith("the") else ".tsv"
    data = read_evaluation_set(_file(tmp_path, f"dev{suffix}", text))
    assert (data.kind, data.examples) == (kind, examples)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index\tsentence1\tsentence2\n0\ta\tb\n", "holds no answers"),
        ("id\tquestion\tlabel\n0\ta\tb\n", "should have columns"),
        ("question\tcontext\tsentence\tlabel\na\tb\tc\t1\n", "column 'context', and nothing says what it is for"),
        ("sentence\ttext\tlabel\na\tb\t1\n", "several columns of texts (sentence; text)"),
        ("sentence\tlabel\tscore\na\t1\t2\n", "several columns of answers (score; label)"),
        ("sentence\tlabel\tlabel\na\t1\t2\n", "two columns 'label'"),
        ("sentence\tscore\na\t1\n", "grades single texts"),
    ],
)
def test_a_column_is_never_lost(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeqError) as caught:
        read_evaluation_set(_file(tmp_path, "dev.tsv", text))
    assert message in str(caught.value)


def test_rows_of_json_have_the_same_keys(tmp_path: Path) -> None:
    rows = '{"sentence": "a", "label": 1}\n{"sentence": "a", "label": 1, "context": "b"}\n'
    with pytest.raises(FormatError, match="line 2: 'context' is not in the first row"):
        read_evaluation_set(_file(tmp_path, "dev.jsonl", rows))
    rows = '{"sentence": "a", "label": 1}\n{"sentence": null, "label": 1}\n'
    with pytest.raises(FormatError, match="line 2: 'sentence' is missing"):
        read_evaluation_set(_file(tmp_path, "dev.jsonl", rows))


def test_limit(tmp_path: Path) -> None:
    path = _file(tmp_path, "d.tsv", "sentence\tlabel\n" + "x\t1\n" * 9)
    assert len(read_evaluation_set(path, limit=4).examples) == 4


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("e.tsv", "", UsageError, "is empty"),
        ("e.csv", "", UsageError, "is empty"),
        ("e.jsonl", "\n", UsageError, "is empty"),
        ("e.tsv", "sentence\tlabel\n", UsageError, "no examples"),
        ("e.tsv", "text\tclass\na\t1\n", UsageError, "column 'class'"),
        ("e.txt", "sentence\tlabel\na\t1\n", UsageError, "ends in .tsv"),
        ("e.tsv", "sentence\tlabel\na\n", FormatError, "line 2: expected 2 columns, found 1"),
        (
            "e.tsv",
            "sentence1\tsentence2\tscore\na\tb\tc\n",
            FormatError,
            "line 2: a score is a number, found 'c'",
        ),
        ("e.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n", FormatError, "found 'nan'"),
        ("e.csv", 'sentence,label\n"a,1\n', FormatError, "not a CSV file"),
        ("e.jsonl", '{"sentence": "a", "label": 1}\n[1]\n', FormatError, "line 2: expected a JSON object"),
        (
            "e.jsonl",
            '{"sentence": "a", "label": 1}\n{"label": 1}\n',
            FormatError,
            "line 2: 'sentence' is missing",
        ),
        ("e.tsv", b"sentence\tlabel\ncaf\xe9\t1\n", UsageError, "not UTF-8 text: byte 18"),
    ],
)
def test_wrong_files(
    tmp_path: Path, name: str, content: str | bytes, error: type[EdgeqError], message: str
) -> None:
    path = _file(tmp_path, name, content)
    with pytest.raises(error) as caught:
        read_evaluation_set(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_evaluation_set(tmp_path / "none.tsv")
    with pytest.raises(UsageError, match="should be a file, found a folder"):
        read_evaluation_set(tmp_path)


def test_the_set_that_comes_along_is_sound() -> None:
    examples = read_evaluation_set(DEMO).examples
    assert len(examples) >= 60
    assert len({(e.first, e.second) for e in examples}) == len(examples)
    scores = [float(e.target) for e in examples]
    assert min(scores) == 0
    assert max(scores) == 5
    assert all(sum(low <= s < low + 1 for s in scores) >= 5 for low in range(5))
    assert all(e.first.strip() == e.first and e.second and e.second.strip() == e.second for e in examples)
