"""Figures on held-out examples, against a plain computation."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import transformers
from scipy import stats

from edgeq.backends.log_probabilities import TorchLogProbabilities
from edgeq.errors import UsageError
from edgeq.evaluate.perplexity import evaluate_perplexity
from edgeq.models import TorchDecoder, adapter_for
from edgeq.training import Figures, TaskData, evaluate_model, load_task_data
from edgeq.training.examples import Similarities


def test_accuracy_and_loss(classifier, labelled):
    model = classifier().train()
    figures = evaluate_model(model, adapter_for(model), labelled)
    assert model.training
    model.eval()
    right, losses = 0, []
    for ids, label in zip(labelled.evaluation.inputs, labelled.evaluation.labels, strict=True):
        with torch.no_grad():
            logits = model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
        right += int(logits.argmax()) == label
        losses.append(-float(logits.log_softmax(-1)[label]))
    assert figures.metric == "accuracy"
    assert figures.values["accuracy"] == right / 40
    assert figures.values["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_regression(classifier, labelled):
    model = classifier(labels=1)
    random = np.random.default_rng(0)
    held_out = dataclasses.replace(labelled.evaluation, labels=random.normal(size=40).astype(np.float32))
    figures = evaluate_model(model, adapter_for(model), TaskData("regression", held_out, held_out))
    model.eval()
    with torch.no_grad():
        outputs = [float(model(torch.from_numpy(ids.astype(np.int64))[None]).logits) for ids in held_out.inputs]
    assert figures.value == pytest.approx(stats.spearmanr(outputs, held_out.labels).statistic, abs=1e-6)
    assert figures.values["pearson"] == pytest.approx(stats.pearsonr(outputs, held_out.labels).statistic, abs=1e-5)


def test_perplexity_is_that_of_the_measuring_side(make_gpt2, tmp_path):
    folder = make_gpt2()
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    tokenizer, adapter = transformers.AutoTokenizer.from_pretrained(folder), adapter_for(model)
    file = tmp_path / "text.txt"
    file.write_text("the quick brown fox jumps over the lazy dog and sat " * 8)
    data = load_task_data(file, file, tokenizer=tokenizer, adapter=adapter, max_length=20)
    figures = evaluate_model(model, adapter, data)
    from edgeq.evaluate.data import read_text_file

    reference = TorchDecoder(model, adapter, cache_dtype=torch.float32)
    expected = evaluate_perplexity(TorchLogProbabilities(reference.score), tokenizer, read_text_file(file), context=20)
    assert figures.metric == "perplexity"
    assert figures.value == pytest.approx(expected.value, rel=1e-5)
    assert math.log(figures.value) == pytest.approx(figures.values["loss"])


def test_sequence_to_sequence(make_bart, tmp_path):
    folder = make_bart()
    model = transformers.BartForConditionalGeneration.from_pretrained(folder)
    tokenizer, adapter = transformers.AutoTokenizer.from_pretrained(folder), adapter_for(model)
    file = tmp_path / "a.tsv"
    file.write_text("source\ttarget\nthe quick brown fox\ta fox\nthe dog\tthe lazy dog sat\n")
    data = load_task_data(file, file, tokenizer=tokenizer, adapter=adapter, max_length=16)
    figures = evaluate_model(model, adapter, data)
    total, count = 0.0, 0
    model.eval()
    for ids, target in zip(data.evaluation.inputs, data.evaluation.labels, strict=True):
        labels = torch.from_numpy(target.astype(np.int64))[None]
        with torch.no_grad():
            loss = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], labels=labels).loss
        total, count = total + float(loss) * len(target), count + len(target)
    assert figures.values["loss"] == pytest.approx(total / count, rel=1e-5)


def test_embeddings_of_graded_pairs_and_of_texts_alone(make_bert, labelled):
    model = transformers.BertModel.from_pretrained(make_bert())
    teacher = transformers.BertModel.from_pretrained(make_bert(seed=4))
    adapter = adapter_for(model)
    texts = dataclasses.replace(labelled.evaluation, labels=None)
    pairs = np.array([[0, 1], [2, 3], [4, 5], [1, 2]])
    graded = dataclasses.replace(texts, similarities=Similarities(pairs, np.array([1.0, 3.0, 2.0, 0.0])))
    model.eval()
    with torch.no_grad():
        vectors = [
            model(torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0].mean(0) for ids in texts.inputs
        ]
    cosines = [float(torch.cosine_similarity(vectors[a], vectors[b], dim=0)) for a, b in pairs]
    figures = evaluate_model(model, adapter, TaskData("embedding", texts, graded))
    assert figures.metric == "spearman"
    assert figures.values["pearson"] == pytest.approx(stats.pearsonr(cosines, [1, 3, 2, 0]).statistic, abs=1e-4)
    data = TaskData("embedding", texts, texts)
    assert evaluate_model(model, adapter, data, teacher=model).value == pytest.approx(1, abs=1e-6)
    assert evaluate_model(model, adapter, data, teacher=teacher).value < 0.99


def test_nothing_to_compare_with(make_bert, labelled):
    model = transformers.BertModel.from_pretrained(make_bert())
    texts = dataclasses.replace(labelled.evaluation, labels=None)
    with pytest.raises(UsageError, match="graded pairs, or against a teacher"):
        evaluate_model(model, adapter_for(model), TaskData("embedding", texts, texts))
    with pytest.raises(UsageError, match="no held-out examples"):
        evaluate_model(model, adapter_for(model), TaskData("embedding", texts))


def test_which_figure_is_better():
    accuracy, perplexity = (Figures(metric, {metric: 2.0}) for metric in ("accuracy", "perplexity"))
    assert accuracy.better_than(None)
    assert accuracy.better_than(1.5)
    assert not accuracy.better_than(2.0)
    assert perplexity.better_than(3.0)
    assert not perplexity.better_than(1.5)
    assert not Figures("perplexity", {"perplexity": math.nan}).better_than(None)
