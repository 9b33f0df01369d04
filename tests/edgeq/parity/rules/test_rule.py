"""What rules are applied to, and that a new file is enough for a new one."""

import numpy as np
import pytest

import edgeq.parity.rules
from edgeq.parity.rules.rule import Again, BundleOutputs, Outputs, Part, Rule, StageOutputs, rules_for


def outputs(value, *, texts=None, generates=False, **parts):
    feed = {"attention_mask": np.ones((1, 3), np.int64)}
    made = {name: Part([{"y": np.full((1, 3, 4), each, np.float32)}], [feed]) for name, each in parts.items()}
    results = Part([{"logits": np.full((1, 3, 4), value, np.float32) + np.arange(4, dtype=np.float32)}], [feed])
    return Outputs({**made, "": results}, texts=results if texts else None, generates=generates)


def stage(got, want, *, is_whole=True):
    return StageOutputs("stage", got, want, is_whole=is_whole)


def named(rules):
    return [rule.name for rule in rules]


def test_the_first_breach_is_that_of_the_distance():
    assert named(rules_for(outputs(0.0)))[0] == "end-to-end"
    assert named(rules_for(outputs(0.0))) == ["end-to-end", "bit-identical", "isolated"]
    assert "decisions" in named(rules_for(outputs(0.0, texts=True)))
    assert "chosen tokens" in named(rules_for(outputs(0.0, generates=True)))


def test_each_part_has_an_envelope_of_its_own_and_the_beginning_another():
    clean = outputs(0.0, encoder=0.0)
    rule = rules_for(clean)[0]
    moved = rule.watch(
        stage(outputs(0.5, encoder=1.0), clean), stage(outputs(0.25, encoder=2.0), clean, is_whole=False)
    )
    assert list(moved) == [1.0, 0.5]

    def verdicts(is_whole, **values):
        checks = rule.of_stage(stage(outputs(**values), clean, is_whole=is_whole))
        return {check.stage: check.passed for check in checks}

    assert verdicts(True, value=1.0, encoder=2.0) == {"stage encoder": True, "stage": True}
    assert verdicts(True, value=1.1, encoder=2.0) == {"stage encoder": True, "stage": False}
    assert verdicts(True, value=1.0, encoder=2.1) == {"stage encoder": False, "stage": True}
    assert verdicts(False, value=0.6, encoder=3.9) == {"stage encoder": True, "stage": False}


def test_ways_that_differ_in_a_bit_are_named():
    one, other = [{"y": np.zeros(2, np.float32)}], [{"y": np.array([0, 1], np.float32)}]
    ways = [Again("1 thread", one, one, "2 threads"), Again("", one, other, "tvm host")]
    (rule,) = [rule for rule in rules_for(outputs(0.0)) if rule.name == "bit-identical"]
    checks = rule.of_bundle(BundleOutputs("tvm a", ways))
    assert [(check.stage, check.passed) for check in checks] == [("tvm a, 1 thread", True), ("tvm a", False)]
    assert checks[1].detail == "1 of 2 values differ from those of tvm host"


@pytest.fixture
def added_rule(tmp_path, monkeypatch):
    """One more file in the folder of rules."""
    lines = [
        "from edgeq.parity.rules.rule import Rule",
        "from edgeq.results import Check",
        "class Finite(Rule):",
        "    name = 'finite'",
        "    def of_stage(self, stage):",
        "        return [Check(stage.name, 'finite', True, 'all numbers are finite')]",
    ]
    (tmp_path / "finite.py").write_text("\n".join(lines))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr(edgeq.parity.rules, "__path__", [*edgeq.parity.rules.__path__, str(tmp_path)])
    yield
    monkeypatch.undo()
    import sys

    del sys.modules["edgeq.parity.rules.finite"]


def test_a_new_file_is_a_new_rule(added_rule):
    (rule,) = [rule for rule in rules_for(outputs(0.0)) if rule.name == "finite"]
    assert isinstance(rule, Rule)
    assert [check.rule for check in rule.of_stage(stage(outputs(0.0), outputs(0.0)))] == ["finite"]
    assert rule.of_bundle(BundleOutputs("tvm a", [])) == ()
