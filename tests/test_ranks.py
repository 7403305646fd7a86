"""Ranks as torchrun and SLURM tell them, and shares of a list."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efnet.core.distributed import nodes, rank, share, world_size
from efnet.core.errors import InputError

NAMES = (
    "RANK",
    "WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_NUM_NODES",
)


def given_environment(patch: pytest.MonkeyPatch, **values: str) -> None:
    for name in NAMES:
        patch.delenv(name, raising=False)
    for name, value in values.items():
        patch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (0, 1, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}, (2, 4, 2)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}, (3, 8, 2)),
        # A batch script without srun is one process, whatever was asked for.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}, (0, 1, 1)),
        # torchrun within a SLURM job.
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, (1, 2, 1)),
        ({"WORLD_SIZE": "2"}, (0, 1, 1)),
    ],
)
def test_ranks(
    values: dict[str, str], expected: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given_environment(monkeypatch, **values)
    assert (rank(), world_size(), nodes()) == expected


@pytest.mark.parametrize(("own", "processes"), [("2", "2"), ("-1", "2"), ("0", "0"), ("", "2"), ("a", "2")])
def test_nonsense_is_refused(own: str, processes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given_environment(monkeypatch, RANK=own, WORLD_SIZE=processes)
    with pytest.raises(InputError, match="RANK"):
        share([1, 2])


@given(items=st.lists(st.integers(), max_size=30), processes=st.integers(1, 9))
def test_every_item_is_in_one_share(items: list[int], processes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        shares = []
        for own in range(processes):
            given_environment(patch, RANK=str(own), WORLD_SIZE=str(processes))
            shares.append(share(items))
    assert sorted(item for part in shares for item in part) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [shares[place % processes][place // processes] for place in range(len(items))] == items


def test_a_rank_is_known_without_loading_pytorch() -> None:
    """Commands read it before they need a network, and `efnet predict --help` must not wait for PyTorch."""
    script = "import sys, efnet.core.distributed as d; d.rank(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
