"""Several runs beside each other: what is better, what is smaller, and what cannot be compared."""

import copy
import json
import re

import pytest

from edgeq.errors import FormatError, UsageError
from edgeq.report import compare_runs
from edgeq.report.plots import SizePoint, quality_plot


@pytest.fixture
def three_runs(results, tmp_path):
    """Runs of one model by three recipes: small and bad, middling, and large without being better."""
    folders = []
    for recipe, value, size in (("w2", 0.5, 6_000_000), ("w4", 0.86, 12_000_000), ("w8", 0.85, 23_000_000)):
        parts = copy.deepcopy(results)
        parts["deploy"]["about"]["recipe"]["name"] = recipe
        parts["accuracy"]["stages"]["bundle host"]["value"] = value
        parts["ledger"]["bundles"]["host"]["totals"] |= {"stored_bytes": size, "ratio": 90_800_000 / size}
        folder = tmp_path / recipe
        folder.mkdir()
        for name, content in parts.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        folders.append(folder)
    return folders


def change(run, part, **values):
    file = run / f"{part}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_models_are_told_from_the_smallest_to_the_largest(three_runs, tmp_path):
    found = compare_runs(three_runs, tmp_path / "all.html")
    names = [model.label for model in found.models]
    assert names == ["w2", "w4", "w8", "float32"]
    assert [model.outdone_by for model in found.models] == ["", "", names[1], ""]
    assert [model.value for model in found.models] == [0.5, 0.86, 0.85, 0.867]
    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "all.json").read_text()) == json.loads(json.dumps(found.to_json()))
    assert page.count("<svg") == 1
    assert "stroke: var(--thin)" in page, "grid lines of one colour are too bright or too dark"
    assert "http" not in page
    assert re.search(r"<td>w4</td>.*0\.8600.*12\.00 MB.*7\.57x.*8\.00 ms.*2\.10x", page)
    assert "spearman (higher is better) on 1500 examples of <code>dev.tsv</code>" in page


def test_of_perplexities_the_smaller_one_is_better(three_runs, tmp_path):
    for run in three_runs:
        change(run, "accuracy", metric="perplexity", unit="tokens")
    found = compare_runs(three_runs, tmp_path / "all.html")
    outdone = {model.label: model.outdone_by for model in found.models}
    assert outdone == {"w2": "", "w4": "w2", "w8": "w2", "float32": "w2"}


def test_a_recipe_that_ran_twice_is_told_by_its_folder(three_runs, tmp_path):
    again = tmp_path / "again"
    three_runs[0].rename(again)
    change(three_runs[1], "deploy", about=json.loads((again / "deploy.json").read_text())["about"])
    labels = [model.label for model in compare_runs([again, *three_runs[1:]], tmp_path / "all.html").models]
    assert "w2 (w4)" in labels


def test_of_several_models_labels_say_which(three_runs, tmp_path):
    about = json.loads((three_runs[0] / "deploy.json").read_text())["about"]
    change(three_runs[0], "deploy", about=about | {"name": "tiny"})
    labels = [model.label for model in compare_runs(three_runs, tmp_path / "all.html").models]
    assert {"tiny, w2", "tiny, float32", "all-MiniLM-L6-v2, w4"} <= set(labels)


def test_a_run_without_bundle_is_told_by_its_checkpoint(three_runs, tmp_path):
    ledger = json.loads((three_runs[0] / "ledger.json").read_text())
    change(three_runs[0], "ledger", bundles={})
    model = compare_runs(three_runs[:1], tmp_path / "one.html").models[0]
    assert model.bytes == ledger["checkpoint"]["totals"]["stored_bytes"]
    assert (model.value, model.median) == (0.866, None)


def test_what_cannot_be_compared_is_refused_before_anything_is_written(three_runs, tmp_path):
    out = tmp_path / "all.html"
    with pytest.raises(UsageError, match=r"page to write, such as comparison\.html"):
        compare_runs(three_runs, tmp_path / "all")
    change(three_runs[1], "accuracy", data="elsewhere/dev.tsv")
    assert compare_runs(three_runs, out)
    out.unlink()
    change(three_runs[1], "accuracy", examples=20)
    with pytest.raises(UsageError, match=r"1500 examples of dev\.tsv, .* 20 examples"):
        compare_runs(three_runs, out)
    change(three_runs[1], "accuracy", measured=False, reason="no evaluation data was given")
    with pytest.raises(UsageError, match=r"w4 was not measured .*--eval-data"):
        compare_runs(three_runs, out)
    (three_runs[2] / "ledger.json").unlink()
    with pytest.raises(UsageError, match=r"w8 has no ledger\.json"):
        compare_runs(three_runs, out)
    assert not out.exists()


def test_a_damaged_result_is_named(three_runs, tmp_path):
    change(three_runs[2], "ledger", bundles={"host": {}})
    with pytest.raises(FormatError, match=r"w8/ledger\.json is damaged \(bundles\.host\.path"):
        compare_runs(three_runs, tmp_path / "all.html")


def test_labels_of_neighbours_do_not_change_sides():
    points = [
        SizePoint(label, size, 0.9)
        for label, size in (("left", 10_000_000), ("right", 10_100_000), ("far", 40_000_000))
    ]
    picture = quality_plot(points, "accuracy")
    assert picture == quality_plot(points, "accuracy")
    drawn = re.findall(r'text-anchor: (start|end|middle)"[^>]*>(left|right|far)<', picture)
    assert drawn == [("end", "left"), ("start", "right"), ("start", "far")]
