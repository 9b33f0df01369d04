"""What deploy does not do for a kind of model is said before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.deploy.plan import Plan, make_plan
from edgeq.deploy.request import DeployRequest
from edgeq.errors import UnsupportedError, UsageError


def plan_for(source: Path, **options: object) -> Plan:
    return make_plan(DeployRequest(source=source, **{"recipe": "ptq-w4a8", "sequence": 16, **options}))


def test_an_encoder_decoder_is_proven_where_it_runs(make_bart: Callable[..., Path]):
    assert plan_for(make_bart()).native == ["host"]


@pytest.mark.parametrize(("maker", "longest"), [("make_bert", 37), ("make_gpt2", 32), ("make_bart", 32)])
def test_a_profile_that_the_model_cannot_hold_is_refused_at_once(maker, longest, request: pytest.FixtureRequest):
    source = request.getfixturevalue(maker)()
    assert plan_for(source, sequence=longest).sequence == longest
    with pytest.raises(UsageError, match=f"holds at most {longest} tokens .*; give --sequence {longest} or less"):
        plan_for(source, sequence=longest + 1)


def test_a_short_context_shortens_the_profile(make_gpt2: Callable[..., Path]):
    with pytest.raises(UsageError, match="holds at most 9 tokens"):
        plan_for(make_gpt2(), context=10)


def test_a_model_that_continues_texts_is_measured_on_a_text(make_gpt2: Callable[..., Path], tmp_path: Path):
    text, table = tmp_path / "text.txt", tmp_path / "data.tsv"
    text.write_text("the cat sat over the lazy dog\n", encoding="utf-8")
    table.write_text("sentence\tlabel\na\t1\n", encoding="utf-8")
    plan = plan_for(make_gpt2(), eval_data=text)
    assert (plan.data, plan.text.content) == (None, "the cat sat over the lazy dog\n")
    with pytest.raises(UsageError, match="generates text, so --eval-data should be a text file, found the table"):
        plan_for(make_gpt2(), eval_data=table)
    with pytest.raises(UsageError, match=r"nowhere\.txt does not exist"):
        plan_for(make_gpt2(), eval_data=tmp_path / "nowhere.txt")


def test_evaluation_data_for_an_encoder_decoder_is_refused(make_bart: Callable[..., Path], tmp_path: Path):
    with pytest.raises(UnsupportedError, match="whose quality deploy does not measure"):
        plan_for(make_bart(), eval_data=tmp_path / "data.jsonl")
