"""The programs that are counted: edgeq's own runner and the peers, each making a number of calls."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from benchmarks.speed.engines.turns import ids
from benchmarks.speed.turns import ENGINES
from edgeq.errors import EdgeqError
from edgeq.targets.builtin.target import Target
from edgeq.targets.bundle.tensor_sets import Call, call_of_main, decode_outputs, encode_calls
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.names import RUNNER_FILE
from edgeq.targets.runtime.schema import Manifest

_CALLS = Path(__file__).with_name("calls.py")
_I8MM = ("-cpu", "max,sve=off")
"""The emulator has no Neoverse V1. Its other core with i8mm also has extensions of SVE that a V1 lacks."""
_LARGEST_ID = 1000


@dataclasses.dataclass(frozen=True)
class Work:
    """A call.

    Attributes:
        name: Name in tables.
        model: Folder of the model among those of ``benchmarks.speed``.
        kind: ``encode``, ``prefill`` or ``step``.
        tokens: Its tokens; for a step, those before it.
        recipes: Of edgeq's bundles.
    """

    name: str
    model: str
    kind: str
    tokens: int
    recipes: tuple[str, ...]

    def request(self, folder: Path, variant: str) -> dict[str, Any]:
        """Returns what an engine of ``benchmarks.speed`` is told to load."""
        return {
            "folder": str(folder), "variant": variant, "threads": 1, "kind": self.kind, "batch": 1,
            "tokens": self.tokens, "new_tokens": 0, "beams": 1, "limit": _LARGEST_ID,
        }  # fmt: skip


WORKS = (
    Work("MiniLM, 16 tokens", "minilm-l6", "encode", 16, ("ptq-w8a8", "ptq-w2a8")),
    Work("MiniLM, 128 tokens", "minilm-l6", "encode", 128, ("ptq-w8a8", "ptq-w2a8")),
    Work("GPT-2 small, prompt of 128", "gpt2-small", "prefill", 128, ("ptq-w8a8", "ptq-w2e2a8")),
    Work("GPT-2 small, step after 128", "gpt2-small", "step", 128, ("ptq-w8a8", "ptq-w2e2a8")),
)
CORES = {
    "cortex-a53": "armv8-a",
    "cortex-a72": "armv8-a",
    "cortex-a76": "armv8.2-a+dotprod",
    "neoverse-v1": "armv8.4-a+dotprod+i8mm",
}
"""The cores, and as what llama.cpp is compiled for them; the other peers look at the processor when they start."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another engine.

    Attributes:
        name: Name in tables.
        engine: Script of ``benchmarks.speed``.
        package: Python package, which tells the version.
        variant: What the script is asked for.
        bits: Bits of a weight.
    """

    name: str
    engine: str
    package: str
    variant: str
    bits: int


PEERS = (
    Peer("ONNX Runtime int8", "onnxruntime_engine", "onnxruntime", "int8", 8),
    Peer("ONNX Runtime float32", "onnxruntime_engine", "onnxruntime", "float32", 32),
    Peer("CTranslate2 int8", "ctranslate2_engine", "ctranslate2", "int8", 8),
    Peer("llama.cpp Q8_0", "llama_engine", "llama_cpp", "Q8_0", 8),
    Peer("llama.cpp Q4_0", "llama_engine", "llama_cpp", "Q4_0", 4),
)


@dataclasses.dataclass(frozen=True)
class Program:
    """What is run in the emulator for one setup.

    Attributes:
        bits: Bits of its weights.
        commands: One command, which marks the call that is counted, or two, the second of which makes one call more.
        environment: Its variables.
        answer: Reads what the call gave: the version of the engine, and float32 as the reference has it.
    """

    bits: int
    commands: tuple[Sequence[str], ...]
    environment: dict[str, str]
    answer: Callable[[], tuple[str, np.ndarray]]


def processor(target: Target) -> tuple[str, ...]:
    """Returns the emulator's arguments that choose the core."""
    return _I8MM if target.name == "neoverse-v1" else ("-cpu", target.cpu)


def python_of(sysroot: Path) -> Path:
    """Returns the Python of an AArch64 system.

    Raises:
        EdgeqError: If there is none, or more than one.
    """
    found = sorted(sysroot.glob("usr/bin/python3.*[0-9]"))
    if len(found) != 1:
        raise EdgeqError(f"{sysroot}/usr/bin: expected one python3.N, found {len(found)}; prepare it again")
    return found[0].absolute()


def own_program(bundle: Path, recipe: str, work: Work, *, scratch: Path) -> Program:
    """Returns the program of a bundle: ``edgeq-run``, with one call and with two."""
    manifest = read_manifest(bundle)
    outputs, commands, longest = scratch / "outputs", [], []
    for count in (1, 2):
        longest = _own_calls(work, manifest, count)
        inputs = scratch / f"inputs-{count}"
        inputs.write_bytes(encode_calls(longest, tagged=False))
        options = ["--no-verify", "--threads", "1", "--tensors", str(inputs), "--out", str(outputs)]
        commands.append([str(bundle / RUNNER_FILE), str(bundle), *options])

    def answer() -> tuple[str, np.ndarray]:
        last = decode_outputs(outputs.read_bytes(), longest, tagged=False)[-1]
        return edgeq.__version__, last["last_hidden_state" if work.kind == "encode" else "logits"]

    bits = int(recipe.removeprefix("ptq-w").split("a")[0].split("e")[0])
    return Program(bits, tuple(commands), {}, answer)


def _own_calls(work: Work, manifest: Manifest, count: int) -> list[Call]:
    given = ids(work.request(Path(), ""))
    if work.kind == "step":
        prompt, last = given[:, : work.tokens], given[:, work.tokens :]
        return [_own_call(prompt, 0, manifest), *[_own_call(last, work.tokens, manifest)] * count]
    return [_own_call(given, 0, manifest)] * count


def _own_call(new: np.ndarray, past: int, manifest: Manifest) -> Call:
    possible = {
        "input_ids": new, "attention_mask": np.ones_like(new), "token_type_ids": np.zeros_like(new),
        "past_lengths": np.full(1, past, np.int64), "new_lengths": np.full(1, new.shape[1], np.int64),
    }  # fmt: skip
    return call_of_main({spec.name: possible[spec.name] for spec in manifest.inputs}, manifest)


def peer_program(peer: Peer, work: Work, *, models: Path, tools: Path, core: str, scratch: Path) -> Program:
    """Returns the program of a peer, which marks the call that is counted.

    Args:
        peer: The peer.
        work: The call.
        models: Folder of the models of ``benchmarks.speed``.
        tools: What ``prepare.py`` made.
        core: Name of the core.
        scratch: Folder for the output.
    """
    request = json.dumps(work.request((models / work.model).absolute(), peer.variant))
    out = scratch / "output.npz"
    python = str(python_of(tools / "sysroot"))
    environment = {
        "PYTHONPATH": f"{(tools / 'wheels').absolute()}:{ENGINES}",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "LLAMA_CPP_LIB_PATH": str((tools / "llama" / CORES[core]).absolute()),
        "PATH": "/usr/bin:/bin",
    }

    def answer() -> tuple[str, np.ndarray]:
        with np.load(out) as file:
            return str(file["version"]), file["output"]

    command = [python, str(_CALLS), peer.engine, peer.package, request, str(out)]
    return Program(peer.bits, (command,), environment, answer)
