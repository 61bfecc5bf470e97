"""Our scorers give the verdicts of VLMEvalKit's, answer by answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from verdicts import ours

ROOT = Path(__file__).parents[3]
RECORDED = json.loads((Path(__file__).parent / "reference.json").read_text())["cases"]
"""Random answers with the verdicts of ms-vlmeval 0.0.20, by `benchmarks/scorer_agreement.py`."""


@pytest.mark.parametrize("kind", sorted(RECORDED))
def test_every_recorded_verdict_is_ours(kind: str):
    assert len(RECORDED[kind]) >= 40
    for entry in RECORDED[kind]:
        found = ours(kind, entry["case"], "2025-08")
        wanted = entry["verdict"]
        if isinstance(wanted, float):
            wanted = pytest.approx(wanted, abs=1e-12)
        assert found == wanted, entry


def test_recorded_cases_hold_both_verdicts():
    for kind, least in (("mcq", 10), ("circular", 5), ("ocrbench", 10), ("relaxed", 10)):
        right = sum(entry["verdict"] == 1 for entry in RECORDED[kind])
        assert least <= right <= len(RECORDED[kind]) - least, kind


@pytest.mark.slow
@pytest.mark.skipif(
    not {"VLMEVAL_PYTHON", "VLMEVAL_WHEEL"} <= os.environ.keys(),
    reason="needs VLMEVAL_PYTHON (of a venv with its packages) and VLMEVAL_WHEEL (unpacked)",
)
def test_twenty_thousand_answers_per_kind(tmp_path):
    command = [os.environ["VLMEVAL_PYTHON"], "benchmarks/scorer_agreement.py"]
    command += [os.environ["VLMEVAL_WHEEL"], "--answers", "20000", "--sets", "100"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, stdout=sys.stderr)
    assert done.returncode == 0
