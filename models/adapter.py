"""The interface between a model family and the rest of edgeq."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Literal

import torch
import transformers
from torch import nn

from edgeq.formats.tasks import TASKS
from edgeq.models.cache import DEFAULT_CACHE_DTYPE, stored_names
from edgeq.models.sentence import EMBEDDING, POOLING_MASK, SentenceHead, WithSentenceEmbedding
from edgeq.models.stacks import LayerStack, Migration

Task = Literal["embed", "classify", "tag", "answer", "fill", "generate", "seq2seq"]
"""Names of :data:`edgeq.formats.tasks.TASKS`, as a type."""


class ModelAdapter(abc.ABC):
    """Everything edgeq asks about one architecture; made from a configuration, without weights.

    A new family is a subclass that sets ``family`` and ``architectures``, implements the abstract
    methods, and is listed in ``registry.py``.

    Attributes:
        config: The ``transformers`` configuration.
        architecture: Class name of the model, such as ``BertModel``.
        sentence: From token states to a sentence embedding; set where the checkpoint is loaded, None for other tasks.
    """

    family: ClassVar[str]
    """Value of ``config.model_type``."""
    architectures: ClassVar[dict[str, Task]]
    """Model classes that the adapter knows, and what each is for."""
    module_prefix: ClassVar[str] = "model."
    """What :meth:`export_module` puts before the checkpoint's names of modules."""
    least_opset: ClassVar[int] = 18
    """First version of the standard operators that has all that the graph needs."""
    untrained_because: ClassVar[str] = ""
    """Why the family has no stacks, if it has none, as the end of a sentence that begins with the model."""
    unread_because: ClassVar[str] = ""
    """Why the attention of its stacks cannot be read, if it cannot, as the end of a sentence that begins so."""

    def __init__(self, config: Any, architecture: str) -> None:
        self.config = config
        self.architecture = architecture
        self.sentence: SentenceHead | None = None
        self.check_config()

    @property
    def task(self) -> Task:
        """What the model is for: a name of :data:`edgeq.formats.tasks.TASKS`."""
        return self.architectures[self.architecture]

    @property
    def labels(self) -> list[str]:
        """Label names in the order of the logits, for tasks that have labels; empty for others."""
        if not TASKS[self.task].has_labels:
            return []
        return [str(self.config.id2label[index]) for index in range(self.config.num_labels)]

    @abc.abstractmethod
    def check_config(self) -> None:
        """Refuses configurations that the export or the kernels cannot handle.

        Raises:
            UnsupportedError: If the variant of the architecture is not implemented.
            FormatError: If the numbers contradict each other.
        """

    @property
    @abc.abstractmethod
    def linear_names(self) -> list[str]:
        """Module names of all linear layers, in the order in which they run."""

    @property
    @abc.abstractmethod
    def embedding_names(self) -> list[str]:
        """Module names of all embedding tables."""

    @property
    def tied_names(self) -> dict[str, str]:
        """Layers that use the weights of an embedding table, such as an output head, with that table."""
        return {}

    @property
    def float_names(self) -> dict[str, str]:
        """Layers that stay float whatever the recipe says, with the reason."""
        return {}

    @property
    def int8_attention_names(self) -> list[str]:
        """Modules of self-attention that can be int8; none of a family whose attention stays float."""
        return []

    @property
    def zero_buffers(self) -> list[str]:
        """Buffers that are zero in nearly all checkpoints, and then need not be stored."""
        return []

    @property
    def computed_names(self) -> list[str]:
        """Tensors that ``transformers`` computes when it makes the model, and that need not be stored."""
        return []

    @property
    def optional_modules(self) -> list[str]:
        """Modules that the task does not use, and that checkpoints may lack, such as an encoder's pooler."""
        return []

    @property
    def repeated_names(self) -> dict[str, str]:
        """Tensors that are one with another tensor, by the other's name; a checkpoint holds one of the two or both."""
        return {}

    @property
    def has_pooler(self) -> bool:
        """Whether a bare encoder has a pooler; ``add_pooling_layer`` of its configuration is false if it has none."""
        return self.task != "embed" or bool(getattr(self.config, "add_pooling_layer", True))

    @classmethod
    def class_named(cls, architecture: str) -> Any:
        """Returns the model class of one of :attr:`architectures`; a family of other packages says where its are."""
        return getattr(transformers, architecture)

    @property
    def model_class(self) -> Any:
        """The model class that :attr:`architecture` names."""
        return self.class_named(self.architecture)

    @property
    def model_options(self) -> dict[str, Any]:
        """What the class is called with besides the configuration."""
        return {} if self.has_pooler else {"add_pooling_layer": False}

    @property
    @abc.abstractmethod
    def layer_names(self) -> list[str]:
        """Module names of the blocks of the model, in the order in which they run."""

    @property
    @abc.abstractmethod
    def stacks(self) -> tuple[LayerStack, ...]:
        """The blocks again, with what distillation and layer reduction need to know of them."""

    @property
    def migrations(self) -> list[Migration]:
        """Where factors may move between modules while the float model stays what it is, with whole module names."""
        return [one for stack in self.stacks for one in stack.all_migrations()]

    @property
    @abc.abstractmethod
    def input_names(self) -> list[str]:
        """Names of the inputs, as optimum names them; int64 ``[batch, sequence]`` unless the family says more."""

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, as optimum names them."""
        return list(TASKS[self.task].outputs)

    @property
    @abc.abstractmethod
    def max_positions(self) -> int:
        """Longest sequence that the model can read, in tokens."""

    @abc.abstractmethod
    def export_module(self, model: nn.Module) -> nn.Module:
        """Wraps ``model`` so that it takes ``input_names`` by position and returns ``output_names``.

        With one output, the wrapper returns the tensor itself, otherwise a tuple.
        """

    @property
    def graph_inputs(self) -> list[str]:
        """Names of the inputs of the exported graph: those of the model, and what the pooling may read besides."""
        masks = [POOLING_MASK] if self.sentence is not None and self.sentence.reads_pooling_mask else []
        return [*self.input_names, *masks]

    @property
    def graph_outputs(self) -> list[str]:
        """Names of the outputs of the exported graph: those of the model, and its sentence embedding."""
        return [*self.output_names, *([EMBEDDING] if self.sentence is not None else [])]

    def graph(self, model: nn.Module) -> ExportPart:
        """Wraps ``model`` as the one graph that is exported: an encoder with what follows it."""
        module, prefix = self.export_module(model), self.module_prefix
        if self.sentence is not None:
            module, prefix = WithSentenceEmbedding(module, self.sentence), f"encoder.{prefix}"
        return ExportPart("model", module, tuple(self.graph_inputs), tuple(self.graph_outputs), prefix)


@dataclasses.dataclass(frozen=True)
class CacheShape:
    """Size of a key/value cache; see :data:`edgeq.models.cache.Stored` for its tensors.

    Attributes:
        layers: Layers that have keys and values.
        heads: Attention heads.
        head_size: Width of one head.
    """

    layers: int
    heads: int
    head_size: int

    @property
    def values_of_a_token(self) -> int:
        """Numbers that the keys and values of one token are."""
        return 2 * self.layers * self.heads * self.head_size

    def empty(self, batch: int, *, dtype: torch.dtype) -> list[torch.Tensor]:
        """Returns the cache before the first token: for each layer a key and a value of length 0."""
        codes = torch.zeros(batch, self.heads, 0, self.head_size, dtype=dtype)
        scales = torch.zeros(batch, self.heads, 0, 1)
        return [*(codes, scales)[: len(stored_names("key", dtype))] * 2 * self.layers]


class GenerativeAdapter(ModelAdapter):
    """A family that generates text token by token, with a cache of keys and values."""

    @property
    @abc.abstractmethod
    def cache(self) -> CacheShape:
        """Size of the cache."""

    def cache_names(self, prefix: str, dtype: torch.dtype) -> list[str]:
        """Returns the names of the keys and values of every layer, in order, as optimum has them.

        Args:
            prefix: ``past_key_values`` or ``present``.
            dtype: Type of the cache; as int8, keys and values each have scales behind them.
        """
        parts = [name for part in ("key", "value") for name in stored_names(part, dtype)]
        return [f"{prefix}.{index}.{part}" for index in range(self.cache.layers) for part in parts]

    def empty_cache(self, batch: int, *, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Returns the cache before the first token by the names of the exported graph's inputs."""
        return dict(zip(self.cache_names("past_key_values", dtype), self.cache.empty(batch, dtype=dtype), strict=True))

    @abc.abstractmethod
    def export_module(self, model: nn.Module) -> nn.Module:
        """Wraps ``model`` with its cache as inputs and outputs.

        Args:
            model: A float or compressed model.

        Returns:
            A module that takes ids, mask and positions by position, then the cache as a list of tensors, whose type
            is what keys and values are rounded to.
        """

    def export_part(self, model: nn.Module, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE) -> ExportPart:
        """Wraps ``model`` as the one graph that is exported.

        Args:
            model: A float or compressed model.
            cache_dtype: Type of the cache: float16, float32 or int8.
        """
        inputs = (*self.input_names, *self.cache_names("past_key_values", cache_dtype))
        outputs = (*self.output_names, *self.cache_names("present", cache_dtype))
        return ExportPart("model", self.export_module(model), inputs, outputs)


@dataclasses.dataclass(frozen=True)
class ExportPart:
    """One of several graphs that make up a model.

    Attributes:
        name: Name of its file, without ``.onnx``, as optimum has it.
        module: Takes the inputs by position, those of the cache as one list at the end.
        input_names: Names of the inputs, the cache flattened.
        output_names: Names of the outputs.
        prefix: What the wrapper puts before the checkpoint's names of modules.
    """

    name: str
    module: nn.Module
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    prefix: str = "model."


class Seq2SeqAdapter(ModelAdapter):
    """A family that reads one text and writes another token by token, with caches of keys and values."""

    @property
    @abc.abstractmethod
    def cache(self) -> CacheShape:
        """Size of the decoder's cache; that of the encoder input differs in its length only."""

    @abc.abstractmethod
    def export_module(self, model: nn.Module, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE) -> nn.Module:
        """Wraps the whole of ``model``: source, mask and target in, logits of the target out.

        Args:
            model: A float or compressed model.
            cache_dtype: What keys and values of the decoder are rounded to: float16, float32 or int8.
        """

    @abc.abstractmethod
    def export_parts(
        self, model: nn.Module, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE
    ) -> list[ExportPart]:
        """Wraps the parts of ``model`` that run one after the other.

        Args:
            model: A float or compressed model.
            cache_dtype: Type of the caches: float16, float32 or int8.

        Returns:
            The encoder, the decoder's first step (which makes the caches), and its later steps.
        """
