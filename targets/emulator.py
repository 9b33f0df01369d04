"""Runs a bundle that is for another processor, in an emulator of that processor.

An emulator proves numbers and that no instruction slipped in that the core lacks; it says nothing about
speed. What runs in it is the bundle's own ``edgeq-run``, so the C runner is proven too. A bundle for
another x86-64 level runs without an emulator where this processor has the instructions.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError, FormatError, UnsupportedError
from edgeq.targets.runtime.inputs import checked_inputs
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest, verify_files
from edgeq.targets.runtime.sampling import GREEDY, Sampling
from edgeq.targets.runtime.schema import RUNNER_FILE, Manifest, TensorSpec
from edgeq.targets.runtime.self_test import SelfTest
from edgeq.targets.runtime.threads import users_environment
from edgeq.targets.target import Emulator, Target, load_target

_MAGIC = b"EQT1"
_TIMEOUT_S = 1800


def run_bundle(
    bundle: Path | str,
    inputs: Mapping[str, Any],
    *,
    target: Target | None = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Runs one set of inputs; see :func:`run_many`."""
    return run_many(bundle, [inputs], target=target, threads=threads)[0]


def run_many(
    bundle: Path | str,
    inputs: Sequence[Mapping[str, Any]],
    *,
    target: Target | None = None,
    threads: int | None = None,
) -> list[dict[str, np.ndarray]]:
    """Runs several sets of inputs in one start of ``edgeq-run``.

    A decoder's sets of one batch size follow each other on one state: a set may go on where the one before ended.

    Args:
        bundle: Bundle that holds ``edgeq-run``.
        inputs: Arrays by input name, one mapping a run; shapes may differ between runs.
        target: Where the bundle was made from a target file: that target, which names the emulator.
            (A bundle must not name the programs that run it.)
        threads: Threads of the kernels; None takes the runner's own choice.

    Returns:
        Arrays by output name, one mapping a run.

    Raises:
        UsageError: If there is no bundle, or an input is not what the model takes.
        FormatError: If the bundle is damaged.
        UnsupportedError: If nothing here can run the bundle; the message says what to install.
        EdgeqError: If the run fails.
    """
    folder = Path(bundle).absolute()
    manifest = read_manifest(folder)
    command = _command(folder, manifest, target)
    verify_files(folder, manifest)
    sets = [checked_inputs(given, manifest.inputs, model=manifest.model) for given in inputs]
    with tempfile.TemporaryDirectory() as temporary:
        source, result = Path(temporary) / "inputs", Path(temporary) / "outputs"
        source.write_bytes(_encode(sets))
        options = ["--no-verify", "--tensors", str(source), "--out", str(result)]
        if threads is not None:
            options += ["--threads", str(threads)]
        _run([*command, str(folder), *options], folder)
        return _decode(result.read_bytes(), manifest.outputs, count=len(sets))


def generate(
    bundle: Path | str,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    ignore_end: bool = False,
    target: Target | None = None,
    threads: int | None = None,
) -> list[list[int]]:
    """Continues token ids with ``edgeq-run --generate``.

    Args:
        bundle: Bundle that holds ``edgeq-run``.
        prompts: Ids of each prompt.
        max_new_tokens: Most tokens to make for a prompt.
        sampling: How tokens are chosen.
        ignore_end: Go on after the token that ends a text.
        target: As for :func:`run_many`.
        threads: As for :func:`run_many`.

    Returns:
        The tokens made for each prompt.

    Raises:
        UsageError: If there is no bundle.
        FormatError: If the bundle is damaged.
        UnsupportedError: If nothing here can run the bundle.
        EdgeqError: If the bundle makes no text, a prompt makes no sense, or the run fails.
    """
    folder = Path(bundle).absolute()
    manifest = read_manifest(folder)
    command = _command(folder, manifest, target)
    verify_files(folder, manifest)
    options = ["--no-verify", "--json", "--generate", str(max_new_tokens)]
    for field in dataclasses.fields(sampling):
        value = getattr(sampling, field.name)
        if value != field.default:
            options += [f"--{field.name.replace('_', '-')}", repr(value)]
    if ignore_end:
        options.append("--ignore-end")
    if threads is not None:
        options += ["--threads", str(threads)]
    with tempfile.TemporaryDirectory() as temporary:
        ids = Path(temporary) / "ids"
        ids.write_text("".join(" ".join(map(str, prompt)) + "\n" for prompt in prompts), encoding="ascii")
        lines = _run([*command, str(folder), "--ids", str(ids), *options], folder).splitlines()
    return [json.loads(line)["ids"] for line in lines]


def self_test(bundle: Path | str, *, target: Target | None = None) -> SelfTest:
    """Runs the golden input of a bundle with ``edgeq-run --self-test``.

    Raises:
        UsageError: If there is no bundle.
        FormatError: If the bundle is damaged.
        UnsupportedError: If nothing here can run it.
    """
    folder = Path(bundle).absolute()
    manifest = read_manifest(folder)
    command = [*_command(folder, manifest, target), str(folder), "--self-test"]
    verify_files(folder, manifest)
    try:
        return SelfTest(True, _run(command, folder).strip())
    except EdgeqError as error:
        return SelfTest(False, str(error))


def where_it_runs(bundle: Path | str, *, target: Target | None = None) -> str:
    """Says in a few words what runs the bundle here, such as ``qemu-aarch64-static -cpu cortex-a72``.

    Raises:
        UsageError: If there is no bundle.
        UnsupportedError: If nothing here can run it.
    """
    folder = Path(bundle).absolute()
    command = _command(folder, read_manifest(folder), target)
    return "edgeq-run on this machine" if len(command) == 1 else " ".join(command[:3])


def is_emulator_ready(target: Target) -> bool:
    """Tells whether the emulator of ``target`` and its C library are installed."""
    return target.emulator is not None and not _missing(target.emulator)


def install_command(emulator: Emulator) -> str:
    """Returns the command that installs an emulator and the C library of its processor."""
    return f"apt-get install {' '.join(emulator.packages)}"


def _command(folder: Path, manifest: Manifest, target: Target | None) -> list[str]:
    """Program and arguments that start the bundle's ``edgeq-run``."""
    runner = folder / RUNNER_FILE
    if manifest.model.task == "seq2seq":
        raise UnsupportedError(
            f"bundle {folder} reads one text and writes another, which {RUNNER_FILE} cannot do; load it in Python on "
            "a machine that it is for"
        )
    if RUNNER_FILE not in manifest.files:
        raise UnsupportedError(
            f"bundle {folder} holds no {RUNNER_FILE}: it is for the machine that compiled it; load it there, "
            "or compile for a named target (`edgeq targets` lists them)"
        )
    info = manifest.target
    machine = this_machine()
    emulator = _emulator_of(manifest, target)
    if emulator is not None and not _missing(emulator):
        sysroot = ["-L", emulator.sysroot] if emulator.sysroot else []
        return [emulator.program, *emulator.arguments, *sysroot, str(runner)]
    if machine.architecture == info.architecture:
        missing = machine.lacks(info.cpu_flags)
        if not missing:
            return [str(runner)]
        raise UnsupportedError(
            f"bundle {folder} is for {info.name}, which has {', '.join(missing)}; this machine has not, and "
            "no emulator of it is known; run it on such a machine"
        )
    if emulator is None:
        raise UnsupportedError(
            f"bundle {folder} is for {info.name} ({info.architecture}), and no emulator of it is known; add "
            "one to its target file"
        )
    raise UnsupportedError(
        f"bundle {folder} is for {info.name}, whose emulator is not complete here (missing: "
        f"{', '.join(_missing(emulator))}); install it with `{install_command(emulator)}`"
    )


def _emulator_of(manifest: Manifest, target: Target | None) -> Emulator | None:
    if target is not None:
        return target.emulator
    try:
        return load_target(manifest.target.name).emulator
    except EdgeqError:
        return None


def _missing(emulator: Emulator) -> list[str]:
    missing = [] if shutil.which(emulator.program) else [emulator.program]
    libraries = Path(emulator.sysroot) / "lib"
    if emulator.sysroot and not (
        any(libraries.glob("ld-linux*")) and (libraries / "libstdc++.so.6").exists()
    ):
        missing.append(f"{emulator.sysroot}/lib")
    return missing


def _run(command: list[str], folder: Path) -> str:
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            env=users_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeqError(f"{command[0]} could not run bundle {folder}: {error}") from error
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"it ended with code {result.returncode}"
        raise EdgeqError(f"bundle {folder} failed under {Path(command[0]).name}: {reason}")
    return result.stdout


def _encode(sets: Sequence[Sequence[np.ndarray]]) -> bytes:
    """Writes the format that ``edgeq-run --tensors`` reads (described in runner/inputs.h)."""
    parts = [_MAGIC, struct.pack("<I", len(sets))]
    for arrays in sets:
        for array in arrays:
            parts.append(struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape))
            parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return b"".join(parts)


def _decode(data: bytes, specs: Sequence[TensorSpec], *, count: int) -> list[dict[str, np.ndarray]]:
    try:
        if data[:4] != _MAGIC or struct.unpack_from("<I", data, 4)[0] != count:
            raise FormatError("edgeq-run wrote another number of outputs than it was given inputs")
        at, sets = 8, []
        for _ in range(count):
            outputs = {}
            for spec in specs:
                (dimensions,) = struct.unpack_from("<I", data, at)
                shape = struct.unpack_from(f"<{dimensions}q", data, at + 4)
                at += 4 + 8 * dimensions
                dtype = np.dtype(spec.dtype).newbyteorder("<")
                items = int(np.prod(shape, dtype=np.int64))
                array = np.frombuffer(data, dtype, items, at).reshape(shape)
                at += array.nbytes
                outputs[spec.name] = array.astype(spec.dtype)
            sets.append(outputs)
    except (struct.error, ValueError) as error:
        raise FormatError(f"edgeq-run wrote outputs that are cut off ({error})") from error
    return sets
