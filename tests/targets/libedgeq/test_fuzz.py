"""The harnesses of libFuzzer build and find nothing in a short run; how long ones are made: targets/libedgeq/fuzz."""

import importlib.util

import pytest

from edgeq.targets.toolchain.libedgeq import LIBEDGEQ

_spec = importlib.util.spec_from_file_location("edgeq_fuzz", LIBEDGEQ / "fuzz" / "run.py")
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, needs):
    needs("clang", "clang-sanitizers")
    return tmp_path_factory.mktemp("fuzz")


def test_seeds_of_tokenizers_are_tables_that_the_library_reads():
    """Others would be refused at their first bytes, and a million runs would say nothing."""
    reader = (LIBEDGEQ / "library" / "tokenizer_table.c").read_text()
    seeds = list((LIBEDGEQ / "fuzz" / "seeds" / "tokenizer").iterdir())
    for seed in seeds:
        version = seed.read_bytes()[:8].decode("ascii")
        assert version != "EQTOKEN0", f"{seed.name} holds a reason"
        assert f'"{version}"' in reader, f"{seed.name} is of an earlier version: run.py seeds"
    assert len(seeds) >= 4


@pytest.mark.parametrize("name", fuzz.HARNESSES)
def test_a_short_run_finds_nothing(name, folder):
    assert fuzz.run(name, runs=1500, folder=folder) >= 1500
