"""The report tells good news and bad news alike, and stands alone."""

import dataclasses
import html.parser
import json
import re
from pathlib import Path

import pytest

from edgeq.errors import FormatError, UsageError
from edgeq.report import write_report
from edgeq.report.answer import answer
from edgeq.report.text import parity_lines, profile_lines, summary_table
from edgeq.report.verdicts import accuracy_verdict
from edgeq.results import Accuracy, Check, ParityReport, RunProfile

UNMEASURED = Accuracy(measured=False, reason="no evaluation data was given").to_json()
BROKEN = {"stage": "tvm host", "rule": "bit-identical", "passed": False, "detail": "17 bits differ"}


def written(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_good_results_have_no_bad_verdict(results, write_run):
    report = write_report(write_run(results))
    assert {verdict.level for verdict in report.verdicts} <= {"good", "warn"}
    assert report.verdicts[0].sentence.startswith("No loss beyond sampling noise: spearman 0.866 against 0.867")


def test_the_page_is_self_contained_and_well_formed(results, write_run):
    folder = write_run(results)
    write_report(folder)
    page = written(folder)
    assert "http" not in page
    assert "<script" not in page
    assert page.count("<svg") == 4
    assert "#ffffff" not in page, "white letters beside a bar cannot be read"
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    referenced = re.findall(r'(?:url\(|href=")#([^)"]+)', page)
    assert referenced
    assert set(referenced) <= set(ids)
    assert "all-MiniLM-L6-v2 as ptq-w8a8" in page
    _check_nesting(page)


def _check_nesting(page):
    open_tags = []
    void = {"meta", "link"}

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in void:
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

        def handle_startendtag(self, tag, attrs):
            pass

    Parser().feed(page)
    assert not open_tags


def test_the_first_screen_answers_whether_it_may_be_shipped(results, write_run):
    report = write_report(write_run(results))
    found = answer(report)
    assert (found.level, found.sentence.split(".")[0]) == ("good", "Yes")
    tiles = {tile.question: (tile.value, tile.note) for tile in found.tiles}
    assert tiles["How large?"][0] == "23.40 MB"
    assert "3.88x smaller than float32 (90.80 MB)" in tiles["How large?"][1]
    assert tiles["How fast?"][0] == "8.00 ms"
    assert tiles["How fast?"][1].startswith("2.10x against ONNX Runtime float32")
    assert tiles["How good?"][0] == "0.8660"
    assert tiles["On what?"] == ("host, cortex-a76", "measured on Test & Co <x>, 2026-01-01")


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"accuracy": UNMEASURED}, "warn", "was not measured"),
        ({"profile": RunProfile({}, {"cortex-a76": "an emulator proves numbers"}).to_json()}, "good", "Yes"),
        ({"parity": ParityReport((Check(**BROKEN),)).to_json()}, "bad", "No, not as it is. PARITY IS BROKEN"),
    ],
)
def test_what_was_not_measured_or_is_broken_is_on_the_first_screen(results, write_run, change, level, words):
    folder = write_run(results | change)
    found = answer(write_report(folder))
    assert (found.level, words in found.sentence) == (level, True)
    assert f'class="answer {level}"' in written(folder)
    if "profile" in change:
        assert [tile.value for tile in found.tiles if tile.question == "How fast?"] == ["not measured"]


def test_names_from_files_cannot_inject_markup(results, write_run):
    results["deploy"]["about"]["source"] = "<script>alert(1)</script>"
    folder = write_run(results)
    write_report(folder)
    assert "<script" not in written(folder)
    assert "Test &amp; Co &lt;x&gt;" in written(folder)


def test_the_same_results_give_the_same_bytes(results, write_run):
    folder = write_run(results)
    write_report(folder)
    first = written(folder)
    write_report(folder)
    assert written(folder) == first


def test_a_large_loss_is_said_plainly(results, write_run):
    for loss in results["accuracy"]["losses"].values():
        loss |= {"value": 0.5, "low": 0.45, "high": 0.55, "retained": 0.42}
    folder = write_run(results)
    report = write_report(folder)
    bad = [verdict.sentence for verdict in report.verdicts if verdict.level == "bad"]
    assert len(bad) == 1
    assert "LARGE LOSS: the compressed model keeps 42%" in bad[0]
    assert "LARGE LOSS" in written(folder)


@pytest.mark.parametrize(
    ("retained", "low", "level", "words"),
    [
        (0.995, 0.001, "good", "Small loss"),
        (0.97, 0.001, "warn", "Noticeable loss"),
        (0.90, -0.01, "warn", "Too few examples"),
        (0.90, 0.01, "bad", "LARGE LOSS"),
    ],
)
def test_words_for_a_loss_follow_what_is_kept_and_what_is_known(results, retained, low, level, words):
    results["accuracy"]["losses"]["bundle host"] |= {"value": 0.02, "retained": retained, "low": low}
    verdict = accuracy_verdict(Accuracy.from_json(results["accuracy"], Path("accuracy.json")))
    assert (verdict.level, words in verdict.sentence) == (level, True)


def test_a_broken_parity_is_named_and_unfolded(results, write_run):
    results["parity"]["passed"] = False
    results["parity"]["checks"][1] |= {"passed": False, "detail": "17 bits differ"}
    folder = write_run(results)
    report = write_report(folder)
    sentence = next(verdict.sentence for verdict in report.verdicts if verdict.topic == "parity")
    assert "PARITY IS BROKEN: tvm cortex-a76, rule bit-identical: 17 bits differ" in sentence
    assert "<details open>" in written(folder)
    assert "1 of 2 parity checks are BROKEN" in parity_lines(report.parity)[-1]


def test_unmeasured_accuracy_is_a_warning_not_a_gap(results, write_run):
    results["accuracy"] = UNMEASURED
    report = write_report(write_run(results))
    assert report.verdicts[0].level == "warn"
    assert summary_table(report)[0][1] == "accuracy"


def test_the_table_claims_no_speedup_within_noise(results, read_run):
    report = read_run(results)
    columns, rows = summary_table(report)
    assert rows[2][columns.index("speed-up")] == "2.10x"
    assert rows[3][columns.index("speed-up")] == "(emulated)"
    measured = report.profile.measured["host"]
    claim = dataclasses.replace(measured.speedups["onnxruntime float32"], ratio=None, low=None, high=None)
    for busy, words in ((False, "within noise"), (True, "(busy machine)")):
        speedups = {"onnxruntime float32": dataclasses.replace(claim, busy=busy)}
        profile = RunProfile({"host": dataclasses.replace(measured, speedups=speedups)}, {})
        _, rows = summary_table(dataclasses.replace(report, profile=profile))
        assert rows[2][columns.index("speed-up")] == words


def test_floats_without_a_reason_are_pointed_at(results, read_run):
    row = results["ledger"]["bundles"]["host"]["rows"][1]
    row["reason"] = "no reason recorded"
    found = [verdict for verdict in read_run(results).verdicts if verdict.topic == "size"]
    assert found[0].level == "warn"
    assert row["tensor"] in found[0].sentence


def test_int8_attention_is_told_beside_the_bytes(results, write_run):
    folder = write_run(results)
    write_report(folder)
    assert "multiplies int8" not in written(folder)
    results["ledger"]["checkpoint"] = results["ledger"]["checkpoint"] | {"int8_attention": 6}
    (folder / "ledger.json").write_text(json.dumps(results["ledger"]))
    write_report(folder)
    assert "The attention of 6 layers multiplies int8" in written(folder)


def test_the_memory_of_a_cache_is_told_beside_the_bytes(results, write_run):
    folder = write_run(results)
    write_report(folder)
    assert "of memory for each token" not in written(folder)
    kept = {"dtype": "int8", "token_bytes": 19584, "source_token_bytes": 0}
    results["ledger"]["bundles"]["host"] = results["ledger"]["bundles"]["host"] | {"cache": kept}
    (folder / "ledger.json").write_text(json.dumps(results["ledger"]))
    write_report(folder)
    assert "Keys and values in int8: 19,584 bytes of memory for each token." in written(folder)


def test_profile_lines_name_machine_and_operators(results):
    text = "\n".join(profile_lines(RunProfile.from_json(results["profile"], Path("profile.json")).measured["host"]))
    assert "75.0%" in text
    assert "Test & Co" in text
    assert "p95" in text


def test_a_busy_machine_is_pointed_at(results, write_run):
    results["profile"]["measured"]["host"]["others"] = 0.4
    report = write_report(write_run(results))
    warnings = [verdict.sentence for verdict in report.verdicts if verdict.level == "warn"]
    assert any("Other programs took 40% of the processors" in sentence for sentence in warnings)


def test_unfinished_and_damaged_runs_are_sentences(results, write_run, tmp_path):
    with pytest.raises(UsageError, match=r"no deploy\.json"):
        write_report(tmp_path)
    folder = write_run(results)
    (folder / "profile.json").unlink()
    with pytest.raises(UsageError, match=r"no profile\.json yet"):
        write_report(folder)
    (folder / "profile.json").write_text('{"measured": 1}')
    with pytest.raises(FormatError, match=r"profile\.json should be edgeq-profile version 1, found None version None"):
        write_report(folder)
    assert not (folder / "report.html").exists()
    json.loads((folder / "deploy.json").read_text())


def test_a_float_model_of_no_use_is_no_verdict_on_the_compressed_one(results, write_run):
    accuracy = results["accuracy"]
    accuracy["losses"]["bundle host"] |= {"value": 0.02, "retained": None}
    sentence = write_report(write_run(results)).verdicts[0].sentence
    assert sentence.startswith("The float model itself scores 0 or less on these data: ")


def perplexity_results(results, *, retained=0.995, agrees=True):
    loss = {"value": 0.4, "low": 0.1, "high": 0.9, "retained": retained}
    accuracy = {
        "format": "edgeq-accuracy", "version": 3, "measured": True, "data": "text.txt",
        "examples": 4096, "unit": "tokens", "metric": "perplexity",
        "stages": {
            "torch float32": {"value": 20.0}, "torch compressed": {"value": 20.4},
            "bundle host": {"value": 20.4},
        },
        "losses": {"torch compressed": loss, "bundle host": loss},
    }  # fmt: skip
    detail = "the perplexity of the evaluation data differs from PyTorch's by 2.00% (limit 0.10%)"
    check = {"stage": "bundle host", "rule": "task", "passed": agrees, "detail": detail}
    return results | {"accuracy": accuracy | {"checks": [check]}}


def test_perplexity_is_told_in_its_own_words(results, write_run):
    folder = write_run(perplexity_results(results))
    report = write_report(folder)
    sentence = report.verdicts[0].sentence
    assert "perplexity 20.400 against 20.000 of the float model on 4096 tokens (increase +0.4000" in sentence
    page = (folder / "report.html").read_text()
    assert "4096 tokens of <code>text.txt</code>" in page
    assert "pearson" not in page


def test_a_ruined_perplexity_and_one_of_its_own_are_told(results, write_run):
    report = write_report(write_run(perplexity_results(results, retained=0.5, agrees=False)))
    sentences = [verdict.sentence for verdict in report.verdicts]
    assert "has 2.00 times the float model's perplexity" in sentences[0]
    assert any("PARITY IS BROKEN: bundle host, rule task: the perplexity" in sentence for sentence in sentences)


def test_a_bundle_that_was_timed_at_two_things_has_two_sections(results, write_run):
    step = results["profile"]["measured"]["host"] | {"step": True, "source": 64}
    reading = results["profile"]["measured"]["host"] | {"reading": True, "sequence": 64}
    profile = results["profile"] | {"measured": {"host": step, "host, reading": reading}}
    folder = write_run(results | {"profile": profile})
    report = write_report(folder)
    page = written(folder)
    assert "one token after 128 tokens, with an encoder input of 64" in page
    assert "encoding 64 tokens" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert any("Bundle host, reading: 8.00 ms" in verdict.sentence for verdict in report.verdicts)
    assert len(summary_table(report)[1]) == 4
