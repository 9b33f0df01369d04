"""The harnesses of libFuzzer build and find nothing in a short run; how long ones are made: targets/libedgeq/fuzz."""

import pytest

from edgeq.targets.toolchain.libedgeq import LIBEDGEQ

HARNESSES = sorted(path.stem.removeprefix("fuzz_") for path in (LIBEDGEQ / "fuzz").glob("fuzz_*.c"))


def test_every_harness_is_known_by_name(fuzz):
    assert sorted(fuzz.HARNESSES) == HARNESSES


def test_seeds_of_tokenizers_are_tables_that_the_library_reads():
    """Others would be refused at their first bytes, and a million runs would say nothing."""
    reader = (LIBEDGEQ / "library" / "tokenizer_file.c").read_text()
    seeds = list((LIBEDGEQ / "fuzz" / "seeds" / "tokenizer").iterdir())
    for seed in seeds:
        version = seed.read_bytes()[:8].decode("ascii")
        assert version != "EQTOKEN0", f"{seed.name} holds a reason"
        assert f'"{version}"' in reader, f"{seed.name} is of an earlier version: run.py seeds"
    assert len(seeds) >= 4


@pytest.mark.parametrize("name", HARNESSES)
def test_a_short_run_finds_nothing(name, fuzz, fuzz_folder):
    assert fuzz.run(name, runs=1500, folder=fuzz_folder) >= 1500
