"""The service under more load than it can take: nothing lost, crossed or unexpected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "service_load.py"


@pytest.mark.slow
def test_a_short_load(tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), "--seconds", "8", "--pairs", "12", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "service_load.json").read_text())
    assert report["faults"] == report["surprises"] == []
    assert report["tracebacks"] == 0
    outcomes = report["under_load"]["pair"]
    assert not [outcome for outcome in outcomes if outcome not in ("200", "503", "504")], outcomes
    assert report["answered"] > 0
