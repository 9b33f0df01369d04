"""Int8Attention in the operator library: the bits of bundles, and what it refuses."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeq.backends.compiled import compiled_once
from edgeq.export.ops import attach_bodies
from edgeq.formats.low_bit import OP_DOMAIN
from edgeq.parity.reference import RecordedAttention
from edgeq.parity.rules.isolated_attention import allowed_attention
from edgeq.targets.builtin.target import load_target

HEADS, HEAD_SIZE = 3, 20
WIDTH = HEADS * HEAD_SIZE
NAMES = ["q", "k", "v", "mask"]


def make_model(*, sizes=("batch", "queries", "keys"), **attributes):
    """A model of one node; sizes that are not given a number may vary."""
    batch, queries, keys = sizes
    shapes = [[batch, queries, WIDTH], *[[batch, keys, WIDTH]] * 2, [batch, 1, 1, keys]]
    values = {"num_heads": HEADS, "scale": HEAD_SIZE**-0.5} | attributes
    kept = {name: value for name, value in values.items() if value is not None}
    node = helper.make_node("Int8Attention", NAMES, ["y"], name="self", domain=OP_DOMAIN, **kept)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(NAMES, shapes, strict=True)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(OP_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def make_inputs(*, batch=2, queries=9, keys=21):
    chance = np.random.default_rng(keys)
    q = chance.standard_normal((batch, queries, WIDTH)).astype(np.float32)
    k, v = chance.standard_normal((2, batch, keys, WIDTH)).astype(np.float32)
    mask = np.where(chance.random((batch, 1, 1, keys)) < 0.3, np.float32(-1e38), np.float32(0))
    return dict(zip(NAMES, (q, k, v, mask), strict=True))


def test_it_gives_the_bits_of_bundles_and_what_the_body_means(small_library, open_session):
    model, inputs = make_model(), make_inputs()
    one, two = (open_session(model, small_library, threads=threads) for threads in (1, 2))
    [found] = one.run(None, inputs)
    assert np.array_equal(two.run(None, inputs)[0], found)
    shaped = make_model()
    shaped.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "queries", WIDTH]))
    assert np.array_equal(compiled_once(shaped, inputs, target=load_target("host"))["y"], found)
    limit = allowed_attention(RecordedAttention("self", HEADS, tuple(inputs.values()), found))
    assert np.all(np.abs(found - limit.exact) <= limit.bound)
    assert one.get_outputs()[0].shape == ["batch", "queries", WIDTH]
    attach_bodies(model)
    [of_body] = open_session(model, None).run(None, inputs)
    assert np.all(np.abs(of_body - limit.exact) <= limit.bound)


def test_inputs_and_outputs_need_no_alignment(small_library, open_session):
    session, inputs = open_session(make_model(), small_library), make_inputs()
    [wanted] = session.run(None, inputs)
    binding, kept = session.io_binding(), []
    for name, array in inputs.items():
        room = np.zeros(array.size + 64, np.float32)[1:]
        moved = room[: array.size].reshape(array.shape)
        moved[:] = array
        kept.append(room)
        binding.bind_input(name, "cpu", 0, np.float32, moved.shape, moved.ctypes.data)
    y = np.zeros(wanted.size + 64, np.float32)[7:]
    binding.bind_output("y", "cpu", 0, np.float32, wanted.shape, y.ctypes.data)
    session.run_with_iobinding(binding)
    assert np.array_equal(y[: wanted.size].reshape(wanted.shape), wanted)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"num_heads": None}, "attribute num_heads .* is missing"),
        ({"scale": None}, "or scale .* is missing"),
        ({"num_heads": 0}, "num_heads must be 1 or more, found 0"),
    ],
)
def test_a_wrong_node_is_refused_when_the_session_opens(attributes, sentence, small_library, open_session):
    with pytest.raises(Exception, match=f"Int8Attention self: .*{sentence}"):
        open_session(make_model(**attributes), small_library)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda given: given.update(q=given["q"][..., :59]), "Q must be .* 3 heads of 1 to 1040 columns"),
        (lambda given: given.update(k=given["k"][:1]), "K and V must be"),
        (lambda given: given.update(v=given["v"][:, :20]), "K and V must be"),
        (lambda given: given.update(k=given["k"][:, :0], v=given["v"][:, :0]), "K and V must be .* one key or more"),
        (lambda given: given.update(mask=given["mask"][..., :20]), "mask must be"),
        (lambda given: given.update(mask=np.repeat(given["mask"], 9, axis=2)), "mask must be"),
    ],
)
def test_wrong_inputs_are_refused(change, sentence, small_library, open_session):
    model = make_model()
    for value in model.graph.input:  # ONNX Runtime itself checks what the model says of them
        value.type.tensor_type.ClearField("shape")
    session, given = open_session(model, small_library), make_inputs()
    change(given)
    with pytest.raises(Exception, match=f"Int8Attention self: {sentence}"):
        session.run(None, {name: np.ascontiguousarray(array) for name, array in given.items()})


def test_an_empty_batch_has_an_empty_result(small_library, open_session):
    [found] = open_session(make_model(), small_library).run(None, make_inputs(batch=0))
    assert found.shape == (0, 9, WIDTH)


def test_shapes_are_inferred():
    shape = onnx.shape_inference.infer_shapes(make_model()).graph.output[0].type.tensor_type.shape
    assert [size.dim_param or size.dim_value for size in shape.dim] == ["batch", "queries", WIDTH]
