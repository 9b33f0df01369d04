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
TASKS = ("embed", "classify")
POOLINGS = ("mean", "cls", "max", "none")


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
        task: ``embed`` or ``classify``.
        pooling: How token vectors become one vector: ``mean``, ``cls``, ``max`` or ``none``.
        normalize: True if that vector is scaled to length 1.
        labels: Names of the classes, in order of the logits; empty for ``embed``.
        max_length: Most tokens of one text, or None if nothing limits it.
    """

    architecture: str
    task: str
    pooling: str
    normalize: bool
    labels: tuple[str, ...]
    max_length: int | None


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
    """The whole manifest; see the attributes' own classes."""

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

    def to_json(self) -> str:
        """Returns the text of ``manifest.json``: the same manifest gives the same bytes."""
        table = {
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
        return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def _spec_table(spec: TensorSpec) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(spec).items() if value is not None}
