"""Weights from the files that users have: read without running code that a file carries, and copied."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.core.precision import at_least_float32

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_MOST_WRAPPERS = 8  # a dictionary may be its own `state_dict`
_PREFIXES = ("module.", "backbone.")

Encoder = TypeVar("Encoder", bound=nn.Module)


@dataclass(frozen=True)
class LoadReport:
    """Result of filling a network from a file."""

    source: str  # the file
    loaded: tuple[str, ...]  # parameters of the network that the file filled
    fresh: tuple[str, ...]  # parameters of the network that keep their initialisation
    left_over: tuple[str, ...]  # entries of the file that the network has no place for
    licence: str | None = None  # of the weights, where they are not ours

    def __str__(self) -> str:
        terms = f"licence {self.licence}; " if self.licence else ""
        return (
            f"{self.source}: {terms}loaded {len(self.loaded)} tensors; "
            f"fresh {len(self.fresh)}{_list(self.fresh)}; "
            f"left over {len(self.left_over)}{_list(self.left_over)}"
        )


def _list(names: tuple[str, ...]) -> str:
    """The modules that the names belong to, in brackets."""
    modules = dict.fromkeys(".".join(name.split(".")[:3]) for name in names)
    shown = ", ".join(list(modules)[:12]) + (", ..." if len(modules) > 12 else "")
    return f" ({shown})" if names else ""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file or of anything `torch.save` wrote.

    A state dict wrapped in `state_dict`, `model` or `model_state_dict` is unwrapped, and a prefix `module.`
    or `backbone.` that all names share is taken off. Raises InputError: no such file, not readable as
    weights, or it holds values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    state = _unwrap(_read(path))
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    if not state:
        raise InputError(f"{path}: holds no tensors; a state dict is needed")
    for name, value in state.items():
        _refuse_odd(path, name, value)
    for name, value in state.items():
        # Not every 8-bit type has `isfinite` of its own.
        if not torch.isfinite(at_least_float32(value) if value.is_floating_point() else value).all():
            raise InputError(f"{path}: {name} holds values that are not finite; the file is damaged")
    return state


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error}); fetch it again") from error
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(512).lstrip()
        if not head:
            raise InputError(f"{path}: not a readable weights file (it is empty); fetch it again")
        if head.startswith(b"<"):
            raise InputError(
                f"{path}: not a readable weights file (it is a web page, which the site sent in place of the "
                "file); open the address in a browser and save the file itself"
            )
    # `torch.save` stores its tensors as they are: compressed data may unpack to any size.
    packed = False
    # Without an archive it is an older file, or a damaged one.
    with (
        contextlib.suppress(OSError, ValueError, NotImplementedError, zipfile.BadZipFile),
        zipfile.ZipFile(path) as archive,
    ):
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    if packed:
        raise InputError(f"{path}: a compressed archive; unpack it, or save the weights with torch.save")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: not a plain state dict (damaged, or it holds objects other than tensors, which are "
            "never loaded because loading them can run code); save its state_dict alone and try again"
        ) from error
    except Exception as error:  # of a damaged file: from its reader, or from the pickle machine's own steps
        # A reader that meets foreign bytes may raise no more than the number of an operation.
        reason = re.sub(r"^\[.*?\]\W*", "", str(error)).partition("\n")[0].partition(". ")[0]
        reason = reason if " " in reason else "it is damaged, or something else than weights"
        raise InputError(f"{path}: not a readable weights file ({reason}); fetch it again") from error


def _refuse_odd(path: Path, name: str, value: Tensor) -> None:
    """Only plain tensors of numbers that the file really holds."""
    kind = "meta" if value.is_meta else str(value.layout).removeprefix("torch.")
    if value.is_meta or value.layout != torch.strided or value.is_quantized:
        kind = "quantized" if value.is_quantized else kind
        raise InputError(f"{path}: {name} is a {kind} tensor; save plain ones")
    if value.is_complex():
        raise InputError(f"{path}: {name} holds complex numbers; these are weights of something else")
    if value.nbytes > path.stat().st_size:
        raise InputError(f"{path}: {name} claims to be larger than the file; the file is damaged")


def _unwrap(value: Any) -> dict[str, Tensor]:
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(value, Mapping):
            break
        inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            return {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
        value = inner
    return {}


def translate(name: str, rules: Iterable[tuple[re.Pattern[str], str, int]]) -> str | None:
    """Return our name of a published one; None if it is not of the encoder.

    A rule is a pattern, whose first group is the stage, our name with its groups as fields, and the number of
    the first stage there.
    """
    for pattern, ours, first in rules:
        match = pattern.fullmatch(name)
        if match:
            stage, *rest = match.groups()
            return ours.format(int(stage) - first, *rest)
    return None


def describe_misfit(
    own: Mapping[str, Tensor], values: Mapping[str, Tensor], missing: Sequence[str], surplus: Sequence[str]
) -> str | None:
    """Describe the first entry of a file that does not fit a network; None: all fit.

    `own` is the network's state; `values` are the file's entries by the network's names, which lack
    `missing`; the network has no place for `surplus`.
    """
    for name, value in values.items():
        if name in own and value.shape != own[name].shape:
            return f"{name} is {tuple(value.shape)} there and {tuple(own[name].shape)} here"
    if missing or surplus:
        return f"{(missing or surplus)[0]} is only {'here' if missing else 'there'}"
    return None


def fill_encoders(
    network: nn.Module,
    path: str | os.PathLike[str],
    kind: type[Encoder],
    fit: Callable[[Encoder], Mapping[str, Tensor]],
    left_over: Sequence[str],
) -> LoadReport:
    """Fill every encoder of a type within a network with what `fit` returns for it."""
    filled = {
        f"{prefix}.{name}": value
        for prefix, encoder in network.named_modules()
        if isinstance(encoder, kind)
        for name, value in fit(encoder).items()
    }
    return fill(network, path, filled, left_over)


def fill(
    network: nn.Module, path: str | os.PathLike[str], values: dict[str, Tensor], left_over: Collection[str]
) -> LoadReport:
    """Copy values to a network's tensors of the same names; the others stay fresh."""
    network.load_state_dict(values, strict=False)
    fresh = tuple(name for name in network.state_dict() if name not in values)
    return LoadReport(str(path), tuple(values), fresh, tuple(left_over))
