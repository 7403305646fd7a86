"""What all tests share."""

from __future__ import annotations

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
