"""What a bundle's ``manifest.json`` holds, and the names of the files beside it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from edgeq.formats import FORMAT_VERSION

FORMAT_NAME = "edgeq-bundle"
MANIFEST_FILE = "manifest.json"
MANIFEST_DIGEST_FILE = "manifest.sha256"
MODEL_FILE = "model.so"
WEIGHTS_FILE = "weights.bin"
GOLDEN_FILE = "golden.bin"
RUNNER_FILE = "edgeq-run"
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
TASKS = ("embed", "classify", "generate")
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
        task: ``embed``, ``classify`` or ``generate``.
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
class GenerationInfo:
    """What a decoder needs besides its inputs and weights.

    Attributes:
        context: Most tokens of one sequence, prompt included.
        end_ids: Tokens that end a text.
        state: Tensors that ``main`` takes between inputs and weights and changes in place: for each layer a key cache
            ``[batch, heads, context_blocks, head_size, 16]`` and a value cache ``[batch, heads, context, head_size]``.
            There ``context`` is :attr:`capacity`, and ``context_blocks`` a sixteenth of it.
    """

    context: int
    end_ids: tuple[int, ...]
    state: tuple[TensorSpec, ...]

    @property
    def capacity(self) -> int:
        """Slots for tokens in a cache: the context, rounded up to whole vectors."""
        return -(-self.context // LANES) * LANES

    def state_shape(self, spec: TensorSpec, batch: int) -> tuple[int, ...]:
        """Returns the sizes of one tensor of the state for a number of sequences."""
        sizes = {"batch": batch, "context": self.capacity, "context_blocks": self.capacity // LANES}
        return tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """Inputs of one call and the outputs it must give, in the order of the model's."""

    inputs: tuple[StoredTensor, ...]
    outputs: tuple[StoredTensor, ...]


@dataclasses.dataclass(frozen=True)
class TargetInfo:
    """The processor that ``model.so`` is for; see ``edgeq.targets.target.Target``."""

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
    """Size in bytes and SHA-256 of a file of the bundle."""

    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The whole manifest; see the attributes' own classes.

    ``golden_steps`` are calls that follow the golden one on the same state; ``generation`` is None for models that
    make no text.
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
            }
            table["golden"]["steps"] = [dataclasses.asdict(step) for step in self.golden_steps]
        return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def _spec_table(spec: TensorSpec) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(spec).items() if value is not None}
