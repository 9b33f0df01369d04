"""From a PyTorch model to clean ONNX graphs in memory."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator

import onnx
import onnx_ir as ir
import torch
from torch import nn

from edgeq.errors import EdgeqError, UsageError
from edgeq.export.ops import attach_bodies
from edgeq.export.passes import passes
from edgeq.export.signature import GraphSignature, signature_of
from edgeq.export.stock import to_stock_operators
from edgeq.graph_passes import run_in_order
from edgeq.models import ModelAdapter
from edgeq.models.adapter import ExportPart, GenerativeAdapter, Seq2SeqAdapter
from edgeq.models.cache import DEFAULT_CACHE_DTYPE

SUPPORTED_OPSETS = range(18, 24)
DEFAULT_OPSET = 23
"""Attention is one standard node from 23 on, and the compiler has a kernel for that node."""

STOCK = "stock"
DEFAULT_FLAVOUR = "edgeq"
FLAVOURS = (DEFAULT_FLAVOUR, STOCK)
"""``edgeq``: our operators with their bodies. ``stock``: operators that ONNX Runtime has kernels for."""

Place = Callable[[str, ir.TensorProtocol], ir.TensorProtocol]
"""What takes a weight of a graph by its name, and returns what stands for it."""
_IR_VERSION = 10  # the first with function overloads; newer ones lock out older runtimes


def check_opset(opset: int, adapter: ModelAdapter | None = None) -> None:
    """Refuses versions of the standard operators that the exporter does not write.

    Raises:
        UsageError: If ``opset`` is not in 18..23, or is too old for the model.
    """
    if opset not in SUPPORTED_OPSETS:
        first, last = SUPPORTED_OPSETS[0], SUPPORTED_OPSETS[-1]
        raise UsageError(f"opset must be {first} to {last}, found {opset}")
    if adapter is not None and opset < adapter.least_opset:
        raise UsageError(
            f"{adapter.architecture} needs opset {adapter.least_opset} (rotary positions, RMSNorm), found {opset}"
        )


def check_flavour(flavour: str) -> None:
    """Refuses flavours that there are none of.

    Raises:
        UsageError: If ``flavour`` is not one of :data:`FLAVOURS`.
    """
    if flavour not in FLAVOURS:
        raise UsageError(f"the flavour must be {' or '.join(FLAVOURS)}, found {flavour!r}")


def onnx_models(
    model: nn.Module,
    adapter: ModelAdapter,
    *,
    opset: int = DEFAULT_OPSET,
    cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE,
    flavour: str = DEFAULT_FLAVOUR,
    place: Place | None = None,
    remark: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Traces a model and cleans its graphs.

    Args:
        model: A float or compressed model in evaluation mode, on the CPU.
        adapter: The adapter of the model.
        opset: Version of the standard operators, 18 to 23.
        cache_dtype: Type of the key/value cache of a model that has one: float16, float32 or int8.
        flavour: One of :data:`FLAVOURS`.
        place: Given each weight by name, and returns what stands for it in the graph; None leaves weights in it. The
            stock flavour changes weights, and keeps them.
        remark: Told what differs in the stock flavour.

    Yields:
        Name and graph of each part, one after the other because each holds its weights: ``model``, or for a
        model that reads one text and writes another ``encoder_model``, ``decoder_model`` and
        ``decoder_with_past_model``. Dimensions have optimum's names; there is one function per variant of
        low-bit operator, and nothing depends on the machine. Equal names of initializers are equal weights.

    Raises:
        UsageError: If the opset or the flavour is not supported.
        EdgeqError: If torch cannot trace the model.
    """
    check_opset(opset, adapter)
    check_flavour(flavour)
    for part in _parts(model, adapter, cache_dtype):
        signature = signature_of(part, adapter, cache_dtype=cache_dtype)
        proto = _onnx_model(part, signature, opset, adapter, place=None if flavour == STOCK else place)
        if flavour == STOCK:
            for line in to_stock_operators(proto):
                (remark or _ignore)(line)
        else:
            attach_bodies(proto)
        yield part.name, proto


def _ignore(_: str) -> None:
    """Takes a remark that nobody reads."""


def _parts(model: nn.Module, adapter: ModelAdapter, cache_dtype: torch.dtype) -> list[ExportPart]:
    if isinstance(adapter, Seq2SeqAdapter):
        return adapter.export_parts(model, cache_dtype=cache_dtype)
    if isinstance(adapter, GenerativeAdapter):
        return [adapter.export_part(model, cache_dtype=cache_dtype)]
    return [adapter.graph(model)]


def _onnx_model(
    part: ExportPart, signature: GraphSignature, opset: int, adapter: ModelAdapter, *, place: Place | None
) -> onnx.ModelProto:
    graph = _traced(part.module, signature, f"{part.name} of {adapter.architecture} at opset {opset}", opset=opset)
    run_in_order(passes(prefix=part.prefix, interface={**signature.inputs, **signature.outputs}), graph)
    graph.ir_version = _IR_VERSION
    if place is not None:
        for name, value in graph.graph.initializers.items():
            value.const_value = None if value.const_value is None else place(name, value.const_value)
    proto = ir.serde.serialize_model(graph)
    proto.graph.name = adapter.architecture
    return proto


def _traced(module: nn.Module, signature: GraphSignature, what: str, *, opset: int) -> ir.Model:
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module.eval(),
                signature.example,
                dynamo=True,
                opset_version=opset,
                input_names=list(signature.inputs),
                output_names=list(signature.outputs),
                dynamic_shapes=signature.dynamic_shapes,
                optimize=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise EdgeqError(f"torch could not trace {what}: {cause}") from error
    if program is None:
        raise EdgeqError(f"torch returned no program for {what}")
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences torch's remarks on missing torchvision and on axis names, which the user cannot act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
