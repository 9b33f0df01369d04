"""Baselines take turns under equal conditions, and a profile says what it was measured on."""

import json
import time
import types

import numpy as np
import pytest

from edgeq.errors import UsageError
from edgeq.report.text import profile_lines
from edgeq.results import KernelShare, Profile
from edgeq.targets.devices import profiler
from edgeq.targets.devices.profiler import MOST_OTHERS, profile_bundle, take_turns
from edgeq.targets.devices.timing import claim, paired_speedup, summarize
from edgeq.targets.devices.workload import make_reading, make_workload
from edgeq.targets.runtime.kernel_times import KernelTime
from edgeq.targets.runtime.schema import TensorSpec


class Clock:
    """A clock that a test moves on: nothing here depends on how busy the machine is."""

    def __init__(self):
        self.now = 0.0
        self.rests = 0

    def __call__(self):
        return self.now

    def work(self, seconds):
        self.now += seconds

    def rest(self, seconds):
        self.now += seconds
        self.rests += 1


@pytest.fixture
def turns():
    """Takes turns by a clock of its own; a call returns the seconds that it takes."""
    clock = Clock()

    def take(calls, **options):
        timed = {name: lambda call=call: clock.work(call()) for name, call in calls.items()}
        return take_turns(timed, clock=clock, rest=clock.rest, **options)

    take.clock = clock
    return take


def test_every_call_has_every_round_and_the_order_rotates(turns):
    order = []
    calls = {name: lambda name=name: order.append(name) or 0.02 for name in ("a", "b", "c")}
    told = []
    times = turns(calls, rounds=3, progress=lambda what, done, total: told.append((done, total)))
    assert turns.clock.rests == 9
    assert {name: len(rounds) for name, rounds in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert told == [(1, 3), (2, 3), (3, 3)]
    first_of_round = [order[index] for index in _round_starts(order, calls=1 + len(times["a"][0]))]
    assert first_of_round == ["a", "b", "c"]


def _round_starts(order, calls):
    warm_up = 2 * 3
    return range(warm_up, len(order), 3 * calls)


def test_a_faster_call_is_found_faster(turns):
    jitter = np.random.default_rng(0).uniform(0.9, 1.1, 1000)
    draws = iter(jitter)
    times = turns({"slow": lambda: 0.012 * next(draws), "fast": lambda: 0.006 * next(draws)}, rounds=7)
    medians = {name: [float(np.median(turn)) for turn in turns] for name, turns in times.items()}
    speedup = paired_speedup(medians["slow"], medians["fast"])
    assert speedup.is_beyond_noise
    assert 1.4 < speedup.ratio < 2.6


def test_short_calls_are_repeated_and_long_ones_are_not(turns):
    times = turns({"short": lambda: 0.001, "long": lambda: 0.06}, rounds=1)
    assert len(times["short"][0]) in (49, 50)  # as many as fit in 0.05 seconds
    assert times["short"][0] == pytest.approx([0.001] * len(times["short"][0]))
    assert times["long"][0] == pytest.approx([0.06])


def report_of(speedup, others=None):
    timing = summarize([0.1, 0.2])
    return Profile(
        bundle="b", target="host", sequence=8, batch=1, threads=1, rounds=2,
        timings={"edgeq": timing},
        speedups={"onnxruntime float32": claim(speedup, others=others, most_others=MOST_OTHERS)},
        operators=(KernelShare("k", 1, 0.1, 1.0),), missing={}, machine={}, others=others,
    )  # fmt: skip


def test_a_difference_within_noise_is_not_handed_on_as_a_number():
    entry = report_of(paired_speedup([1.0, 2.0], [2.0, 1.0])).to_json()["speedups"]["onnxruntime float32"]
    assert not entry["beyond_noise"]
    assert entry["ratio"] is None
    assert "no difference beyond noise" in entry["sentence"]
    entry = report_of(paired_speedup([3.0] * 8, [1.0] * 8)).to_json()["speedups"]["onnxruntime float32"]
    assert entry["ratio"] == 3.0
    json.dumps(entry, allow_nan=False)


def test_no_ratio_comes_from_a_busy_machine():
    speedup = paired_speedup([3.0] * 8, [1.0] * 8)
    entry = report_of(speedup, others=0.2).to_json()["speedups"]["onnxruntime float32"]
    assert (entry["ratio"], entry["busy"]) == (3.0, False)
    entry = report_of(speedup, others=0.8).to_json()["speedups"]["onnxruntime float32"]
    assert (entry["ratio"], entry["low"], entry["high"]) == (None, None, None)
    assert (entry["beyond_noise"], entry["busy"]) == (False, True)
    assert "other programs took 80% of the processors, and above 20%" in entry["sentence"]


def test_each_kernel_has_the_median_of_its_runs():
    runs = [[KernelTime("matmul", 2, seconds), KernelTime("add", 1, 0.1)] for seconds in (0.5, 0.3, 9.0)]
    matmul, add = profiler.operators_of(runs)
    assert (matmul.name, matmul.calls, matmul.seconds) == ("matmul", 2, 0.5)
    assert (add.name, add.share) == ("add", pytest.approx(0.1 / 0.6))


def test_the_share_of_other_programs_leaves_out_our_own_work():
    assert profiler._others_share((10.0, 100.0, 4.0), (13.0, 110.0, 6.0)) == pytest.approx(0.1)
    assert profiler._others_share((10.0, 100.0, 4.0), (12.0, 110.0, 6.5)) == 0.0
    before = profiler._processor_seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    after = profiler._processor_seconds()
    assert after[2] - before[2] > 0.05
    assert 0.0 <= profiler._others_share(before, after) <= 1.0


def test_numbers_out_of_range_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least 1"):
        profile_bundle(tmp_path, rounds=0)


def test_a_decoder_is_timed_at_one_step_beside_onnx_runtime(gpt2_bundle, gpt2_onnx):
    report = profile_bundle(gpt2_bundle, float_onnx=gpt2_onnx, sequence=100, batch=2, threads=1, rounds=2)
    assert report.step
    assert (report.sequence, report.batch) == (100, 2)
    assert set(report.timings) == {"edgeq", "onnxruntime float32", "onnxruntime int8 dynamic"} - set(report.missing)
    assert "onnxruntime float32" in report.timings
    assert {"low_bit_matmul_283x36_w4"} <= {operator.name for operator in report.operators}
    assert "2 x one token after 100 tokens" in profile_lines(report)[0]
    with pytest.raises(UsageError, match="--sequence must be at most 149"):
        profile_bundle(gpt2_bundle, sequence=150)


def decoder_bundle(*, source_context):
    """Stands in for a bundle that generates text, with or without a source."""
    names = ["input_ids", "past_lengths", "new_lengths", *(["source_lengths"] if source_context else [])]
    specs = [TensorSpec(name, "int64", ("batch", "sequence")[: 1 + (name == "input_ids")]) for name in names]
    source = types.SimpleNamespace(context=source_context) if source_context else None
    manifest = types.SimpleNamespace(
        inputs=specs, generation=types.SimpleNamespace(source=source), model=types.SimpleNamespace(max_length=30)
    )
    return types.SimpleNamespace(path="b", manifest=manifest, new_state=lambda batch: f"for {batch}")


def test_a_step_of_an_encoder_decoder_has_a_source_and_the_same_graph_input():
    work = make_workload(decoder_bundle(source_context=12), batch=2, sequence=20)
    assert (work.state, work.sequence, work.source) == ("for 2", 20, 12)
    assert work.inputs["past_lengths"].tolist() == [20, 20]
    assert work.inputs["source_lengths"].tolist() == [12, 12]
    entries = [
        types.SimpleNamespace(name=name, shape=["b", 3, "n", 4], type="tensor(float16)")
        for name in ("input_ids", "encoder_attention_mask", "past_key_values.0.decoder.key",
                     "past_key_values.0.encoder.value")
    ]  # fmt: skip
    shapes = {name: value.shape for name, value in work.onnx_inputs(entries).items()}
    assert shapes == {
        "input_ids": (2, 1), "encoder_attention_mask": (2, 12), "past_key_values.0.decoder.key": (2, 3, 20, 4),
        "past_key_values.0.encoder.value": (2, 3, 12, 4),
    }  # fmt: skip
    assert make_workload(decoder_bundle(source_context=0), batch=1, sequence=29).source == 0
    with pytest.raises(UsageError, match="--sequence must be at most 29"):
        make_workload(decoder_bundle(source_context=12), batch=1, sequence=30)


def test_the_graph_of_later_steps_is_what_is_timed(tmp_path):
    work = make_workload(decoder_bundle(source_context=12), batch=1, sequence=5)
    with pytest.raises(UsageError, match=r"decoder_with_past_model\.onnx does not exist"):
        profiler._timed_graph(tmp_path, work)


def test_reading_is_a_call_of_the_encoder(tmp_path):
    bundle = decoder_bundle(source_context=12)
    bundle.generation = bundle.manifest.generation
    inputs = [TensorSpec("input_ids", "int64", ("batch", "sequence"), 0, 282)]
    bundle.manifest.functions = {"encode": types.SimpleNamespace(inputs=inputs)}
    bundle.encode_source = lambda inputs, state: ("read", inputs["input_ids"].shape, state)
    bundle.time_source_kernels = lambda inputs, state: ["kernels"]
    work = make_reading(bundle, batch=2, sequence=12)
    assert (work.is_step, work.reading, work.source) == (False, True, 12)
    assert work.run(bundle) == ("read", (2, 12), "for 2")
    assert work.time_kernels(bundle) == ["kernels"]
    assert work.inputs["source_lengths"].tolist() == [12, 12]
    (tmp_path / "encoder_model.onnx").write_bytes(b"")
    assert profiler._timed_graph(tmp_path, work).name == "encoder_model.onnx"
    with pytest.raises(UsageError, match="--sequence must be at most 12 for encoder inputs"):
        make_reading(bundle, batch=1, sequence=13)
    bundle.generation.source = None
    with pytest.raises(UsageError, match="has no encoder input; leave --reading out"):
        make_reading(bundle, batch=1, sequence=3)
