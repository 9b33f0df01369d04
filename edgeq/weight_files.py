"""The weights of a checkpoint folder: one safetensors file, several with an index, or PyTorch's own files.

PyTorch's files are pickles. They are opened by ``torch.load(weights_only=True)`` alone, which makes tensors and runs
no code; what needs code to be read is refused.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import safetensors
import torch

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.formats.json_file import read_json_object
from edgeq.formats.tensor_header import read_tensor_header
from edgeq.reading import open_regular

WEIGHTS_NAME = "model.safetensors"
_PICKLE = "pytorch_model.bin"
_INDEX = ".index.json"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_OTHERS = ("*.safetensors", "*.bin", "*.pt", "*.ckpt.index", "*.h5", "*.msgpack", "*.gguf", "*.onnx")
"""Weights that edgeq does not read, looked for to say what a folder holds instead."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a file says of a tensor.

    Attributes:
        shape: Its dimensions.
        is_float: Whether it holds floating-point numbers of 16 bits or more.
        dtype: The name of its type, for messages.
    """

    shape: tuple[int, ...]
    is_float: bool
    dtype: str


@dataclasses.dataclass(frozen=True)
class WeightFiles:
    """The weights of a folder, not yet in memory.

    Attributes:
        paths: The files that hold tensors.
        tensors: What they hold, by name.
        remark: What the user should know of how they are read, or None.
    """

    paths: tuple[Path, ...]
    tensors: dict[str, Stored]
    remark: str | None
    _load: Callable[[], Iterator[tuple[str, torch.Tensor]]]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.paths)

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields names and tensors, which are mapped from the files rather than read."""
        return self._load()


def find_weights(folder: Path) -> WeightFiles:
    """Finds the weights of a folder and checks what the files say of themselves.

    Where there are several kinds, safetensors comes first, as in ``transformers``.

    Raises:
        UsageError: If there are none.
        UnsupportedError: If there are only some that edgeq does not read.
        FormatError: If a file is damaged, missing, or names one outside the folder.
    """
    for name, read in ((WEIGHTS_NAME, _read_safetensors), (_PICKLE, _read_pickles)):
        if (folder / name).exists():
            return read([folder / name])
        if (folder / f"{name}{_INDEX}").exists():
            return _read_shards(folder / f"{name}{_INDEX}", read)
    found = sorted(path.name for pattern in _OTHERS for path in folder.glob(pattern))
    if not found:
        raise UsageError(f"{folder} holds no {WEIGHTS_NAME}; give a checkpoint as save_pretrained writes it")
    raise UnsupportedError(
        f"{folder} holds no {WEIGHTS_NAME} and no {_PICKLE}, found {found[0]}; save the model with save_pretrained"
    )


def _read_shards(index: Path, read: Callable[[list[Path]], WeightFiles]) -> WeightFiles:
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise FormatError(f"{index} is damaged: 'weight_map' should name the file of each tensor")
    for name in sorted(set(places.values())):
        if Path(name).name != name or name in ("", ".", ".."):
            raise FormatError(f"{index} names {name!r}, which is not a file of this folder; get the checkpoint again")
        if not (index.parent / name).exists():
            raise FormatError(f"{index.parent / name} is missing although {index.name} names it; get it again")
    weights = read([index.parent / name for name in sorted(set(places.values()))])
    if differing := sorted(places.keys() ^ weights.tensors.keys()):
        raise FormatError(
            f"{index} and its files disagree on tensor {differing[0]!r}: one of them is damaged; get them again"
        )
    return weights


def _read_safetensors(paths: list[Path]) -> WeightFiles:
    tensors: dict[str, Stored] = {}
    for path in paths:
        for name, entry in read_tensor_header(path).items():
            _check_new(name, tensors, path)
            tensors[name] = Stored(entry.shape, entry.dtype in _DTYPES, entry.dtype)

    def load() -> Iterator[tuple[str, torch.Tensor]]:
        for path in paths:
            with safetensors.safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    yield name, opened.get_tensor(name)

    return WeightFiles(tuple(paths), tensors, None, load)


def _read_pickles(paths: list[Path]) -> WeightFiles:
    states = [(path, _unpickle(path)) for path in paths]
    tensors: dict[str, Stored] = {}
    for path, state in states:
        for name, tensor in state.items():
            _check_new(name, tensors, path)
            dtype = str(tensor.dtype).removeprefix("torch.")
            tensors[name] = Stored(tuple(tensor.shape), tensor.dtype in _DTYPES.values(), dtype)
    remark = f"weights come from {paths[0].name}, a pickle, opened with weights_only=True: tensors only, no code is run"
    return WeightFiles(
        tuple(paths), tensors, remark, lambda: itertools.chain.from_iterable(state.items() for _, state in states)
    )


def _check_new(name: str, tensors: dict[str, Stored], path: Path) -> None:
    if name in tensors:
        raise FormatError(f"{path}: another file of the model holds tensor {name!r} too; get the checkpoint again")


def _unpickle(path: Path) -> dict[str, torch.Tensor]:
    with open_regular(path) as stream:
        is_zip = zipfile.is_zipfile(stream)
    if is_zip:
        _check_archive(path)
    try:
        # Files older than PyTorch 1.6 are no archives and cannot be mapped.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that torch would like to be told of
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedError(
            f"{path} cannot be read as plain tensors (weights_only=True), and edgeq runs no code of a pickle: {reason}"
        ) from None
    except Exception as error:  # torch reports damaged archives by whatever then fails
        raise FormatError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise UnsupportedError(f"{path} should hold tensors by name; save the model with save_pretrained")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in _distinct(state.values()))
    if claimed > path.stat().st_size:
        raise FormatError(f"{path} describes {claimed} bytes of tensors and has {path.stat().st_size}: it is damaged")
    return dict(state)


def _distinct(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Tied weights are one tensor under several names."""
    kept = {(t.data_ptr(), t.dtype, tuple(t.shape), t.stride()): t for t in tensors}
    return list(kept.values())


def _check_archive(path: Path) -> None:
    """Refuses an archive that grows when it is unpacked: PyTorch stores everything as it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            grown = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FormatError(f"{path} is damaged: {error}") from None
    if grown:
        raise FormatError(f"{path} is damaged: PyTorch compresses nothing, but {grown[0].filename!r} is compressed")
