"""A small BART through export and compiler: the source is read once, the target is written token by token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.compile import CompiledModel, compile_folder
from edgeq.targets.compiler.linking import link_code
from edgeq.targets.compiler.run_plan import CompiledCode, aligned_zeros
from edgeq.targets.toolchain.linkers import find_linker

pytestmark = pytest.mark.slow  # bundles of such models are tested in test_seq2seq.py, and their proof in tests/parity

SIZES = {"context": 32, "context_blocks": 2, "source_context": 32, "source_context_blocks": 2}
GENERATOR = np.random.default_rng(0)


class Machine:
    """The compiled functions with caches for one batch."""

    def __init__(self, compiled: CompiledModel, batch: int, folder: Path) -> None:
        library = folder / f"code{batch}.so"
        link_code(compiled, library, find_linker(load_target("host")))
        self.code, self.compiled = CompiledCode(compiled, library), compiled
        self.state = {}
        for state in compiled.state:
            shape = [size if isinstance(size, int) else SIZES.get(size, batch) for size in state.shape]
            self.state[state.name] = aligned_zeros(shape, state.dtype)

    def encode(self, *inputs: np.ndarray) -> np.ndarray:
        return self._call("encode", self.compiled.encoder.state, inputs)

    def step(self, *inputs: np.ndarray) -> np.ndarray:
        return self._call("main", self.compiled.state, inputs)

    def _call(self, function, state, inputs) -> np.ndarray:
        return self.code.run(inputs, state=[self.state[s.name] for s in state], function=function)[0]


@pytest.fixture(scope="module")
def folder(make_bart: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgeq.compress import compress_model
    from edgeq.export.exporter import export_onnx

    root = tmp_path_factory.mktemp("bart")
    compress_model(make_bart(), root / "checkpoint", recipe="ptq-w4a8")
    export_onnx(root / "checkpoint", root / "onnx")
    return root / "onnx"


@pytest.fixture(scope="module")
def compiled(folder: Path) -> CompiledModel:
    return compile_folder(folder, target=load_target("host"))


@pytest.fixture(scope="module")
def texts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources of 11 and 6 tokens, and targets."""
    sources, mask = GENERATOR.integers(5, 40, (2, 11)), np.ones((2, 11), np.int64)
    mask[1, 6:] = 0
    return sources, mask, GENERATOR.integers(5, 40, (2, 7))


def run_steps(machine: Machine, targets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    one = np.ones(len(targets), np.int64)
    return np.stack([machine.step(targets[:, i : i + 1], one * i, one, lengths) for i in range(targets.shape[1])], 1)


def test_weights_are_held_once(compiled, folder):
    """Every tensor of the three graphs is one weight, whichever function reads it; constants of graphs come besides."""
    stored = {}
    for file in folder.glob("*.onnx"):
        for tensor in onnx.load(file).graph.initializer:
            stored[tensor.name] = onnx.numpy_helper.to_array(tensor).nbytes
    names = [weight.name for weight in compiled.weights]
    assert len(names) == len(set(names))
    read = {weight.name: weight.array.nbytes for weight in compiled.weights if weight.kind != "constant"}
    assert read == {name: stored[name] for name in read}
    assert len(read) > 50


def test_encoder_and_decoder_match_onnx_runtime(compiled, folder, texts):
    sources, mask, targets = texts
    encoder = onnxruntime.InferenceSession(folder / "encoder_model.onnx")
    decoder = onnxruntime.InferenceSession(folder / "decoder_model.onnx")
    states = encoder.run(None, {"input_ids": sources, "attention_mask": mask})[0]
    feed = {"encoder_attention_mask": mask, "input_ids": targets, "encoder_hidden_states": states}
    expected = decoder.run(["logits"], feed)[0]

    machine = Machine(compiled, 2, folder)
    found = machine.encode(sources, mask, mask.sum(1))
    assert np.abs((found - states) * mask[..., None]).max() < 0.05 * np.abs(states).std()
    logits = run_steps(machine, targets, mask.sum(1))
    assert np.sqrt(np.mean((logits - expected) ** 2)) < 0.05 * expected.std()


def test_a_source_gets_the_same_bits_alone_and_in_a_batch(compiled, folder, texts):
    sources, mask, targets = texts
    together = Machine(compiled, 2, folder)
    together.encode(sources, mask, mask.sum(1))
    logits = run_steps(together, targets, mask.sum(1))
    for row, length in enumerate(mask.sum(1)):
        alone = Machine(compiled, 1, folder)
        alone.encode(sources[row : row + 1, :length], mask[row : row + 1, :length], np.array([length]))
        assert np.array_equal(run_steps(alone, targets[row : row + 1], np.array([length]))[0], logits[row])
