"""Files and data sets of the hub become tokenised examples, or a sentence that says why not."""

import sys
import types

import numpy as np
import pytest
import transformers

from edgeq.distill.labels import NO_LABEL
from edgeq.errors import FormatError, UsageError
from edgeq.models import adapter_for
from edgeq.training import encode_rows, load_task_data, task_of
from edgeq.training.rows import Rows, read_data


@pytest.fixture(scope="module")
def loaded(make_bert, make_gpt2, make_bart):
    """Returns a function from a model's name to its tokenizer and adapter."""
    folders = {
        "classifier": make_bert("BertForSequenceClassification", num_labels=2),
        "regressor": make_bert("BertForSequenceClassification", num_labels=1),
        "embedder": make_bert(),
        "gpt2": make_gpt2(),
        "bart": make_bart(),
    }

    def load(name):
        config = transformers.AutoConfig.from_pretrained(folders[name])
        return {"tokenizer": transformers.AutoTokenizer.from_pretrained(folders[name]), "adapter": adapter_for(config)}

    return load


def written(folder, name, text):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_labelled_sentences(loaded, tmp_path):
    train = written(tmp_path, "a.tsv", "sentence\tlabel\nthe cat sat\t0\na good movie\tLABEL_1\n")
    dev = written(tmp_path, "b.jsonl", '{"sentence": "the dog", "label": 1}\n')
    data = load_task_data(train, dev, **loaded("classifier"), max_length=16)
    assert data.task == "classification"
    assert data.train.labels.tolist() == [0, 1]
    assert data.evaluation.labels.tolist() == [1]
    tokenizer = loaded("classifier")["tokenizer"]
    assert data.train.inputs[0].tolist() == tokenizer("the cat sat")["input_ids"]
    batch = data.train.batch([1, 0])
    assert batch["labels"].tolist() == [1, 0]
    assert batch["example"].tolist() == [1, 0]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape


@pytest.mark.parametrize("columns", ["sentence1\tsentence2", "premise\thypothesis", "question\tsentence"])
def test_pairs(loaded, tmp_path, columns):
    train = written(tmp_path, "a.tsv", f"id\t{columns}\tlabel\n7\tthe cat\ta dog\t1\n")
    data = load_task_data(train, None, **loaded("classifier"), max_length=16)
    assert data.evaluation is None
    assert data.train.types[0].tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_texts_are_cut(loaded, tmp_path):
    train = written(tmp_path, "a.csv", "text,label\n" + "cat " * 50 + ",1\n")
    data = load_task_data(train, None, **loaded("classifier"), max_length=9)
    assert len(data.train.inputs[0]) == 9


def test_scores(loaded, tmp_path):
    train = written(tmp_path, "a.tsv", "sentence1\tsentence2\tscore\nthe cat\ta cat\t4.5\n")
    data = load_task_data(train, None, **loaded("regressor"), max_length=16)
    assert data.task == "regression"
    assert data.train.labels.tolist() == [4.5]


def test_sentences_for_embeddings(loaded, tmp_path):
    pairs = "sentence1\tsentence2\tscore\nthe cat\ta cat\t4.5\nthe cat\tthe dog\t2\n"
    train, dev = written(tmp_path, "a.txt", "the cat\n\na dog\n"), written(tmp_path, "b.tsv", pairs)
    data = load_task_data(train, dev, **loaded("embedder"), max_length=16)
    assert data.task == "embedding"
    assert (len(data.train), data.train.labels) == (2, None)
    assert len(data.evaluation) == 3
    graded = data.evaluation.similarities
    assert graded.scores.tolist() == [4.5, 2.0]
    assert graded.pairs[0, 0] == graded.pairs[1, 0]


def test_blocks_of_a_text_predict_each_token_once(loaded, tmp_path):
    text = "the quick brown fox jumps over the lazy dog " * 9
    file = written(tmp_path, "a.txt", text)
    options = loaded("gpt2")
    data = load_task_data(file, file, **options, max_length=16)
    tokenizer = options["tokenizer"]
    stream = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert data.task == "language-model"
    for ids, labels in zip(data.train.inputs, data.train.labels, strict=True):
        assert len(ids) == len(labels) == 16
        assert ids[1:].tolist() == labels[:-1].tolist()
    assert np.concatenate(data.train.inputs).tolist() == stream[: len(data.train) * 16]
    predicted = np.concatenate([labels[labels != NO_LABEL] for labels in data.evaluation.labels])
    assert predicted.tolist() == stream[1:]
    assert all(len(ids) == 16 for ids in data.evaluation.inputs)


def test_rows_of_texts_are_joined(loaded, tmp_path):
    options = loaded("gpt2")
    file = written(tmp_path, "a.jsonl", '{"text": "the cat"}\n{"text": "a dog"}\n')
    data = load_task_data(file, None, **options, max_length=30)
    stream = [*data.train.inputs[0].tolist(), int(data.train.labels[0][-1])]
    assert stream.count(options["tokenizer"].bos_token_id) == 2


def test_a_short_text_is_one_short_block(loaded, tmp_path):
    data = load_task_data(written(tmp_path, "a.txt", "the cat"), None, **loaded("gpt2"), max_length=30)
    assert len(data.train) == 1
    assert len(data.train.inputs[0]) < 30


def test_sources_and_targets(loaded, tmp_path):
    file = written(tmp_path, "a.jsonl", '{"document": "the quick fox", "summary": "a fox", "id": 3}\n')
    options = loaded("bart")
    data = load_task_data(file, None, **options, max_length=16)
    batch = data.train.batch([0])
    start = options["adapter"].config.decoder_start_token_id
    assert batch["decoder_input_ids"][0].tolist() == [start, *batch["labels"][0].tolist()[:-1]]
    assert options["tokenizer"].decode(batch["labels"][0]).strip() == "a fox"


def test_lists_of_sentences_and_of_targets(loaded, tmp_path):
    file = written(tmp_path, "a.jsonl", '{"source": ["the cat", "sat"], "target": ["a cat", "it sat"]}\n'
                                        '{"source": "[1, 2]", "target": "[the dog"}\n')  # fmt: skip
    options = loaded("bart")
    examples = load_task_data(file, None, **options, max_length=30).train
    texts = [[options["tokenizer"].decode(ids).strip() for ids in side] for side in (examples.inputs, examples.labels)]
    assert texts == [["the cat sat", "[1, 2]"], ["a cat", "[the dog"]]


def test_padding_of_targets_is_no_label(loaded):
    rows = Rows("here", [{"source": "the cat", "target": "a"}, {"source": "dog", "target": "a lazy dog"}], ["1", "2"])
    examples = encode_rows(rows, **loaded("bart"), max_length=16, task="seq2seq", first=40)
    batch = examples.batch([0, 1])
    assert (batch["labels"][0] == NO_LABEL).sum() > 0
    assert (batch["labels"][1] == NO_LABEL).sum() == 0
    assert batch["decoder_input_ids"].min() >= 0
    assert batch["example"].tolist() == [40, 41]


def test_data_sets_of_the_hub(loaded, monkeypatch):
    asked = []

    def load_dataset(name, configuration, split):
        asked.append((name, configuration, split))
        return [{"sentence": "the cat", "label": 1, "idx": 0}, {"sentence": "a dog", "label": 0, "idx": 1}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    data = load_task_data("some/data", "glue:sst2:test", **loaded("classifier"), max_length=16)
    assert data.train.labels.tolist() == [1, 0]
    assert sorted(asked) == [("glue", "sst2", "test"), ("some/data", None, "train")]

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(UsageError, match=r"'glue:sst2' is no file, and the data set cannot be loaded .*no route"):
        read_data("glue:sst2", split="train")


@pytest.mark.parametrize(
    ("model", "name", "text", "error", "words"),
    [
        ("classifier", "a.tsv", "sentence\tlabel\ncat\t2\n", UsageError, r"line 2: label '2' is none of .* 2 labels"),
        ("classifier", "a.tsv", "sentence\tlabel\ncat\t-1\n", UsageError, "label '-1'"),
        ("classifier", "a.tsv", "sentence\tlabel\ncat\tgood\n", UsageError, "label 'good'"),
        ("classifier", "a.tsv", "sentence\tlabel\n", UsageError, "holds no examples"),
        ("classifier", "a.tsv", "", UsageError, "is empty"),
        ("classifier", "a.tsv", "words\tlabel\ncat\t1\n", UsageError, "should have columns sentence .* found words"),
        ("classifier", "a.tsv", "sentence\tclass\ncat\t1\n", UsageError, "column 'class'.*answers .*label"),
        ("classifier", "a.tsv", "sentence\tlabel\ncat\n", FormatError, "line 2: expected 2 columns"),
        ("classifier", "a.txt", "cat\n", UsageError, "found text"),
        ("regressor", "a.tsv", "sentence\tscore\ncat\tgood\n", UsageError, "line 2: a score is a number"),
        ("regressor", "a.tsv", "sentence\tscore\ncat\tnan\n", UsageError, "a score is a number"),
        ("gpt2", "a.txt", " \n", UsageError, "is empty"),
        ("gpt2", "a.tsv", "label\n1\n", UsageError, "should have columns text"),
        ("bart", "a.tsv", "source\tlabel\ncat\t1\n", UsageError, "should have columns source and target"),
        ("bart", "a.jsonl", '{"source": "a", "target": "b"}\n{"source": "a"}\n', UsageError, "line 2: 'target' is"),
        ("embedder", "a.tsv", "label\n1\n", UsageError, "should have columns sentence"),
    ],
)
def test_data_that_do_not_fit(loaded, tmp_path, model, name, text, error, words):
    with pytest.raises(error, match=words):
        load_task_data(written(tmp_path, name, text), None, **loaded(model), max_length=16)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("gpt2", {"task": "classification"}, "a GPT2LMHeadModel is trained for language-model, not"),
        ("classifier", {"task": "regression"}, "does not fit a model with 2 labels"),
        ("classifier", {"max_length": 99}, "max_length should be 2 to 37"),
        ("classifier", {"max_length": 1}, "max_length should be 2"),
    ],
)
def test_tasks_and_lengths_that_do_not_fit(loaded, tmp_path, model, options, words):
    file = written(tmp_path, "a.tsv", "sentence\tlabel\ncat\t1\n")
    with pytest.raises(UsageError, match=words):
        load_task_data(file, None, **loaded(model), **{"max_length": 16, **options})


def test_missing_files(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_data(tmp_path / "a.tsv", split="train")
    with pytest.raises(UsageError, match="is a folder"):
        read_data(tmp_path, split="train")
    for source in (tmp_path / "train", "./train", "a/b/c"):
        with pytest.raises(UsageError, match="there is no data file"):
            read_data(source, split="train")


def test_task_of(loaded):
    tasks = {name: task_of(loaded(name)["adapter"]) for name in ("classifier", "regressor", "embedder", "gpt2", "bart")}
    assert tasks == {
        "classifier": "classification", "regressor": "regression", "embedder": "embedding",
        "gpt2": "language-model", "bart": "seq2seq",
    }  # fmt: skip
