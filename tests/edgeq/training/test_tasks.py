"""Each task from its file to a frozen student: what was trained is what is packed."""

import copy

import pytest
import torch
import transformers

from edgeq.distill import Objective, ObjectiveSettings
from edgeq.models import adapter_for
from edgeq.quant.trainable import freeze, make_trainable
from edgeq.training import TrainingSettings, evaluate_model, load_task_data, train

WORDS = ["the cat sat", "a dog jumps", "good movie", "quick brown fox", "the lazy dog", "a fox sat over the cat"]


def rows(header, make):
    lines = [make(index, WORDS[index % 6], WORDS[(index * 5 + 1) % 6]) for index in range(18)]
    return "\n".join([header, *lines]) + "\n"


TASKS = {
    "classification": (rows("sentence\tlabel", lambda i, a, b: f"{a} {b}\t{i % 2}"), {"hidden": 1, "attention": 1}),
    "regression": (rows("sentence1\tsentence2\tscore", lambda i, a, b: f"{a}\t{b}\t{i % 5}"), {"labels": 1}),
    "embedding": (rows("sentence1\tsentence2\tscore", lambda i, a, b: f"{a}\t{b}\t{i % 5}"), {"hidden": 1}),
    "language-model": (rows("text", lambda i, a, b: f"{a} {b}"), {"token_scaled": True, "contrastive": 0.1}),
    "seq2seq": (rows("source\ttarget", lambda i, a, b: f"{a} {b}\t{b}"), {"contrastive": 0.1, "attention": 1}),
}
METRICS = {
    "classification": "accuracy", "regression": "spearman", "embedding": "spearman", "language-model": "perplexity",
    "seq2seq": "perplexity",
}  # fmt: skip


@pytest.fixture(scope="module")
def source(make_bert, make_gpt2, make_bart):
    """Returns a function from a task to a model and its tokenizer."""

    def load(task):
        if task == "language-model":
            name, folder = "GPT2LMHeadModel", make_gpt2()
        elif task == "seq2seq":
            name, folder = "BartForConditionalGeneration", make_bart()
        else:
            name = "BertModel" if task == "embedding" else "BertForSequenceClassification"
            folder = make_bert(name, **({} if task == "embedding" else {"num_labels": 1 + (task == "classification")}))
        model = getattr(transformers, name).from_pretrained(folder)
        return model, transformers.AutoTokenizer.from_pretrained(folder)

    return load


@pytest.mark.parametrize("task", TASKS)
def test_from_a_file_to_packed_weights(source, plans, tmp_path, task):
    text, weights = TASKS[task]
    file = tmp_path / "data.tsv"
    file.write_text(text)
    teacher, tokenizer = source(task)
    student = copy.deepcopy(teacher)
    adapter = adapter_for(student)
    make_trainable(student, plans(student, bits=4))
    data = load_task_data(file, file, tokenizer=tokenizer, adapter=adapter, max_length=12)
    assert data.task == task
    outcome = train(
        student, teacher, data=data, out=tmp_path / "run",
        settings=TrainingSettings(steps=4, batch_size=6, learning_rate=1e-3, evaluate_every=2),
        objective=Objective(ObjectiveSettings(**weights), student=adapter, teacher=adapter),
    )  # fmt: skip
    assert outcome.result.metric == METRICS[task]
    layers = {name: layer for name, layer in student.named_modules() if hasattr(layer, "decoded_weight")}
    decoded = {name: layer.decoded_weight().detach().clone() for name, layer in layers.items()}
    freeze(student)
    for name, weight in decoded.items():
        assert torch.equal(student.get_submodule(name).dequantized(), weight), name
    # Codes of activations at a rounding edge may fall the other way when sums are taken in another order.
    packed = evaluate_model(student, adapter, data)
    assert packed.values.keys() == outcome.result.values.keys()
    assert packed.value == pytest.approx(outcome.result.values[packed.metric], rel=0.02, abs=0.06)
