"""Target descriptors: which processor a bundle is compiled for, how it is linked and how it is emulated.

A target is a small TOML file. The built-in ones are in ``targets/builtin``; ``host`` is made from the
processor this process runs on. A user adds a target by giving the path of such a file.
"""

from __future__ import annotations

import dataclasses
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UnsupportedError, UsageError, nearest_name_hint
from edgeq.plugins import TARGETS, settings_files
from edgeq.reading import read_text
from edgeq.targets.runtime.machine import Machine, normalised_architecture, this_machine

ISAS: dict[str, str] = {
    "sse41": "x86_64",
    "avx2": "x86_64",
    "avx_vnni": "x86_64",
    "avx512bw": "x86_64",
    "avx512_vnni": "x86_64",
    "amx_int8": "x86_64",
    "neon": "aarch64",
    "neon_dotprod": "aarch64",
    "neon_i8mm": "aarch64",
    "neon_armv7": "armv7",
    "portable": "",
}
"""Instruction sets that kernels exist for, and the architecture each belongs to; ``portable`` belongs to all."""

RUNS = ("natively", "emulator", "wine", "built only", "")
"""Where the project's tests run the code of a target; nothing where that is not known, as with a file of a user."""

_CROSS_COMPILERS = (
    "aarch64-linux-gnu-gcc",
    "arm-linux-gnueabihf-gcc",
    "riscv64-linux-gnu-gcc",
    "x86_64-linux-gnu-gcc",
)
LINKERS = ("auto", "cc", *_CROSS_COMPILERS, "zig")


_FIGURES = ("gigahertz", "gigabytes_per_second", "cache_megabytes")
_SHARED_CACHE_FIGURES = ("core_cache_megabytes", "cache_gigabytes_per_second")
"""Both or none of them: for processors whose last cache is not the core's own."""

_BUILTIN = Path(__file__).parent
_LARGEST = 1 << 20
"""Bytes of a target file."""
_HOST = "host"

_Levels = dict[str, list[tuple[str, tuple[str, ...], str, tuple[str, ...]]]]

# Processor level, LLVM features, isa and /proc/cpuinfo flags, best first. The levels are generic on
# purpose: a bundle for `host` then runs on every machine of that level, and not just on its twins.
_V3_FLAGS = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe")
_V4_FLAGS = (*_V3_FLAGS, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_HOST_LEVELS: _Levels = {
    "x86_64": [
        ("x86-64-v4", ("+avx512vnni", "-prefer-256-bit"), "avx512_vnni", (*_V4_FLAGS, "avx512_vnni")),
        ("x86-64-v4", ("-prefer-256-bit",), "avx512bw", _V4_FLAGS),
        ("x86-64-v3", ("+avxvnni",), "avx_vnni", (*_V3_FLAGS, "avx_vnni")),
        ("x86-64-v3", (), "avx2", _V3_FLAGS),
    ],
    "aarch64": [
        ("generic", ("+neon", "+dotprod", "+i8mm"), "neon_i8mm", ("asimd", "asimddp", "i8mm")),
        ("generic", ("+neon", "+dotprod"), "neon_dotprod", ("asimd", "asimddp")),
        ("generic", ("+neon",), "neon", ("asimd",)),
    ],
}
# What else `host` may be, though the operator library has no kernels for it: processors with tiles, which kernels for
# matrices of any size do not use,
_TILE_LEVELS: _Levels = {
    "x86_64": [
        (
            "x86-64-v4",
            ("+avx512vnni", "+amx-tile", "+amx-int8", "-prefer-256-bit"),
            "amx_int8",
            (*_V4_FLAGS, "avx512_vnni", "amx_tile", "amx_int8"),
        )
    ],
}
# and older or plainer processors.
_PLAIN_LEVELS: _Levels = {
    "x86_64": [("x86-64", ("+ssse3", "+sse4.1"), "sse41", ("ssse3", "sse4_1"))],
    "riscv64": [("generic-rv64", ("+m", "+a", "+f", "+d", "+c"), "portable", ())],
}


@dataclasses.dataclass(frozen=True)
class Emulator:
    """A user-mode emulator that runs programs of the target's processor here.

    Attributes:
        program: Executable name, found on PATH.
        arguments: Arguments that select the processor.
        sysroot: Folder of the target's C library, or an empty string if none is needed.
        packages: Debian packages that bring the emulator and the C library.
    """

    program: str
    arguments: tuple[str, ...]
    sysroot: str
    packages: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ProcessorModel:
    """What an estimate assumes of a processor, besides the machine code.

    Attributes:
        model: LLVM's name of the processor whose pipeline llvm-mca models.
        gigahertz: Its clock.
        gigabytes_per_second: What its memory gives one core.
        cache_megabytes: Size of its last cache: weights that fit it whole are not read from memory.
        core_cache_megabytes: Size of the last cache that a core has for itself, if that is another: weights that fit it
            whole cost no time of their own. None takes the last cache for it.
        cache_gigabytes_per_second: What the last cache gives one core; known if ``core_cache_megabytes`` is.
    """

    model: str
    gigahertz: float
    gigabytes_per_second: float
    cache_megabytes: float
    core_cache_megabytes: float | None = None
    cache_gigabytes_per_second: float | None = None

    def weights_gigabytes_per_second(self, weight_bytes: int) -> float | None:
        """Returns how fast weights arrive from where all of them fit, or None if that is the core's own cache."""
        own = self.cache_megabytes if self.core_cache_megabytes is None else self.core_cache_megabytes
        if weight_bytes <= 1e6 * own:
            return None
        if weight_bytes <= 1e6 * self.cache_megabytes:
            return self.cache_gigabytes_per_second
        return self.gigabytes_per_second


@dataclasses.dataclass(frozen=True)
class Target:
    """A processor to compile for.

    Attributes:
        name: Name on the command line and in manifests.
        summary: One line of meaning.
        triple: LLVM triple.
        cpu: LLVM processor name.
        features: LLVM features, each with its ``+`` or ``-``.
        isa: Which family of kernels is used; a key of :data:`ISAS`.
        linker: One of :data:`LINKERS`; ``auto`` takes what is installed.
        cpu_flags: Names in ``/proc/cpuinfo`` that a processor must list to run the bundle.
        run: Where the project's tests run its code: one of :data:`RUNS`.
        emulator: How to run a bundle of this target on another machine, or None.
        estimate: What `edgeq estimate` assumes, or None.
        variants: For a target of several kinds of processors: one target for each, best first. The other attributes
            are then those of the last, which asks for the least.
    """

    name: str
    summary: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    isa: str
    linker: str
    cpu_flags: tuple[str, ...]
    run: str = ""
    emulator: Emulator | None = None
    estimate: ProcessorModel | None = None
    variants: tuple[Target, ...] = ()

    @property
    def kinds(self) -> tuple[Target, ...]:
        """The targets that code is compiled for: the variants, or this one."""
        return self.variants or (self,)

    @property
    def architecture(self) -> str:
        """First part of the triple: ``x86_64``, ``aarch64``, ``armv7`` or ``riscv64``."""
        return normalised_architecture(self.triple.split("-", 1)[0])

    @property
    def system(self) -> str:
        """Operating system that the triple names: ``linux``, ``android``, ``windows`` or ``macos``."""
        return next((name for name in ("android", "windows", "macos") if name in self.triple), "linux")

    @property
    def loads_code(self) -> bool:
        """Whether libedgeq loads code from a bundle there; elsewhere kernels are linked into the program."""
        return self.system == "linux"

    @property
    def tvm_target(self) -> dict[str, Any]:
        """Configuration for ``tvm.target.Target``."""
        config: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.cpu}
        if self.features:
            config["mattr"] = list(self.features)
        if self.triple.endswith("eabihf"):  # LLVM's own choice for a triple is to pass floats in integer registers
            config["mfloat-abi"] = "hard"
        if self.architecture == "riscv64":  # the same
            config["mabi"] = "lp64d"
        return config

    @property
    def is_host(self) -> bool:
        """True for the target made from this machine's processor."""
        return self.name == _HOST

    def runs_on(self, machine: Machine) -> bool:
        """Tells whether code for this target runs on ``machine`` without an emulator."""
        same = machine.architecture == self.architecture and self.system == "linux"
        return same and not machine.lacks(self.cpu_flags)


@dataclasses.dataclass(frozen=True)
class TargetSummary:
    """Name and one-line meaning of a target."""

    name: str
    summary: str


def list_targets() -> list[TargetSummary]:
    """Returns the targets that can be named, ``host`` first."""
    host = TargetSummary(_HOST, "the processor of this machine")
    files = settings_files(TARGETS, _BUILTIN)
    return [host, *(TargetSummary(name, _parse_text(files[name]).summary) for name in sorted(files))]


def load_target(name_or_path: str | Path) -> Target:
    """Returns a built-in target by name, or reads one from a TOML file.

    Args:
        name_or_path: ``host``, a built-in name, or a path that ends in ``.toml``.

    Raises:
        UsageError: If there is no such target or file.
        FormatError: If the file is not a target description.
        UnsupportedError: If no kernels exist for its processor.
    """
    name = str(name_or_path)
    if name == _HOST:
        return host_target(this_machine())
    if name.endswith(".toml"):
        return _read_file(Path(name))
    known = [summary.name for summary in list_targets()]
    if name not in known:
        raise UsageError(
            f"unknown target {name!r}{nearest_name_hint(name, known)} "
            f"(known: {', '.join(known)}; or give the path of a .toml file)"
        )
    return _parse_text(settings_files(TARGETS, _BUILTIN)[name])


def check_takes_bundles(target: Target) -> None:
    """Raises UsageError if programs of a target load no code, and so run no bundle."""
    if not target.loads_code:
        raise UsageError(
            f"programs for {target.name} load no code from a bundle; compile the exported model as sources: `edgeq "
            f"compile ONNX OUT --target {target.name} --form sources`"
        )


def processor_levels(architecture: str) -> list[Target]:
    """Returns a target for each level of processors that the operator library is for, best first; there may be none."""
    return _levels(architecture, _HOST_LEVELS)


def _levels(architecture: str, table: _Levels) -> list[Target]:
    return [
        Target(
            name=isa,
            summary=f"{architecture} with {isa}",
            triple=f"{architecture}-linux-gnu",
            cpu=cpu,
            features=features,
            isa=isa,
            linker="cc",
            cpu_flags=flags,
        )
        for cpu, features, isa, flags in table.get(architecture, [])
    ]


def library_level(machine: Machine) -> Target:
    """Returns the best level of processors of the operator library that runs on ``machine``.

    Raises:
        UnsupportedError: If none does.
    """
    level = _best(machine, _HOST_LEVELS)
    if level is None:
        known = ", ".join(level.isa for level in processor_levels(machine.architecture)) or "other architectures"
        raise UnsupportedError(
            f"this machine ({machine.model}, {machine.architecture}) has none of the instruction sets that the "
            f"operator library has kernels for ({known}); without the library ONNX Runtime runs operators' bodies"
        )
    return level


def host_target(machine: Machine) -> Target:
    """Returns the best target that runs on ``machine``.

    Raises:
        UnsupportedError: If the processor has none of the instruction sets that kernels exist for.
    """
    level = _best(machine, _TILE_LEVELS, _HOST_LEVELS, _PLAIN_LEVELS)
    if level is None:
        raise UnsupportedError(
            f"this machine ({machine.model}, {machine.architecture}) has neither SSE4.1 nor NEON, which "
            "the kernels need; name another target, such as cortex-a72, to compile for a different machine"
        )
    return level


def _best(machine: Machine, *tables: _Levels) -> Target | None:
    for level in [level for table in tables for level in _levels(machine.architecture, table)]:
        if level.runs_on(machine):
            return dataclasses.replace(level, name=_HOST, run="natively", summary=f"this machine: {machine.model}")
    return None


def _read_file(path: Path) -> Target:
    try:
        return _parse_target(read_text(path, largest=_LARGEST), path)
    except UsageError as error:
        raise UsageError(f"cannot read target file {error}") from None


def _parse_text(file: Traversable) -> Target:
    return _parse_target(file.read_text(encoding="utf-8"), file)


def _parse_target(text: str, path: Path | Traversable) -> Target:
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"target file {path} is not valid TOML: {error}") from error
    return _parse(table, path)


def _parse(table: dict[str, Any], path: Path | Traversable) -> Target:
    where, variants = f"target file {path}", table.pop("variants", None)
    if variants is None:
        return _parse_one(table, where)
    if not isinstance(variants, list) or not variants or not all(isinstance(item, dict) for item in variants):
        raise FormatError(f"{where}: 'variants' must be tables, best first")
    shared = {key: value for key, value in table.items() if key not in ("name", "emulator", "estimate")}
    kinds = tuple(_parse_one({**shared, **item}, where) for item in variants)
    if len({kind.name for kind in kinds}) < len(kinds):
        raise FormatError(f"{where}: two variants have one name")
    whole = _parse_one({**variants[-1], **table}, where)
    return dataclasses.replace(whole, variants=kinds)


def _parse_one(table: dict[str, Any], where: str) -> Target:
    emulator_table, estimate_table = table.pop("emulator", None), table.pop("estimate", None)
    run = table.pop("run", "")
    if run not in RUNS:
        raise FormatError(f"{where}: 'run' must be one of {', '.join(RUNS[:-1])}, found {run!r}")
    fields = _checked(
        table,
        where,
        text=("name", "summary", "triple", "cpu", "isa", "linker"),
        lists=("features", "cpu_flags"),
    )
    emulator = None
    if emulator_table is not None:
        if not isinstance(emulator_table, dict):
            raise FormatError(f"{where}: 'emulator' must be a table")
        emulator = Emulator(
            **_checked(
                emulator_table,
                f"{where}, [emulator]",
                text=("program", "sysroot"),
                lists=("arguments", "packages"),
            )
        )
    estimate = None if estimate_table is None else _parse_estimate(estimate_table, where)
    target = Target(**fields, run=run, emulator=emulator, estimate=estimate)
    if target.isa not in ISAS:
        hint = nearest_name_hint(target.isa, list(ISAS))
        raise UnsupportedError(f"{where}: no kernels for isa {target.isa!r}{hint} (known: {', '.join(ISAS)})")
    if ISAS[target.isa] not in ("", target.architecture):
        raise FormatError(
            f"{where}: isa {target.isa!r} belongs to {ISAS[target.isa]}, but triple is {target.triple!r}"
        )
    if target.linker not in LINKERS:
        raise FormatError(f"{where}: linker must be one of {', '.join(LINKERS)}, found {target.linker!r}")
    if target.name == _HOST or not all(part.isalnum() for part in target.name.replace("_", "-").split("-")):
        raise FormatError(
            f"{where}: name must be letters and digits joined by '-' or '_', and not 'host', "
            f"found {target.name!r}"
        )
    return target


def _parse_estimate(table: Any, where: str) -> ProcessorModel:
    if not isinstance(table, dict):
        raise FormatError(f"{where}: 'estimate' must be a table")
    given = tuple(key for key in _SHARED_CACHE_FIGURES if key in table)
    figures = {key: table.pop(key, None) for key in (*_FIGURES, *(_SHARED_CACHE_FIGURES if given else ()))}
    fields = _checked(table, f"{where}, [estimate]", text=("model",), lists=())
    for key, value in figures.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise FormatError(f"{where}, [estimate]: {key!r} must be a number above 0, found {value!r}")
    return ProcessorModel(fields["model"], **{key: float(value) for key, value in figures.items()})


def _checked(
    table: dict[str, Any], where: str, *, text: tuple[str, ...], lists: tuple[str, ...]
) -> dict[str, Any]:
    """Returns the table with lists as tuples, once every key is known, present and of the right type."""
    known = [*text, *lists]
    for key in table:
        if key not in known:
            raise FormatError(f"{where}: unknown key {key!r}{nearest_name_hint(key, known)}")
    checked: dict[str, Any] = {}
    for key in known:
        if key not in table:
            raise FormatError(f"{where}: key {key!r} is missing")
        value = table[key]
        if key in lists:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise FormatError(f"{where}: {key!r} must be a list of strings, found {value!r}")
            checked[key] = tuple(value)
        elif not isinstance(value, str):
            raise FormatError(f"{where}: {key!r} must be a string, found {value!r}")
        else:
            checked[key] = value
    return checked
