"""Prompts, truncation and scores in ``edgeq-run``: what Python makes of the same bundle."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import numpy as np
import pytest

import edgeq
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.text import run_texts
from tests.targets.changed_manifests import write_table


@pytest.fixture
def changed(host_bundle, copy_of):
    """Returns a function that copies a bundle with another table of texts, and possibly another model."""

    def change(model=None, **text):
        bundle = copy_of(host_bundle)
        manifest = read_manifest(bundle)
        texts = dataclasses.replace(manifest.text, **text)
        info = dataclasses.replace(manifest.model, **(model or {}))
        write_manifest(bundle, dataclasses.replace(manifest, text=texts, model=info))
        return bundle

    return change


def _run(runner, bundle, text):
    command = list(map(str, [runner, bundle, "--text", text, "--json", "--no-verify"]))
    # The process exits without freeing; leaks are not what is looked for.
    env = {"ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"prompts": {"query": "w7 w8 ", "no": ""}, "default_prompt": "query"}, "w1"),
        ({"max_tokens": 4, "cuts": True}, "w1 w2 w3 w4 w5"),
        ({"max_tokens": 4, "cuts": True, "cut_side": "left"}, "w1 w2 w3 w4 w5"),
        ({"prompts": {"query": "w7 w8 "}, "default_prompt": "query", "max_tokens": 5, "cuts": True}, "w1 w2"),
        ({"max_tokens": 8, "cuts": True}, "w1 w2"),
    ],
)
def test_texts_are_read_as_python_reads_them(rules, text, changed, sanitized):
    bundle = changed(**rules)
    (want,) = run_texts(edgeq.load(bundle), [text])
    done = _run(sanitized, bundle, text)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["tokens"] == want.tokens
    np.testing.assert_allclose(np.float32(found["embedding"]), want.embedding, rtol=3e-7, atol=1e-9)


def test_long_texts_are_refused_where_nothing_cuts_them(changed, sanitized):
    done = _run(sanitized, changed(max_tokens=4), "w1 w2 w3 w4 w5")
    assert done.returncode == 2
    assert "has 7 tokens, the model takes at most 4; shorten or split it" in done.stderr


@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "none"])
def test_scores_are_those_of_python(scores, changed, sanitized):
    # The tiny model has no head; the first token's states play the logits.
    bundle = changed({"task": "classify", "pooling": "none", "labels": ("a", "b")}, scores=scores)
    found = json.loads(_run(sanitized, bundle, "w1 w2").stdout)
    states = edgeq.load(bundle)(input_ids=np.array([[2, 5, 6, 3]]))["last_hidden_state"]
    logits = states[0, 0].astype(np.float64)
    want = {
        "softmax": np.exp(logits) / np.exp(logits).sum(), "sigmoid": 1 / (1 + np.exp(-logits)), "none": logits,
    }[scores]  # fmt: skip
    assert list(found["scores"]) == ["a", "b", *(f"LABEL_{number}" for number in range(2, logits.size))]
    np.testing.assert_allclose(list(found["scores"].values()), want, rtol=1e-7)
    assert found["label"] == list(found["scores"])[int(np.argmax(want))]
    assert found["score"] == pytest.approx(want.max(), rel=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.update(scores="argmax"), "'scores' is 'argmax'"),
        (lambda text: text.update(default_prompt="none"), "none"),
        (lambda text: text.update(default_prompt=3), "'default_prompt' must be a text or null"),
        (lambda text: text.update(max_tokens=0), "max_tokens"),
        (lambda text: text.pop("cuts"), "cuts"),
    ],
)
def test_damaged_rules_are_refused(change, message, host_bundle, copy_of, sanitized):
    bundle = copy_of(host_bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest["text"])
    write_table(bundle, manifest)
    done = _run(sanitized, bundle, "w1")
    assert done.returncode == 1
    assert message in done.stderr
