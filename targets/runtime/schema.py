"""What a bundle's ``manifest.json`` holds, and the names of the files beside it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from edgeq.formats.low_bit import FORMAT_VERSION
from edgeq.targets.runtime.settings import PLAIN_SETTINGS, GenerationSettings

FORMAT_NAME = "edgeq-bundle"
MANIFEST_FILE = "manifest.json"
MANIFEST_DIGEST_FILE = "manifest.sha256"
SIGNATURE_FILE = "manifest.json.minisig"
MODEL_FILE = "model.so"
WEIGHTS_FILE = "weights.bin"
GOLDEN_FILE = "golden.bin"
RUNNER_FILE = "edgeq-run"
TOKENIZER_TABLE_FILE = "tokenizer.bin"
LIBRARY_FOLDER = "lib"

ITEM_BYTES = {
    "float32": 4,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
}
"""Element types that a bundle may hold, with their sizes."""
TASKS = ("embed", "classify", "generate", "seq2seq")
DIGEST_BLOCK = 1 << 17
"""Bytes of a file that one digest of :attr:`FileRecord.blocks` is of."""
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
"""Inputs of the decoder of an encoder-decoder: also how many tokens each source has."""
SOURCE_INPUTS: dict[str, tuple[int | str, ...]] = {
    "input_ids": ("batch", "sequence"),
    "attention_mask": ("batch", "sequence"),
    "source_lengths": ("batch",),
}
"""Inputs of an encoder that fills the source caches, all int64; sources are filled up on the right."""
SOURCE_STATE = ("source_keys.", "source_values.")
"""Beginnings of the names of caches that hold the source."""


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
class StoredTensor:
    """A tensor inside ``weights.bin`` or ``golden.bin``; ``offset`` and ``bytes`` are in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What the model is for.

    Attributes:
        architecture: Class name in transformers.
        task: ``embed``, ``classify``, ``generate`` (continues a text) or ``seq2seq`` (reads one and writes another).
        pooling: How token vectors become one vector: ``mean``, ``cls``, ``max`` or ``none``.
        normalize: True if that vector is scaled to length 1.
        labels: Names of the classes, in order of the logits; empty for the other tasks.
        max_length: Most tokens of one text, or None if nothing limits it; the context of a decoder.
    """

    architecture: str
    task: str
    pooling: str
    normalize: bool
    labels: tuple[str, ...]
    max_length: int | None


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """The reading half of an encoder-decoder: the function ``encode``.

    It takes its inputs, the source caches and all weights; it gives its outputs and then the caches, filled.

    Attributes:
        context: Most tokens of a source.
        start_id: Token that every written text starts with; it is not part of the text.
        forced_first: Token that a text must start with after that, or None.
        forced_last: Token that a text of the largest length asked for must end with, or None.
        inputs: Inputs of ``encode``.
        outputs: Outputs of ``encode`` without the caches.
    """

    context: int
    start_id: int
    forced_first: int | None
    forced_last: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def capacity(self) -> int:
        """Slots for tokens in a source cache."""
        return _whole_vectors(self.context)


@dataclasses.dataclass(frozen=True)
class GenerationInfo:
    """What a decoder needs besides its inputs and weights.

    Attributes:
        context: Most tokens of one sequence, prompt included.
        end_ids: Tokens that end a text.
        state: Tensors that ``main`` takes between inputs and weights and changes in place: for each layer a key cache
            ``[batch, heads, context_blocks, head_size, 16]`` and a value cache ``[batch, heads, context, head_size]``.
            There ``context`` is :attr:`capacity`, and ``context_blocks`` a sixteenth of it. An encoder-decoder also
            has source caches, with ``source_context`` and ``source_context_blocks``.
        source: The reading half of an encoder-decoder; None for other models.
        settings: How texts are made when nothing else is asked for.
    """

    context: int
    end_ids: tuple[int, ...]
    state: tuple[TensorSpec, ...]
    source: SourceInfo | None = None
    settings: GenerationSettings = PLAIN_SETTINGS

    @property
    def source_state(self) -> tuple[TensorSpec, ...]:
        """The source caches."""
        return tuple(spec for spec in self.state if spec.name.startswith(SOURCE_STATE))

    @property
    def capacity(self) -> int:
        """Slots for tokens in a cache: the context, rounded up to whole vectors."""
        return _whole_vectors(self.context)

    def state_shape(self, spec: TensorSpec, batch: int) -> tuple[int, ...]:
        """Returns the sizes of one tensor of the state for a number of sequences."""
        sizes = {"batch": batch, "context": self.capacity, "context_blocks": self.capacity // LANES}
        if self.source is not None:
            capacity = self.source.capacity
            sizes |= {"source_context": capacity, "source_context_blocks": capacity // LANES}
        return tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """Inputs of one call and the outputs it must give, in the order of the model's."""

    inputs: tuple[StoredTensor, ...]
    outputs: tuple[StoredTensor, ...]


@dataclasses.dataclass(frozen=True)
class TargetInfo:
    """The processor that ``model.so`` is for; see ``edgeq.targets.builtin.target.Target``."""

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


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file of the bundle.

    Attributes:
        sha256: SHA-256 of the whole, as ``sha256sum`` gives it.
        bytes: Size.
        blocks: SHA-256 of every :data:`DIGEST_BLOCK` bytes, of which the last may be fewer. The one of a large file
            takes a single core longer than everything else at a start; these are compared side by side.
    """

    sha256: str
    bytes: int
    blocks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The whole manifest; see the attributes' own classes.

    ``golden_steps`` are calls that follow the golden one on the same state, ``golden_source`` the call of ``encode``
    before it; ``generation`` is None for models that make no text.
    """

    target: TargetInfo
    model: ModelInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: tuple[StoredTensor, ...]
    golden_inputs: tuple[StoredTensor, ...]
    golden_outputs: tuple[StoredTensor, ...]
    files: dict[str, FileRecord]
    tools: dict[str, str]
    recipe: dict[str, Any] | None
    generation: GenerationInfo | None = None
    golden_steps: tuple[StoredRun, ...] = ()
    golden_source: StoredRun | None = None

    def to_json(self) -> str:
        """Returns the text of ``manifest.json``: the same manifest gives the same bytes."""
        table: dict[str, Any] = {
            "format": FORMAT_NAME,
            "format_version": FORMAT_VERSION,
            "target": dataclasses.asdict(self.target),
            "model": dataclasses.asdict(self.model),
            "inputs": [_spec_table(spec) for spec in self.inputs],
            "outputs": [_spec_table(spec) for spec in self.outputs],
            "weights": [dataclasses.asdict(tensor) for tensor in self.weights],
            "golden": {
                "inputs": [dataclasses.asdict(tensor) for tensor in self.golden_inputs],
                "outputs": [dataclasses.asdict(tensor) for tensor in self.golden_outputs],
            },
            "files": {name: dataclasses.asdict(self.files[name]) for name in sorted(self.files)},
            "tools": dict(sorted(self.tools.items())),
            "recipe": self.recipe,
        }
        if self.generation is not None:
            generation = self.generation
            table["generation"] = {
                "context": generation.context,
                "end_ids": list(generation.end_ids),
                "state": [_spec_table(spec) for spec in generation.state],
                "settings": dataclasses.asdict(generation.settings),
            }
            table["golden"]["steps"] = [dataclasses.asdict(step) for step in self.golden_steps]
            if generation.source is not None:
                table["generation"]["source"] = _source_table(generation.source)
        if self.golden_source is not None:
            table["golden"]["source"] = dataclasses.asdict(self.golden_source)
        return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def _whole_vectors(tokens: int) -> int:
    return -(-tokens // LANES) * LANES


def _source_table(source: SourceInfo) -> dict[str, Any]:
    specs = {"inputs": [_spec_table(spec) for spec in source.inputs]}
    return dataclasses.asdict(source) | specs | {"outputs": [_spec_table(spec) for spec in source.outputs]}


def _spec_table(spec: TensorSpec) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(spec).items() if value is not None}
