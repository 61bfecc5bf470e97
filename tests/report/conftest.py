"""Run folders to report on."""

import pytest
from written_run import write_run


@pytest.fixture
def run(tmp_path):
    """A finished run of three short stages, with scores and features."""
    return write_run(tmp_path / "demo", steps=40)


@pytest.fixture
def bare_run(tmp_path):
    """The same without evaluation.json and affinity.json."""
    run = write_run(tmp_path / "bare", steps=10)
    run.evaluation.unlink()
    run.affinity.unlink()
    return run
