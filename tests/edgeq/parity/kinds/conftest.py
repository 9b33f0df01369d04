"""What the parity tests of all kinds of models begin with: a copy of the file's run that a test may damage."""

import shutil

import pytest


@pytest.fixture
def copied_run(good_run, tmp_path):
    """The run without float stages and bundles, which tests of faults are not about."""
    run = shutil.copytree(good_run, tmp_path / "run")
    shutil.rmtree(run / "bundles", ignore_errors=True)
    (run / "deploy.json").unlink()
    return run
