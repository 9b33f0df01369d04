"""What deploy does not do for a kind of model is said before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.deploy.plan import make_plan
from edgeq.errors import UnsupportedError

OPTIONS = {
    "name": None, "recipe": "ptq-w4a8", "targets": ["host"], "opset": None, "cache": "float16", "context": None,
    "rounds": 5, "sequence": 16, "threads": 2,
}  # fmt: skip


def test_an_encoder_decoder_is_refused_with_what_to_do_instead(make_bart: Callable[..., Path]):
    with pytest.raises(UnsupportedError, match=r"is an encoder-decoder.*edgeq compress, export, compile and run"):
        make_plan(make_bart(), eval_data=None, **OPTIONS)


def test_evaluation_data_for_a_text_generator_is_refused(make_gpt2: Callable[..., Path], tmp_path: Path):
    data = tmp_path / "data.tsv"
    data.write_text("sentence\tlabel\na\t1\n", encoding="utf-8")
    with pytest.raises(UnsupportedError, match="makes text, whose quality deploy does not measure"):
        make_plan(make_gpt2(), eval_data=data, **OPTIONS)
