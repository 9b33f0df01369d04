"""What all weight quantizers of quantization-aware training have in common."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import nn
from torch.func import functional_call

from edgeq.errors import FormatError, UsageError
from edgeq.quant.grids import GridName, grid_for
from edgeq.quant.plan import GradientName, StartRule
from edgeq.quant.quantizers.straight_through import GradientRule, straight_through
from edgeq.quant.scale_search import search_scale

# A learned clip or step that reached zero could never recover, and a scale must be positive to be stored.
SMALLEST_FACTOR = 1e-4
SMALLEST_STEP = 1e-8


class WeightQuantizer(nn.Module, abc.ABC):
    """Rounds the latent weights of one layer in every forward pass, exactly as they will be stored.

    A new method is a subclass that sets the three class attributes and implements :meth:`rounded` and, where it
    learns something or clips, :meth:`start`, :meth:`inside` and :meth:`gradient_rule`. It is made by
    :func:`edgeq.quant.quantizers.make_quantizer` and needs :meth:`initialise` before use.

    Attributes:
        method: The method's name in recipes.
        supported_bits: Bit widths that the method defines.
        gradients: Gradients of the latent weights that make sense for it; the first is the paper's.
        bits: Bits of one code, at present.
        zero_point: Code that stands for 0.0.
        per_row: One scale for each row, or one for the matrix.
        gradient: One of ``gradients``.
        grid: ``ternary`` or ``balanced`` at 2 bits, for methods that define both.
        start_rule: Where the learned numbers start.
        weights: Weights of the whole matrix.
    """

    method: ClassVar[str]
    supported_bits: ClassVar[tuple[int, ...]]
    gradients: ClassVar[tuple[GradientName, ...]]
    two_bit_grids: ClassVar[tuple[GridName, ...]] = ("ternary",)
    keeps_rows_apart: ClassVar[bool] = True
    """Whether, with one scale a row, a row's codes depend on nothing but the row and its learned numbers."""

    def __init__(
        self,
        *,
        bits: int,
        per_row: bool = False,
        gradient: GradientName | None = None,
        grid: GridName | None = None,
        start: StartRule = "method",
    ) -> None:
        super().__init__()
        self.per_row = per_row
        self.gradient: GradientName = self._known_gradient(gradient)
        self.grid: GridName = grid if grid in self.two_bit_grids else self.two_bit_grids[0]
        if grid == "balanced" and grid not in self.two_bit_grids:
            raise UsageError(
                f"quantizer {self.method!r} has no balanced 2-bit grid; leave the grid out, or use 'elastic'"
            )
        self.start_rule = start
        if start != "method" and type(self).start_at is WeightQuantizer.start_at:
            raise UsageError(
                f"quantizer {self.method!r} learns no number that could start elsewhere; leave out start = {start!r}"
            )
        if not isinstance(start, str) and not (math.isfinite(start) and start > 0):
            raise UsageError(f"start should be 'method', 'error' or a number above 0, found {start!r}")
        self.weights = 0
        self._choose_bits(bits)

    def initialise(self, weight: torch.Tensor) -> None:
        """Sets the learned parameters, if any, from the weights that training starts with.

        Args:
            weight: The latent weights: floating point, ``[N, K]``.
        """
        self.weights = weight.numel()
        latent = weight.detach().float()
        with torch.no_grad():
            if self.start_rule == "method":
                self.start(latent)
            elif self.start_rule == "error":
                self.start_at(self.level_of_least_error(latent), latent)
            else:
                self.start_at(self.start_rule * self.mean(latent.abs()), latent)

    def set_bits(self, bits: int, weight: torch.Tensor) -> None:
        """Changes the bit width during training and starts the learned parameters anew from ``weight``.

        Raises:
            UsageError: If the method does not define this bit width.
        """
        self._choose_bits(bits)
        self.initialise(weight)

    @torch.no_grad()
    def encode(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns exactly what is stored for ``weight``.

        Args:
            weight: The latent weights: floating point, ``[N, K]``.

        Returns:
            ``codes``: float32 ``[N, K]`` holding integers in ``0..2**bits - 1`` (from 1 at 8 bits).
            ``scale``: float32, ``[1]`` or ``[N]``.
        """
        levels, scale = self.rounded(weight.detach().float())
        return levels + self.zero_point, scale

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns ``scale * (code - zero_point)``: float32 ``[N, K]``, with the method's gradient."""
        latent = weight.detach().float()
        trains = torch.is_grad_enabled()
        with torch.no_grad():
            levels, scale = self.rounded(latent)
            # Codes know no negative zero, and what is trained has to be what is stored.
            decoded = levels.add_(0.0) * scale.reshape(-1, 1)
            if not trains:
                return decoded
            rule = self.gradient_rule(latent, levels, scale)
        return straight_through(decoded, weight, rule)

    def decode_rows(self, weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Returns some rows of what :meth:`forward` returns, at the cost of these rows where they are independent.

        Args:
            weight: The latent weights of the whole matrix, ``[N, K]``.
            rows: int64 ``[R]``, each row once.

        Returns:
            float32 ``[R, K]``, with the same gradient.
        """
        if not (self.per_row and self.keeps_rows_apart):
            decoded: torch.Tensor = self(weight)
            return decoded.index_select(0, rows)
        own = {name: parameter.index_select(0, rows) for name, parameter in self.named_parameters()}
        part: torch.Tensor = functional_call(self, own, (weight.index_select(0, rows),))
        return part

    @abc.abstractmethod
    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rounds the weights.

        Args:
            weight: float32 ``[N, K]``.

        Returns:
            ``levels``: ``code - zero_point`` in a new tensor: float32 ``[N, K]``.
            ``scale``: float32, ``[1]`` or ``[N]``; 0 where all weights are zero, and positive elsewhere.
        """

    def start(self, weight: torch.Tensor) -> None:
        """Sets learned parameters from ``weight``: float32 ``[N, K]``; most methods have none."""

    def start_at(self, largest: torch.Tensor, weight: torch.Tensor) -> None:
        """Sets learned parameters so that the largest level is ``largest``; for methods that learn something.

        Args:
            largest: float32, ``[1]`` or ``[N]``; 0 where all weights are zero.
            weight: float32 ``[N, K]``.
        """
        raise NotImplementedError(f"quantizer {self.method!r} learns nothing")

    def level_of_least_error(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns the largest level with which the squared rounding error is least: float32, ``[1]`` or ``[N]``."""
        grid = grid_for(self.bits, "balanced" if self.zero_point == 1.5 else None)
        scale = search_scale(weight.cpu(), grid, per_row=self.per_row).to(weight.device)
        return scale * grid.largest_level

    def gradient_rule(self, weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor) -> GradientRule:
        """Returns how gradients pass; the default learns nothing and masks only where ``clipped`` is chosen."""
        del levels
        return GradientRule(self.inside(weight, scale) if self.gradient == "clipped" else None)

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``weight`` lies inside the clip range, else 0: float32 ``[N, K]``; 1 for most methods."""
        del scale
        return torch.ones_like(weight)

    @property
    def largest(self) -> int:
        """``k = 2**(bits - 1) - 1``, the largest level of a symmetric grid: 1, 7 or 127."""
        return 2 ** (self.bits - 1) - 1

    def symmetric_levels(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns ``clip(round(weight / scale), -k, k)``, ties to even levels."""
        return divide(weight, scale).round_().clamp_(-self.largest, self.largest)

    def over_groups(self, statistic: Callable[..., torch.Tensor], values: torch.Tensor) -> torch.Tensor:
        """Reduces ``values`` (``[N, K]``) by matrix or by row: ``[1]`` or ``[N]``."""
        return statistic(values, dim=1) if self.per_row else statistic(values).reshape(1)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the sum of each group: float64, so that the number of threads does not show once it is rounded."""
        return self.over_groups(functools.partial(torch.sum, dtype=torch.float64), values)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the mean of each group: float32."""
        return (self.total(values) / (values.shape[1] if self.per_row else values.numel())).float()

    def zero_point_of(self, bits: int) -> float:
        """Returns the code that stands for 0.0 at a bit width."""
        if bits == 1:
            return 0.5
        return 1.5 if bits == 2 and self.grid == "balanced" else float(2 ** (bits - 1) - (bits == 2))

    def _choose_bits(self, bits: int) -> None:
        if bits not in self.supported_bits:
            known = ", ".join(map(str, self.supported_bits))
            raise UsageError(f"quantizer {self.method!r} is for {known} bits, found {bits}")
        self.bits = bits
        self.zero_point = self.zero_point_of(bits)

    def _known_gradient(self, gradient: GradientName | None) -> GradientName:
        if gradient is None or gradient == "method":
            return self.gradients[0]
        if gradient not in self.gradients:
            raise UsageError(
                f"quantizer {self.method!r} has the gradients method, {', '.join(self.gradients)}; "
                f"{gradient!r} makes no sense for it"
            )
        return gradient

    def get_extra_state(self) -> torch.Tensor:
        """Returns bits and twice the zero point, so that they are part of the state as a tensor."""
        return torch.tensor([self.bits, round(2 * self.zero_point)])

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Restores what :meth:`get_extra_state` returned.

        Raises:
            FormatError: If the state is of another method.
        """
        bits, doubled = (int(value) for value in state)
        if bits not in self.supported_bits:
            raise FormatError(f"quantizer {self.method!r} cannot load the state of a {bits}-bit layer")
        self.bits, self.zero_point = bits, doubled / 2

    def extra_repr(self) -> str:
        """Describes the quantizer in ``print(model)``."""
        scales = "row" if self.per_row else "matrix"
        return f"{self.method}, {self.bits} bits, one scale a {scales}, gradient {self.gradient}"


def signs(weight: torch.Tensor) -> torch.Tensor:
    """Returns the levels of binary weights, -0.5 and 0.5, in a new tensor; zero counts as positive."""
    return weight.sign().add_(0.5).clamp_(-0.5, 0.5)


def divide(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Returns ``weight / scale`` by rows in a new tensor; a row whose scale is 0 is all zeros and stays so."""
    return weight / torch.where(scale > 0, scale, torch.ones_like(scale)).reshape(-1, 1)


def learned(values: torch.Tensor) -> nn.Parameter:
    """Makes a learned parameter of its own memory."""
    return nn.Parameter(values.detach().float().clone())


def replace_values(parameter: nn.Parameter, values: torch.Tensor) -> None:
    """Gives a learned parameter new values, on their device; keeps the object, which an optimizer may hold."""
    parameter.data = values.detach().float().clone()
