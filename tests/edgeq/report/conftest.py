"""A made-up run whose results are all good; each test breaks what it is about."""

import json

import pytest

from edgeq.report.build import read_results
from edgeq.results import RunRecord
from tests.edgeq.runs import about

TOTALS = {
    "weights": 22_700_000, "replaced_weights": 0, "stored_bytes": 23_400_000, "code_bytes": 22_000_000,
    "scale_bytes": 300_000, "padding_bytes": 100_000, "float_bytes": 1_000_000,
    "float32_bytes": 90_800_000, "ratio": 3.88,
    "paper_bytes": 22_700_000, "paper_ratio": 4.0,
    "tensor_file_bytes": 23_500_000, "folder_bytes": 25_000_000,
}  # fmt: skip
FLOAT_TOTALS = TOTALS | {
    "stored_bytes": 90_800_000, "code_bytes": 0, "scale_bytes": 0, "padding_bytes": 0,
    "float_bytes": 90_800_000,
    "ratio": 1.0, "paper_bytes": 90_800_000, "paper_ratio": 1.0,
}  # fmt: skip
ROWS = [
    {
        "tensor": "encoder.<0>.dense", "kind": "linear", "shape": [384, 1536],
        "nominal_bits": 8, "stored_bits": 8.02,
        "code_bytes": 589_824, "scale_bytes": 1536, "padding_bytes": 0, "float_bytes": 0, "reason": None,
    },
    {
        "tensor": "encoder.0.bias", "kind": "float", "shape": [384], "nominal_bits": 32, "stored_bits": 32.0,
        "code_bytes": 0, "scale_bytes": 0, "padding_bytes": 0, "float_bytes": 1536,
        "reason": "bias: one float a row",
    },
]  # fmt: skip


def timing(milliseconds):
    seconds = milliseconds / 1e3
    return {
        "median": seconds,
        "p95": 1.2 * seconds,
        "spread": seconds / 20,
        "fastest": 0.9 * seconds,
        "calls": 90,
    }


def speedup(ratio):
    beyond = ratio is not None
    sentence = f"{ratio:.2f}x faster (a to b at 95% confidence)" if beyond else "no difference beyond noise (a to b)"
    numbers = {"ratio": ratio, "low": ratio, "high": ratio, "confidence": 0.95, "rounds": 30}
    return numbers | {"beyond_noise": beyond, "busy": False, "sentence": sentence}


@pytest.fixture
def results():
    """Contents of the four result files and of deploy.json, by name."""
    book = {"path": "x", "form": "bundle", "totals": TOTALS, "rows": ROWS}
    profile = {
        "bundle": "bundles/host", "target": "host", "sequence": 128, "batch": 1, "threads": 2, "rounds": 30,
        "timings": {
            "edgeq": timing(8), "onnxruntime float32": timing(17), "onnxruntime int8 dynamic": timing(8.1),
        },
        "speedups": {"onnxruntime float32": speedup(2.1), "onnxruntime int8 dynamic": speedup(None)},
        "operators": [{"name": "low_bit_linear", "calls": 36, "seconds": 0.006, "share": 0.75}],
        "missing": {}, "others": 0.02, "machine": {"processor": "Test & Co <x>", "date": "2026-01-01"},
    }  # fmt: skip
    check = {"stage": "tvm host", "rule": "bit-identical", "passed": True, "detail": "0 bits differ"}
    return {
        "deploy": RunRecord(
            about(name="all-MiniLM-L6-v2", source="models/all-MiniLM-L6-v2", targets=("host", "cortex-a76")), {}
        ).to_json(),
        "accuracy": {
            "format": "edgeq-accuracy", "version": 3, "checks": [], "unit": "examples", "reason": "",
            "measured": True, "data": "dev.tsv", "examples": 1500, "metric": "spearman",
            "stages": {
                "torch float32": {"value": 0.867, "others": {"pearson": 0.870}},
                "torch compressed": {"value": 0.866, "others": {"pearson": 0.869}},
                "bundle host": {"value": 0.866, "others": {"pearson": 0.869}},
            },
            "losses": {
                name: {"value": 0.001, "low": -0.001, "high": 0.002, "retained": 0.9988}
                for name in ("torch compressed", "bundle host")
            },
        },
        "parity": {
            "format": "edgeq-parity", "version": 3, "conditions": {}, "passed": True,
            "checks": [check, check | {"stage": "tvm cortex-a76"}],
        },
        "ledger": {
            "format": "edgeq-ledger", "version": 1,
            "float": book | {"totals": FLOAT_TOTALS}, "checkpoint": book, "onnx": book,
            "bundles": {"host": book, "cortex-a76": book},
        },
        "profile": {
            "format": "edgeq-profile", "version": 1,
            "measured": {"host": profile}, "not_measured": {"cortex-a76": "an emulator proves numbers"},
        },
    }  # fmt: skip


@pytest.fixture
def write_run(tmp_path):
    """Returns a function that writes results as a run's folder."""

    def write(results):
        folder = tmp_path / "run"
        folder.mkdir()
        for name, value in results.items():
            (folder / f"{name}.json").write_text(json.dumps(value))
        return folder

    return write


@pytest.fixture
def read_run(write_run):
    """Returns a function that writes results as a run's folder and reads them as a report."""
    return lambda results: read_results(write_run(results))
