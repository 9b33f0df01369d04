"""Each rule alone: what it lets through, and what it must not."""

import numpy as np
import pytest

from edgeq.export.ops.operator import NodeFormat
from edgeq.formats.low_bit import PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.parity.reference import RecordedLayer
from edgeq.parity.rules.bit_identical import check_bits, differing, one_by_one
from edgeq.parity.rules.decisions import check_task, decisions
from edgeq.parity.rules.end_to_end import (
    FEWEST_NOISE_RUNS,
    MOST_NOISE_RUNS,
    Distance,
    check_end_to_end,
    distance,
    float_error,
    noise_runs,
)
from edgeq.parity.rules.isolated import Case, allowed, check_isolated
from edgeq.results import Check, ParityReport


def make_case(*, bits=4, zero_point=8.0, activation="dynamic", rows=16, columns=40, value=None):
    random = np.random.default_rng(0)
    low, high = levels(bits, zero_point)
    codes = random.integers(low, high + 1, (rows, columns))
    spec = PackedMatrix(rows, columns, bits, zero_point, rows)
    scale = (0.01 + random.random(rows) / 100).astype(np.float32)
    constants = [pack(codes, bits), scale, random.standard_normal(rows).astype(np.float32)]
    if activation == "static":
        constants.append(np.array([0.02], np.float32))
    if value is None:
        value = random.standard_normal((1, 7, columns)).astype(np.float32)
    nothing = np.zeros((1, 7, rows), np.float32)
    layer = RecordedLayer("layer", "LowBitLinear", NodeFormat(spec, activation), tuple(constants), value, nothing)
    return Case(0, layer, value, nothing)


@pytest.mark.parametrize("activation", ["none", "dynamic", "static"])
@pytest.mark.parametrize(("bits", "zero_point"), [(1, 0.5), (2, 1.0), (2, 1.5), (4, 8.0), (8, 128.0)])
def test_isolated_accepts_correct_results_and_refuses_a_sum_off_by_one_step(bits, zero_point, activation):
    case = make_case(bits=bits, zero_point=zero_point, activation=activation)
    limit = allowed(case)
    right = limit.exact.astype(np.float32)
    assert check_isolated("stage", [case], [limit], [right]).passed
    if activation == "none":
        wrong = right.copy()
        wrong[0, 3, 5] += 2 * limit.bound[0, 3, 5]
    else:
        assert limit.proven == right.size
        step = 1.0 if zero_point == int(zero_point) else 0.5
        a_scale = 0.02 if activation == "static" else np.abs(case.value[0, 3]).max() / 127
        wrong = right.copy()
        wrong[0, 3, 5] += step * case.layer.constants[1][5] * a_scale
    check = check_isolated("stage", [case], [limit], [wrong])
    assert not check.passed
    assert "1 of 1 operators are out of bounds, first layer" in check.detail


def test_isolated_lets_a_code_at_a_rounding_edge_fall_either_way():
    value = np.zeros((1, 7, 40), np.float32)
    value[..., 0] = 127
    value[0, 3, 7] = 2.5  # exactly between the codes 2 and 3
    case = make_case(value=value)
    limit = allowed(case)
    assert limit.edges == 1
    other = value.copy()
    other[0, 3, 7] = 3
    moved = allowed(make_case(value=other)).exact.astype(np.float32)
    assert check_isolated("stage", [case], [limit], [moved]).passed
    other[0, 3, 7] = 4  # two codes away is no rounding
    moved = allowed(make_case(value=other)).exact.astype(np.float32)
    assert not check_isolated("stage", [case], [limit], [moved]).passed


@pytest.mark.parametrize("fault", ["shape", "nan"])
def test_isolated_refuses_results_that_are_no_results(fault):
    case = make_case()
    limit = allowed(case)
    got = limit.exact.astype(np.float32)
    got = got[:, :-1] if fault == "shape" else np.where(np.arange(16) == 3, np.nan, got)
    assert not check_isolated("stage", [case], [limit], [got]).passed


def test_isolated_embeddings_must_agree_in_every_bit():
    spec = PackedMatrix(20, 12, 8, 128.0, 20)
    codes = np.random.default_rng(0).integers(1, 256, (20, 12))
    scale = np.linspace(0.001, 0.1, 20, dtype=np.float32)
    ids = np.array([[3, 19, 0]])
    constants = (pack(codes, 8), scale)
    layer = RecordedLayer("table", "LowBitEmbedding", NodeFormat(spec, "none"), constants, ids, np.zeros((1, 3, 12)))
    case = Case(0, layer, ids, layer.output)
    limit = allowed(case)
    right = limit.exact.astype(np.float32)
    assert check_isolated("stage", [case], [limit], [right]).passed
    right[0, 1, 4] = np.nextafter(right[0, 1, 4], np.float32(1))
    assert not check_isolated("stage", [case], [limit], [right]).passed


def feed_of(mask):
    return {"attention_mask": np.array(mask)}


def test_distance_counts_real_tokens_only():
    feed = feed_of([[1, 1, 0]])
    want = {"last_hidden_state": np.zeros((1, 3, 2), np.float32)}
    got = {"last_hidden_state": np.array([[[1, 1], [1, 1], [9, 9]]], np.float32)}
    assert distance([got], [want], [feed]) == Distance(1.0, 1.0, 1.0)
    assert distance([{"logits": np.ones((1, 2))}], [{"logits": np.zeros((1, 2))}], [feed]).rms == 1.0


def test_end_to_end_limits_are_twice_the_noise_and_nan_never_passes():
    envelope = [Distance(0.5, 1.0, 2.0), Distance(0.4, 1.2, 9.0)]
    assert check_end_to_end("s", Distance(1.0, 2.4, 100.0), envelope).passed  # never gated on the largest
    assert not check_end_to_end("s", Distance(1.01, 2.0, 1.0), envelope).passed
    assert not check_end_to_end("s", Distance(1.0, 2.5, 1.0), envelope).passed
    feed = feed_of([[1]])
    broken = distance([{"y": np.full((1, 1, 4), np.nan)}], [{"y": np.zeros((1, 1, 4))}], [feed])
    assert not check_end_to_end("s", broken, envelope).passed


def test_a_narrow_envelope_does_not_forbid_float_arithmetic():
    envelope, found = [Distance(1e-9, 1e-9, 1e-9)], Distance(1e-7, 1e-7, 1e-7)
    assert not check_end_to_end("s", found, envelope).passed
    assert check_end_to_end("s", found, envelope, floor=float_error(100, 1.0)).passed
    assert not check_end_to_end("s", Distance(1e-5, 1e-7, 1e-5), envelope, floor=float_error(100, 1.0)).passed


def runs_with(steps, quantized_values, **options):
    """Noise runs of a model whose run number ``steps`` (if any) shows a step."""
    want, feed = [{"y": np.zeros((1, 4))}], feed_of([[1]])

    def run(seed):
        return [{"y": np.full((1, 4), 1e-3 if seed == steps else 1e-7)}]

    def rms(got):
        return [distance(got, want, [feed]).rms]

    return len(noise_runs(run, rms, quantized_values=quantized_values, **options))


def test_small_models_are_run_until_a_step_shows():
    assert runs_with(None, 10**9) == FEWEST_NOISE_RUNS
    assert runs_with(None, 0) == FEWEST_NOISE_RUNS  # weight-only: nothing steps
    assert runs_with(3, 2**19) == 16
    assert runs_with(40, 2**19) == 41
    assert runs_with(None, 2**19) == runs_with(None, 1) == MOST_NOISE_RUNS
    assert runs_with(None, 10**9, fewest=16) == 16
    assert runs_with(3, 2**18, fewest=16) == 32


def test_every_output_that_is_judged_must_show_a_step():
    def run(seed):
        return [1e-3 if seed == 3 else 1e-7, 1e-3 if seed == 25 else 1e-7]

    assert len(noise_runs(run, lambda found: found, quantized_values=2**19)) == 26


def test_task_counts_changed_decisions_against_noise():
    want = np.arange(20)
    noisy = [want, np.where(want < 3, 99, want)]
    assert check_task("s", np.where(want < 5, 99, want), want, noisy).passed
    check = check_task("s", np.where(want < 6, 99, want), want, noisy)
    assert not check.passed
    assert "6 of 20 decisions differ (limit 5" in check.detail


def _feeds(batches, length=4):
    """Inputs whose tokens all count."""
    return [{"attention_mask": np.ones((len(next(iter(batch.values()))), length), np.int64)} for batch in batches]


def test_decisions_of_tokens_leave_padding_out():
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    tags = np.array([[[0, 1], [2, 0], [0, 3]], [[4, 0], [0, 9], [0, 9]]], np.float32)
    assert decisions([{"logits": tags}], [{"attention_mask": mask}]).tolist() == [1, 0, 1, 0]
    starts, ends = np.array([[1, 3, 2], [0, 9, 9]], np.float32), np.array([[0, 0, 5], [1, 9, 9]], np.float32)
    spans = [{"start_logits": starts, "end_logits": ends}]
    assert decisions(spans, [{"attention_mask": mask}]).tolist() == [1, 0, 2, 0]


def test_decisions_of_a_reranker_are_which_of_two_texts_is_graded_higher():
    grades = [{"logits": np.array([[1.0], [3.0]], np.float32)}, {"logits": np.array([[2.0], [4.0]], np.float32)}]
    assert decisions(grades, _feeds(grades)).tolist() == [1, 0, 1]


def test_numbers_of_padding_are_no_difference():
    mask = np.array([[1, 1], [1, 0]])
    want = [{"start_logits": np.array([[1, 2], [3, 4]], np.float32)}]
    other = [{"start_logits": np.array([[1, 2], [3, 9]], np.float32)}]
    assert distance(other, want, [{"attention_mask": mask}]).largest == 0
    assert distance(other, want, [{"attention_mask": np.ones((2, 2))}]).largest == 5


def test_decisions_of_encoders_are_nearest_texts():
    vectors = np.array([[1, 0], [0, 3], [0.1, 1], [5, 0.1]], np.float32)
    batches = [{"sentence_embedding": part} for part in (vectors[:3], vectors[3:])]
    assert decisions(batches, _feeds(batches)).tolist() == [3, 2, 1, 0]
    labels = [{"logits": np.array([[0, 2, 1], [3, 0, 0]])}]
    assert decisions(labels, _feeds(labels)).tolist() == [1, 0]


def test_bits_tell_zero_from_minus_zero_and_nan_from_nothing():
    values = {"y": np.array([0.0, 1.0, np.nan], np.float32)}
    assert differing([values], [{"y": values["y"].copy()}]) == (0, 3)
    assert differing([{"y": np.array([-0.0, 1.0, np.nan], np.float32)}], [values]) == (1, 3)
    assert differing([{}], [values]) == (3, 3)
    assert differing([{"y": values["y"].astype(np.float64)}], [values]) == (3, 3)
    assert not check_bits("s", [{"y": values["y"][:2]}], [values], against="other").passed


def test_one_by_one_stacks_single_texts():
    seen = []

    def run(feed):
        seen.append(feed["x"].shape)
        return {"y": feed["x"] * 2}

    x = np.arange(6).reshape(3, 2)
    assert np.array_equal(one_by_one(run, {"x": x})["y"], x * 2)
    assert seen == [(1, 2)] * 3


def test_report_names_the_first_breach():
    good, bad = Check("a", "task", True, "fine"), Check("b", "isolated", False, "broken")
    report = ParityReport((good, bad, Check("c", "task", False, "too")))
    assert not report.passed
    assert report.first_breach == bad
    assert report.to_json()["checks"][1]["stage"] == "b"
    assert ParityReport((good,)).passed
