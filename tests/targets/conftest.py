"""A model small enough to compile in a second, and its bundles: the device side without the compiler."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MakeOnce = Callable[[str, Callable[[Path], object]], Path]
VOCABULARY = 23
WIDTH = 12
MAX_LENGTH = 40


def reference(ids: np.ndarray, mask: np.ndarray, weights: list[Any]) -> np.ndarray:
    """The tiny model in numpy; all values are small integers and halves, so every order of sums is exact."""
    table, matrix = weights[0].array, weights[1].array
    return (table[ids] @ matrix) * mask[..., None].astype(np.float32)


def _relax_module(*, doubled: bool) -> Any:
    from edgeq.targets.compiler.tvm_import import import_tvm

    tvm = import_tvm()
    from tvm import relax

    batch, sequence = tvm.tirx.Var("batch", "int64"), tvm.tirx.Var("sequence", "int64")
    builder = relax.BlockBuilder()
    ids = relax.Var("input_ids", relax.TensorType((batch, sequence), "int64"))
    mask = relax.Var("attention_mask", relax.TensorType((batch, sequence), "int64"))
    table = relax.Var("table", relax.TensorType((VOCABULARY, WIDTH), "float32"))
    matrix = relax.Var("matrix", relax.TensorType((WIDTH, WIDTH), "float32"))
    with builder.function("main", [ids, mask, table, matrix]):
        with builder.dataflow():
            flat = builder.emit(relax.op.reshape(ids, (batch * sequence,)))
            rows = builder.emit(relax.op.take(table, flat, axis=0))
            product = builder.emit(relax.op.matmul(rows, matrix))
            kept = builder.emit(relax.op.reshape(product, (batch, sequence, WIDTH)))
            keep = builder.emit(relax.op.astype(relax.op.expand_dims(mask, 2), "float32"))
            masked = builder.emit(relax.op.multiply(kept, keep))
            given = builder.emit(relax.op.add(masked, masked)) if doubled else masked
            output = builder.emit_output(relax.Tuple([given]))
        builder.emit_func_output(output)
    return builder.get()


@pytest.fixture(scope="session")
def compile_tiny() -> Callable[..., Any]:
    """Returns a function that compiles the tiny model for a target, or one that gives twice as much if ``doubled``."""

    def compile_for(target: Any, *, doubled: bool = False) -> Any:
        from edgeq.targets.compiler.compile import CompiledFunction, TensorInfo, compile_module

        module = _relax_module(doubled=doubled)
        from edgeq.targets.compiler.importer import WeightTensor  # imports TVM as usual

        generator = np.random.default_rng(7)
        weights = [
            WeightTensor("table", generator.integers(-8, 9, (VOCABULARY, WIDTH)).astype(np.float32) / 2),
            WeightTensor("matrix", generator.integers(-8, 9, (WIDTH, WIDTH)).astype(np.float32) / 2),
        ]
        inputs = [
            TensorInfo("input_ids", "int64", ("batch", "sequence"), VOCABULARY - 1),
            TensorInfo("attention_mask", "int64", ("batch", "sequence")),
        ]
        outputs = [TensorInfo("last_hidden_state", "float32", ("batch", "sequence", WIDTH))]
        return compile_module(module, {"main": CompiledFunction(inputs, outputs, [])}, weights, target)

    return compile_for


@pytest.fixture(scope="session")
def make_bundle(compile_tiny: Callable[..., Any], make_once: MakeOnce) -> Callable[..., Path]:
    """Returns a function that writes the tiny model's bundle for a target, by name; each only once a run."""

    def make(name: str) -> Path:
        def fill(folder: Path) -> None:
            from edgeq.targets.builtin.target import load_target

            _write([compile_tiny(kind) for kind in load_target(name).kinds], name, folder / name)

        return make_once(f"tiny-{name}", fill) / name

    return make


def _write(compiled: list[Any], name: str, out: Path) -> Path:
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.bundle.content import Content
    from edgeq.targets.bundle.golden import GoldenRun, golden_inputs
    from edgeq.targets.bundle.writer import write_bundle
    from edgeq.targets.runtime.names import MAIN
    from edgeq.targets.runtime.schema import FunctionInfo, ModelInfo, TensorSpec
    from edgeq.targets.toolchain.linkers import find_linker

    target = load_target(name)
    model = ModelInfo("TinyModel", "embed", "mean", True, (), MAX_LENGTH)
    inputs = (
        TensorSpec("input_ids", "int64", ("batch", "sequence"), 0, VOCABULARY - 1),
        TensorSpec("attention_mask", "int64", ("batch", "sequence"), 0, 1, 1),
    )
    golden = golden_inputs(inputs, model)
    vectors = reference(golden["input_ids"], golden["attention_mask"], compiled[0].weights)
    expected = {"last_hidden_state": vectors}
    outputs = (TensorSpec("last_hidden_state", "float32", ("batch", "sequence", WIDTH)),)
    tokenizer = out.parent / "tokenizer"
    tokenizer.mkdir()
    _write_tokenizer(tokenizer)
    functions = {MAIN: FunctionInfo(inputs, outputs, (), {})}
    content = Content(model, functions, [GoldenRun(MAIN, golden, expected)], {"name": "none"}, tokenizer)
    write_bundle(compiled, out, target=target, linker=find_linker(target), content=content)
    return out


def _write_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words that, like many published ones, truncates and pads unless told not to."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(VOCABULARY - 4))]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="session")
def doubled_bundle(compile_tiny: Callable[..., Any], make_once: MakeOnce) -> Path:
    """A bundle for this machine with the same weights, whose code gives twice as much."""

    def fill(folder: Path) -> None:
        from edgeq.targets.builtin.target import load_target

        _write([compile_tiny(load_target("host"), doubled=True)], "host", folder / "host")

    return make_once("tiny-doubled", fill) / "host"


@pytest.fixture
def host_bundle(make_bundle: Callable[..., Path]) -> Path:
    """The tiny model for this machine; tests must not change it."""
    return make_bundle("host")


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Returns a function that copies a bundle so that a test may damage it."""
    import shutil

    def copy(bundle: Path) -> Path:
        target = tmp_path / bundle.name
        shutil.copytree(bundle, target)
        return target

    return copy


@pytest.fixture(scope="session")
def gpt2_board(gpt2_onnx: Path, gpt2_bundle: Path, make_once: MakeOnce) -> Callable[[str], Path]:
    """Returns a function that compiles the same model for a named target; each only once a run."""
    return _boards("gpt2", gpt2_onnx, gpt2_bundle, make_once, context=150)


@pytest.fixture(scope="session")
def bart_bundle(bart_onnx: Path, make_once: MakeOnce) -> Path:
    """Its bundle for this machine, for texts of 30 tokens; tests must not change it."""
    import edgeq
    from edgeq.targets.builtin.target import load_target

    def fill(folder: Path) -> None:
        edgeq.compile_bundle(bart_onnx, folder / "host", target=load_target("host"), context=30)

    return make_once("bart-bundle", fill) / "host"


@pytest.fixture(scope="session")
def bart_board(bart_onnx: Path, bart_bundle: Path, make_once: MakeOnce) -> Callable[[str], Path]:
    """Returns a function that compiles the same model for a named target; each only once a run."""
    return _boards("bart", bart_onnx, bart_bundle, make_once, context=30)


def _boards(model: str, onnx: Path, host: Path, make_once: MakeOnce, *, context: int) -> Callable[[str], Path]:
    import edgeq
    from edgeq.targets.builtin.target import load_target

    def make(name: str) -> Path:
        def fill(folder: Path) -> None:
            edgeq.compile_bundle(onnx, folder / name, target=load_target(name), context=context, host_bundle=host)

        return make_once(f"{model}-{name}", fill) / name

    return make


@pytest.fixture
def with_settings(copy_of: Callable[[Path], Path]) -> Callable[..., Path]:
    """Returns a function that copies a bundle and gives it other settings of texts."""
    import dataclasses

    from edgeq.targets.runtime.manifest import read_manifest, write_manifest

    def change(bundle: Path, settings: Any) -> Path:
        changed = copy_of(bundle)
        manifest = read_manifest(changed)
        generation = dataclasses.replace(manifest.generation, settings=settings)
        write_manifest(changed, dataclasses.replace(manifest, generation=generation))
        return changed

    return change


@pytest.fixture(scope="session")
def json_numbers() -> Callable[..., list[tuple[int, int]]]:
    """Returns a function that finds the numbers in a manifest: where they start and end. Digits of digests are none."""

    def find(manifest: bytes, start: int = 0) -> list[tuple[int, int]]:
        found = re.finditer(rb"(?<=[ \[])\d+(?=[,\n\]}])", manifest)
        return [match.span() for match in found if match.start() >= start]

    return find


@pytest.fixture(scope="session")
def sanitized(make_once: MakeOnce) -> Path:
    """``edgeq-run``, without a warning, and with the address and undefined-behaviour sanitizers."""
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.toolchain.libedgeq import build_runner
    from edgeq.targets.toolchain.linkers import find_linker

    def fill(folder: Path) -> None:
        flags = ("-Werror", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Wstrict-prototypes")
        flags += ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
        build_runner(find_linker(load_target("host")), folder / "edgeq-run", extra_flags=flags)

    return make_once("sanitized", fill) / "edgeq-run"
