"""Ten thousand damaged bundles: ``edgeq-run`` says what is wrong, and never crashes or reads outside a file.

It runs under the address and undefined-behaviour sanitizers. Native code in a bundle is only damaged where digests are
compared, since nothing can make damaged machine code safe.
"""

import hashlib
import json
import random
import subprocess

import pytest

from edgeq.errors import EdgeqError
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest

pytestmark = pytest.mark.slow

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
NUMBERS = b'-1 0 1 2 63 64 65 4294967295 9223372036854775807 1152921504606846976 1e3 null "x" [] {} true'.split()
WORDS = (0, 1, 2, 3, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
LINES = "the Caf\u00e9  sat's <mask> 12 \u6c49\u5b57 \ud55c\uad6d \u0301!\n<s> ## ab\tab <|endoftext|>\n" * 3


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes that were flipped, cut, swapped, repeated or replaced by fields of odd sizes."""
    out = bytearray(data)
    kind = chance.randrange(6)
    at = chance.randrange(len(out))
    if kind == 0:
        for _ in range(chance.randint(1, 6)):
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        size, other = chance.randint(1, 64), chance.randrange(len(out))
        out[at : at + size], out[other : other + size] = out[other : other + size], out[at : at + size]
    elif kind == 3:
        out[at:at] = out[at : at + chance.choice([1, 4, 100, 5000])]
    elif kind == 4:
        at -= at % 4
        out[at : at + 4] = chance.choice(WORDS).to_bytes(4, "little")
    else:
        digits = [i for i in range(at, min(at + 400, len(out))) if chr(out[i]).isdigit()]
        end = start = digits[0] if digits else at
        while end < len(out) and chr(out[end]).isdigit():
            end += 1
        out[start:end] = chance.choice(NUMBERS)
    return bytes(out)


def run(program, *arguments):
    # The process exits without freeing; leaks are not what is looked for.
    options = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
    result = subprocess.run(
        [str(program), *map(str, arguments)], capture_output=True, timeout=60, check=False, env=options
    )
    message = result.stderr.decode(errors="replace")
    assert "Sanitizer" not in message, message
    assert "runtime error" not in message, message
    assert result.returncode in (0, 1, 2), (result.returncode, message)
    if result.returncode != 0:
        assert message.startswith("edgeq-run: "), message
    return result.returncode, message


def set_manifest(bundle, data):
    """Writes a manifest with its digest, so that its content is what is looked at."""
    (bundle / "manifest.json").write_bytes(data)
    (bundle / "manifest.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  manifest.json\n")


def set_file(bundle, name, data):
    """Writes a file with the size that the manifest then says."""
    (bundle / name).unlink()
    (bundle / name).write_bytes(data)
    table = json.loads((bundle / "manifest.json").read_bytes())
    table["files"][name]["bytes"] = len(data)
    set_manifest(bundle, json.dumps(table).encode())


@pytest.fixture(params=["tiny", "decoder"])
def bundle(request, make_bundle, copy_of):
    made = make_bundle(NATIVE) if request.param == "tiny" else request.getfixturevalue("gpt2_board")(NATIVE)
    return copy_of(made)


def test_manifests(bundle, sanitized):
    original, chance, refused = (bundle / "manifest.json").read_bytes(), random.Random(1), 0  # noqa: S311
    for _ in range(2000):
        set_manifest(bundle, mutated(original, chance))
        refused += run(sanitized, bundle, "--self-test", "--no-verify")[0] != 0
        try:
            read_manifest(bundle)
        except EdgeqError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
    assert refused > 1000


def test_tokenizers(bundle, sanitized, tmp_path):
    (tmp_path / "lines.txt").write_text(LINES, encoding="utf-8")
    original, chance, refused = (bundle / "tokenizer.bin").read_bytes(), random.Random(2), 0  # noqa: S311
    # Most of a table is vocabulary; what refers to other places is what can go wrong.
    head = original[: 8 + 8 * 17]
    for turn in range(2000):
        data = mutated(head, chance) + original[len(head) :] if turn % 4 == 0 else mutated(original, chance)
        set_file(bundle, "tokenizer.bin", data)
        options = ["--file", tmp_path / "lines.txt", "--tokens", "--no-verify"]
        refused += run(sanitized, bundle, *options)[0] != 0
    assert refused > 300


def test_data_without_digests(bundle, sanitized):
    chance = random.Random(3)  # noqa: S311
    for turn in range(200):
        name = ("weights.bin", "golden.bin")[turn % 2]
        original = (bundle / name).read_bytes()
        set_file(bundle, name, mutated(original, chance))
        run(sanitized, bundle, "--self-test", "--no-verify")
        set_file(bundle, name, original)


def test_any_file_with_digests(bundle, sanitized):
    chance, manifest = random.Random(4), read_manifest(bundle)  # noqa: S311
    names = [*manifest.files, "manifest.json", "manifest.sha256"]
    for turn in range(800):
        path = bundle / names[turn % len(names)]
        original = path.read_bytes()
        changed = mutated(original, chance)
        path.unlink()  # a program that runs cannot be written
        path.write_bytes(changed)
        run(sanitized, bundle, "--self-test")  # which compares what it reads, and need not read all
        code, message = run(sanitized, bundle, "--self-test", "--verify-all")
        # Behind the digest and a space, its file says whose it is.
        same = changed == original or (path.name == "manifest.sha256" and changed[:64] == original[:64] != changed)
        assert code == (0 if same else 1), message
        path.unlink()
        path.write_bytes(original)
