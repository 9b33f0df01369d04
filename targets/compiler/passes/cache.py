"""Decoders: the concatenation of past and present keys and values becomes a cache that is updated in place.

The exported graph is a function of everything that happened before (``past_key_values.*`` in, ``present.*`` out,
masks, positions). A device wants one cache that stays where it is. This pass turns each layer's attention, with the
nodes that split, transpose, round and concatenate around it, into one node, and replaces the inputs:
``past_lengths`` and ``new_lengths`` say how many tokens of each sequence are in the cache and how many come, from
which mask and positions follow; ``source_lengths`` does so for an encoder input. Only the logits of
each sequence's last token are computed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import UnsupportedError
from edgeq.targets.compiler.cache_layout import LANES, block_bytes
from edgeq.targets.compiler.graph import GraphView, attributes
from edgeq.targets.compiler.passes.int8_states import states_behind

CACHED_ATTENTION = "CachedAttention"
SOURCE_ATTENTION = "SourceAttention"
STORE_IN_CACHE = "StoreInCache"
TOKEN_POSITIONS = "TokenPositions"
LAST_TOKEN = "LastToken"
PAST_LENGTHS, NEW_LENGTHS, SOURCE_LENGTHS = "past_lengths", "new_lengths", "source_lengths"
KEY_CACHE, VALUE_CACHE = "key_cache", "value_cache"
SOURCE_KEYS, SOURCE_VALUES = "source_keys", "source_values"
STATE = (KEY_CACHE, VALUE_CACHE, SOURCE_KEYS, SOURCE_VALUES)
"""Beginnings of the names of the tensors that stay from call to call."""

_PAST, _PRESENT = "past_key_values.", "present."
_SCALE = "_scale"
"""End of the names of inputs and outputs that hold the scales of int8 keys or values."""
_REPLACED_INPUTS = ("input_ids", "attention_mask", "encoder_attention_mask", "position_ids")


@dataclasses.dataclass(frozen=True)
class _Part:
    """Queries, keys or values as columns of a matmul."""

    tensor: str
    first: int


@dataclasses.dataclass(frozen=True)
class _Layer:
    """What surrounds the attention of one layer; keys and values are None where they were stored before."""

    past_key: onnx.ValueInfoProto
    queries: _Part
    keys: _Part | None
    values: _Part | None


def use_cache_in_place(view: GraphView) -> int:
    """Rewrites a decoder with ``past_key_values`` inputs; other graphs are left alone.

    Raises:
        UnsupportedError: If the attention of a layer has another form than the exporter gives it.
    """
    past = {value.name: value for value in view.graph.input if value.name.startswith(_PAST)}
    if not past:
        return 0
    attentions = [node for node in view.graph.node if node.op_type == "Attention"]
    for attention in attentions:
        _replace_attention(view, attention, _match(view, attention, past))
    replace_positions(view, PAST_LENGTHS)
    _replace_logits(view)
    _replace_interface(view, past)
    view.remove_unused()
    return len(attentions)


def _match(view: GraphView, attention: onnx.NodeProto, past: dict[str, onnx.ValueInfoProto]) -> _Layer:
    """Follows queries, keys and values back to the matmuls that they are columns of."""
    found: list[tuple[str, _Part | None]] = []
    for name, kind in zip(attention.input[1:3], ("key", "value"), strict=True):
        parts = _stored_parts(view, name, past)
        if parts is None:
            raise _unknown(attention, f"its {kind}s {name!r} are no concatenation with the past")
        stored, new = parts
        found.append((stored, None if new is None else product_part(view, new)))
    (key_name, keys), (value_name, values) = found
    if key_name.removesuffix(".key") != value_name.removesuffix(".value") or (keys is None) != (values is None):
        raise _unknown(attention, f"its keys are {key_name!r} and its values {value_name!r}")
    return _Layer(past[key_name], product_part(view, attention.input[0]), keys, values)


def _stored_parts(view: GraphView, name: str, past: dict[str, onnx.ValueInfoProto]) -> tuple[str, str | None] | None:
    """Returns the input that holds the past of keys or values, and the new ones before they were rounded, if any."""
    scaled = view.producer(name)
    codes, scales = (name, "") if scaled is None or scaled.op_type != "Mul" else scaled.input
    stored = _behind(view, codes, "Cast")
    if stored in past:
        return (stored, None) if scales in ("", f"{stored}{_SCALE}") else None
    concat = view.producer(stored)
    if concat is None or concat.op_type != "Concat" or concat.input[0] not in past:
        return None
    stored, new = concat.input
    if not scales:
        return stored, _behind(view, new, "Cast")
    joined = view.producer(scales)
    if joined is None or joined.op_type != "Concat" or joined.input[0] != f"{stored}{_SCALE}":
        return None
    states = states_behind(view, new, joined.input[1])
    return None if states is None else (stored, states)


def product_part(view: GraphView, name: str) -> _Part:
    """Walks back from ``[batch, heads, tokens, head_size]`` to columns of ``[batch, tokens, columns]``."""
    name = _behind(view, name, "Transpose", "Reshape")
    split = view.producer(name)
    if split is None or split.op_type != "Split":
        return _Part(name, 0)
    product = view.producer(split.input[0])
    columns = view.columns_of(product) if product is not None else view.columns_of_input(split.input[0])
    return _Part(split.input[0], columns // len(split.output) * list(split.output).index(name))


def _behind(view: GraphView, name: str, *kinds: str) -> str:
    """Walks back over nodes of the given kinds, each of which may be missing."""
    for kind in kinds:
        node = view.producer(name)
        if node is not None and node.op_type == kind:
            name = node.input[0]
    return name


def _unknown(attention: onnx.NodeProto, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"attention {attention.name or attention.output[0]!r} cannot use a cache in place: {reason}; "
        "export the model with edgeq export"
    )


def _replace_attention(view: GraphView, attention: onnx.NodeProto, layer: _Layer) -> None:
    transpose = view.only_consumer(attention.output[0])
    reshape = view.only_consumer(transpose.output[0]) if transpose is not None else None
    if reshape is None or transpose is None or (transpose.op_type, reshape.op_type) != ("Transpose", "Reshape"):
        raise _unknown(attention, "its heads are not joined by a transposition and a reshape")
    index = layer.past_key.name.split(".")[1]
    head_size = layer.past_key.type.tensor_type.shape.dim[3].dim_value
    options = {
        "scale": float(attributes(attention).get("scale", head_size**-0.5)),  # type: ignore[arg-type]
        "q_first": layer.queries.first,
        "group": _heads_of(view, attention.input[0]) // layer.past_key.type.tensor_type.shape.dim[1].dim_value,
    }
    if layer.keys is None or layer.values is None:
        kind = SOURCE_ATTENTION
        inputs = [layer.queries.tensor, SOURCE_LENGTHS, NEW_LENGTHS]
        inputs += [f"{SOURCE_KEYS}.{index}", f"{SOURCE_VALUES}.{index}"]
    else:
        kind = CACHED_ATTENTION
        inputs = [layer.queries.tensor, layer.keys.tensor, layer.values.tensor, PAST_LENGTHS, NEW_LENGTHS]
        inputs += [f"{KEY_CACHE}.{index}", f"{VALUE_CACHE}.{index}"]
        options |= {"k_first": layer.keys.first, "v_first": layer.values.first}
    name = attention.name or attention.output[0]
    view.replace([reshape], helper.make_node(kind, inputs, list(reshape.output), name=name, **options))


def _heads_of(view: GraphView, name: str) -> int:
    """Number of heads of ``[batch, heads, tokens, head_size]``, from the constant that its columns were split by."""
    reshape = view.producer(_behind(view, name, "Transpose"))
    target = view.initializers.get(reshape.input[1]) if reshape is not None and reshape.op_type == "Reshape" else None
    if target is None:
        raise UnsupportedError(f"the heads of {name!r} are split in no known way; export the model with edgeq export")
    return int(numpy_helper.to_array(target)[-2])


def replace_positions(view: GraphView, lengths: str) -> None:
    """Makes every look-up in a position table read positions that follow from the lengths of the past."""
    for node in [n for n in view.graph.node if n.op_type == "RotaryEmbedding" and len(n.input) > 3]:
        positions = _add_positions(view, node, lengths, offset=_constant_part(view, node.input[3]))
        node.input[3] = positions
    for node in [n for n in view.graph.node if n.op_type == "Gather" and n.input[0] in view.initializers]:
        table, index = node.input[:2]
        if len(view.initializers[table].dims) != 2 or index == "input_ids" or index in view.initializers:
            continue
        node.input[1] = _add_positions(view, node, lengths, offset=_constant_part(view, index))
    view.refresh()


def _add_positions(view: GraphView, node: onnx.NodeProto, lengths: str, *, offset: int) -> str:
    positions = f"{node.output[0]}.positions"
    made = helper.make_node(TOKEN_POSITIONS, ["input_ids", lengths], [positions], name=positions, offset=offset)
    view.insert_before(node, made)
    return positions


def _constant_part(view: GraphView, name: str) -> int:
    """Sum of the constants in a chain of additions: the row of the table that position 0 reads."""
    if name in view.initializers:
        return int(np.sum(numpy_helper.to_array(view.initializers[name])))
    node = view.producer(name)
    if node is None or node.op_type != "Add":
        return 0
    return sum(_constant_part(view, source) for source in node.input)


def _replace_logits(view: GraphView) -> None:
    """The head reads the last token of each sequence only."""
    head = view.producer(view.graph.output[0].name)
    while head is not None and head.op_type == "Add":  # a bias that is added to the logits
        head = view.producer(next(name for name in head.input if name not in view.initializers))
    if head is None:
        raise UnsupportedError("the logits are not made by a layer; export the model with edgeq export")
    last = helper.make_node(LAST_TOKEN, [head.input[0], NEW_LENGTHS], ["last_state"], name="last_token")
    view.insert_before(head, last)
    head.input[0] = "last_state"
    view.refresh()


def _replace_interface(view: GraphView, past: dict[str, onnx.ValueInfoProto]) -> None:
    ids = next(value for value in view.graph.input if value.name == "input_ids")
    batch = ids.type.tensor_type.shape.dim[0].dim_param
    has_source = any(name.endswith(".encoder.key") for name in past)
    lengths = [PAST_LENGTHS, NEW_LENGTHS, *([SOURCE_LENGTHS] if has_source else [])]
    inputs = [ids, *(helper.make_tensor_value_info(name, TensorProto.INT64, [batch]) for name in lengths)]
    # What someone who looks for a fault has added stays: values given from outside, and values looked at.
    inputs += [value for value in view.graph.input if value.name not in {*past, *_REPLACED_INPUTS}]
    for name, value in past.items():
        if name.endswith(".key"):
            inputs += cache_inputs(value, batch, of_source=name.endswith(".encoder.key"))
    logits = view.graph.output[0]
    vocabulary = logits.type.tensor_type.shape.dim[-1].dim_value
    outputs = [helper.make_tensor_value_info(logits.name, TensorProto.FLOAT, [batch, vocabulary])]
    outputs += [value for value in view.graph.output[1:] if not value.name.startswith(_PRESENT)]
    view.set_interface(inputs, outputs)


def states_before_rounding(view: GraphView, name: str) -> str | None:
    """Returns the float keys or values that an output of a graph holds as a cache does; None if that is not known."""
    if view.producer(f"{name}{_SCALE}") is not None:
        return states_behind(view, name, f"{name}{_SCALE}")
    return _behind(view, name, "Cast")


def cache_inputs(past_key: onnx.ValueInfoProto, batch: str, *, of_source: bool) -> list[onnx.ValueInfoProto]:
    """Describes the two caches that stand for a layer's past (or source) keys and values."""
    index = past_key.name.split(".")[1]
    dtype = past_key.type.tensor_type.elem_type
    heads, _, size = (d.dim_value for d in past_key.type.tensor_type.shape.dim[1:4])
    keys, values, capacity = (
        (SOURCE_KEYS, SOURCE_VALUES, "source_context") if of_source else (KEY_CACHE, VALUE_CACHE, "context")
    )
    blocks = [batch, heads, f"{capacity}_blocks"]
    shapes = {keys: [*blocks, size, LANES], values: [batch, heads, capacity, size]}
    if dtype == TensorProto.INT8:
        shapes = {name: [*blocks, block_bytes(size)] for name in shapes}
    return [helper.make_tensor_value_info(f"{name}.{index}", dtype, shape) for name, shape in shapes.items()]
