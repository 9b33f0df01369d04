"""What is said when a bundle is made."""

import json

from edgeq.targets.bundle.remarks import bundle_remarks
from edgeq.targets.bundle.tokenizer.table import write_tokenizer

DIGITS = {"type": "Digits", "individual_digits": True}


def test_what_c_does_not_read_is_said(host_bundle, copy_of, tmp_path):
    copy = copy_of(host_bundle)
    table = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(table | {"pre_tokenizer": DIGITS}))
    write_tokenizer(copy / "tokenizer.json", copy / "tokenizer.bin")
    (remark,) = bundle_remarks(copy, tmp_path, task="embed")
    assert "tokenizer (pre-tokenizer Digits): they take token ids only; texts work from Python" in remark
    (copy / "tokenizer.json").unlink()
    (remark,) = bundle_remarks(copy, tmp_path, task="embed")
    assert "has no tokenizer.json" in remark
    assert "takes token ids only" in remark


def test_what_c_reads_is_not_mentioned(gpt2_bundle, gpt2_onnx):
    assert bundle_remarks(gpt2_bundle, gpt2_onnx, task="generate") == []


def test_filters_that_count_only_where_tokens_are_drawn(gpt2_bundle, tmp_path):
    def remarks(table, task="generate"):
        (tmp_path / "generation_config.json").write_text(json.dumps(table))
        return bundle_remarks(gpt2_bundle, tmp_path, task=task)

    (remark,) = remarks({"top_k": 10, "top_p": 0.9, "temperature": 0.6})
    assert "sets 'top_k', 'top_p' without 'do_sample'" in remark
    assert remarks({"top_k": 10, "do_sample": True}) == []
    assert remarks({"top_k": 50, "top_p": 1.0}) == []
    assert remarks({"top_k": 10}, task="embed") == []
