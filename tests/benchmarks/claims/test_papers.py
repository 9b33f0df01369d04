"""The page of the papers' claims follows from the committed records, and from nothing else."""

import dataclasses
import json
import shutil

import pytest

from benchmarks.claims import papers
from benchmarks.claims.claim import REVISION
from benchmarks.claims.measure import teacher_name
from benchmarks.claims.queue import RECORDS, RESULTS, TABLES
from benchmarks.claims.records import write_record
from edgeq.errors import FormatError
from edgeq.recipes import load_recipe


def test_the_page_follows_from_the_committed_records():
    page = papers.PAGE.read_text(encoding="utf-8")
    written = papers.with_section(page, papers.section(papers.Evidence(RESULTS)))
    assert page == written, "run: python -m benchmarks.claims.papers"


def test_another_record_is_another_page(tmp_path):
    shutil.copytree(RESULTS / RECORDS, tmp_path / RECORDS)
    before = papers.section(papers.Evidence(tmp_path))
    for seed in (1, 2, 3):
        file = tmp_path / RECORDS / f"sst2-l6-w1a8-C-{seed}.json"
        record = json.loads(file.read_text())
        record["correct"] = "1" * len(record["correct"])
        file.write_text(json.dumps(record))
    after = papers.section(papers.Evidence(tmp_path))
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert len(changed) == 2  # the loss of 1 bit, and what longer training gives
    assert "| reproduced |" in changed[1]


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 0.2, papers.REPRODUCED), (-0.2, -0.1, papers.NOT_REPRODUCED), (-0.1, 0.1, papers.UNDECIDED)],
)
def test_a_verdict_needs_the_whole_interval(low, high, word):
    assert papers.decided(low, high, 0.0) == word
    assert papers.decided(-high, -low, 0.0, lower=True) == word


def test_without_records_nothing_is_claimed(tmp_path):
    systems = papers.findings(papers.Evidence(tmp_path))
    assert len(systems) == 5
    for system in systems:
        assert system.findings
        for one in system.findings:
            assert one.verdict == papers.NOT_MEASURED
            assert one.decides


def test_every_comparison_is_found_in_its_table(tmp_path):
    """With all runs finished, only what no run can decide is left unmeasured."""
    for task in ("sst2", "stsb"):
        write_record(tmp_path / RECORDS, {"name": teacher_name("t", task), "accuracy": 0.9, "correct": "1110" * 9})
    for name in ("quantgpt", "xtc", "two-stage", "tucker", "kngpt2"):
        for claim in TABLES[name](1.0).claims:
            record = dataclasses.asdict(claim) | {"teacher": "t", "revision": REVISION, "training_seconds": 3600.0}
            record |= {"base_sha256": load_recipe(claim.base).sha256, "setting": {"threads": 1}}
            record |= {"accuracy": 0.75, "correct": "1100" * 9, "test": 100.0, "window_losses": [1000.0, 1100.0]}
            book = {"stored_bytes": 10, "float_bytes": 4, "float32_bytes": 400}
            write_record(tmp_path / RECORDS, record | {"stored_bytes": book})
    evidence = papers.Evidence(tmp_path)
    missing = [
        one.claim
        for system in papers.findings(evidence)
        for one in system.findings
        if one.verdict == papers.NOT_MEASURED
    ]
    assert missing == [
        "the matrices of all blocks have factors in common",
        "1/48 is 2.7 times faster",
        "better on GLUE than DistilGPT2 (79.25 against 76.8)",
    ]
    hours, done, total = evidence.core_hours("quantgpt")
    assert (hours, done) == (total, total)


def test_a_page_without_the_two_lines_is_refused():
    with pytest.raises(FormatError, match="should hold the lines"):
        papers.with_section("# Papers\n", "written")
