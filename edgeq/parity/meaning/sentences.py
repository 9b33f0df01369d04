"""sentence-transformers as a library, here or in a Python of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeq.errors import EdgeqError
from edgeq.parity.meaning import sentence_encoder
from edgeq.parity.meaning.library import Library, NotCheckedError, Reading, Refusal
from edgeq.parity.meaning.samples import Sample
from edgeq.quiet import quiet_transformers

PYTHON_VARIABLE = "EDGEQ_SENTENCE_TRANSFORMERS_PYTHON"
"""Environment variable that names a Python which has sentence-transformers, where this one does not."""
_PACKAGE = "sentence_transformers"


class SentenceTransformers(Library):
    """``SentenceTransformer.encode``, or ``CrossEncoder.predict``, on the float model's own folder.

    Args:
        source: Folder of the float model.
        kind: ``SentenceTransformer`` or ``CrossEncoder``.

    Raises:
        NotCheckedError: If sentence-transformers is nowhere, or does not load the folder.
    """

    def __init__(self, source: Path, kind: str) -> None:
        self._kind = kind
        self._engine: _Here | _Elsewhere = (_Elsewhere if _python_elsewhere() else _Here)(source, kind)
        method = "encode" if kind == sentence_encoder.EMBEDDER else "predict"
        self.name = f"sentence-transformers {self._engine.version}, {kind}.{method}"
        self._compute: Callable[[dict[str, Any]], np.ndarray] | None = None

    def let_go(self) -> None:
        """See :meth:`Library.let_go`."""
        self._engine.let_go()

    def use(self, model: nn.Module) -> None:
        """See :meth:`Library.use`."""
        output = "last_hidden_state" if self._kind == sentence_encoder.EMBEDDER else "logits"
        known = set(_arguments_of(model))

        def compute(given: dict[str, Any]) -> np.ndarray:
            tensors = {name: torch.from_numpy(value) for name, value in given.items() if name in known}
            with torch.no_grad():
                return getattr(model(**tensors), output).numpy()

        self._compute = compute

    def read(self, sample: Sample) -> Reading | Refusal:
        """See :meth:`Library.read`."""
        text = sample.text if isinstance(sample.text, str) else list(sample.text)
        try:
            result, given = self._engine.read(text, sample.prompt_name, self._compute)
        except _LibraryError as error:
            return Refusal(str(error))
        kept = given["attention_mask"][0].astype(bool)
        types = given.get("token_type_ids")
        return Reading(
            tuple(given["input_ids"][0][kept].tolist()),
            None if types is None else tuple(types[0][kept].tolist()),
            None,
            np.asarray(result, np.float64).ravel(),
        )

    def close(self) -> None:
        """See :meth:`Library.close`."""
        self._engine.close()


def is_available() -> bool:
    """Tells whether sentence-transformers is installed here or named by :data:`PYTHON_VARIABLE`."""
    return bool(_python_elsewhere()) or importlib.util.find_spec(_PACKAGE) is not None


def _python_elsewhere() -> str:
    return os.environ.get(PYTHON_VARIABLE, "")


def _arguments_of(model: Any) -> list[str]:
    import inspect

    return list(inspect.signature(model.forward).parameters)


class _LibraryError(EdgeqError):
    """The library failed on a text."""


class _Here:
    """In this process."""

    def __init__(self, source: Path, kind: str) -> None:
        if importlib.util.find_spec(_PACKAGE) is None:
            raise NotCheckedError(
                f"sentence-transformers is not installed here; install it, or set {PYTHON_VARIABLE} to a Python that "
                "has it"
            )
        try:
            with quiet_transformers():
                self._encoder = sentence_encoder.SentenceEncoder(str(source), kind)
        except Exception as error:  # a folder that it does not like ends in whatever then fails
            what = f"{type(error).__name__}: {error}"
            raise NotCheckedError(f"sentence-transformers does not load {source} ({what})") from error
        self.version = self._encoder.version

    def read(self, text: Any, prompt_name: str | None, compute: Any) -> tuple[Any, dict[str, Any]]:
        if compute is not None:
            self._encoder.use(compute)
        try:
            with quiet_transformers():
                return self._encoder.read(text, prompt_name), self._encoder.calls[-1]
        except Exception as error:
            raise _LibraryError(f"{type(error).__name__}: {error}") from error

    def let_go(self) -> None:
        self._encoder.let_go()

    def close(self) -> None:
        """Nothing is open."""


class _Elsewhere:
    """In a process of another Python."""

    def __init__(self, source: Path, kind: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        python, program = _python_elsewhere(), sentence_encoder.__file__
        self._where = f"{PYTHON_VARIABLE}={python}"
        try:
            self._process = subprocess.Popen(
                [python, "-I", program, str(source.absolute()), kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._errors.close()
            raise NotCheckedError(f"{self._where} cannot be started ({error.strerror})") from error
        try:
            self.version = str(self._line()["version"])
        except _LibraryError as error:
            self.close()
            raise NotCheckedError(f"{self._where} does not load {source} ({error})") from error

    def read(self, text: Any, prompt_name: str | None, compute: Any) -> tuple[Any, dict[str, Any]]:
        self._say({"text": text, "prompt_name": prompt_name, "own": compute is None})
        while "call" in (line := self._line()):
            self._say({"result": sentence_encoder.packed(compute(sentence_encoder.unpacked(line["call"])))})
        return sentence_encoder.unpacked(line["result"]), sentence_encoder.unpacked(line["given"])

    def let_go(self) -> None:
        """Its memory is not this process's; it is given back once another model is used."""

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _say(self, table: dict[str, Any]) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # reading its answer says why it ended
                self._process.stdin.write(json.dumps(table) + "\n")
                self._process.stdin.flush()

    def _line(self) -> dict[str, Any]:
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            raise _LibraryError(f"{self._where} ended: {said[-1] if said else 'it said nothing'}")
        table: dict[str, Any] = json.loads(line)
        if "error" in table:
            raise _LibraryError(str(table["error"]))
        return table
