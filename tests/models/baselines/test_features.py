"""Every network against features recorded from its authors' code on made weights, maps within included."""

from __future__ import annotations

from pathlib import Path

import pytest
from feature_cases import Case, differences
from recorded import CASES

TOLERANCE = 1e-4  # relative to the largest value of an array; float32 gives 1e-5


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id, marks=[pytest.mark.slow] * case.slow) for case in CASES]
)
def test_features_are_the_authors(case: Case, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = samples / "rivals" / case.folder
    if not folder.is_dir():
        pytest.skip(f"no recorded features in {folder}")
    found = differences(case, folder, monkeypatch)
    print(f"{case.id}: {len(found)} arrays, largest difference {max(found.values()):.1e}")
    assert {"logits", "logits_sum", "logits_low"} & set(found)
    assert max(found.values()) < TOLERANCE, found
