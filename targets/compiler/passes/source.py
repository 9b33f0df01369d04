"""Encoder-decoders: one graph that reads the encoder input and leaves its keys and values in the caches of the decoder.

Two exported graphs have a part in it: the encoder, and the first step of the decoder, which makes the keys and values
of the encoder input from the encoder's states. (The decoder's later steps are the whole of the decoder on a device.)
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgeq.errors import UnsupportedError
from edgeq.targets.compiler.graph import GraphView
from edgeq.targets.compiler.passes.cache import (
    SOURCE_KEYS,
    SOURCE_LENGTHS,
    SOURCE_VALUES,
    STORE_IN_CACHE,
    cache_inputs,
    product_part,
    replace_positions,
    states_before_rounding,
)

STATES = "encoder_hidden_states"
_NO_PAST = "no_past"
_PREFIX = "source/"


def join_encoder(encoder: onnx.GraphProto, first_step: onnx.GraphProto) -> onnx.GraphProto:
    """Returns the graph of ``encode``.

    Its inputs are ``input_ids``, ``attention_mask``, ``source_lengths`` and each layer's caches of the encoder input;
    its outputs the states of the encoder, and the caches.

    Args:
        encoder: Graph with ``input_ids`` and ``attention_mask`` in and one output.
        first_step: Graph with ``encoder_hidden_states`` in and ``present.*.encoder.key``/``.value`` out.

    Raises:
        UnsupportedError: If the graphs have another interface.
    """
    joined = onnx.GraphProto()
    joined.CopyFrom(encoder)
    view, step = GraphView(joined), GraphView(first_step)
    keys = [value for value in first_step.output if value.name.endswith(".encoder.key")]
    if not keys or STATES not in {value.name for value in first_step.input}:
        raise UnsupportedError("the decoder's first step has no keys of the encoder input; export it with edgeq export")
    joined.node.append(helper.make_node("Sub", [SOURCE_LENGTHS, SOURCE_LENGTHS], [_NO_PAST], name=_NO_PAST))
    joined.node.insert(0, joined.node.pop())
    view.refresh()
    replace_positions(view, _NO_PAST)
    batch = joined.input[0].type.tensor_type.shape.dim[0].dim_param
    inputs, outputs = list(joined.input), [joined.output[0]]
    inputs.append(helper.make_tensor_value_info(SOURCE_LENGTHS, TensorProto.INT64, [batch]))
    renamed = {STATES: joined.output[0].name}
    for key in keys:
        caches = cache_inputs(key, batch, of_source=True)
        _store(view, step, key.name.split(".")[1], renamed)
        inputs += caches
        outputs += [_stored(cache) for cache in caches]
    view.set_interface(inputs, outputs)
    view.remove_unused()
    return joined


def _store(view: GraphView, step: GraphView, index: str, renamed: dict[str, str]) -> None:
    """Adds the matmuls of one layer and the node that stores them."""
    parts = []
    for name in (f"present.{index}.encoder.key", f"present.{index}.encoder.value"):
        states = states_before_rounding(step, name)
        if states is None:
            raise UnsupportedError(f"{name!r} is rounded to int8 in no known way; export the model with edgeq export")
        part = product_part(step, states)
        parts.append((_copy(view, step, part.tensor, renamed), part.first))
    (keys, k_first), (values, v_first) = parts
    caches = [f"{SOURCE_KEYS}.{index}", f"{SOURCE_VALUES}.{index}"]
    view.graph.node.append(
        helper.make_node(
            STORE_IN_CACHE,
            [keys, values, _NO_PAST, SOURCE_LENGTHS, *caches],
            [f"stored_{cache}" for cache in caches],
            name=f"source.{index}",
            k_first=k_first,
            v_first=v_first,
        )
    )


def _copy(view: GraphView, step: GraphView, name: str, renamed: dict[str, str]) -> str:
    """Copies the nodes that compute ``name`` into the joined graph and returns its name there."""
    if name in renamed or not name:
        return renamed.get(name, name)
    if name in step.initializers:
        if name not in view.initializers:
            view.add_initializer(step.initializers[name])
        return name
    node = step.producer(name)
    if node is None:
        raise UnsupportedError(f"the keys of the encoder input depend on {name!r}; export the model with edgeq export")
    inputs = [_copy(view, step, source, renamed) for source in node.input]
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = inputs
    copy.output[:] = [_PREFIX + output for output in node.output]
    renamed.update(zip(node.output, copy.output, strict=True))
    view.graph.node.append(copy)
    return renamed[name]


def _stored(cache: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    value = onnx.ValueInfoProto()
    value.CopyFrom(cache)
    value.name = f"stored_{cache.name}"
    return value
