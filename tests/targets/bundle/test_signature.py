"""Signed bundles: minisign's own files are read, and whatever was changed is refused."""

import base64
import json
import os
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgeq
import edgeq.cli.main as cli
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.targets.bundle.signing import new_key, read_secret_key, sign_bundle
from edgeq.targets.runtime.signature import check_signature, read_public_key, read_signature
from tests.targets.changed_manifests import write_table

# Made by minisign 0.11 (-G -W, then -S on a file of the line "hello").
PUBLIC = "RWQlvA3yCeNFZ+KTVIqZ2xNXKkLGgLqTxrTiJxkDEtAoqpvjdHmNvykz"
SECRET = (
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJbwN8gnjRWdom0EdofAPTLdv5QUvCkKAiXHCkHIzy4xc"
    "4ocqM/hiVeKTVIqZ2xNXKkLGgLqTxrTiJxkDEtAoqpvjdHmNvykzAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)
SIGNATURE = """untrusted comment: signature from minisign secret key
RUQlvA3yCeNFZ7E7KNs3WSzeWGsXxRQhaWmuwgP8bnAOYSSlYMt6s6N4PjWybaRH2gKa/RWuBHVxQDVZmt5r47X7cyhSMaMHfAo=
trusted comment: timestamp:1795192173	file:f	hashed
12ctTsPwGFF6ihVKYkG/kPhqSt7390RwnKk2Q4jf+YJV8JUEUM2hsUlfpvjVO0j2xE5uyhFT29oNMY9PSeEyDw==
"""


@pytest.fixture
def signed(host_bundle, copy_of, tmp_path):
    """A signed bundle and its public key."""
    bundle = copy_of(host_bundle)
    new_key(tmp_path / "team.key")
    sign_bundle(bundle, tmp_path / "team.key")
    return bundle, tmp_path / "team.key.pub"


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_file_that_minisign_signed_is_accepted(tmp_path):
    (tmp_path / "manifest.json").write_text("hello\n")
    (tmp_path / "manifest.json.minisig").write_text(SIGNATURE)
    (tmp_path / "team.pub").write_text(f"untrusted comment: minisign public key 6745E309F20DBC25\n{PUBLIC}\n")
    assert check_signature(tmp_path, PUBLIC) == "timestamp:1795192173\tfile:f\thashed"
    assert check_signature(tmp_path, tmp_path / "team.pub").startswith("timestamp:")
    (tmp_path / "manifest.json").write_text("hello!")
    with pytest.raises(FormatError, match="one of them was changed"):
        check_signature(tmp_path, PUBLIC)


def test_keys_are_those_of_minisign(tmp_path):
    (tmp_path / "key").write_text(f"untrusted comment: minisign encrypted secret key\n{SECRET}\n")
    assert read_secret_key(tmp_path / "key").public == read_public_key(PUBLIC)
    assert read_public_key(PUBLIC).name == "6745E309F20DBC25"
    made = new_key(tmp_path / "new")
    assert read_secret_key(tmp_path / "new").public == made == read_public_key(tmp_path / "new.pub")
    assert os.stat(tmp_path / "new").st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists already"):
        new_key(tmp_path / "new")


def test_a_pair_of_keys_that_was_interrupted_is_completed(tmp_path):
    made = new_key(tmp_path / "new")
    public = (tmp_path / "new.pub").read_text()
    (tmp_path / "new.pub").unlink()  # as a kill between the two leaves it
    assert new_key(tmp_path / "new") == made
    assert (tmp_path / "new.pub").read_text() == public
    (tmp_path / "new").unlink()
    for mine in ("new.pub", "thesis"):
        (tmp_path / mine).write_text("mine")
        with pytest.raises(UsageError, match=f"{mine} exists already"):
            new_key(tmp_path / mine.removesuffix(".pub"))
        assert (tmp_path / mine).read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.pub", "thesis"]


def test_no_key_is_made_for_a_bundle_that_cannot_be_signed(tmp_path, capsys):
    (tmp_path / "bundle").mkdir()
    assert cli.main(["sign", str(tmp_path / "bundle"), "--key", str(tmp_path / "key"), "--new-key"]) == 2
    assert "bundle" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_signed_bundle_loads_with_its_key_and_no_other(signed, tmp_path):
    bundle, key = signed
    assert edgeq.load(bundle, public_key=key).self_test().ok
    assert edgeq.load(bundle).self_test().ok
    new_key(tmp_path / "other")
    with pytest.raises(FormatError, match="was signed with key"):
        edgeq.load(bundle, public_key=tmp_path / "other.pub")
    (bundle / "manifest.json.minisig").unlink()
    with pytest.raises(FormatError, match=r"is not signed: it has no manifest\.json\.minisig"):
        edgeq.load(bundle, public_key=key)


def test_a_changed_file_is_refused_even_where_digests_are_not_asked_for(signed):
    bundle, key = signed
    data = bytearray((bundle / "weights.bin").read_bytes())
    data[3] ^= 1
    (bundle / "weights.bin").write_bytes(data)
    with pytest.raises(FormatError, match=r"weights\.bin is damaged"):
        edgeq.load(bundle, public_key=key, verify=False)


def test_a_manifest_that_was_made_to_fit_is_refused(signed, make_bundle):
    """Whoever changes a file can change its digest, and the manifest's; not the signature."""
    bundle, key = signed
    table = json.loads((bundle / "manifest.json").read_bytes())
    table["model"]["architecture"] = "Other"
    write_table(bundle, table)
    assert edgeq.load(bundle)
    with pytest.raises(FormatError, match="one of them was changed"):
        edgeq.load(bundle, public_key=key)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_every_changed_byte_of_a_signature_is_seen(signed, at, flip):
    bundle, key = signed
    path = bundle / "manifest.json.minisig"
    original = path.read_bytes()
    at %= len(original)
    data = bytearray(original)
    data[at] ^= flip
    path.write_bytes(data)
    try:
        comment = check_signature(bundle, key)
        # The first comment is not signed, and line ends are read in more ways than one.
        assert at < original.index(b"\n") or data[at : at + 1] in b"\r\x0b\x0c\x1c\x1d\x1e\x85\n"
        assert comment == original.split(b"\n")[2].decode().removeprefix("trusted comment: ")
    except FormatError:
        pass
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("text", ["", "x\ny\n", "a\n" + PUBLIC[:-4] + "\n"])
def test_what_is_no_key_is_a_sentence(signed, tmp_path, text):
    (tmp_path / "odd.pub").write_text(text)
    with pytest.raises(UsageError, match="is not a minisign public key"):
        edgeq.load(signed[0], public_key=tmp_path / "odd.pub")


def test_an_encrypted_key_says_what_to_do(tmp_path):
    data = bytearray(base64.b64decode(SECRET))
    data[2:4] = b"Sc"
    (tmp_path / "key").write_text(f"untrusted comment: x\n{base64.b64encode(data).decode()}\n")
    with pytest.raises(UsageError, match="is encrypted; sign with `minisign -S"):
        read_secret_key(tmp_path / "key")


def test_a_missing_package_is_named(signed, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(EdgeqError, match="pip install cryptography"):
        edgeq.load(signed[0], public_key=signed[1])


def test_the_verbs_sign_and_verify(host_bundle, copy_of, run, tmp_path):
    bundle, key = copy_of(host_bundle), tmp_path / "team.key"
    assert json.loads(run("verify", bundle, "--json")[1])["signed"] == "not signed"
    code, out, _ = run("sign", bundle, "--key", key, "--new-key", "--json")
    assert code == 0
    name = json.loads(out)["key"]
    assert f"says to be signed with key {name}" in json.loads(run("verify", bundle, "--json")[1])["signed"]
    code, out, _ = run("verify", bundle, "--public-key", f"{key}.pub", "--json")
    assert (code, json.loads(out)["signed"].split(" (")[0]) == (0, f"signed with key {name}")
    (bundle / "planted.so").write_bytes(b"x")
    code, _, err = run("verify", bundle, "--public-key", f"{key}.pub")
    assert (code, "planted.so is not in the manifest" in err) == (1, True)


def test_a_damaged_bundle_is_not_signed(host_bundle, copy_of, tmp_path):
    bundle = copy_of(host_bundle)
    new_key(tmp_path / "key")
    (bundle / "golden.bin").write_bytes(bytes(len((bundle / "golden.bin").read_bytes())))
    with pytest.raises(FormatError, match=r"golden\.bin is damaged"):
        sign_bundle(bundle, tmp_path / "key")
    assert read_signature(bundle) is None


@pytest.mark.needs("minisign")
def test_minisign_accepts_what_edgeq_signed(signed):
    command = ["minisign", "-V", "-p", str(signed[1]), "-m", str(signed[0] / "manifest.json")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
