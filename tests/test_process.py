"""Settings of the process, in processes of their own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

REPORT = """
import json, efnet
before = efnet.process_settings().to_dict()
print(json.dumps([before, efnet.tune_process().to_dict(), efnet.tune_process().to_dict()]))
"""

FAULTS = """
import resource, sys
if sys.argv[1] == "tuned":
    import efnet
    assert efnet.tune_process().allocator == "kept"
import torch
torch.set_num_threads(1)
def round():
    return (torch.ones(64 << 18) + 1).sum()  # 64 MiB each
for _ in range(10):  # until the heap has found its size
    round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

FORK = """
import os, pathlib, efnet
assert efnet.tune_process().allocator == "kept"
import torch
resident = lambda: int(pathlib.Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
torch.ones(64 << 20)  # 256 MiB, freed at once
kept = resident()
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
print(kept - resident())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")


def run(script: str, *arguments: str, **variables: str) -> str:
    ours = ("GOMP_SPINCOUNT", "GLIBC_TUNABLES", "LD_PRELOAD", "EFNET_ALLOCATOR")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    kept = {name: value for name, value in kept.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=kept | variables, check=True, capture_output=True, text=True)
    return done.stdout


@glibc
def test_tunes_once() -> None:
    before, tuned, again = json.loads(run(REPORT))
    assert before["allocator"] == "system"
    assert before["spin_count"] is None
    assert tuned["allocator"] == "kept"
    assert tuned["spin_count"] == "4000"
    assert tuned["in_time"]
    assert again == tuned


@glibc
@pytest.mark.parametrize(
    "variables",
    [
        {"EFNET_ALLOCATOR": "system"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=33554432"},
        {"MALLOC_ARENA_MAX": "2"},
    ],
)
def test_leaves_the_users_allocator_alone(variables: dict[str, str]) -> None:
    _, tuned, _ = json.loads(run(REPORT, **variables))
    assert tuned["allocator"] == "system"
    assert next(iter(variables)) in tuned["reason"]


def test_leaves_the_users_threads_alone() -> None:
    _, tuned, _ = json.loads(run(REPORT, GOMP_SPINCOUNT="7"))
    assert tuned["spin_count"] == "7"


@glibc
def test_freed_memory_is_used_again() -> None:
    """Counted in page faults, not seconds."""
    assert int(run(FAULTS, "tuned")) * 10 < int(run(FAULTS, "plain"))


@glibc
def test_kept_memory_goes_back_before_a_fork() -> None:
    """In MiB; what a data worker shared with its parent would be copied when the parent goes on."""
    assert float(run(FORK)) > 200
