"""Writes a model as a folder of sources: any C compiler makes a program of it, for any system.

The kernels are object files, one for each level of processors, and a table of their addresses (``kernels.c``); weights,
tokenizer and plan are one file, ``model.edgeq``, a packed bundle without code. libedgeq comes as its C sources.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.files import Output, check_new_folder, new_folder
from edgeq.progress import Progress, silent
from edgeq.targets.builtin.target import Target, load_target
from edgeq.targets.bundle.content import Content, check_exported, describe, read_exported
from edgeq.targets.bundle.packing import pack_bundle
from edgeq.targets.bundle.remarks import bundle_remarks
from edgeq.targets.bundle.writer import check_weights, manifest_of, write_data
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.toolchain.libedgeq import LIBEDGEQ

if TYPE_CHECKING:
    from edgeq.targets.compiler.compile import CompiledModel

TEMPLATES = Path(__file__).with_name("sources_form")
"""What is copied as it is: ``CMakeLists.txt``, ``README.md``, ``example.c``."""
MODEL_FILE, OBJECTS = "model.edgeq", "objects"
OUTPUT = Output("compile --form sources")
_PARTS = ("include", "library", "program")
_NO_KERNELS = "no_linked_kernels.c"
"""The file of the program that a table of kernels takes the place of."""


def compile_sources(
    onnx_folder: Path | str,
    out: Path | str,
    *,
    target: Target,
    context: int | None = None,
    force: bool = False,
    progress: Progress = silent,
    host_bundle: Path | None = None,
    remark: Callable[[str], None] | None = None,
) -> Path:
    """Compiles an exported model into a folder that another project builds with its own compiler.

    Args:
        onnx_folder: Folder that ``edgeq export`` wrote.
        out: Folder to write; it appears only when it is complete, and replaces an earlier one.
        target: Processor and system to compile for. No compiler for it is needed here.
        context: As for :func:`edgeq.targets.bundle.writer.compile_bundle`.
        force: Replace ``out`` whatever it holds.
        progress: Told after each step.
        host_bundle: Bundle of the same model for this machine, which saves compiling it for the golden outputs.
        remark: Told what the model cannot do.

    Returns:
        ``out``.

    Raises:
        UsageError: If the folder holds no exported model, the model has no such context, or ``out`` holds something
            else than such a folder.
        FormatError: If a file in it is damaged.
        UnsupportedError: If the model needs an operator that has no kernel.
        EdgeqError: If no compiler for this machine is found, which the golden outputs need without a host bundle.
    """
    source, out, host = Path(onnx_folder), Path(out), load_target("host")
    check_exported(source)
    check_new_folder(out, OUTPUT, force=force, sources=[source, *([host_bundle] if host_bundle is not None else [])])
    exported = read_exported(source, context=context)
    from edgeq.targets.compiler.compile import compile_folder

    steps, models = len(target.kinds) + 2, []
    for step, kind in enumerate(target.kinds):
        progress(f"compiling for {kind.name}", step, steps)
        models.append(compile_folder(source, target=kind, prefix=symbol_prefix(kind)))
    check_weights(models, target)
    progress("computing the golden output", steps - 2, steps)
    # Objects for another system cannot run here, and these have other names: this machine's code is made apart.
    local = models if host_bundle is not None else [compile_folder(source, target=host)]
    content = describe(exported, local, target=host, host_bundle=host_bundle)
    progress("writing the sources", steps - 1, steps)
    with new_folder(out, OUTPUT, force=force) as folder:
        _write(folder, models, target=target, content=content, remark=remark)
    progress("writing the sources", steps, steps)
    return out


def symbol_prefix(kind: Target) -> str:
    """Returns what the symbols of a level's kernels begin with, after TVM's own beginning."""
    return re.sub(r"\W", "_", kind.name) + "_"


def _write(
    folder: Path,
    models: Sequence[CompiledModel],
    *,
    target: Target,
    content: Content,
    remark: Callable[[str], None] | None,
) -> None:
    _copy_sources(folder)
    (folder / OBJECTS).mkdir()
    for kind, compiled in zip(target.kinds, models, strict=True):
        (folder / OBJECTS / kind.name).mkdir()
        for name, code in compiled.kernels.items():
            (folder / OBJECTS / kind.name / f"{name.removeprefix(symbol_prefix(kind))}.o").write_bytes(code)
    fingerprint = _fingerprint(folder / OBJECTS)
    (folder / "kernels.c").write_text(kernel_table(models, target, fingerprint), encoding="ascii")
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "model"
        data.mkdir()
        places = write_data(data, models[0].weights, content)
        manifest = manifest_of(
            data, models, target=target, content=content, data=places, tools={}, linked_kernels=fingerprint
        )
        write_manifest(data, manifest)
        read_manifest(data)  # what no runtime would accept must never leave this function
        pack_bundle(data, folder / MODEL_FILE)
        if remark is not None:
            for line in bundle_remarks(data):
                remark(line)


def _copy_sources(folder: Path) -> None:
    for part in _PARTS:
        (folder / "libedgeq" / part).mkdir(parents=True)
        for path in sorted((LIBEDGEQ / part).iterdir()):
            if path.suffix in (".c", ".h", ".hpp") and path.name != _NO_KERNELS:
                shutil.copyfile(path, folder / "libedgeq" / part / path.name)
    for path in sorted(TEMPLATES.iterdir()):
        shutil.copyfile(path, folder / path.name)


def _fingerprint(objects: Path) -> str:
    """A name for exactly these kernels, which the model and the table share."""
    digest = hashlib.sha256()
    for path in sorted(objects.glob("*/*.o")):
        digest.update(path.relative_to(objects).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]


def kernel_table(models: Sequence[CompiledModel], target: Target, fingerprint: str) -> str:
    """Returns ``kernels.c``: the address of every kernel by the level of processors and its name."""
    from edgeq.targets.compiler.linking import POINTERS, SYMBOL_PREFIX

    declared, listed, pointers = [], [], set()
    for kind, compiled in zip(target.kinds, models, strict=True):
        names = sorted({step.kernel for plan in compiled.plans.values() for step in plan.steps})
        declared.append(f"/* {kind.name} */")
        for name in names:
            symbol = f"{SYMBOL_PREFIX}{symbol_prefix(kind)}{name}"
            declared.append(f"int {symbol}(void *, const void *, int32_t, void *);")
            listed.append(f'    {{"{kind.name}/{name}", (void *)(uintptr_t){symbol}}},')
        pointers |= {name for name in POINTERS if any(name.encode() in data for data in compiled.kernels.values())}
    for name in sorted(pointers):
        declared.append(f"extern void *{name};")
        listed.append(f'    {{"{name}", &{name}}},')
    return _TABLE.format(declared="\n".join(declared), listed="\n".join(listed), fingerprint=fingerprint)


_TABLE = """\
/* The kernels of the model, which are linked into the program: written by edgeq. They belong to model.edgeq beside this
 * file, which names the same fingerprint. */
#include <edgeq.h>

#include "libedgeq/program/linked_kernels.h"

{declared}

/* Kernels say here what is wrong with their arguments. The library fills in the pointer. */
static void (*note_error)(const char *kind, const char **parts, int32_t count);

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count);

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {{
  if (note_error != NULL) note_error(kind, parts, count);
}}

static const edgeq_kernel TABLE[] = {{
{listed}
    {{"TVMFFIErrorSetRaisedFromCStrParts", &note_error}},
    {{"fingerprint/{fingerprint}", NULL}},
}};

const edgeq_kernel *linked_kernels(size_t *count) {{
  *count = sizeof TABLE / sizeof *TABLE;
  return TABLE;
}}
"""
