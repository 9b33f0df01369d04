"""The newer families through all stages: every proof passes, on the reference, in ONNX Runtime and compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.deploy.run import deploy

pytestmark = pytest.mark.slow

DEBERTA = {"relative_attention": True, "position_buckets": 6, "share_att_key": True, "pos_att_type": "p2c|c2p"}
MARIAN = {"activation_function": "swish", "scale_embedding": True, "pad_token_id": 1, "decoder_start_token_id": 1}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mpnet": ("make_encoder", "MPNetModel", {}),
    "modernbert": ("make_encoder", "ModernBertForSequenceClassification", {"local_attention": 6}),
    "deberta": ("make_encoder", "DebertaV2ForSequenceClassification", DEBERTA),
    "gpt-neox": ("make_decoder", "GPTNeoXForCausalLM", {"rotary_pct": 0.4}),
    "opt": ("make_decoder", "OPTForCausalLM", {}),
    "marian": ("make_bart", "MarianMTModel", {**MARIAN, "eos_token_id": 2, "forced_eos_token_id": 2}),
    "pegasus": ("make_bart", "PegasusForConditionalGeneration", {"scale_embedding": True}),
    "mbart": ("make_bart", "MBartForConditionalGeneration", {"scale_embedding": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_all_stages_agree(request: pytest.FixtureRequest, case: str, tmp_path: Path) -> None:
    fixture, architecture, config = CASES[case]
    make: Callable[..., Path] = request.getfixturevalue(fixture)
    result = deploy(make(architecture, **config), tmp_path / "run", recipe="ptq-w8a8", rounds=2, sequence=16)
    assert result.passed
