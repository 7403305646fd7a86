"""Weights that are wrong, and files that would run code if they were unpickled."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fault_case import Arrange
from safetensors.torch import load_file, save_file
from torch import Tensor

CANARY = "canary"
"""The file that appears in the working folder if code of an input was run."""


class Malice:
    """Unpickled, it makes the canary."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (CANARY, "w")


def torch_file(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def malicious_zip() -> bytes:
    """What `torch.save` writes, an object among the weights."""
    return torch_file({"state_dict": {"a": torch.zeros(1)}, "extra": Malice()})


def malicious_pickle() -> bytes:
    """A bare pickle, as very old files are."""
    return pickle.dumps({"a": Malice()})


def malicious_legacy() -> bytes:
    """What `torch.save` wrote before it wrote zip files."""
    buffer = io.BytesIO()
    torch.save({"a": Malice()}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def endless() -> bytes:
    """A dictionary that is its own `state_dict`."""
    value: dict[str, object] = {}
    value["state_dict"] = value
    return torch_file(value)


def stretched() -> bytes:
    """One number that claims to be a tensor of 4 TB."""
    return torch_file({"a": torch.zeros(1).expand(1_000_000, 1_000_000)})


def deflated() -> bytes:
    """Weights of 200 MB of zeros, compressed to 200 kB."""
    plain = io.BytesIO(torch_file({"a": torch.zeros(50_000_000)}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    return buffer.getvalue()


def weights(change: Callable[[dict[str, Tensor]], object], path: str = "model/model.safetensors") -> Arrange:
    """The checkpoint's weights with a change."""

    def arrange(home: Path) -> None:
        state = load_file(home / path)
        change(state)
        save_file(state, home / path)

    return arrange


def first(state: dict[str, Tensor]) -> str:
    """The name of a weight of more than one dimension."""
    return next(name for name in sorted(state) if state[name].ndim > 1 and name not in ("mean", "std"))


def with_value(value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        state[first(state)].view(-1)[0] = value

    return change


def without_one(state: dict[str, Tensor]) -> None:
    del state[first(state)]


def with_one_more(state: dict[str, Tensor]) -> None:
    state["surplus"] = torch.zeros(2)


def reshaped(state: dict[str, Tensor]) -> None:
    state[first(state)] = state[first(state)].flatten().clone()


def of_type(kind: torch.dtype) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        state[first(state)] = state[first(state)].to(kind)

    return change
