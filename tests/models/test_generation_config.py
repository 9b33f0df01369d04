"""Which of the two files with settings counts: what transformers itself takes is the right answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

import edgeq
from edgeq.models.generation_config import generation_settings

TOKENS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2}
FORCED = {"forced_bos_token_id": 0, "forced_eos_token_id": 2}


def _taken(folder: Path) -> dict[str, Any]:
    """Settings that ``generate`` prepares for a model of this folder, without defaults."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    prepared, _ = model._prepare_generation_config(None)
    return _without_defaults(prepared.to_diff_dict())


def _without_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Drops what ``generate`` would do anyway; release 5 fills it in where release 4 leaves it out."""
    defaults = getattr(transformers.GenerationConfig, "_get_default_generation_params", dict)()
    defaults |= dict.fromkeys(("output_attentions", "output_hidden_states"), False)
    return {key: value for key, value in settings.items() if key not in defaults or value != defaults[key]}


@pytest.mark.parametrize(
    ("stored", "in_config"),
    [
        (TOKENS, FORCED | {"num_beams": 3}),
        (TOKENS | {"_from_model_config": True}, FORCED | {"num_beams": 3}),
        (TOKENS | {"_from_model_config": True, "num_beams": 5}, {}),
        (TOKENS | {"num_beams": 4, "renormalize_logits": True}, {}),
        (None, FORCED | {"num_beams": 3}),
    ],
)
def test_the_rule_is_that_of_transformers(
    make_bart: Callable[..., Path], stored: dict[str, Any] | None, in_config: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_bart(encoder_layers=1, decoder_layers=1)
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if not key.startswith("forced_")}
    config |= {"forced_eos_token_id": None} | in_config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if stored is not None:
        (folder / "generation_config.json").write_text(json.dumps(stored))
    about = {"_from_model_config", "transformers_version"}
    want = {key: value for key, value in _taken(folder).items() if key not in about}
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert _without_defaults(generation_settings(model, folder)) == want
    edgeq.compress_model(folder, tmp_path / "out", recipe="ptq-w8a8")
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert _without_defaults(kept) == want
