"""Int8Attention: numpy, the body in two runtimes, and what is refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgeq.errors import FormatError, UnsupportedError
from edgeq.export.ops import OPERATORS, attach_bodies
from edgeq.export.stock import to_stock_operators
from edgeq.formats.low_bit import OP_DOMAIN
from edgeq.parity.reference import RecordedAttention
from edgeq.parity.rules.isolated_attention import allowed_attention

NAMES = ["q", "k", "v", "mask"]


def make_model(heads, head_size, *, opset=18, scale=None):
    width = heads * head_size
    node = helper.make_node(
        "Int8Attention", NAMES, ["y"], name="self", domain=OP_DOMAIN, num_heads=heads,
        scale=head_size**-0.5 if scale is None else scale,
    )  # fmt: skip
    shapes = [["batch", "queries", width], *[["batch", "keys", width]] * 2, ["batch", 1, 1, "keys"]]
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(NAMES, shapes, strict=True)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "queries", width])],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(OP_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def make_inputs(heads, head_size, *, batch=2, queries=5, keys=7, seed=0):
    chance = np.random.default_rng(seed)
    q = chance.standard_normal((batch, queries, heads * head_size)).astype(np.float32)
    k, v = chance.standard_normal((2, batch, keys, heads * head_size)).astype(np.float32)
    mask = np.where(chance.random((batch, 1, 1, keys)) < 0.3, np.float32(-1e38), np.float32(0))
    return dict(zip(NAMES, (q, k, v, mask), strict=True))


@settings(max_examples=15, deadline=None)
@given(
    heads=st.integers(1, 3),
    head_size=st.integers(1, 40),
    keys=st.integers(1, 20),
    opset=st.integers(18, 23),
    seed=st.integers(0, 1000),
)
def test_the_body_means_what_numpy_says(heads, head_size, keys, opset, seed):
    model = make_model(heads, head_size, opset=opset)
    assert attach_bodies(model) == ["Int8Attention"]
    onnx.checker.check_model(model, full_check=True)
    given_ = make_inputs(heads, head_size, keys=keys, seed=seed)
    attributes = {"num_heads": heads, "scale": head_size**-0.5}
    wanted = OPERATORS["Int8Attention"].reference(*given_.values(), **attributes)
    limit = allowed_attention(RecordedAttention("self", heads, tuple(given_.values()), wanted))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for found in (wanted, session.run(None, given_)[0], ReferenceEvaluator(model).run(None, given_)[0]):
        assert np.all(np.abs(found.astype(np.float64) - limit.exact) <= limit.bound)


def test_it_is_close_to_float_attention_and_keeps_small_values():
    """A token that all others look at, with values of nearly nothing, does not hide what the others say."""
    given_ = make_inputs(1, 32, keys=40)
    q, k, v, _ = given_.values()
    given_["mask"] = np.zeros((2, 1, 1, 40), np.float32)
    q *= 0.1
    k[:, 0] = 40 * q.mean(axis=1) / np.square(q.mean(axis=1)).sum(-1, keepdims=True)
    v[:, 0] *= 1e-3
    found = OPERATORS["Int8Attention"].reference(*given_.values(), num_heads=1, scale=32**-0.5)
    scores = q.astype(np.float64) @ k.swapaxes(1, 2) * 32**-0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    assert weights[..., 0].mean() > 0.5
    wanted = weights @ v
    assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)


def test_shapes_are_inferred_and_wrong_ones_refused():
    inferred = onnx.shape_inference.infer_shapes(make_model(3, 4), strict_mode=True)
    assert [d.dim_param or d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim][-1] == 12
    for heads, head_size, wrong in ((5, 4, 3), (1, 1041, 1), (2, 4, 0)):
        model = make_model(heads, head_size)
        model.graph.node[0].attribute[0].i = wrong
        with pytest.raises(onnx.shape_inference.InferenceError, match="Int8Attention of"):
            onnx.shape_inference.infer_shapes(model, strict_mode=True)
    inputs = make_inputs(5, 4).values()
    for heads in (0, 3):
        with pytest.raises(FormatError, match=f"found width 20 and {heads} heads"):
            OPERATORS["Int8Attention"].reference(*inputs, num_heads=heads, scale=1.0)


def test_the_stock_flavour_has_no_counterpart():
    with pytest.raises(UnsupportedError, match="self: ONNX Runtime has no operator that computes Int8Attention"):
        to_stock_operators(make_model(1, 8))
