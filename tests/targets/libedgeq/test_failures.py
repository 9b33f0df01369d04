"""What may go wrong around the library: no memory, a fork, several threads. Nothing leaks, hangs or races."""

import subprocess
from pathlib import Path

import pytest

from edgeq.targets.toolchain.libedgeq import LIBEDGEQ

SOURCE = Path(__file__).with_name("torture.c")


@pytest.fixture(scope="module")
def torture(fuzz, sanitized_program, make_once, needs):
    """Returns a function that runs the program above with a sanitizer; a finding is a failure."""
    needs("clang", "clang-sanitizers")

    def build(sanitizer):
        if sanitizer == "address":
            return sanitized_program(SOURCE)

        def fill(folder):
            sources = [SOURCE, *sorted((LIBEDGEQ / "library").glob("*.c"))]
            command = ["clang", *fuzz.FLAGS, f"-fsanitize={sanitizer}", *map(str, sources)]
            subprocess.run([*command, "-lm", "-lpthread", "-o", str(folder / "torture")], check=True)

        return make_once(f"torture-{sanitizer}", fill) / "torture"

    def run(sanitizer, bundle, what):
        command = [str(build(sanitizer)), str(bundle), what]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "Sanitizer" not in result.stderr, result.stderr
        return result.stdout

    return run


def test_every_single_allocation_may_fail(torture, host_bundle):
    """Status and sentence, and nothing is left: counted by the allocator, and by the leak sanitizer."""
    assert "allocations refused, one by one" in torture("address", host_bundle, "memory")


@pytest.mark.parametrize("bundle", ["host_bundle", "gpt2_bundle"])
def test_a_repeated_call_and_a_token_take_no_memory(torture, request, bundle):
    """Tensors, text to tokens and back, texts to vectors, each once more; all tokens of a text but the first two."""
    lines = torture("address", request.getfixturevalue(bundle), "steady").splitlines()
    counts = dict(line.split(": ") for line in lines)
    texts = ["texts"] if bundle == "host_bundle" else ["most likely", "drawn"]
    assert counts == dict.fromkeys(["tensors", "tokenizer", *texts], "0")


def test_a_session_works_in_a_child_or_says_why_not(torture, host_bundle):
    assert torture("address", host_bundle, "fork") == "forks are right\n"


def test_threads_do_not_race(torture, host_bundle):
    assert "of 200 calls of two threads done" in torture("thread", host_bundle, "threads")


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["gpt2_bundle", "bart_bundle"])
@pytest.mark.parametrize(("sanitizer", "what"), [("address", "memory"), ("address", "fork"), ("thread", "threads")])
def test_the_same_for_models_that_make_text(torture, request, bundle, sanitizer, what):
    torture(sanitizer, request.getfixturevalue(bundle), what)
