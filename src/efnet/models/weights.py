"""State dicts read from files that users have, without ever running code that a file carries."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from efnet.core.errors import InputError

_WRAPPERS = ("state_dict", "model")
_MOST_WRAPPERS = 8  # a dictionary may be its own `state_dict`
_PREFIXES = ("module.", "backbone.")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file or of anything `torch.save` wrote.

    A state dict wrapped in `state_dict` or `model` is unwrapped, and a prefix `module.` or `backbone.`
    that all names share is taken off.

    Raises:
        InputError: no such file, not readable as weights, or it holds values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    state = _strip_prefixes(_unwrap(_read(path)))
    if not state:
        raise InputError(f"{path}: holds no tensors; a state dict is needed")
    for name, value in state.items():
        _refuse_odd(path, name, value)
    broken = [name for name, value in state.items() if not _is_finite(value)]
    if broken:
        raise InputError(f"{path}: {broken[0]} holds values that are not finite; the file is damaged")
    return state


def _is_finite(value: Tensor) -> bool:
    # Not every 8-bit type has `isfinite` of its own.
    return bool(torch.isfinite(value.float() if value.is_floating_point() else value).all())


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error}); fetch it again") from error
    _refuse_compressed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: not a plain state dict (damaged, or it holds objects other than tensors, which are "
            "never loaded because loading them can run code); save its state_dict alone and try again"
        ) from error
    except Exception as error:  # of a damaged file: from its reader, or from the pickle machine's own steps
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable weights file ({reason}); fetch it again") from error


def _refuse_compressed(path: Path) -> None:
    """`torch.save` stores its tensors as they are: what is compressed may unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return  # no archive: an older file, or a damaged one
    if packed:
        raise InputError(f"{path}: a compressed archive; unpack it, or save the weights with torch.save")


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


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
