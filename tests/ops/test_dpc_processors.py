"""The same clusters on every processor: with other vector widths and code paths, threads, loops or products.

Libraries can be made to compute as on another processor. Each environment is a process of its own, because
they read these variables when they are loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, sys, torch
sys.path.insert(0, sys.argv[1])
from dpc_cases import FEATURES, grid
from efnet.ops.clustering.dpc_knn import dpc_knn
places = grid(20, 31)
for threads in (1, 2):
    torch.set_num_threads(threads)
    for name in ("few kinds", "duplicated", "integers", "near", "smooth"):
        for arguments in ((None, 0.0, None), (places, 0.3, None), (places, 0.7, (20, 31))):
            found = dpc_knn(FEATURES[name], 155, 5, *arguments)
            digest = hashlib.sha256(found.assignment.numpy().tobytes() + found.centers.numpy().tobytes())
            print(name, *arguments[1:], digest.hexdigest()[:16])
"""


def clusters(**environment: str) -> list[str]:
    """A digest of the clusters of each case, for one thread and then for two."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.splitlines()


@pytest.fixture(scope="module")
def here() -> list[str]:
    """What this machine finds by products."""
    return clusters(EFNET_NATIVE="0")


@pytest.mark.parametrize(
    "environment",
    [
        {"EFNET_NATIVE": "1"},
        {"EFNET_NATIVE": "0", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
        {"EFNET_NATIVE": "1", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        pytest.param(
            {"EFNET_NATIVE": "0", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "EFNET_NATIVE": "1",
                "ATEN_CPU_CAPABILITY": "avx2",
                "NUMBA_CPU_NAME": "generic",
                "NUMBA_CPU_FEATURES": "",
            },
            marks=pytest.mark.slow,  # compiles the loops again
        ),
    ],
    ids=lambda environment: ",".join(environment.values()),
)
def test_same_clusters_on_other_processors(environment: dict[str, str], here: list[str]) -> None:
    half = len(here) // 2
    assert here[:half] == here[half:]  # one thread and two
    assert clusters(**environment) == here
