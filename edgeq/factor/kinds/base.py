"""What every kind of factorised layer says about itself, so that the rest of edgeq need not know which kinds there are.

A kind is two classes in one file: a :class:`FactorSpec` (sizes without data, as plans, checkpoints and the cost model
share them) and the :class:`FactorModule` that it builds. A method of recipes is a :class:`FactorSettings`, which
decides what each matrix of a model becomes.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

from edgeq.errors import UsageError
from edgeq.factor.cost import Cost, Evaluate, Evaluation
from edgeq.models import ModelAdapter

_LARGEST = 1 << 31
Reader = Callable[[object], Any]


@dataclasses.dataclass(frozen=True)
class FactorSpec(abc.ABC):
    """Sizes of one factorised layer; subclasses are frozen dataclasses whose fields are what a checkpoint stores."""

    kind: ClassVar[str]
    """Name in ``config.json``."""
    is_shared: ClassVar[bool] = False
    """Whether this is something that layers share, and takes the place of no layer."""
    refers_to: ClassVar[tuple[str, ...]] = ()
    """Fields that hold the name of another module, which has to be there first."""
    replaces: ClassVar[Literal["embedding", "linear"]] = "linear"
    """What kind of dense layer it takes the place of."""
    belongs_to_head: ClassVar[bool] = False
    """Whether a model without its head lacks it."""
    shares_first_factor: ClassVar[bool] = False
    """Whether layers of one attention that read the same input compute their first factor once."""
    walks_layer_by_layer: ClassVar[bool] = True
    """Whether the exported graph computes the layer in the order of PyTorch, so that `edgeq diff` can follow it."""
    readers: ClassVar[Mapping[str, Reader]] = {}
    """Readers of fields that are no number, flag, name or pair of numbers."""

    @property
    @abc.abstractmethod
    def parameters(self) -> int:
        """Stored numbers, the bias included."""

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and columns of the dense matrix that it stands for; None for what stands for none of its own."""
        return None

    @property
    def parameters_without_bias(self) -> int:
        """Stored numbers, the bias left out."""
        rows = self.shape[0] if self.shape is not None and getattr(self, "bias", False) else 0
        return self.parameters - rows

    @abc.abstractmethod
    def build(self, model: nn.Module) -> FactorModule:
        """Makes the layer, its numbers not set.

        Args:
            model: Holds the modules that the layer refers to.

        Raises:
            FormatError: If one of them is not there, or does not fit.
        """

    def costs(self, *, readers: int = 1) -> dict[Evaluation, Cost]:  # noqa: ARG002  # for kinds that share a factor
        """Returns the cost of each way to compute the layer; empty for what is no layer of its own.

        Args:
            readers: Layers that read the same input with the same first factor, which is then computed once.
        """
        return {}

    def configure(self, config: Any) -> None:  # noqa: B027  # most kinds change nothing
        """Changes the configuration of the model that the layer is put into."""

    @classmethod  # noqa: B027  # most kinds change nothing
    def prepare(cls, model: nn.Module, *, fold: bool, tokens: int) -> None:
        """Gets the layers of this kind ready to be packed; see :func:`edgeq.factor.prepare.prepare_for_packing`."""

    def to_json(self) -> dict[str, Any]:
        """Returns the entry of ``config.json``."""
        entry: dict[str, Any] = {"kind": self.kind}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            entry[field.name] = value.to_json() if isinstance(value, FactorSpec) else value
            if isinstance(value, tuple):
                entry[field.name] = list(value)
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, object]) -> Self:
        """Reads an entry of ``config.json``.

        Raises:
            KeyError: If a field is missing.
            TypeError: If one is of another type.
            ValueError: If a value makes no sense.
        """
        values = {}
        for field in dataclasses.fields(cls):
            read = cls.readers.get(field.name) or _READERS[str(field.type)]
            values[field.name] = read(entry[field.name])
        return cls(**values)


class FactorModule(nn.Module, abc.ABC):
    """A layer, or what layers share, whose numbers are factors.

    Attributes:
        spec: Its sizes.
    """

    spec: Any

    def linear_parts(self) -> tuple[str, ...]:
        """Names, inside the layer, of the linear layers that hold its factors."""
        return tuple(name for name, part in self.named_modules() if isinstance(part, nn.Linear))

    def table_parts(self) -> tuple[str, ...]:
        """Names, inside the layer, of the tables that are looked up by token."""
        return ()

    def matrix_parts(self) -> tuple[str, ...]:
        """Names, inside the layer, of the tables that hold matrices of linear layers, and are stored as those are."""
        return ()

    def tied_parts(self) -> dict[str, str]:
        """Linear parts that are on the numbers of a table elsewhere, by the name of that table in the model."""
        return {}

    def fill(self, weight: torch.Tensor) -> torch.Tensor:
        """Takes the factors nearest to a matrix.

        Args:
            weight: float32 ``[rows, columns]`` of the dense layer.

        Returns:
            What the factors stand for: float32, the same shape.
        """
        raise NotImplementedError(f"a {type(self).__name__} stands for no matrix of its own")

    def set_bias(self, bias: torch.Tensor) -> None:
        """Stores a bias: ``[rows]``."""
        raise NotImplementedError(f"a {type(self).__name__} has no bias")


class FactorLinear(FactorModule):
    """A factorised linear layer."""

    @property
    def in_features(self) -> int:
        """Input features."""
        return int(self.spec.columns)

    @property
    def out_features(self) -> int:
        """Output features."""
        return int(self.spec.rows)

    def weight_modules(self) -> Iterable[nn.Module]:
        """The modules whose numbers the layer computes with."""
        return self.modules()

    def evaluated(self, way: Evaluation) -> nn.Module:
        """Returns a layer that computes the same in another way; products of constants are made here.

        Raises:
            UsageError: If the layer cannot be computed so.
        """
        if way == "factored":
            return self
        if way == "dense":
            return self._dense()
        raise UsageError(f"a {self.spec.kind} layer cannot be computed {way!r}")

    @torch.no_grad()
    def _dense(self) -> nn.Linear:
        dense = nn.Linear(self.in_features, self.out_features)
        bias = self(torch.zeros(1, self.in_features))
        dense.weight.copy_((self(torch.eye(self.in_features)) - bias).T)
        dense.bias.copy_(bias[0])
        return dense.train(self.training)


class SharedFactors(FactorModule):
    """What layers share: the numbers of all of them are found together."""

    @abc.abstractmethod
    def fill_layers(self, model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
        """Takes the factors nearest to the matrices of all layers that share this, and gives the layers theirs.

        Args:
            model: Holds this and the layers.
            weights: Matrices of the dense layers by module name, float32 ``[rows, columns]``.
        """


class FactorSettings(abc.ABC):
    """What one method of recipes is to do, before any matrix is looked at."""

    method: ClassVar[str]
    """Name in recipes."""
    options: ClassVar[tuple[str, ...]]
    """Keys of a recipe's table ``[factor]`` that the method takes, beside those that all take."""
    own_options: ClassVar[Mapping[str, tuple[Any, Any]]] = {}
    """Keys that no other method has, each with its type and what it is where a recipe does not say."""
    evaluations: ClassVar[tuple[Evaluate, ...]] = ("auto", "factored", "dense")
    """Ways to compute its layers that a recipe may ask for."""

    @classmethod
    @abc.abstractmethod
    def from_options(cls, options: Any) -> Self:
        """Makes settings of a recipe's table ``[factor]``.

        Raises:
            ValueError: If an option is missing or makes no sense.
        """

    @abc.abstractmethod
    def plan(self, model: nn.Module, adapter: ModelAdapter) -> dict[str, FactorSpec]:
        """Decides what each layer of a model becomes.

        Args:
            model: A float model; only the shapes of its weights are read.
            adapter: Its adapter.

        Returns:
            What each layer becomes, by module name; what layers share comes before them.

        Raises:
            UsageError: If shapes do not divide, a rank is too large or a block is not there.
            UnsupportedError: If the model has a layer that cannot be factorised so.
        """


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise TypeError
    return value


def _pair(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or min(map(_count, value)) < 1:
        raise TypeError
    return value[0], value[1]


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return value


_READERS: Mapping[str, Reader] = {"int": _count, "bool": _flag, "str": _text, "tuple[int, int]": _pair}
"""By the annotation of a field."""


def one_of(known: Iterable[object]) -> Reader:
    """Returns a reader of a field with a few known values."""
    values = tuple(known)

    def read(value: object) -> Any:
        if type(value) is not str or value not in values:
            raise ValueError
        return value

    return read
