"""Settings, order of examples, learning rate, optimizer, tensors on disk, dropout, GELU."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeq.errors import FormatError, UsageError
from edgeq.quant.grids import grid_for
from edgeq.quant.plan import LayerPlan
from edgeq.quant.trainable import make_trainable, quantizer_parameters
from edgeq.results import LogLine
from edgeq.training import ExampleSet, StageSettings, TrainingSettings
from edgeq.training.batches import BatchOrder
from edgeq.training.dropout import without_dropout
from edgeq.training.examples import joined
from edgeq.training.fused_gelu import fused_gelu
from edgeq.training.log import RunLog
from edgeq.training.optimizer import make_optimizer, rate_of_weights, set_rate
from edgeq.training.schedule import rate_factor
from edgeq.training.tensors import load_tensors, load_weights, save_tensors


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "epochs, or of steps"),
        ({"epochs": 1, "steps": 1}, "not both"),
        ({"epochs": 0}, "epochs should be above 0"),
        ({"steps": 1.5}, "steps should be a whole number"),
        ({"steps": 1, "batch_size": 0}, "batch_size should be a whole number of 1"),
        ({"steps": 1, "batch_size": 2, "accumulate": 3}, "cannot be cut into 3 pieces"),
        ({"steps": 1, "learning_rate": float("nan")}, "learning_rate should be above 0"),
        ({"steps": 1, "quantizer_learning_rate": 0.0}, "quantizer_learning_rate should be above 0"),
        ({"steps": 1, "warmup": 1.5}, "warmup should be 0 or more and at most 1"),
        ({"steps": 1, "clip": -1.0}, "clip should be 0 or more"),
        ({"steps": 1, "betas": (0.9, 1.0)}, "betas should be"),
        ({"steps": 1, "schedule": "steps"}, "linear, cosine or constant"),
        ({"steps": 1, "select": "worst"}, "best or last"),
        ({"steps": 1, "seed": -1}, "seed should be"),
        ({"steps": 1, "stages": ()}, "one stage or more"),
        ({"steps": 1, "stages": (StageSettings(), StageSettings())}, "two stages are named 'train'"),
        ({"steps": 1, "stages": (StageSettings(initialise_from="late"),)}, "'late', which is no earlier stage"),
    ],
)
def test_settings_without_a_meaning(values, words):
    with pytest.raises(UsageError, match=words):
        TrainingSettings(**values)


@pytest.mark.parametrize("values", [{"name": "../x"}, {"name": "teacher"}, {"share": 0}, {"learning_rate": -1.0}])
def test_stages_without_a_meaning(values):
    with pytest.raises(UsageError):
        StageSettings(**values)


def test_settings_are_json():
    settings = TrainingSettings(steps=3, stages=(StageSettings(name="a", bits=2),))
    assert json.loads(json.dumps(settings.to_json()))["stages"][0]["bits"] == 2


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_reads_each_example_at_most_once(count, batch_size, epoch):
    order = BatchOrder(np.arange(count) % 17, batch_size, seed=3)
    first = epoch * order.steps_per_epoch
    batches = [order.at(step) for step in range(first, first + order.steps_per_epoch)]
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen) > count - batch_size
    assert all(len(batch) == min(batch_size, count) for batch in batches)


def test_the_order_depends_on_seed_and_step_alone():
    lengths = np.arange(100) % 13
    order, other = BatchOrder(lengths, 8, seed=1), BatchOrder(lengths, 8, seed=1)
    [other.at(step) for step in (40, 3, 17)]
    assert order.at(14).tolist() == other.at(14).tolist()
    assert order.at(14).tolist() != BatchOrder(lengths, 8, seed=2).at(14).tolist()
    assert order.at(0).tolist() != order.at(order.steps_per_epoch).tolist()


def test_batches_hold_examples_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 100, 800)
    order = BatchOrder(lengths, 16, seed=0)
    spread = [np.ptp(lengths[order.at(step)]) for step in range(order.steps_per_epoch)]
    assert np.mean(spread) < 10


def test_parts_of_an_epoch():
    order = BatchOrder(np.ones(100), 10, seed=0)
    assert [order.steps(epochs) for epochs in (0.01, 0.5, 1, 2.05)] == [1, 5, 10, 21]


def test_linear_schedule():
    factors = [rate_factor(step, steps=10, warmup=0.2, schedule="linear") for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_schedules_stay_between_nothing_and_the_peak(schedule, steps, warmup):
    factors = [rate_factor(step, steps=steps, warmup=warmup, schedule=schedule) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1


def test_parameter_groups(decoder, plans):
    model = decoder()
    make_trainable(model, plans(model))
    settings = TrainingSettings(steps=1, learning_rate=1e-3, quantizer_learning_rate=1e-2, weight_decay=0.1)
    optimizer = make_optimizer(model, settings)
    matrices, vectors, *quantizers = optimizer.param_groups
    learned = [parameter for group in quantizers for parameter in group["params"]]
    assert {id(p) for p in learned} == {id(p) for p in quantizer_parameters(model)}
    assert len(quantizers) == len(learned) == 9  # one factor for each of 8 matrices and the table
    assert all(p.ndim == 2 for p in matrices["params"])
    assert all(p.ndim == 1 for p in vectors["params"])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, *[0.0] * 10]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    set_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups[:2]] == [5e-4, 5e-4]
    for group in quantizers:
        assert group["lr"] == pytest.approx(5e-3 * float(group["params"][0].detach().abs().mean()))
    assert rate_of_weights(optimizer) == 5e-4


@pytest.mark.parametrize("method", ["module-scaling", "lsq", "pact"])
@pytest.mark.parametrize("bits", [2, 8])
def test_a_step_moves_all_learned_numbers_by_the_same_part_of_themselves(method, bits):
    layer = torch.nn.Linear(16, 8)
    layer.weight.data.mul_(0.05)
    model = torch.nn.Sequential(layer)
    make_trainable(model, [LayerPlan("0", "linear", grid_for(bits), per_row=False, method=method)])
    # Clips of 2.5 are beyond every weight, and would get no gradient.
    model[0].quantizer.start_at(model[0].weight.detach().abs().mean().reshape(1), model[0].weight.detach())
    optimizer = make_optimizer(model, TrainingSettings(steps=1, quantizer_learning_rate=0.02))
    before = [parameter.detach().clone() for parameter in quantizer_parameters(model)]
    model(torch.randn(4, 16)).square().sum().backward()
    set_rate(optimizer, 1.0)
    optimizer.step()
    for old, new in zip(before, quantizer_parameters(model), strict=True):
        assert float((new.detach() / old - 1).abs()) == pytest.approx(0.02, rel=1e-2)


def test_joined_examples_keep_their_labels():
    sets = [ExampleSet([np.arange(n)] * 2, 0, labels=np.array([n, n + 1])) for n in (3, 5)]
    both = joined(*sets)
    assert [len(ids) for ids in both.inputs] == [3, 3, 5, 5]
    assert both.labels.tolist() == [3, 4, 5, 6]


def test_digests_tell_data_apart():
    plain = ExampleSet([np.array([1, 2], np.int32)], 0, labels=np.array([1]))
    others = [
        ExampleSet([np.array([1, 3], np.int32)], 0, labels=np.array([1])),
        ExampleSet([np.array([1], np.int32), np.array([2], np.int32)], 0, labels=np.array([1])),
        ExampleSet([np.array([1, 2], np.int32)], 0, labels=np.array([0])),
    ]
    assert len({plain.digest(), *(other.digest() for other in others)}) == 4


def test_tensors_and_plain_values_come_back(tmp_path):
    shared = torch.randn(3, 4)
    entries = {"a": shared, "b": shared, "c": shared[:, 1], "d": torch.tensor([True]), "e": torch.zeros(0)}
    entries["f"] = {"x": 1}
    save_tensors(tmp_path / "t.safetensors", entries)
    loaded = load_tensors(tmp_path / "t.safetensors")
    assert loaded.keys() == entries.keys()
    assert all(torch.equal(loaded[name], entries[name]) for name in "abcde")
    assert loaded["f"] == {"x": 1}
    save_tensors(tmp_path / "one.safetensors", {"a": shared})
    assert (tmp_path / "t.safetensors").stat().st_size < 2 * (tmp_path / "one.safetensors").stat().st_size + 200


@pytest.mark.parametrize("damage", ["cut", "empty", "metadata"])
def test_damaged_tensor_files(tmp_path, damage):
    from safetensors.torch import save_file

    file = tmp_path / "t.safetensors"
    save_tensors(file, {"a": torch.randn(9)})
    if damage == "metadata":
        save_file({"a": torch.randn(9)}, file)
    else:
        file.write_bytes(file.read_bytes()[:40] if damage == "cut" else b"")
    with pytest.raises(FormatError, match="is damaged"):
        load_tensors(file)


def test_float_weights_are_not_taken_for_the_other_way_round(decoder, plans, tmp_path):
    model = decoder()
    save_tensors(tmp_path / "float.safetensors", model.state_dict())
    make_trainable(model, plans(model))
    with pytest.raises(UsageError, match="load float weights before layers are made trainable"):
        load_weights(model, tmp_path / "float.safetensors", quantizers=False)


def test_latent_weights_go_from_one_method_to_another(decoder, plans, tmp_path):
    first, second = decoder(seed=1), decoder(seed=2)
    make_trainable(first, plans(first, method="module-scaling"))
    make_trainable(second, plans(second, method="twn"))
    save_tensors(tmp_path / "w.safetensors", first.state_dict())
    load_weights(second, tmp_path / "w.safetensors", quantizers=False)
    assert torch.equal(first.transformer.h[0].attn.c_attn.weight, second.transformer.h[0].attn.c_attn.weight)
    with pytest.raises(UsageError, match=r"quantizer\..* should be missing"):
        load_weights(second, tmp_path / "w.safetensors", quantizers=True)


def test_layers_may_be_float_on_one_side_alone(classifier, plans, tmp_path):
    first, second = classifier(seed=1), classifier(seed=2)
    low_bit = [
        dataclasses.replace(plan, grid=None, method=None, keep_float_reason="test") if "pooler" in plan.name else plan
        for plan in plans(first)
    ]
    make_trainable(first, low_bit)
    make_trainable(second, plans(second))
    expected = first.bert.embeddings.word_embeddings.weight.detach().clone()
    save_tensors(tmp_path / "w.safetensors", first.state_dict())
    with pytest.raises(UsageError, match=r"layer 'bert\.pooler\.dense' is quantized either in"):
        load_weights(second, tmp_path / "w.safetensors", quantizers=False)
    third = classifier(seed=3)
    load_weights(third, tmp_path / "w.safetensors", quantizers=False)
    assert torch.equal(third.bert.embeddings.word_embeddings.weight, expected)
    with pytest.raises(UsageError, match="should be missing"):
        load_weights(third, tmp_path / "w.safetensors", quantizers=True)


def test_dropout_is_off_inside_the_block(make_bart):
    import transformers

    model = transformers.BartForConditionalGeneration.from_pretrained(make_bart(dropout=0.3)).train()
    ids = torch.randint(4, 200, (2, 6))
    outputs = []
    with without_dropout(model):
        outputs += [model(input_ids=ids, decoder_input_ids=ids).logits for _ in range(2)]
    outputs.append(model(input_ids=ids, decoder_input_ids=ids).logits)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_dropout_modules_get_their_rate_back():
    layer = nn.Sequential(nn.Dropout(0.25))

    def fail():
        with without_dropout(layer):
            assert layer[0].p == 0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert layer[0].p == 0.25


def test_the_log_is_strict_json(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", step=0)
    log.write(LogLine(1, "train", evaluation={"perplexity": float("inf")}))
    assert json.loads((tmp_path / "log.jsonl").read_text())["evaluation"] == {"perplexity": None}


def test_gelu_is_fused_within_the_block_alone(make_gpt2: Callable[..., Path]) -> None:
    model = transformers.GPT2LMHeadModel.from_pretrained(make_gpt2(activation_function="gelu_new"))
    ids = torch.arange(12)[None]
    own = model.transformer.h[1].mlp.act
    before = model(ids).logits
    with fused_gelu(model, None):
        assert isinstance(model.transformer.h[1].mlp.act, torch.nn.GELU)
        within = model(ids).logits
    assert model.transformer.h[1].mlp.act is own
    torch.testing.assert_close(within, before, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(ids).logits, before, atol=0, rtol=0)
