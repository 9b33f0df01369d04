"""Low-bit layers: packed weights in a PyTorch module, and the arithmetic that every backend repeats."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import EdgeqError, FormatError
from edgeq.formats.low_bit import ACTIVATIONS, OP_DOMAIN, OP_VERSION, Activation, PackedMatrix
from edgeq.formats.packing import ROW_TILE, pack, unpack
from edgeq.quant.exact_sum import exact_linear
from edgeq.rounding import quantize_dynamic, quantize_static, with_noise

_ROWS = 128
"""Tokens that are scaled at a time, in place: an output head's logits are larger than its model."""


class PackedModule(nn.Module):
    """A module that holds one packed matrix: buffers ``weight_packed`` (uint8) and ``scale`` (float32).

    Attributes:
        spec: Rows, columns, bits, zero point and number of scales.
    """

    op_type: ClassVar[str]
    """The ONNX operator that the layer becomes."""
    weight_packed: torch.Tensor
    scale: torch.Tensor

    def __init__(self, spec: PackedMatrix) -> None:
        super().__init__()
        self.spec = spec
        self._create_storage()
        self._decoded: torch.Tensor | None = None
        self._decoded_from: tuple[object, ...] = ()

    def _create_storage(self) -> None:
        self.register_buffer("weight_packed", torch.zeros(self.spec.packed_shape, dtype=torch.uint8))
        self.register_buffer("scale", torch.zeros(self.spec.scales, dtype=torch.float32))

    def set_codes(self, codes: torch.Tensor, scale: torch.Tensor) -> None:
        """Packs and stores codes (uint8, ``[N, K]``) and scales (float32, ``[N]`` or ``[1]``).

        Raises:
            FormatError: If shapes do not agree with ``spec``.
        """
        if tuple(codes.shape) != (self.spec.rows, self.spec.columns) or scale.numel() != self.spec.scales:
            raise FormatError(
                f"expected {self.spec.rows} x {self.spec.columns} codes and {self.spec.scales} scales, "
                f"found {tuple(codes.shape)} and {scale.numel()}"
            )
        packed = torch.from_numpy(pack(codes.cpu().numpy(), self.spec.bits))
        self.weight_packed = packed.to(self.weight_packed.device)
        self.scale = scale.detach().float().reshape(-1).clone().to(self.weight_packed.device)

    @property
    def largest_level(self) -> float:
        """Largest magnitude of ``code - zero_point``, over all codes that the bits can hold."""
        return max(self.spec.zero_point, 2**self.spec.bits - 1 - self.spec.zero_point)

    def codes(self) -> torch.Tensor:
        """Returns the unpacked codes: uint8, ``[N, K]``."""
        packed = self.weight_packed.cpu().numpy()
        codes = unpack(packed, self.spec.bits, rows=self.spec.rows, columns=self.spec.columns)
        return torch.from_numpy(codes)

    def centred_codes(self) -> torch.Tensor:
        """Returns ``code - zero_point`` as float32 ``[N, K]``, decoded once and kept outside the state."""
        if self._decoded is None or not self.is_decoded:
            decoded = self.codes().to(torch.float32).sub_(self.spec.zero_point)
            self._decoded, self._decoded_from = decoded.to(self.weight_packed.device), self._source
        return self._decoded

    def forget_decoded(self) -> None:
        """Gives back the memory of the decoded codes; the next call decodes them again."""
        self._decoded, self._decoded_from = None, ()

    @property
    def is_decoded(self) -> bool:
        """Whether all codes are decoded already, and still those of the buffer."""
        return self._decoded is not None and self._decoded_from == self._source

    @property
    def _source(self) -> tuple[object, ...]:
        # Loading a checkpoint writes into the buffers (a new version) or replaces them (a new address).
        return self.weight_packed.data_ptr(), self.weight_packed._version, self.weight_packed.device

    def dequantized(self) -> torch.Tensor:
        """Returns the weights that the codes stand for: float32, ``[N, K]``."""
        return self.centred_codes() * self.scale.reshape(-1, 1)

    def _op_attributes(self) -> dict[str, Any]:
        spec = self.spec
        return {"N": spec.rows, "K": spec.columns, "bits": spec.bits, "zero_point": float(spec.zero_point)}

    def extra_repr(self) -> str:
        """Describes the matrix in ``print(model)``."""
        spec = self.spec
        size = f"{spec.rows} x {spec.columns}"
        return f"{size}, {spec.bits} bits, zero point {spec.zero_point}, {spec.scales} scales"


class LowBitLinear(PackedModule):
    """A linear layer with packed weights and, unless weight-only, int8 activations.

    Attributes:
        activation: ``dynamic`` (one scale a token), ``static`` (buffer ``activation_scale``) or ``none``.
    """

    op_type: ClassVar[str] = "LowBitLinear"
    bias: torch.Tensor | None
    activation_scale: torch.Tensor | None

    def __init__(self, spec: PackedMatrix, *, activation: Activation, bias: bool) -> None:
        super().__init__(spec)
        if activation not in ACTIVATIONS:
            raise FormatError(f"activation must be one of {', '.join(ACTIVATIONS)}, found {activation!r}")
        self.activation: Activation = activation
        self.register_buffer("bias", torch.zeros(spec.rows, dtype=torch.float32) if bias else None)
        self.register_buffer("activation_scale", torch.ones(1) if activation == "static" else None)

    @property
    def in_features(self) -> int:
        """K."""
        return self.spec.columns

    @property
    def out_features(self) -> int:
        """N."""
        return self.spec.rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer.

        Args:
            x: float32, shape ``[..., K]``.

        Returns:
            float32, shape ``[..., N]``.
        """
        if torch.onnx.is_in_onnx_export():
            return self._symbolic(x)
        if x.dtype != torch.float32:
            raise EdgeqError(
                f"a low-bit layer computes in float32, found {x.dtype}: call model.float() first"
            )
        x = with_noise(x)
        # Autocast would round the exact sums to 8 bits of mantissa.
        with torch.autocast(device_type=x.device.type, enabled=False):
            if self.activation == "none":
                y = functional.linear(x, self.centred_codes()) * self.scale
            else:
                y = self._integer_product(x)
            # A missing bias is added as zero, as the ONNX op does: it turns -0.0 into 0.0.
            added = 0.0 if self.bias is None else self.bias
            return y + added if y.requires_grad else y.add_(added)

    def _integer_product(self, x: torch.Tensor) -> torch.Tensor:
        if self.activation_scale is None:
            q, activation_scale = quantize_dynamic(x)
        else:
            q, activation_scale = quantize_static(x, self.activation_scale), self.activation_scale
        total = exact_linear(q, self.centred_codes(), largest_level=self.largest_level)
        if total.requires_grad or activation_scale.requires_grad:
            return total * (self.scale * activation_scale)
        of_token = activation_scale.expand(*total.shape[:-1], 1).reshape(-1, 1)
        for some, their_scale in zip(total.view(-1, self.spec.rows).split(_ROWS), of_token.split(_ROWS), strict=True):
            some.mul_(self.scale * their_scale)
        return total

    def _symbolic(self, x: torch.Tensor) -> torch.Tensor:
        bias = torch.zeros(1) if self.bias is None else self.bias
        inputs = [x, self.weight_packed, self.scale, bias]
        if self.activation_scale is not None:
            inputs.append(self.activation_scale)
        return torch.onnx.ops.symbolic(
            f"{OP_DOMAIN}::{self.op_type}",
            inputs,
            attrs={**self._op_attributes(), "activation": self.activation},
            dtype=torch.float32,
            shape=(*x.shape[:-1], self.spec.rows),
            version=OP_VERSION,
        )

    def extra_repr(self) -> str:
        """Describes the layer in ``print(model)``."""
        return f"{super().extra_repr()}, activation {self.activation}, bias {self.bias is not None}"


class LowBitEmbedding(PackedModule):
    """A table of packed rows; ``forward`` looks rows up and decodes them."""

    op_type: ClassVar[str] = "LowBitEmbedding"
    embed_scale: float = 1.0
    """Factor on what is looked up, of a table that scales by itself."""

    @property
    def num_embeddings(self) -> int:
        """N."""
        return self.spec.rows

    @property
    def embedding_dim(self) -> int:
        """K."""
        return self.spec.columns

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Looks rows up.

        Args:
            ids: int64, any shape, values in ``[0, N)``.

        Returns:
            float32, shape ``[*ids.shape, K]``.
        """
        rows = self.looked_up(ids)
        return rows if self.embed_scale == 1 else rows * self.embed_scale

    def looked_up(self, ids: torch.Tensor) -> torch.Tensor:
        """Looks rows up without the factor: what the operator of the export gives."""
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic(
                f"{OP_DOMAIN}::{self.op_type}",
                [ids, self.weight_packed, self.scale],
                attrs=self._op_attributes(),
                dtype=torch.float32,
                shape=(*ids.shape, self.spec.columns),
                version=OP_VERSION,
            )
        rows = functional.embedding(ids, self.centred_codes()) if self.is_decoded else self._centred_rows(ids)
        scale = self.scale if self.spec.scales == 1 else self.scale[ids].unsqueeze(-1)
        return scale * rows

    def _centred_rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Decodes the rows of ``ids`` alone: a large vocabulary would take four bytes a weight.

        Raises:
            IndexError: If an id is outside the table.
        """
        spec, flat = self.spec, ids.reshape(-1)
        if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < spec.rows:
            raise IndexError(f"an id is outside of 0..{spec.rows - 1}")
        packed = self.weight_packed[flat // ROW_TILE, :, flat % ROW_TILE]
        shifts = spec.bits * torch.arange(spec.fields, dtype=torch.uint8, device=packed.device)
        codes = (packed[:, :, None, :] >> shifts[:, None]) & (2**spec.bits - 1)
        rows = codes.flatten(start_dim=1)[:, : spec.columns].to(torch.float32) - spec.zero_point
        return rows.reshape(*ids.shape, spec.columns)
