"""Heads from their files to packed students: tags, answers, masked words, rankings."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgeq.distill import FeatureReader, Objective, ObjectiveSettings, Wanted
from edgeq.distill.labels import NO_LABEL, relevance_loss
from edgeq.errors import UsageError
from edgeq.evaluate.metrics import DEPTH
from edgeq.models import adapter_for
from edgeq.quant.trainable import freeze, make_trainable
from edgeq.training import TrainingSettings, evaluate_model, load_task_data, train

WORDS = ["the", "cat", "sat", "dog", "fox", "good", "movie", "lazy"]
TAGS = ["O", "B-X", "I-X"]
CLASSES = {
    "tags": "BertForTokenClassification",
    "answers": "BertForQuestionAnswering",
    "masked-words": "BertForMaskedLM",
    "ranking": "BertForSequenceClassification",
}
METRICS = {"tags": "entity-f1", "answers": "exact windows", "masked-words": "top-1", "ranking": f"ndcg@{DEPTH}"}


def _lines(task: str) -> str:
    """Data that a model can learn by heart: a cat is an entity, and the answer; a text with a cat is relevant."""
    rows: list[dict[str, Any]] = []
    generator = np.random.default_rng(0)
    for _ in range(24):
        words = generator.choice([word for word in WORDS if word != "cat"], 5).tolist()
        place = int(generator.integers(5))
        with_cat = [*words[:place], "cat", *words[place:]]
        text = " ".join(with_cat)
        if task == "tags":
            rows.append({"tokens": with_cat, "tags": ["B-X" if word == "cat" else "O" for word in with_cat]})
        elif task == "answers":
            answer = {"text": ["cat"], "answer_start": [text.index("cat")]}
            rows.append({"question": "the", "context": text, "answers": answer})
        elif task == "masked-words":
            rows.append({"text": "the cat sat"})
        else:
            rows.append({"query": "the", "positive": [text], "negative": [" ".join(words), words[0]]})
    return "\n".join(map(json.dumps, rows))


@pytest.fixture(scope="module")
def source(make_bert: Callable[..., Path]) -> Callable[[str], tuple[Any, Any]]:
    """Returns a function from a task to a model and its tokenizer."""

    def load(task: str) -> tuple[Any, Any]:
        labels: dict[str, Any] = {"num_labels": 1} if task == "ranking" else {}
        if task == "tags":
            labels = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
        folder = make_bert(CLASSES[task], num_hidden_layers=1, **labels)
        model = getattr(transformers, CLASSES[task]).from_pretrained(folder)
        return model, transformers.AutoTokenizer.from_pretrained(folder)

    return load


@pytest.mark.parametrize("task", CLASSES)
def test_a_head_learns_its_task(source: Any, task: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(_lines(task))
    model, tokenizer = source(task)
    adapter = adapter_for(model)
    data = load_task_data(file, file, tokenizer=tokenizer, adapter=adapter, max_length=16)
    assert data.task == task
    before = evaluate_model(model, adapter, data)
    assert before.metric == METRICS[task]
    outcome = train(
        model, None, data=data, out=tmp_path / "run",
        settings=TrainingSettings(steps=60, batch_size=12, learning_rate=1e-2, dropout=False),
        objective=Objective(ObjectiveSettings(logits=0, labels=1), student=adapter, teacher=None),
    )  # fmt: skip
    assert outcome.result.values[METRICS[task]] > max(0.9, before.value - 1e-9)


@pytest.mark.parametrize("task", CLASSES)
def test_from_a_file_to_packed_weights(source: Any, plans: Any, task: str, tmp_path: Path) -> None:
    """What was trained is what is packed, and a student learns from its teacher's logits and layers."""
    file = tmp_path / "data.jsonl"
    file.write_text(_lines(task))
    teacher, tokenizer = source(task)
    student = copy.deepcopy(teacher)
    adapter = adapter_for(student)
    make_trainable(student, plans(student, bits=4))
    data = load_task_data(file, file, tokenizer=tokenizer, adapter=adapter, max_length=16)
    losses = ObjectiveSettings(labels=0.5, logits=1, hidden=1, attention=1)
    outcome = train(
        student, teacher, data=data, out=tmp_path / "run",
        settings=TrainingSettings(steps=4, batch_size=6, learning_rate=1e-3, evaluate_every=2),
        objective=Objective(losses, student=adapter, teacher=adapter),
    )  # fmt: skip
    layers = {name: layer for name, layer in student.named_modules() if hasattr(layer, "decoded_weight")}
    decoded = {name: layer.decoded_weight().detach().clone() for name, layer in layers.items()}
    biases = {name: layer.bias for name, layer in student.named_modules() if name.endswith("decoder")}
    freeze(student)
    for name, weight in decoded.items():
        assert torch.equal(student.get_submodule(name).dequantized(), weight), name
    for name, bias in biases.items():
        assert torch.equal(student.get_submodule(name).bias, bias), name
    packed = evaluate_model(student, adapter, data)
    assert packed.values.keys() == outcome.result.values.keys()


def test_words_are_left_out_anew_each_time_and_the_same_for_one_seed(source: Any, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(" ".join(WORDS) for _ in range(8)))
    model, tokenizer = source("masked-words")
    data = load_task_data(file, file, tokenizer=tokenizer, adapter=adapter_for(model), max_length=16)

    def read(examples: Any, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        batch: dict[str, torch.Tensor] = examples.batch(range(8))
        return batch

    first, again, other = (read(data.train, seed)["labels"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    batch = read(data.train, 3)
    wanted = batch["labels"] != NO_LABEL
    assert bool(wanted.any(dim=1).all())
    assert not bool(wanted[:, [0, -1]].any())  # special tokens stay
    whole = torch.tensor(np.stack(data.train.inputs), dtype=torch.int64)
    assert torch.equal(torch.where(wanted, batch["labels"], batch["input_ids"]), whole)
    held = data.evaluation
    assert held is not None
    assert torch.equal(read(held, 1)["labels"], read(held, 2)["labels"])
    assert bool((read(held, 1)["input_ids"] == tokenizer.mask_token_id).any())


def test_labels_stand_at_the_first_token_of_a_word_and_at_the_answer(source: Any, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(_lines("tags"))
    model, tokenizer = source("tags")
    data = load_task_data(file, None, tokenizer=tokenizer, adapter=adapter_for(model), max_length=16)
    labels = data.train.labels
    assert labels is not None
    cat = tokenizer.convert_tokens_to_ids("cat")
    for ids, own in zip(data.train.inputs, labels, strict=True):
        assert own[0] == own[-1] == NO_LABEL
        assert (own[1:-1] == (ids[1:-1] == cat)).all()
    file.write_text(_lines("answers"))
    model, tokenizer = source("answers")
    data = load_task_data(file, None, tokenizer=tokenizer, adapter=adapter_for(model), max_length=16)
    assert isinstance(data.train.labels, np.ndarray)
    for ids, (start, end) in zip(data.train.inputs, data.train.labels, strict=True):
        assert start == end
        assert ids[start] == cat


def test_an_answer_that_stands_twice_needs_its_place(source: Any, tmp_path: Path) -> None:
    model, tokenizer = source("answers")
    adapter = adapter_for(model)
    for answer, reason in (("cat", "more than once"), ("dog", "not at all")):
        file = tmp_path / "data.jsonl"
        file.write_text(json.dumps({"question": "the", "context": "cat cat", "answers": [answer]}))
        with pytest.raises(UsageError, match=f"line 1: say where the answer '{answer}' begins.*{reason}"):
            load_task_data(file, None, tokenizer=tokenizer, adapter=adapter, max_length=16)


def test_relevance_is_that_of_each_document_alone() -> None:
    logits, relevance = torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 0.5])
    chance = torch.sigmoid(logits[:, 0])
    want = -(relevance * chance.log() + (1 - relevance) * (1 - chance).log()).mean()
    assert relevance_loss(logits, relevance) == pytest.approx(float(want))


def test_padding_starts_and_ends_no_answer(source: Any) -> None:
    model, _ = source("answers")
    reader = FeatureReader(model.eval(), adapter_for(model), wanted=Wanted())
    batch = {"input_ids": torch.tensor([[2, 9, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    with torch.no_grad():
        output = reader(batch).output
    assert output.shape == (1, 2, 4)
    assert bool((output.softmax(dim=-1)[..., 3] == 0).all())


def test_a_decoder_that_labels_texts_needs_its_padding_token(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "data.tsv"
    file.write_text("sentence\tlabel\nthe cat\t0\na dog\t1\n")
    folder = make_gpt2("GPT2ForSequenceClassification", num_labels=2, n_layer=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.GPT2ForSequenceClassification.from_pretrained(folder)
    data = load_task_data(file, file, tokenizer=tokenizer, adapter=adapter_for(model), max_length=8)
    adapter = adapter_for(model)
    outcome = train(
        model, None, data=data, out=tmp_path / "run",
        settings=TrainingSettings(steps=30, batch_size=2, learning_rate=1e-2, dropout=False),
        objective=Objective(ObjectiveSettings(logits=0, labels=1), student=adapter, teacher=None),
    )  # fmt: skip
    assert outcome.result.values["accuracy"] == 1.0
    model.config.pad_token_id = None
    with pytest.raises(UsageError, match="pad_token_id is None, the tokenizer's 1"):
        load_task_data(file, None, tokenizer=tokenizer, adapter=adapter_for(model), max_length=8)
