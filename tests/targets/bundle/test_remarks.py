"""What is said when a bundle is made."""

import json

from edgeq.targets.bundle.remarks import bundle_remarks
from edgeq.targets.bundle.tokenizer.table import write_tokenizer

SCRIPTS = {"type": "UnicodeScripts"}


def test_what_c_does_not_read_is_said(host_bundle, copy_of, tmp_path):
    copy = copy_of(host_bundle)
    table = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(table | {"pre_tokenizer": SCRIPTS}))
    write_tokenizer(copy / "tokenizer.json", copy / "tokenizer.bin")
    (remark,) = bundle_remarks(copy)
    assert "tokenizer (pre-tokenizer UnicodeScripts): this bundle takes token ids only, in Python and in" in remark
    (copy / "tokenizer.bin").unlink()
    (remark,) = bundle_remarks(copy)
    assert "has no tokenizer.json" in remark
    assert "takes token ids only" in remark


def test_what_c_reads_is_not_mentioned(gpt2_bundle, gpt2_onnx):
    assert bundle_remarks(gpt2_bundle) == []
