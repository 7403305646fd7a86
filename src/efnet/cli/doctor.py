"""`efnet doctor`: versions, devices and settings, and what to fix."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import add_options
from efnet.cli.options import check_file_writable
from efnet.core.cpu_tuning import OPT_OUT
from efnet.core.files import write_json

DESCRIPTION = (
    "Show versions, devices, settings and the working folder, with what to fix. Exit status 0 in any case."
)

REQUIRED = ("torch", "numpy", "pillow", "safetensors", "huggingface_hub", "lightning-fabric")

OPTIONAL = {
    "numba": ("clustering on a CPU in a third of the time", "pip install numba"),
    "tensorboard": ("curves of training runs", "pip install tensorboard"),
    "matplotlib": ("efnet benchmark --plot", "pip install matplotlib"),
    "av": ("video", "pip install av"),
    "onnx": ("efnet export --format onnx", "pip install onnx"),
    "onnxscript": ("efnet export --format onnx", "pip install onnxscript"),
    "onnxruntime": ("running ONNX files", "pip install onnxruntime"),
    "openvino": ("efnet export --format openvino, and running it", "pip install openvino"),
    "fastapi": ("a service", "pip install fastapi"),
}
"""Package: what it is for, and how to get it."""

_LITTLE_SPACE = 5e9
"""Bytes below which a training run may fill the disk."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(parser, json="write the findings to this file")


def run(args: Namespace) -> int:
    """Print the findings, and write the requested file; return 0."""
    check_file_writable("--json", args.json)
    found = examine()
    print("\n".join(_lines(found)))
    if args.json:
        write_json(args.json, found)
    return 0


def examine() -> dict[str, Any]:
    """Return plain values: `versions`, `optional`, `machine`, `devices`, `folder`, `advice`."""
    import torch

    from efnet.core.memory import total_memory
    from efnet.studies.benchmark.measure import describe

    found: dict[str, Any] = {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in REQUIRED}},
        "optional": {
            name: {"version": _version(name), "for": use, "remedy": remedy}
            for name, (use, remedy) in OPTIONAL.items()
        },
        "machine": {**describe(torch.device("cpu")), "memory": total_memory()},
        "devices": _devices(),
        "folder": {"path": str(Path.cwd()), "writable": os.access(".", os.W_OK | os.X_OK), "free": None},
    }
    with contextlib.suppress(OSError):
        found["folder"]["free"] = shutil.disk_usage(".").free
    return {**found, "advice": _advice(found)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    """List the devices beside the CPU, whether or not a network can run on them."""
    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        card = {"device": f"cuda:{index}", "name": facts.name, "memory": facts.total_memory}
        found.append({**card, "bf16": torch.cuda.is_bf16_supported(), "note": None})
    if torch.backends.mps.is_available():
        note = "not used: it has no float64, which clustering tokens needs"
        found.append({"device": "mps", "name": "Apple GPU", "memory": None, "bf16": None, "note": note})
    return found


def _advice(found: dict[str, Any]) -> list[str]:
    """List what to fix or to know, faults first."""
    machine, folder = found["machine"], found["folder"]
    advice = list(filter(None, [_torchvision(found["versions"]["torch"])]))
    if not folder["writable"]:
        advice.append(f"{folder['path']} cannot be written: choose another working folder or other outputs")
    if folder["free"] is not None and folder["free"] < _LITTLE_SPACE:
        advice.append(
            f"{folder['path']}: only {folder['free'] / 1e9:.1f} GB free; a training run may need more"
        )
    threads, cores = machine["threads"], machine["cores"]
    if threads > cores:
        advice.append(f"{threads} threads share {cores} cores: set OMP_NUM_THREADS={cores}")
    if machine["process"]["allocator"] == "kept":
        advice.append(
            "the command line keeps freed memory and sets GOMP_SPINCOUNT; programs of your own call "
            f"efnet.tune_process() before they import torch ({OPT_OUT}=system leaves the allocator alone)"
        )
    else:
        advice.append(
            f"the memory allocator is left as it is ({machine['process']['reason']}); on a CPU one that "
            "keeps freed memory can save a third of the time"
        )
    if machine["bf16_instructions"]:
        advice.append(
            "this CPU multiplies in bfloat16: try --precision bf16 (efnet benchmark shows what it gains)"
        )
    elif machine["bf16_instructions"] is False:
        advice.append("this CPU has no bfloat16 instructions: --precision bf16 is slower than 32 on it")
    return advice


def _torchvision(torch_version: str | None) -> str | None:
    """Return a warning if torchvision was built for another torch, which breaks libraries that import it.

    Read its requirements instead of importing it, which takes seconds.
    """
    try:
        needs = importlib.metadata.requires("torchvision") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for need in needs:
        name, equal, version = need.partition(";")[0].replace(" ", "").partition("==")
        wanted, there = version.partition("+")[0], (torch_version or "").partition("+")[0]
        if name.lower() == "torch" and equal and wanted != there:
            return (
                f"torchvision {_version('torchvision')} is made for torch {wanted}, this is torch {there}: "
                "libraries that import it break (pip uninstall torchvision; efnet does not need it)"
            )
    return None


def _lines(found: dict[str, Any]) -> list[str]:
    machine, process, folder = found["machine"], found["machine"]["process"], found["folder"]
    bf16 = {True: "bf16", False: "no bf16", None: "bf16 not known"}[machine["bf16_instructions"]]
    free = "not known" if folder["free"] is None else _gigabytes(folder["free"])
    rows = [
        ("efnet", machine["efnet"]),
        *((name, version or "missing") for name, version in found["versions"].items()),
        ("system", f"{machine['system']}, {_gigabytes(machine['memory'])} memory"),
        ("CPU", f"{machine['cpu']}, {machine['capability']}, {bf16}"),
        ("threads", f"{machine['threads']} of PyTorch on {machine['cores']} cores"),
        ("allocator", f"{process['allocator']}: {process['reason']}"),
        ("GOMP_SPINCOUNT", process["spin_count"] or "not set"),
        *((device["device"], _device(device)) for device in found["devices"]),
        ("folder", f"{folder['path']}, {'can' if folder['writable'] else 'CANNOT'} be written, {free} free"),
    ]
    if not found["devices"]:
        rows.insert(-1, ("GPU", "none"))
    width = max(len(name) for name, _ in (*rows, *((name, "") for name in OPTIONAL)))
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += ["", "optional:"]
    for name, facts in found["optional"].items():
        state = facts["version"] or f"not installed ({facts['remedy']})"
        lines.append(f"{name:<{width}}  {state}, for {facts['for']}")
    return [*lines, "", *(f"- {line}" for line in found["advice"])]


def _device(device: dict[str, Any]) -> str:
    memory = device["memory"] and _gigabytes(device["memory"])
    return ", ".join(filter(None, [device["name"], memory, device["bf16"] and "bf16", device["note"]]))


def _gigabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.1f} GB"
