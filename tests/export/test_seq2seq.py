"""Exported encoder-decoders: three graphs over one data file."""

import collections
import itertools
import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgeq.checkpoint import load_checkpoint
from edgeq.export.exporter import export_onnx
from edgeq.formats.tensor_header import read_tensor_header
from edgeq.models.inference import TorchPart

GRAPHS = ["encoder_model", "decoder_model", "decoder_with_past_model"]
START = 2


@pytest.fixture(scope="module", params=["ptq-w2e2a8", pytest.param(None, marks=pytest.mark.slow)])
def folders(request, make_bart, exported):
    """A checkpoint, float or compressed, and its export."""
    folder = exported(make_bart, request.param, encoder_layers=1, forced_bos_token_id=0)
    return folder / "checkpoint", folder / "onnx"


@pytest.fixture(scope="module")
def parts(folders):
    checkpoint = load_checkpoint(folders[0])
    return {part.name: TorchPart(part) for part in checkpoint.adapter.export_parts(checkpoint.model)}


def load(folder, name):
    return onnx.load(folder / f"{name}.onnx", load_external_data=False)


def right_padded():
    ids = np.random.default_rng(0).integers(5, 250, (3, 9))
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    mask[2, 1:] = 0
    return ids, mask


def forced(run, ids, mask, target, pieces):
    """Logits along a given target, read in pieces."""
    hidden = run("encoder_model", {"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
    cache, logits, start = {}, [], 0
    for length in pieces:
        feed = {"encoder_attention_mask": mask, "input_ids": target[:, start : start + length]}
        if cache:
            outputs = run("decoder_with_past_model", {**feed, **cache})
        else:
            outputs = run("decoder_model", {**feed, "encoder_hidden_states": hidden})
        logits.append(outputs.pop("logits"))
        cache |= {name.replace("present", "past_key_values"): value for name, value in outputs.items()}
        start += length
    return hidden, np.concatenate(logits, axis=1)


def test_the_interfaces_are_those_of_optimum(folders):
    def described(name):
        model = load(folders[1], name)
        return [
            {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
            for values in (model.graph.input, model.graph.output)
        ]

    source, new = "encoder_sequence_length", "decoder_sequence_length"
    past = f"past_{new}"

    def caches(prefix, own, sides=("decoder", "encoder")):
        lengths = {"decoder": own, "encoder": source}
        return {
            f"{prefix}.{layer}.{side}.{part}": ["batch_size", 3, lengths[side], 12]
            for layer in range(2)
            for side in sides
            for part in ("key", "value")
        }

    read = {"encoder_attention_mask": ["batch_size", source], "input_ids": ["batch_size", new]}
    logits = {"logits": ["batch_size", new, 283]}
    states = ["batch_size", source, 36]
    assert described("encoder_model") == [
        {"input_ids": ["batch_size", source], "attention_mask": ["batch_size", source]},
        {"last_hidden_state": states},
    ]
    assert described("decoder_model") == [
        {**read, "encoder_hidden_states": states},
        {**logits, **caches("present", new)},
    ]
    assert described("decoder_with_past_model") == [
        {**read, **caches("past_key_values", past)},
        {**logits, **caches("present", f"{past} + {new}", ["decoder"])},
    ]


def test_every_weight_is_stored_once(folders):
    places = collections.defaultdict(set)
    for name in GRAPHS:
        for tensor in load(folders[1], name).graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                entry = {item.key: item.value for item in tensor.external_data}
                assert entry["location"] == "model.onnx.data"
                places[tensor.name].add((int(entry["offset"]), int(entry["length"])))
    assert all(len(found) == 1 for found in places.values())
    ends = sorted(next(iter(found)) for found in places.values())
    assert all(offset % 64 == 0 for offset, _ in ends)
    assert all(math.ceil((a + size) / 64) * 64 == b for (a, size), (b, _) in itertools.pairwise(ends))
    assert sum(ends[-1]) == (folders[1] / "model.onnx.data").stat().st_size
    held = [entry.bytes for entry in read_tensor_header(folders[0] / "model.safetensors").values()]
    assert sum(ends[-1]) <= sum(math.ceil(size / 64) * 64 for size in held)


def test_runtimes_agree_with_torch(folders, parts):
    checkpoint, exported = folders
    ids, mask = right_padded()
    target = np.random.default_rng(1).integers(5, 250, (3, 7))
    target[:, 0] = START
    want_hidden, want = forced(lambda name, feed: parts[name](**feed), ids, mask, target, [1, 1, 5])
    for runtime in (onnxruntime.InferenceSession, ReferenceEvaluator):
        runtimes = {name: runtime(str(exported / f"{name}.onnx")) for name in GRAPHS}
        names = {name: [v.name for v in load(exported, name).graph.output] for name in GRAPHS}

        def run(name, feed, runtimes=runtimes, names=names):
            feed = {key: np.ascontiguousarray(array) for key, array in feed.items()}  # as old releases of onnx need
            return dict(zip(names[name], runtimes[name].run(None, feed), strict=True))

        hidden, got = forced(run, ids, mask, target, [1, 1, 5])
        # An activation at an edge of the int8 grid may fall to either side.
        limit = 1e-3 if load_checkpoint(checkpoint).manifest is None else 0.05
        for found, expected in ((hidden[mask == 1], want_hidden[mask == 1]), (got, want)):
            assert np.isfinite(found).all()
            assert np.sqrt(np.mean((found - expected) ** 2)) < limit * np.sqrt(np.mean(expected**2))


@pytest.mark.optimum
def test_optimum_generates_what_torch_generates(folders, parts):
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    model = ORTModelForSeq2SeqLM.from_pretrained(folders[1])
    ids, mask = right_padded()
    result = model.generate(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        decoder_start_token_id=START,
        max_new_tokens=8,
        num_beams=1,
        do_sample=False,
        eos_token_id=None,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    target = result.sequences.numpy()
    assert target.shape == (3, 9)
    _, steps = forced(lambda name, feed: parts[name](**feed), ids, mask, target[:, :-1], [1] * 8)
    best = np.sort(steps, axis=-1)
    clear = best[..., -1] - best[..., -2] > 0.02 * steps.std()
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(steps.argmax(axis=-1)[clear], target[:, 1:][clear])
    got = torch.stack(result.logits, dim=1).numpy()
    assert np.sqrt(np.mean((got - steps) ** 2)) < 0.05 * steps.std()


@pytest.mark.optimum
def test_optimum_searches_beams(folders):
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    model = ORTModelForSeq2SeqLM.from_pretrained(folders[1])
    ids, mask = (torch.from_numpy(array) for array in right_padded())
    options = {"decoder_start_token_id": START, "max_new_tokens": 6, "num_beams": 3, "eos_token_id": None}
    together = model.generate(input_ids=ids, attention_mask=mask, **options)
    assert together.shape == (3, 7)
    alone = model.generate(input_ids=ids[2:, :1], attention_mask=mask[2:, :1], **options)
    np.testing.assert_array_equal(together[2:], alone)


def test_int8_caches_of_both_sides_agree_with_torch(make_bart, exported, tmp_path):
    checkpoint = exported(make_bart, "ptq-w4", encoder_layers=1, decoder_layers=1) / "checkpoint"
    folder = export_onnx(checkpoint, tmp_path / "onnx", cache="int8").parent
    loaded = load_checkpoint(checkpoint)
    torch_parts = {
        part.name: TorchPart(part) for part in loaded.adapter.export_parts(loaded.model, cache_dtype=torch.int8)
    }
    sessions = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in GRAPHS}
    outputs = {name: [value.name for value in session.get_outputs()] for name, session in sessions.items()}
    assert len([name for name in outputs["decoder_model"] if name.endswith("_scale")]) == 4  # keys, values, two sides

    def in_onnx(name, feed):
        return dict(zip(outputs[name], sessions[name].run(None, feed), strict=True))

    ids, mask = right_padded()
    target = np.random.default_rng(1).integers(5, 250, (3, 7))
    for pieces in ([7], [1, 1, 3, 2]):
        _, got = forced(in_onnx, ids, mask, target, pieces)
        _, want = forced(lambda name, feed: torch_parts[name](**feed), ids, mask, target, pieces)
        # A number at an edge of the grid may fall to either side: a step of one column of one head.
        assert np.sqrt(np.mean((got - want) ** 2)) < 5e-3 * np.sqrt(np.mean(want**2))
