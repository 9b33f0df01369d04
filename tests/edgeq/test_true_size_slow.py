"""Random models of true size: what they take when stored with 2-bit weights, scales and all else included."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.ledger import ledger
from edgeq.models import TorchDecoder, TorchPart

MIB = 2**20
GPT2_SMALL = {
    "vocab_size": 50257,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "n_positions": 1024,
}
BART_BASE = {
    "vocab_size": 50265,
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "max_position_embeddings": 1024,
}


@pytest.mark.slow
def test_gpt2_small_at_2_2_8(make_gpt2: Callable[..., Path], tmp_path: Path) -> None:
    compress_model(make_gpt2(**GPT2_SMALL), tmp_path / "out", recipe="ptq-w2e2a8")
    sizes = ledger(tmp_path / "out")
    assert sizes.float32_bytes / MIB == pytest.approx(474.7, abs=0.1)
    assert sizes.stored_bytes <= 33.19 * MIB
    # The file adds its header, which names and places the tensors.
    assert sizes.tensor_file_bytes - sizes.stored_bytes < 0.03 * MIB
    checkpoint = load_checkpoint(tmp_path / "out")
    scores = TorchDecoder(checkpoint.model, checkpoint.adapter).score(torch.arange(1, 9)[None].numpy())
    assert scores.shape == (1, 7)
    assert (scores < 0).all()


@pytest.mark.slow
def test_bart_base_at_2_2_8(make_bart: Callable[..., Path], tmp_path: Path) -> None:
    compress_model(make_bart(**BART_BASE), tmp_path / "out", recipe="ptq-w2e2a8")
    sizes = ledger(tmp_path / "out")
    assert sizes.float32_bytes / MIB == pytest.approx(531.8, abs=0.1)
    assert sizes.stored_bytes <= 39.7 * MIB
    assert sizes.tensor_file_bytes - sizes.stored_bytes < 0.05 * MIB
    checkpoint = load_checkpoint(tmp_path / "out")
    ids = torch.arange(1, 9)[None].numpy()
    ones = ids * 0 + 1
    encoder, first, _ = map(TorchPart, checkpoint.adapter.export_parts(checkpoint.model))
    states = encoder(input_ids=ids, attention_mask=ones)["last_hidden_state"]
    outputs = first(encoder_attention_mask=ones, input_ids=ids[:, :1], encoder_hidden_states=states)
    assert outputs["logits"].shape == (1, 1, 50265)
