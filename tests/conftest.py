"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

# Before PyTorch loads: several test processes share the cores, and spinning threads would starve them.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in the background begins so, and tests of Ctrl-C would hear nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)

# The machine may be busy: no example fails for taking long.
settings.register_profile("efnet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("efnet")


_TESTS = Path(__file__).parent


def _subject(path: Path) -> str:
    """Return the folder below tests/ that a file lies in; `project` for files at the top."""
    parts = path.relative_to(_TESTS).parts
    return parts[0] if len(parts) > 1 else "project"


def pytest_configure(config: pytest.Config) -> None:
    subjects = {_subject(path) for path in _TESTS.rglob("test_*.py")}
    for name in sorted(subjects):
        config.addinivalue_line("markers", f"{name}: tests of tests/{'' if name == 'project' else name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with its folder, so that `pytest -m ops` runs one subject alone."""
    for item in items:
        item.add_marker(_subject(item.path))


def pytest_collection_finish() -> None:
    """Modules and collected tests live to the end: the garbage collector need not look at them again."""
    gc.freeze()


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real samples (mfnet/, pst900/, fmb/, tcformer/); tests skip where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EFNET_SAMPLES", default))
    if not folder.is_dir():
        pytest.skip(f"no real samples in {folder}; set EFNET_SAMPLES to their folder")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
