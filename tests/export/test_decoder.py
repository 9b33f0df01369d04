"""Exported decoders: one graph with its cache as inputs and outputs."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgeq.backends.onnx_files import cache_type
from edgeq.checkpoint import load_checkpoint
from edgeq.errors import UsageError
from edgeq.export.exporter import export_onnx
from edgeq.export.trace import onnx_models
from edgeq.models import TorchDecoder, positions

LAYERS = 2


SLOW = [pytest.param(recipe, marks=pytest.mark.slow) for recipe in (None, "ptq-w2e2a8")]


@pytest.fixture(scope="module", params=["ptq-w4", *SLOW])
def folders(request, make_gpt2, exported):
    """A checkpoint, float or compressed, and its export."""
    folder = exported(make_gpt2, request.param)
    return folder / "checkpoint", folder / "onnx"


@pytest.fixture(scope="module")
def compressed(make_gpt2, exported):
    return exported(make_gpt2, "ptq-w2e2a8") / "checkpoint"


def torch_decoder(checkpoint, **options):
    loaded = load_checkpoint(checkpoint)
    return TorchDecoder(loaded.model, loaded.adapter, **options)


def left_padded():
    ids = np.random.default_rng(0).integers(5, 250, (3, 9))
    mask = np.ones_like(ids)
    mask[1, :3] = 0
    mask[2, :8] = 0
    return ids, mask


def empty_cache(session):
    dtypes = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int8)": np.int8}
    return {
        value.name: np.zeros((3, value.shape[1], 0, value.shape[3]), dtypes[value.type])
        for value in session.get_inputs()
        if value.name.startswith("past_key_values.")
    }


def along(run, ids, mask, pieces, cache):
    """Logits of all tokens, read in pieces."""
    logits, start = [], 0
    for length in pieces:
        stop = start + length
        places = positions(mask[:, :stop], queries=length)
        pieces_of = {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], "position_ids": places}
        feed = {name: np.ascontiguousarray(array) for name, array in pieces_of.items()}  # as old releases of onnx need
        outputs = run({**feed, **cache})
        logits.append(outputs["logits"])
        cache = {name.replace("present", "past_key_values"): a for name, a in outputs.items() if name != "logits"}
        start = stop
    return np.concatenate(logits, axis=1)


def named(runtime):
    """A session or reference evaluator as a function from names to names."""
    evaluator = isinstance(runtime, ReferenceEvaluator)
    names = runtime.output_names if evaluator else [value.name for value in runtime.get_outputs()]
    return lambda feed: dict(zip(names, runtime.run(None, feed), strict=True))


def test_the_interface_is_that_of_optimum(folders):
    model = onnx.load(folders[1] / "model.onnx", load_external_data=False)
    past, new = "past_sequence_length", "sequence_length"
    described = {
        value.name: (
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    caches = [(layer, part) for layer in range(LAYERS) for part in ("key", "value")]
    assert described == {
        "input_ids": ("int64", ["batch_size", new]),
        "attention_mask": ("int64", ["batch_size", f"{past} + {new}"]),
        "position_ids": ("int64", ["batch_size", new]),
        **{f"past_key_values.{i}.{part}": ("float16", ["batch_size", 3, past, 12]) for i, part in caches},
        "logits": ("float32", ["batch_size", new, 283]),
        **{f"present.{i}.{part}": ("float16", ["batch_size", 3, f"{past} + {new}", 12]) for i, part in caches},
    }
    inputs = [value.name for value in model.graph.input]
    assert inputs[:5] == [*list(described)[:3], "past_key_values.0.key", "past_key_values.0.value"]


def test_one_attention_a_layer_reads_what_the_cache_holds(folders):
    model = onnx.load(folders[1] / "model.onnx", load_external_data=False)
    producers = {name: node for node in model.graph.node for name in node.output}
    attentions = [node for node in model.graph.node if node.op_type == "Attention"]
    assert len(attentions) == LAYERS
    for layer, node in enumerate(attentions):
        widened = [producers[name] for name in node.input[1:3]]
        assert [cast.op_type for cast in widened] == ["Cast", "Cast"]
        assert [cast.input[0] for cast in widened] == [f"present.{layer}.key", f"present.{layer}.value"]
        for part in ("key", "value"):
            concat = producers[f"present.{layer}.{part}"]
            assert concat.op_type == "Concat"
            assert concat.input[0] == f"past_key_values.{layer}.{part}"
            assert producers[concat.input[1]].op_type == "Cast"
    count = collections.Counter(node.op_type for node in model.graph.node)
    assert count["Split"] == count["Gelu"] == LAYERS
    assert count["LayerNormalization"] == 2 * LAYERS + 1
    assert count["Where"] == 1  # the mask, once for all layers
    assert not count.keys() & {"Identity", "Constant", "Gemm", "Expand"}


def test_table_and_head_are_one_initializer(folders):
    graph = onnx.load(folders[1] / "model.onnx", load_external_data=False).graph
    # Nothing but the table has rows for all tokens of the vocabulary.
    tables = [tensor for tensor in graph.initializer if np.prod(tensor.dims) >= 283 * 36 // 4]
    [table] = [tensor for tensor in tables if 283 in tensor.dims or tensor.name == "transformer.wte.weight_packed"]
    readers = [node.op_type for node in graph.node if table.name in node.input]
    assert readers in (["Gather", "Transpose"], ["LowBitEmbedding", "LowBitLinear"])


@pytest.mark.parametrize("pieces", [[9], [1, 1, 5, 2]])
def test_runtimes_agree_with_torch(folders, pieces):
    checkpoint, exported = folders
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    decoder = torch_decoder(checkpoint)
    ids, mask = left_padded()
    want = along(lambda feed: decoder(**feed), ids, mask, pieces, empty_cache(session))
    for runtime in (session, ReferenceEvaluator(str(exported / "model.onnx"))):
        got = along(named(runtime), ids, mask, pieces, empty_cache(session))
        assert np.isfinite(got).all()
        error = (got - want)[mask == 1]
        # A key at an edge of float16 may fall to either side; so may an activation of the int8 grid.
        manifest = load_checkpoint(checkpoint).manifest
        limit = 0.05 if manifest is not None and "a8" in manifest.recipe else 1e-3
        assert np.sqrt(np.mean(error**2)) < limit * np.sqrt(np.mean(want**2))


@pytest.mark.optimum
@pytest.mark.parametrize("io_binding", [False, True])
def test_optimum_generates_what_torch_generates(folders, io_binding):
    from optimum.onnxruntime import ORTModelForCausalLM

    checkpoint, exported = folders
    model = ORTModelForCausalLM.from_pretrained(exported, use_io_binding=io_binding)
    ids, mask = left_padded()
    texts = model.generate(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
    )
    generated = texts[:, ids.shape[1] :].numpy()
    assert generated.shape == (3, 12)
    # The reference reads what was generated; it must have chosen the same wherever the choice was clear.
    whole, ones = texts.numpy(), np.ones_like(generated)
    whole_mask = np.concatenate([mask, ones], axis=1)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    decoder = torch_decoder(checkpoint)
    logits = along(lambda feed: decoder(**feed), whole, whole_mask, [whole.shape[1]], empty_cache(session))
    steps = logits[:, ids.shape[1] - 1 : -1]
    best = np.sort(steps, axis=-1)
    clear = best[..., -1] - best[..., -2] > 0.02 * steps.std()
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(steps.argmax(axis=-1)[clear], generated[clear])
    assert len({tuple(row) for row in generated}) == 3  # a model that always says the same would prove little


@pytest.mark.parametrize("opset", [18, 22])
def test_older_opsets_run_alike(make_gpt2, opset):
    checkpoint = load_checkpoint(make_gpt2(n_layer=1))
    [(name, model)] = onnx_models(checkpoint.model, checkpoint.adapter, opset=opset, cache_dtype=torch.float32)
    assert name == "model"
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    decoder = TorchDecoder(checkpoint.model, checkpoint.adapter, cache_dtype=torch.float32)
    ids, mask = left_padded()
    got = along(named(session), ids, mask, [8, 1], empty_cache(session))
    want = along(lambda feed: decoder(**feed), ids, mask, [8, 1], empty_cache(session))
    np.testing.assert_allclose(got[mask == 1], want[mask == 1], atol=1e-4)


def test_a_float32_cache_by_option(compressed, tmp_path):
    first = export_onnx(compressed, tmp_path / "first", cache="float32")
    again = export_onnx(compressed, tmp_path / "again", cache="float32")
    for path in first.parent.iterdir():
        assert path.read_bytes() == (again.parent / path.name).read_bytes(), path.name
    model = onnx.load(first)
    types = {value.type.tensor_type.elem_type for value in model.graph.input if "past" in value.name}
    assert types == {onnx.TensorProto.FLOAT}
    assert "Cast" not in {n.op_type for n in model.graph.node if n.output[0].startswith("present")}


@pytest.mark.optimum
def test_optimum_generates_with_a_float32_cache(compressed, tmp_path):
    from optimum.onnxruntime import ORTModelForCausalLM

    exported = export_onnx(compressed, tmp_path / "onnx", cache="float32").parent
    optimum = ORTModelForCausalLM.from_pretrained(exported)
    assert optimum.generate(torch.tensor([[5, 6]]), max_new_tokens=4, eos_token_id=None).shape == (1, 6)


@pytest.fixture(scope="module")
def int8_export(make_gpt2, exported, tmp_path_factory):
    """A model of float activations, whose only int8 numbers are those of the cache."""
    checkpoint = exported(make_gpt2, "ptq-w4") / "checkpoint"
    return checkpoint, export_onnx(checkpoint, tmp_path_factory.mktemp("int8") / "onnx", cache="int8").parent


def test_an_int8_cache_has_scales_beside_its_codes(int8_export):
    model = onnx.load(int8_export[1] / "model.onnx", load_external_data=False)
    assert cache_type(model) == torch.int8
    described = {
        value.name: (value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim[3].dim_value)
        for value in (*model.graph.input, *model.graph.output)
        if value.name.startswith(("past", "present"))
    }
    kinds = {"key": (onnx.TensorProto.INT8, 12), "key_scale": (onnx.TensorProto.FLOAT, 1)}
    kinds |= {f"value{name[3:]}": kind for name, kind in kinds.items()}
    assert described == {
        f"{place}.{layer}.{name}": kind
        for place in ("past_key_values", "present")
        for layer in range(LAYERS)
        for name, kind in kinds.items()
    }
    assert {node.domain for node in model.graph.node} <= {"", "ai.edgeq"}


@pytest.mark.parametrize("pieces", [[9], [1, 1, 5, 2]])
def test_runtimes_with_an_int8_cache_agree_with_torch(int8_export, pieces):
    checkpoint, exported = int8_export
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    decoder = torch_decoder(checkpoint, cache_dtype=torch.int8)
    ids, mask = left_padded()
    want = along(lambda feed: decoder(**feed), ids, mask, pieces, empty_cache(session))
    for runtime in (session, ReferenceEvaluator(str(exported / "model.onnx"))):
        got = along(named(runtime), ids, mask, pieces, empty_cache(session))
        # A number at an edge of the grid may fall to either side: a step of one column of one head.
        assert np.sqrt(np.mean((got - want)[mask == 1] ** 2)) < 5e-3 * np.sqrt(np.mean(want**2))


def test_the_stock_flavour_has_an_int8_cache_as_well(int8_export, tmp_path):
    stock = export_onnx(int8_export[0], tmp_path / "stock", cache="int8", flavour="stock")
    session = onnxruntime.InferenceSession(stock)
    ids, mask = left_padded()
    assert np.isfinite(along(named(session), ids, mask, [8, 1], empty_cache(session))).all()


def test_an_unknown_cache_type_is_refused(compressed, tmp_path):
    with pytest.raises(UsageError, match="the cache must be float16, float32 or int8, found 'int4'"):
        export_onnx(compressed, tmp_path / "out", cache="int4")


def test_a_model_without_a_cache_takes_no_type_of_one(make_bert, tmp_path):
    with pytest.raises(UsageError, match="--cache is for models that generate text, and BertModel does not; leave it"):
        export_onnx(make_bert(), tmp_path / "out", cache="int8")
    assert not (tmp_path / "out").exists()
