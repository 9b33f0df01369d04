"""Runs a bundle that is for another processor, in an emulator of that processor.

An emulator proves numbers and that no instruction slipped in that the core lacks; it says nothing about
speed. What runs in it is the bundle's own ``edgeq-run``, so the C runner is proven too. A bundle for
another x86-64 level runs without an emulator where this processor has the instructions.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError, UnsupportedError, UsageError
from edgeq.targets.builtin.target import Emulator, Target, load_target
from edgeq.targets.bundle.tensor_sets import Call, call_of_encode, call_of_main, decode_outputs, encode_calls
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest, verify_files
from edgeq.targets.runtime.names import ENCODE, RUNNER_FILE
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.schema import Manifest
from edgeq.targets.runtime.self_test import SelfTest

_TIMEOUT_S = 1800
_USAGE = 2
"""What ``edgeq-run`` ends with where its inputs are wrong."""


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
    calls = [call_of_main(given, manifest) for given in inputs]
    return _run_sets(folder, manifest, calls, target=target, threads=threads)


def run_with_source(
    bundle: Path | str,
    source: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    *,
    target: Target | None = None,
    threads: int | None = None,
) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Reads encoder inputs with an encoder-decoder and runs sets of inputs on them, all on one state.

    Args:
        bundle: Bundle that holds ``edgeq-run``.
        source: Inputs of ``encode``: ``input_ids``, ``attention_mask``, ``source_lengths``.
        inputs: Inputs of ``main``, one mapping a call, each for as many sequences as there are encoder inputs.
        target: As for :func:`run_many`.
        threads: As for :func:`run_many`.

    Returns:
        The encoder's outputs by name, and those of every call.

    Raises:
        UsageError: If there is no bundle, it reads no encoder input, or an input is not what the model takes.
        FormatError: If the bundle is damaged.
        UnsupportedError: If nothing here can run the bundle.
        EdgeqError: If the run fails.
    """
    folder = Path(bundle).absolute()
    manifest = read_manifest(folder)
    if ENCODE not in manifest.functions:
        raise UsageError(f"bundle {folder} has no encoder input; leave it out")
    calls = [call_of_encode(source, manifest), *(call_of_main(given, manifest) for given in inputs)]
    encoded, *rest = _run_sets(folder, manifest, calls, target=target, threads=threads)
    return encoded, rest


def _run_sets(
    folder: Path, manifest: Manifest, calls: Sequence[Call], *, target: Target | None, threads: int | None
) -> list[dict[str, np.ndarray]]:
    command = _command(folder, manifest, target)
    verify_files(folder, manifest)
    tagged = manifest.model.task == "seq2seq"
    with tempfile.TemporaryDirectory() as temporary:
        source, result = Path(temporary) / "inputs", Path(temporary) / "outputs"
        source.write_bytes(encode_calls(calls, tagged=tagged))
        options = ["--no-verify", "--tensors", str(source), "--out", str(result)]
        if threads is not None:
            options += ["--threads", str(threads)]
        _run([*command, str(folder), *options], folder)
        return decode_outputs(result.read_bytes(), calls, tagged=tagged)


def generate(
    bundle: Path | str,
    texts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
    no_repeat_ngram_size: int | None = None,
    sampling: Sampling | None = None,
    beams: Beams | None = None,
    ignore_end: bool = False,
    batch: int = 1,
    target: Target | None = None,
    threads: int | None = None,
) -> list[list[int]]:
    """Generates texts from token ids with ``edgeq-run --generate``.

    What is None is as the model's ``generation_config.json`` says.

    Args:
        bundle: Bundle that holds ``edgeq-run``.
        texts: Ids of each prompt, or of each encoder input.
        max_new_tokens: Most tokens to generate for a text.
        min_new_tokens: Tokens to generate before one may end a text.
        no_repeat_ngram_size: Generate no sequence of this many tokens twice; 0 allows all.
        sampling: How tokens are chosen.
        beams: How beams are searched.
        ignore_end: Go on after the token that ends a text.
        batch: Most texts that run together; they do not depend on it.
        target: As for :func:`run_many`.
        threads: As for :func:`run_many`.

    Returns:
        The tokens generated for each text.

    Raises:
        UsageError: If there is no bundle.
        FormatError: If the bundle is damaged.
        UnsupportedError: If nothing here can run the bundle.
        EdgeqError: If the bundle generates no text, a text cannot be used, or the call fails.
    """
    folder = Path(bundle).absolute()
    manifest = read_manifest(folder)
    command = _command(folder, manifest, target)
    verify_files(folder, manifest)
    options = _options(
        generate="auto" if max_new_tokens is None else max_new_tokens,
        min_new_tokens=min_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        batch=batch if batch > 1 else None,
        threads=threads,
        **(_sampling_options(sampling) if sampling is not None else {}),
        **(_beam_options(beams) if beams is not None else {}),
    )
    options += ["--no-verify", "--json", *(["--ignore-end"] if ignore_end else [])]
    with tempfile.TemporaryDirectory() as temporary:
        ids = Path(temporary) / "ids"
        ids.write_text("".join(" ".join(map(str, text)) + "\n" for text in texts), encoding="ascii")
        lines = _run([*command, str(folder), "--ids", str(ids), *options], folder).splitlines()
    return [json.loads(line)["ids"] for line in lines]


def _options(**given: Any) -> list[str]:
    """Options of ``edgeq-run`` by name; None leaves one out."""
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items() if value is not None]
    return [word for pair in pairs for word in pair]


def _sampling_options(sampling: Sampling) -> dict[str, str]:
    """All of them, because the bundle may say otherwise."""
    return {field.name: repr(getattr(sampling, field.name)) for field in dataclasses.fields(sampling)}


def _beam_options(beams: Beams) -> dict[str, str]:
    if beams.count == 1:
        return {"num_beams": "1"}
    early = beams.early_stopping
    stopping = early if isinstance(early, str) else "yes" if early else "no"
    return {
        "num_beams": str(beams.count),
        "length_penalty": repr(beams.length_penalty),
        "early_stopping": stopping,
    }


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
    if RUNNER_FILE not in manifest.files:
        raise UnsupportedError(
            f"bundle {folder} holds no {RUNNER_FILE}; compile it again"
        )
    info = manifest.targets[-1]
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
            f"bundle {folder} is for {info.name}, which has {', '.join(missing)}; this machine lacks them, and "
            "edgeq knows no emulator that has them; run the bundle on such a machine"
        )
    if emulator is None:
        raise UnsupportedError(
            f"bundle {folder} is for {info.name} ({info.architecture}), and edgeq knows no emulator of it; add "
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
        return load_target(manifest.name).emulator
    except EdgeqError:
        return None


def _missing(emulator: Emulator) -> list[str]:
    missing = [] if shutil.which(emulator.program) else [emulator.program]
    libraries = Path(emulator.sysroot) / "lib"
    if emulator.sysroot and not any(libraries.glob("ld-linux*")):
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
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeqError(f"{command[0]} could not run bundle {folder}: {error}") from error
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"it ended with code {result.returncode}"
        kind = UsageError if result.returncode == _USAGE else EdgeqError
        raise kind(f"bundle {folder} failed under {Path(command[0]).name}: {reason}")
    return result.stdout
