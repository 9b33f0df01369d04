"""Bundles whose keys and values are int8: the same bits however a text is read, and nearly what PyTorch gives."""

import math

import numpy as np
import pytest
import torch

import edgeq
from edgeq.checkpoint import load_checkpoint
from edgeq.models import TorchDecoder, positions
from edgeq.targets.builtin.target import load_target
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.decoder import Decoder
from edgeq.targets.runtime.source_decoder import SourceDecoder
from tests.targets.libedgeq.program import NATIVE

PROMPTS = [[5, 80, 200, 17, 45, 6, 99, 3], [9], [30, 31] * 8]


@pytest.fixture(scope="module")
def made(make_gpt2, exported, make_once):
    """A GPT-2 of float activations: its checkpoint, and a bundle of 33 positions, which is what takes the time here."""
    checkpoint = exported(make_gpt2, "ptq-w4") / "checkpoint"

    def fill(folder):
        edgeq.export_onnx(checkpoint, folder / "onnx", cache="int8")
        edgeq.compile_bundle(folder / "onnx", folder / "host", target=load_target("host"))

    return checkpoint, make_once("gpt2-int8-cache", fill) / "host"


@pytest.fixture(scope="module")
def bundle(made):
    return edgeq.load(made[1], threads=2)


@pytest.fixture(scope="module")
def bart_onnx_int8(make_bart, exported, make_once):
    options = {"encoder_layers": 1, "forced_bos_token_id": 0}
    checkpoint = exported(make_bart, "ptq-w2e2a8", **options) / "checkpoint"
    name = "bart-int8-cache"
    return make_once(name, lambda folder: edgeq.export_onnx(checkpoint, folder / "onnx", cache="int8")) / "onnx"


def test_the_state_is_codes_with_their_scales(bundle):
    blocks = ["batch", 3, "context_blocks", 16 * (12 + 4)]
    state = {spec.name: (spec.dtype, list(spec.shape)) for spec in bundle.manifest.state}
    assert state == {f"{name}.{layer}": ("int8", blocks) for layer in range(2) for name in ("key_cache", "value_cache")}
    shapes = [bundle.generation.state_shape(spec.shape, 1) for spec in bundle.manifest.state]
    capacity, layers = 48, 2
    assert sum(map(math.prod, shapes)) == capacity * layers * 2 * 3 * (12 + 4)  # a byte a number, four a scale


def test_a_text_gets_the_same_bits_at_once_in_pieces_alone_and_in_a_batch(bundle):
    together = Decoder(bundle, batch=3).append(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone, pieces = Decoder(bundle, batch=1), Decoder(bundle, batch=1)
        np.testing.assert_array_equal(alone.append([prompt])[0], together[row])
        for token in prompt:
            last = pieces.append([[token]])
        np.testing.assert_array_equal(last[0], together[row])


def test_logits_are_nearly_those_of_pytorch(made, bundle):
    checkpoint = load_checkpoint(made[0])
    ids = np.random.default_rng(3).integers(5, 250, (2, 21))
    mask = np.ones_like(ids)
    got = np.stack([Decoder(bundle, batch=2).append(ids[:, :length].tolist()) for length in range(1, 22)], axis=1)

    def torch_logits(dtype):
        decoder = TorchDecoder(checkpoint.model, checkpoint.adapter, cache_dtype=dtype)
        return decoder(ids, mask, positions(mask, queries=21))["logits"]

    want, exact = torch_logits(torch.int8), torch_logits(torch.float32)
    rms = [np.sqrt(np.mean(difference**2)) for difference in (got - want, want - exact)]
    # A number at an edge of the grid may fall to either side, which is far less than rounding all of them.
    assert rms[0] < 0.2 * rms[1]


@pytest.mark.slow
def test_beams_carry_codes_and_scales_with_them(bart_onnx_int8, tmp_path):
    bundle = edgeq.load(edgeq.compile_bundle(bart_onnx_int8, tmp_path / "host", target=load_target("host")))
    assert {spec.name.split(".")[0] for spec in bundle.manifest.state} == {
        *("key_cache", "value_cache", "source_keys", "source_values")
    }
    assert {spec.dtype for spec in bundle.manifest.state} == {"int8"}
    options = {"max_new_tokens": 20, "beams": Beams(3, 0.0), "ignore_end": True}
    together = bundle.rewrite(PROMPTS, **options)
    for prompt, found in zip(PROMPTS, together, strict=True):
        [alone] = bundle.rewrite([prompt], **options)
        assert (alone.ids, alone.score) == (found.ids, found.score)
        # The score is what the tokens get when they are read once more, without beams.
        decoder, read = SourceDecoder(bundle, [prompt]), [2, *found.ids]
        logits = torch.from_numpy(np.concatenate([decoder.append([[token]]) for token in read[:-1]]))
        steps = logits.double().log_softmax(-1)[range(20), found.ids]
        assert found.score == pytest.approx(float(steps[1:-1].sum()), rel=1e-4)  # first and last token are forced


@pytest.mark.slow
def test_edgeq_run_generates_what_python_generates(made, bart_onnx_int8, tmp_path):
    options = {"max_new_tokens": 12, "ignore_end": True}
    for name, folder in (("gpt2", made[1].parent / "onnx"), ("bart", bart_onnx_int8)):
        host = edgeq.load(edgeq.compile_bundle(folder, tmp_path / f"{name}-host", target=load_target("host")))
        board = edgeq.compile_bundle(folder, tmp_path / f"{name}-board", target=load_target(NATIVE))
        if name == "gpt2":
            expected = [text.ids for text in host.generate(PROMPTS, **options).results()]
        else:
            expected = [text.ids for text in host.rewrite(PROMPTS, beams=Beams(3), **options)]
        beams = None if name == "gpt2" else Beams(3)
        assert emulator.generate(board, PROMPTS, batch=2, beams=beams, **options) == expected
