"""State dicts read from files that users have, without ever running code that a file carries."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from efnet.errors import InputError

_WRAPPERS = ("state_dict", "model")
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
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"{path}: {broken[0]} holds values that are not finite; the file is damaged")
    return state


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error}); fetch it again") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: not a plain state dict (damaged, or it holds objects other than tensors, which are "
            "never loaded because loading them can run code); save its state_dict alone and try again"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable weights file ({error}); fetch it again") from error


def _unwrap(value: Any) -> dict[str, Tensor]:
    while isinstance(value, Mapping):
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
