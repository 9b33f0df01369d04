"""Decoders: the concatenation of past and present keys and values becomes a cache that is updated in place.

The exported graph is a function of everything that happened before (``past_key_values.*`` in, ``present.*`` out,
a mask, positions). A device wants one cache that stays where it is. This pass turns each layer's attention, with the
nodes that split, transpose, round and concatenate around it, into one ``CachedAttention`` node, and replaces the
inputs: ``past_lengths`` and ``new_lengths`` say how many tokens of each sequence are in the cache and how many come,
from which mask and positions follow; only the logits of each sequence's last token are computed.
"""

from __future__ import annotations

import dataclasses

import onnx
from onnx import TensorProto, helper

from edgeq.errors import UnsupportedError
from edgeq.targets.graph import GraphView, attributes

CACHED_ATTENTION = "CachedAttention"
TOKEN_POSITIONS = "TokenPositions"
LAST_TOKEN = "LastToken"
PAST_LENGTHS, NEW_LENGTHS = "past_lengths", "new_lengths"
KEY_CACHE, VALUE_CACHE = "key_cache", "value_cache"
LANES = 16
"""Neighbouring keys of one stored vector."""

_PAST = "past_key_values."


@dataclasses.dataclass(frozen=True)
class _Layer:
    """What surrounds the attention of one layer."""

    qkv: str
    past_key: onnx.ValueInfoProto
    attention: onnx.NodeProto
    output: onnx.NodeProto


def use_cache_in_place(view: GraphView) -> None:
    """Rewrites a decoder with ``past_key_values`` inputs; other graphs are left alone.

    Raises:
        UnsupportedError: If the attention of a layer has another form than the exporter gives it.
    """
    past = {value.name: value for value in view.graph.input if value.name.startswith(_PAST)}
    if not past:
        return
    layers = [_match(view, node, past) for node in view.graph.node if node.op_type == "Attention"]
    for index, layer in enumerate(layers):
        _replace_attention(view, layer, index)
    _replace_positions(view)
    _replace_logits(view)
    _replace_interface(view, [layer.past_key for layer in layers])
    view.remove_unused()


def _match(view: GraphView, attention: onnx.NodeProto, past: dict[str, onnx.ValueInfoProto]) -> _Layer:
    """Follows queries, keys and values back to the one product that they are parts of."""
    sources = [_split_part(view, _behind(view, attention.input[0], "Transpose", "Reshape"))]
    past_names = []
    for name in attention.input[1:3]:
        concat = view.producer(_behind(view, name, "Cast"))
        if concat is None or concat.op_type != "Concat" or concat.input[0] not in past:
            raise _unknown(attention, f"its input {name!r} is no concatenation with the past")
        past_names.append(concat.input[0])
        sources.append(_split_part(view, _behind(view, concat.input[1], "Cast", "Transpose", "Reshape")))
    parts = [(producer.input[0] if producer is not None else "", part) for producer, part in sources]
    if len({source for source, _ in parts}) != 1 or [part for _, part in parts] != [0, 1, 2]:
        raise _unknown(attention, "queries, keys and values are not three parts of one product")
    transpose = view.only_consumer(attention.output[0])
    reshape = view.only_consumer(transpose.output[0]) if transpose is not None else None
    if reshape is None or transpose is None or (transpose.op_type, reshape.op_type) != ("Transpose", "Reshape"):
        raise _unknown(attention, "its heads are not joined by a transposition and a reshape")
    return _Layer(parts[0][0], past[past_names[0]], attention, reshape)


def _behind(view: GraphView, name: str, *kinds: str) -> str:
    """Walks back over nodes of the given kinds, each of which may be missing."""
    for kind in kinds:
        node = view.producer(name)
        if node is not None and node.op_type == kind:
            name = node.input[0]
    return name


def _split_part(view: GraphView, name: str) -> tuple[onnx.NodeProto | None, int]:
    node = view.producer(name)
    if node is None or node.op_type != "Split":
        return None, -1
    return node, list(node.output).index(name)


def _unknown(attention: onnx.NodeProto, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"attention {attention.name or attention.output[0]!r} cannot use a cache in place: {reason}; "
        "export the model with edgeq export"
    )


def _replace_attention(view: GraphView, layer: _Layer, index: int) -> None:
    heads, _, head_size = (d.dim_value for d in layer.past_key.type.tensor_type.shape.dim[1:4])
    fused = helper.make_node(
        CACHED_ATTENTION,
        [layer.qkv, PAST_LENGTHS, NEW_LENGTHS, f"{KEY_CACHE}.{index}", f"{VALUE_CACHE}.{index}"],
        list(layer.output.output),
        name=layer.attention.name or layer.attention.output[0],
        heads=heads,
        head_size=head_size,
        scale=float(attributes(layer.attention).get("scale", head_size**-0.5)),  # type: ignore[arg-type]
    )
    view.replace([layer.output], fused)


def _replace_positions(view: GraphView) -> None:
    """Positions follow from the lengths."""
    view.graph.node.insert(
        0, helper.make_node(TOKEN_POSITIONS, ["input_ids", PAST_LENGTHS], ["position_ids"], name="positions")
    )


def _replace_logits(view: GraphView) -> None:
    """The head reads the last token of each sequence only."""
    head = next(node for node in view.graph.node if node.output[0] == view.graph.output[0].name)
    last = helper.make_node(LAST_TOKEN, [head.input[0], NEW_LENGTHS], ["last_state"], name="last_token")
    replaced = onnx.NodeProto()
    replaced.CopyFrom(head)
    replaced.input[0] = "last_state"
    view.replace([head], replaced)
    position = list(view.graph.node).index(replaced)
    view.graph.node.insert(position, last)


def _replace_interface(view: GraphView, past_keys: list[onnx.ValueInfoProto]) -> None:
    ids = next(value for value in view.graph.input if value.name == "input_ids")
    batch = ids.type.tensor_type.shape.dim[0].dim_param
    inputs = [ids, *(helper.make_tensor_value_info(n, TensorProto.INT64, [batch]) for n in (PAST_LENGTHS, NEW_LENGTHS))]
    for index, key in enumerate(past_keys):
        dtype = key.type.tensor_type.elem_type
        heads, _, size = (d.dim_value for d in key.type.tensor_type.shape.dim[1:4])
        key_shape = [batch, heads, "context_blocks", size, LANES]
        inputs.append(helper.make_tensor_value_info(f"{KEY_CACHE}.{index}", dtype, key_shape))
        value_shape = [batch, heads, "context", size]
        inputs.append(helper.make_tensor_value_info(f"{VALUE_CACHE}.{index}", dtype, value_shape))
    logits = view.graph.output[0]
    vocabulary = logits.type.tensor_type.shape.dim[-1].dim_value
    outputs = [helper.make_tensor_value_info(logits.name, TensorProto.FLOAT, [batch, vocabulary])]
    for field, values in ((view.graph.input, inputs), (view.graph.output, outputs)):
        copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)
    view.refresh()
