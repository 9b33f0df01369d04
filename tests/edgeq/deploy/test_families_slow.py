"""The newer families through all stages: every proof passes, on the reference, in ONNX Runtime and compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.deploy.run import deploy

pytestmark = pytest.mark.slow

DEBERTA = {"relative_attention": True, "position_buckets": 6, "share_att_key": True, "pos_att_type": "p2c|c2p"}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mpnet": ("make_encoder", "MPNetModel", {}),
    "modernbert": ("make_encoder", "ModernBertForSequenceClassification", {"local_attention": 6}),
    "deberta": ("make_encoder", "DebertaV2ForSequenceClassification", DEBERTA),
    "gpt-neox": ("make_decoder", "GPTNeoXForCausalLM", {"rotary_pct": 0.4}),
    "opt": ("make_decoder", "OPTForCausalLM", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_all_stages_agree(request: pytest.FixtureRequest, case: str, tmp_path: Path) -> None:
    fixture, architecture, config = CASES[case]
    make: Callable[..., Path] = request.getfixturevalue(fixture)
    result = deploy(make(architecture, **config), tmp_path / "run", recipe="ptq-w8a8", rounds=2, sequence=16)
    assert result.passed
