"""``edgeq-run --tokens`` with any tokenizer, beside the package tokenizers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeq.targets.bundle.tokenizer.table import write_tokenizer
from edgeq.targets.runtime.digests import file_record
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest, write_manifest

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]


@pytest.fixture(scope="session")
def bundle_with(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """Returns a function that gives a bundle another tokenizer: a real one, or bytes of a ``tokenizer.bin``."""

    def make(tokenizer: Any) -> Path:
        folder = tmp_path_factory.mktemp("tokenizer") / "bundle"
        shutil.copytree(make_bundle(NATIVE), folder)
        if isinstance(tokenizer, bytes):
            (folder / "tokenizer.bin").write_bytes(tokenizer)
        else:
            tokenizer.save(str(folder / "tokenizer.json"))
            write_tokenizer(folder / "tokenizer.json", folder / "tokenizer.bin")
        manifest = read_manifest_without(folder, "tokenizer.json", "tokenizer.bin")
        any_length = dataclasses.replace(manifest.model, max_length=None)  # texts are not run, only read
        write_manifest(folder, dataclasses.replace(manifest, model=any_length))
        return folder

    return make


def read_manifest_without(folder: Path, *names: str) -> Any:
    """The manifest with the sizes and digests that these files have now."""
    original = {name: (folder / name).read_bytes() for name in names}
    manifest = None
    try:
        # Sizes are checked, so the files have to look as they were when the manifest was written.
        recorded = json.loads((folder / "manifest.json").read_bytes())["files"]
        for name in names:
            (folder / name).write_bytes(bytes(recorded[name]["bytes"]))
        manifest = read_manifest(folder)
    finally:
        for name, data in original.items():
            (folder / name).write_bytes(data)
    changed = {name: file_record(folder / name) for name in names}
    return dataclasses.replace(manifest, files={**manifest.files, **changed})


@pytest.fixture(scope="session")
def tokens_of(sanitized: Path) -> Callable[[Path, Sequence[str]], list[list[int]]]:
    """Returns a function that gives the ids of texts, one a line, from ``edgeq-run`` with sanitizers."""

    def tokens(bundle: Path, lines: Sequence[str]) -> list[list[int]]:
        source = bundle.parent / "lines.txt"
        source.write_text("\n".join(lines), encoding="utf-8", newline="\n")
        command = [str(sanitized), str(bundle), "--no-verify", "--file", str(source), "--tokens", "--json"]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False, env={"ASAN_OPTIONS": "detect_leaks=0"}
        )
        assert result.returncode == 0, result.stderr
        return [json.loads(line)["ids"] for line in result.stdout.splitlines()]

    return tokens
