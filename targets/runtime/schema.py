"""What a bundle's ``manifest.json`` holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from edgeq.targets.runtime.json_lines import to_lines
from edgeq.targets.runtime.names import CODE_FOLDER, FORMAT_NAME, FORMAT_VERSION, MAIN
from edgeq.targets.runtime.settings import PLAIN_SETTINGS, GenerationSettings
from edgeq.targets.runtime.text_info import PLAIN_TEXT, TextInfo

ITEM_BYTES = {
    "float32": 4,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Element types that a bundle may hold, with their sizes."""
DIGEST_BLOCK = 1 << 17
"""Bytes of a block of a file; :attr:`FileRecord.blocks` has a digest of each."""
LANES = 16
"""Neighbouring keys of one vector in a key cache."""
POOLINGS = ("mean", "cls", "max", "none")

DECODER_INPUTS: dict[str, tuple[int | str, ...]] = {
    "input_ids": ("batch", "sequence"),
    "past_lengths": ("batch",),
    "new_lengths": ("batch",),
}
"""Inputs of a decoder, all int64: tokens that follow those in the cache, filled up on the right; how many of each
sequence are in the cache; how many of each row are tokens."""
TARGET_INPUTS: dict[str, tuple[int | str, ...]] = {**DECODER_INPUTS, "source_lengths": ("batch",)}
"""Inputs of the decoder of an encoder-decoder: also how many tokens each encoder input has."""
SOURCE_INPUTS: dict[str, tuple[int | str, ...]] = {
    "input_ids": ("batch", "sequence"),
    "attention_mask": ("batch", "sequence"),
    "source_lengths": ("batch",),
}
"""Inputs of an encoder that fills the caches of its input, all int64; encoder inputs are padded on the right."""
SOURCE_STATE = ("source_keys.", "source_values.")
"""Beginnings of the names of caches that hold the encoder input."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output of the model.

    Attributes:
        name: Name as in the ONNX file.
        dtype: Key of :data:`ITEM_BYTES`.
        shape: Sizes; a name (``"batch"``) stands for a size chosen at each call.
        minimum: Smallest value allowed, or None.
        maximum: Largest value allowed, or None.
        default: Value that fills this input where a caller leaves it out, or None if it must be given.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    minimum: int | None = None
    maximum: int | None = None
    default: int | None = None


@dataclasses.dataclass(frozen=True)
class PlacedTensor:
    """A tensor inside ``weights.bin`` or ``golden.bin``; ``offset`` and ``bytes`` are in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class PlacedWeight(PlacedTensor):
    """A tensor inside ``weights.bin``.

    Attributes:
        kind: ``packed`` (codes in int32 words), ``float`` or ``constant`` (a constant of the graph).
        bits: Bits of a packed code; None for other kinds.
        zero_point: Code that stands for 0; None for other kinds.
    """

    kind: str
    bits: int | None = None
    zero_point: float | None = None


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What the model is for.

    Attributes:
        architecture: Class name in transformers.
        task: A name of :data:`edgeq.formats.tasks.TASKS`.
        pooling: How token vectors become one vector: ``mean``, ``cls``, ``max`` or ``none``.
        normalize: True if that vector is scaled to length 1.
        labels: Names of the classes of texts or tokens, in order of the logits; empty for the other tasks.
        max_length: Most tokens of one text, or None if nothing limits it; the context of a decoder.
    """

    architecture: str
    task: str
    pooling: str
    normalize: bool
    labels: tuple[str, ...]
    max_length: int | None


@dataclasses.dataclass(frozen=True)
class FunctionInfo:
    """A function of the model; it takes inputs, state and all weights of the model, in this order.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
        state: Tensors that it changes in place and the caller keeps from call to call: for each layer a key cache
            ``[batch, heads, context_blocks, head_size, 16]`` and a value cache ``[batch, heads, context, head_size]``.
            There ``context`` is the capacity in tokens, and ``context_blocks`` a sixteenth of it. As int8, both are
            ``[batch, heads, context_blocks, 16 * (head_size + 4)]``: codes of 16 tokens, then their scales. An
            encoder-decoder also has caches of the encoder input, with ``source_context`` and ``source_context_blocks``.
        plans: The plan as plain JSON values (``Plan.to_table``), by code file.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[TensorSpec, ...]
    plans: dict[str, Any]

    def to_table(self) -> dict[str, Any]:
        """Returns plain JSON values; a plan that all code files share is there once."""
        first, *others = self.plans.values()
        shared = all(plan == first for plan in others)
        return {
            "inputs": [_spec_table(spec) for spec in self.inputs],
            "outputs": [_spec_table(spec) for spec in self.outputs],
            "state": [_spec_table(spec) for spec in self.state],
            **({"plan": first} if shared else {"plans": self.plans}),
        }


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """The reading half of an encoder-decoder.

    Attributes:
        context: Most tokens of an encoder input.
        start_id: Token that every written text starts with; it is not part of the text.
        forced_first: Token that a text must start with after that, or None.
        forced_last: Token that a text of the largest length asked for must end with, or None.
    """

    context: int
    start_id: int
    forced_first: int | None
    forced_last: int | None

    @property
    def capacity(self) -> int:
        """Slots for tokens in a cache of the encoder input."""
        return _whole_vectors(self.context)


@dataclasses.dataclass(frozen=True)
class GenerationInfo:
    """What a decoder needs besides its inputs, state and weights.

    Attributes:
        context: Most tokens of one sequence, prompt included.
        end_ids: Tokens that end a text.
        source: The reading half of an encoder-decoder; None for other models.
        settings: How texts are generated when nothing else is asked for.
    """

    context: int
    end_ids: tuple[int, ...]
    source: SourceInfo | None = None
    settings: GenerationSettings = PLAIN_SETTINGS

    @property
    def capacity(self) -> int:
        """Slots for tokens in a cache: the context, rounded up to whole vectors."""
        return _whole_vectors(self.context)

    def state_shape(self, shape: Sequence[int | str], batch: int) -> tuple[int, ...]:
        """Returns the sizes of a tensor of the state for a number of sequences."""
        sizes = {"batch": batch, "context": self.capacity, "context_blocks": self.capacity // LANES}
        if self.source is not None:
            capacity = self.source.capacity
            sizes |= {"source_context": capacity, "source_context_blocks": capacity // LANES}
        return tuple(sizes[size] if isinstance(size, str) else size for size in shape)


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """A golden run: the function's name, its inputs and the outputs it must give, in the order of the function's."""

    function: str
    inputs: tuple[PlacedTensor, ...]
    outputs: tuple[PlacedTensor, ...]


@dataclasses.dataclass(frozen=True)
class TargetInfo:
    """The processors that one code file is for; see ``edgeq.targets.builtin.target.Target``."""

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    isa: str
    cpu_flags: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """First part of the triple."""
        return self.triple.split("-", 1)[0]

    @property
    def code(self) -> str:
        """Path of its code file in the bundle."""
        return f"{CODE_FOLDER}/{self.name}.so"


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file of the bundle.

    Attributes:
        sha256: SHA-256 of the whole, as ``sha256sum`` gives it.
        bytes: Size.
        blocks: SHA-256 of every :data:`DIGEST_BLOCK` bytes, of which the last may be fewer. The one of a large file
            takes a single core longer than everything else at a start; these are compared side by side.
        crc32: CRC-32 of the same blocks, eight hexadecimal digits each, in one text. It takes a tenth of the time,
            finds damage, and is what a start compares, of the blocks that it uses. None in earlier bundles.
    """

    sha256: str
    bytes: int
    blocks: tuple[str, ...]
    crc32: str | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The whole manifest; see the attributes' own classes.

    Attributes:
        name: Name of the target that the bundle was compiled for.
        targets: The processors that it has code for, best first.
        model: What the model is for.
        functions: Its functions by name.
        weights: What lies in ``weights.bin``.
        golden: Runs of the self-test in their order, those of a decoder on one state.
        files: Every file but the manifest and its digest and signature.
        tools: Versions of what made the bundle.
        recipe: Name and digest of the compression recipe, or None.
        generation: How the model generates text; None if it does not.
        linked_kernels: Fingerprint of the kernels, where they are linked into a program and the bundle has no code.
    """

    name: str
    targets: tuple[TargetInfo, ...]
    model: ModelInfo
    functions: dict[str, FunctionInfo]
    weights: tuple[PlacedWeight, ...]
    golden: tuple[StoredRun, ...]
    files: dict[str, FileRecord]
    tools: dict[str, str]
    recipe: dict[str, Any] | None
    generation: GenerationInfo | None = None
    text: TextInfo = PLAIN_TEXT
    linked_kernels: str | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of ``main``."""
        return self.functions[MAIN].inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of ``main``."""
        return self.functions[MAIN].outputs

    @property
    def state(self) -> tuple[TensorSpec, ...]:
        """State of ``main``; the functions share it."""
        return self.functions[MAIN].state

    def to_json(self) -> str:
        """Returns the text of ``manifest.json``: the same manifest gives the same bytes."""
        table: dict[str, Any] = {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "target": self.name,
            "targets": [{**dataclasses.asdict(target), "code": target.code} for target in self.targets],
            "model": dataclasses.asdict(self.model),
            "text": self.text.to_json(),
            "functions": {name: function.to_table() for name, function in self.functions.items()},
            "weights": [_without_none(dataclasses.asdict(tensor)) for tensor in self.weights],
            "golden": [dataclasses.asdict(run) for run in self.golden],
            "generation": None if self.generation is None else dataclasses.asdict(self.generation),
            "files": {name: _without_none(dataclasses.asdict(self.files[name])) for name in sorted(self.files)},
            "tools": dict(sorted(self.tools.items())),
            "recipe": self.recipe,
        }
        if self.linked_kernels is not None:
            table["linked_kernels"] = self.linked_kernels
        return to_lines(table)


def _whole_vectors(tokens: int) -> int:
    return -(-tokens // LANES) * LANES


def _spec_table(spec: TensorSpec) -> dict[str, Any]:
    return _without_none(dataclasses.asdict(spec))


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}
