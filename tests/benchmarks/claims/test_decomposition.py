"""The screen of models by what a shared factorisation loses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.claims import decomposition
from edgeq.checkpoint import load_checkpoint
from edgeq.factor.kinds.tucker import TuckerSettings
from edgeq.quant.float_layers import weight_rows

SIZES = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}


def _lost(screened: dict, part: int) -> dict[str, float]:
    return {way["way"].split()[0]: way["lost"] for way in screened["ways"] if way["part"] == part}


def test_blocks_with_common_factors_suit_tucker_and_others_do_not(
    make_bert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decomposition, "SIZES", (7,))
    folder = make_bert("BertModel", seed=5, **SIZES)
    random = decomposition.screen(folder)
    assert (random["width"], random["depth"]) == (32, 2)
    assert _lost(random, 7)["low"] < _lost(random, 7)["Tucker"]
    whole = 12 * 2 * 32 * 32
    assert all(0 < way["numbers"] <= whole // 7 for way in random["ways"])
    assert all(0 < way["lost"] < 1 for way in random["ways"])

    checkpoint = load_checkpoint(folder)
    specs = TuckerSettings(8).plan(checkpoint.model, checkpoint.adapter)
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.linalg.qr(torch.randn(32, 8, generator=generator)).Q for _ in range(2))
    for name, module in checkpoint.model.named_modules():
        if name in specs and isinstance(module, torch.nn.Linear):
            rows = weight_rows(module)
            down, across = rows.shape[0] // 32, rows.shape[1] // 32
            left, right = (u, v) if specs[name].transposed else (v, u)
            blocks = [
                [left @ torch.randn(8, 8, generator=generator) @ right.T for _ in range(across)] for _ in range(down)
            ]
            module.weight.data = torch.cat([torch.cat(row, dim=1) for row in blocks])
    checkpoint.model.save_pretrained(tmp_path / "common")
    checkpoint.tokenizer.save_pretrained(tmp_path / "common")
    common = decomposition.screen(tmp_path / "common")
    assert {way["way"]: way["lost"] for way in common["ways"]}["Tucker III-10"] < 1e-3
    assert _lost(common, 7)["Tucker"] < _lost(common, 7)["low"]


def test_the_table_says_which_way_loses_least() -> None:
    ways = [{"part": part, "way": way, "numbers": 10, "lost": lost}
            for part in decomposition.SIZES for way, lost in (("A", 0.5), ("B", 0.25))]  # fmt: skip
    text = decomposition.markdown({"m": {"width": 8, "depth": 2, "ways": ways}})
    assert "| m | 1/7 | B | 10 | 25.0% |" in text
    assert "- m, 2 blocks of width 8: B loses least at 1/7, B loses least at 1/20, B loses least at 1/48." in text
