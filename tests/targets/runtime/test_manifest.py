import copy
import hashlib
import json
import os
import random

import pytest

from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.targets.runtime.manifest import read_manifest, verify_files
from edgeq.targets.runtime.manifest_parser import parse_manifest
from tests.targets.changed_manifests import damage, set_value, write_table


def _table(bundle):
    return json.loads((bundle / "manifest.json").read_text())


def test_writing_and_reading_give_the_same_manifest(host_bundle):
    manifest = read_manifest(host_bundle)
    assert parse_manifest(json.loads(manifest.to_json())) == manifest
    assert (host_bundle / "manifest.json").read_text() == manifest.to_json()
    assert set(manifest.files) >= {"code/host.so", "lib/libedgeq.so", "weights.bin", "golden.bin", "tokenizer.json"}


def test_the_digest_file_is_what_sha256sum_checks(host_bundle):
    digest = hashlib.sha256((host_bundle / "manifest.json").read_bytes()).hexdigest()
    assert (host_bundle / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


def test_weights_start_at_multiples_of_64(host_bundle):
    assert all(tensor.offset % 64 == 0 for tensor in read_manifest(host_bundle).weights)


def test_no_bundle_is_a_wrong_request(tmp_path):
    with pytest.raises(UsageError, match="no bundle folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["weights.bin", "code/host.so", "golden.bin", "tokenizer.json"])
def test_a_truncated_or_missing_file_is_named(host_bundle, copy_of, name):
    bundle = copy_of(host_bundle)
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[:-1])
    with pytest.raises(FormatError, match=f"{name} has {len(data) - 1} bytes, the manifest says {len(data)}"):
        read_manifest(bundle)
    (bundle / name).unlink()
    with pytest.raises(FormatError, match=f"{name} is missing"):
        read_manifest(bundle)


@pytest.mark.parametrize("name", ["weights.bin", "code/host.so", "golden.bin"])
def test_a_flipped_bit_is_found(host_bundle, copy_of, name):
    bundle = copy_of(host_bundle)
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(FormatError, match=f"{name} is damaged"):
        verify_files(bundle, read_manifest(bundle))


def test_a_changed_or_cut_off_manifest_is_found(host_bundle, copy_of):
    bundle = copy_of(host_bundle)
    text = (bundle / "manifest.json").read_text()
    for damaged in (text.replace("TinyModel", "TinyModem"), text[: len(text) // 2], ""):
        (bundle / "manifest.json").write_text(damaged)
        with pytest.raises(FormatError, match=r"manifest\.json is damaged"):
            read_manifest(bundle)
    (bundle / "manifest.sha256").write_text("")
    with pytest.raises(FormatError, match=r"manifest\.sha256"):
        read_manifest(bundle)


def _with_manifest(bundle, text):
    write_table(bundle, text.encode())
    return bundle


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": ' + "7" * 5000 + "}", "an integer has 5000 digits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": "edgeq-bundle", "format": "zip"}', "has the key 'format' twice"),
        ('{"version": NaN}', "NaN is no number"),
        ('{"version": 1e999}', "is too large"),
        ('{"format": "\\ud800"}', "half a surrogate pair"),
        ('{"format": "\\u001b[31m\\n"}', r"\\x1b\[31m\\n"),
        ("[]", "must be a table, found list"),
        ("{", "is not valid JSON"),
    ],
)
def test_a_hostile_manifest_is_a_sentence(host_bundle, copy_of, text, message):
    bundle = _with_manifest(copy_of(host_bundle), text)
    with pytest.raises(FormatError, match=message) as caught:
        read_manifest(bundle)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["manifest.sha256", "weights.bin", "lib/libedgeq.so", "golden.bin"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(host_bundle, copy_of, name):
    bundle = copy_of(host_bundle)
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(FormatError, match=name):
        read_manifest(bundle)


@pytest.mark.parametrize(("name", "message"), [("manifest.sha256", "4096 bytes at most"), ("manifest.json", "at most")])
def test_a_file_of_a_tebibyte_takes_no_memory(host_bundle, copy_of, name, message):
    bundle = copy_of(host_bundle)
    os.truncate(bundle / name, 1 << 40)  # it has no blocks on the disk
    with pytest.raises(FormatError, match=message):
        read_manifest(bundle)


WRONG = [
    (("format",), "zip", "'format' must be"),
    (("version",), 3, "of format version 3, this edgeq reads version 2"),
    (("weights", 0, "offset"), 8, "not a multiple of 64"),
    (("weights", 1, "offset"), 1 << 20, "ends at byte"),
    (("weights", 0, "offset"), -64, "at least 0"),
    (("weights", 0, "bytes"), 4, "takes 1104 bytes, found 4"),
    (("weights", 0, "shape"), [1 << 39, 1 << 39], "takes"),
    (("weights", 0, "shape"), [0], "positive integer"),
    (("weights", 0, "shape"), ["batch"], "no named sizes"),
    (("weights", 0, "shape"), [1] * 9, "9 dimensions"),
    (("weights", 0, "dtype"), "float8", "dtype must be one of"),
    (("functions", "main", "inputs"), [], "at least one input"),
    (("functions", "main", "inputs", 0, "name"), "ids", "golden"),
    (("golden", 0, "outputs", 0, "shape"), [2, 9, 11], "takes"),
    (("golden", 0, "function"), "encode", "no function of the model"),
    (("functions", "main", "plan"), 3, "must be a table"),
    (("functions",), {}, "'functions' must be 'main'"),
    (("targets",), [], "'targets' is empty"),
    (("targets", 0, "code"), "code/../x.so", "'code' must be 'code/host.so'"),
    (("weights", 0, "kind"), "dense", "'kind' must be packed, float or constant"),
    (("weights", 0), {"name": "w", "dtype": "int32", "shape": [1], "offset": 0, "bytes": 4, "kind": "packed", "bits": 3,
                      "zero_point": 1}, "no grid has 3 bits"),
    (("model", "task"), "translate", "not known"),
    (("model", "max_length"), 0, "at least 1"),
    (("model", "labels"), [1], "list of texts"),
    (("model", "normalize"), 1, "true or false"),
    (("recipe",), 3, "'recipe' must be"),
    (("tools",), {"x": 1}, "must be text"),
    (("files", "code/host.so", "sha256"), "xyz", "64 hexadecimal"),
    (("files", "code/host.so", "blocks"), ["xyz"], "64 hexadecimal"),
    (("files", "code/host.so", "blocks"), [], "need 1 blocks, found 0"),
    (("files", "code/host.so", "blocks"), ["0" * 64] * 2, "need 1 blocks, found 2"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_value_is_a_sentence(host_bundle, path, value, message):
    table = _table(host_bundle)
    set_value(table, path, value)
    with pytest.raises(FormatError, match=message):
        parse_manifest(table)


@pytest.mark.parametrize("name", ["../model.so", "/etc/passwd", "a//b", "lib/", "-x", ".hidden", "a b"])
def test_files_outside_the_bundle_are_refused(host_bundle, name):
    table = _table(host_bundle)
    table["files"][name] = {"sha256": "0" * 64, "bytes": 0, "blocks": []}
    with pytest.raises(FormatError, match="not a plain path"):
        parse_manifest(table)


def test_random_damage_never_escapes_as_another_error(host_bundle):
    """Whatever is dropped or replaced, parsing ends in a manifest or in one of our errors."""
    chance = random.Random(5)  # noqa: S311
    refused = 0
    for _ in range(400):
        table = copy.deepcopy(_table(host_bundle))
        damage(table, chance, first=list(table), deeper=0.8)
        try:
            parse_manifest(table)
        except EdgeqError:
            refused += 1
    assert refused > 300
