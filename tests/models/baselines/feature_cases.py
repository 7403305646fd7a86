"""Features that the authors' code gave on made weights, and where ours has the same maps."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import efnet
from efnet.models.baselines import Baseline, base
from efnet.models.baselines.base import HeadedBaseline

INPUTS = ("rgb", "thermal", "edge", "rgb_u8", "thermal_u8")
AUXILIARY = "auxiliary:"


@dataclass(frozen=True)
class Case:
    """One file of recorded features."""

    model: str
    folder: str
    places: dict[str, str]
    """Recorded map to ours: `part` (a module's result), `part<` (its input), `part#1` (the second result of
    several), `fuse_level@2#1` (a call of a method), `auxiliary:name` (a further output)."""
    features: str = "features.npz"
    shapes: str = "shapes.json"
    classes: int = 9
    modality: str = "rgbt"
    special: Callable[[str, np.ndarray], np.ndarray | None] = lambda name, noise: None
    skipped: tuple[str, ...] = ()
    """Recorded outputs of parts that exist for training alone and that we do not build."""
    slow: bool = False
    edge: bool = field(default=False)
    """The file has the edge map that the network would compute from the images."""

    @property
    def id(self) -> str:
        return f"{self.model}-{self.features.removesuffix('.npz')}"


def make_weights(
    shapes: dict[str, Any], special: Callable[[str, np.ndarray], np.ndarray | None]
) -> dict[str, Tensor]:
    """Weights by the rule of the recordings, a network's exceptions first."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
            continue
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        values = special(name, noise)
        if values is None:
            if len(shape) > 1:
                values = noise / math.sqrt(math.prod(shape[1:]))
            elif name.endswith("weight") and len(shape) == 1:
                values = 1 + 0.1 * noise
            elif name.endswith("running_var"):
                values = 1 + 0.1 * np.abs(noise)
            else:
                values = 0.05 * noise
        state[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


def build(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Baseline:
    """The network, filled as from a file of its authors."""
    state = make_weights(json.loads((folder / case.shapes).read_text()), case.special)
    monkeypatch.setattr(base, "read_state_dict", lambda path: state)
    model = efnet.create_model(case.model, case.classes, modality=case.modality)
    assert isinstance(model, Baseline)
    report = model.load_official("made")
    assert not report.fresh
    return model.eval()


def record(model: Baseline, places: dict[str, str]) -> dict[str, Any]:
    """Register hooks that keep what `places` names; it is there after a call of the network."""
    kept: dict[str, Any] = {}
    methods: dict[str, list[str]] = {}
    for name, place in places.items():
        if place.startswith(AUXILIARY):
            continue
        place, _, index = place.partition("#")
        if "@" in place:
            methods.setdefault(place.partition("@")[0], []).append(name)
            continue
        module = model.get_submodule(place.rstrip("<"))
        if place.endswith("<"):
            module.register_forward_pre_hook(_keeper(kept, name, index))
        else:
            module.register_forward_hook(_keeper(kept, name, index))
    for method, names in methods.items():
        calls: list[Any] = []
        original = getattr(model, method)

        def wrapped(*args: Any, original: Any = original, calls: list[Any] = calls) -> Any:
            calls.append(original(*args))
            return calls[-1]

        object.__setattr__(model, method, wrapped)
        for name in names:
            place, _, index = places[name].partition("#")
            kept[name] = _Later(calls, int(place.partition("@")[2]), int(index or 0))
    return kept


class _Later:
    """A result of a call that is still to come."""

    def __init__(self, calls: list[Any], call: int, index: int) -> None:
        self.calls, self.call, self.index = calls, call, index

    def __call__(self) -> Any:
        value = self.calls[self.call]
        return value[self.index] if isinstance(value, tuple) else value


def _keeper(kept: dict[str, Any], name: str, index: str) -> Callable[..., None]:
    def keep(*args: Any) -> None:
        value = args[-1]
        if isinstance(value, tuple | list):
            value = value[int(index)] if index else torch.cat(list(value), dim=1)
        # A module may run several times: for both modalities in turn.
        kept.setdefault(name, []).append(getattr(value, "features", value))

    return keep


def at(value: Tensor, positions: np.ndarray, channels: int, ratio: float) -> Tensor:
    """(n, C) a map (B, C, h, w), cells (B, h, w, C) or tokens (B, h * w, C) at rows and columns."""
    rows, columns = torch.from_numpy(positions.astype(np.int64)).reshape(-1, 2).unbind(1)
    if value.ndim == 3:
        height = round(math.sqrt(value.shape[1] * ratio))
        return value[0, rows * (value.shape[1] // height) + columns]
    if value.shape[3] == channels and math.isclose(value.shape[1] / value.shape[2], ratio):
        return value[0, rows, columns]
    return value[0, :, rows, columns].t()


def _image(stored: dict[str, np.ndarray], name: str) -> Tensor | None:
    if name in stored:
        return torch.from_numpy(stored[name]).float()
    bytes_ = stored.get(f"{name}_u8")
    return None if bytes_ is None else torch.from_numpy(bytes_.astype(np.float32)) / 255


def differences(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Largest difference of each recorded array, over its largest value."""
    model = build(case, folder, monkeypatch)
    stored = dict(np.load(folder / case.features))
    rgb, thermal = (_image(stored, name) for name in ("rgb", "thermal"))
    assert rgb is not None
    if thermal is not None and thermal.shape[1] == 1:
        thermal = thermal.expand(-1, 3, -1, -1)
    if case.edge:
        edge = torch.from_numpy(stored["edge"]).float()[:, None]
        monkeypatch.setattr(model, "edges", lambda *images: edge)
    kept = record(model, case.places)
    results: dict[str, Tensor] = {}
    with torch.inference_mode():
        if any(place.startswith(AUXILIARY) for place in case.places.values()):
            assert isinstance(model, HeadedBaseline)
            outputs = model.score_all(rgb, thermal, auxiliary=True)
            results |= {f"{AUXILIARY}{name}": value for name, value in outputs.items()}
            logits = outputs["logits"]
        else:
            logits = model.score_cells(rgb, thermal)
        logits = F.interpolate(logits, rgb.shape[2:], mode="bilinear", align_corners=False)
    found = {}
    for name, wanted in stored.items():
        bare = re.sub(r"^(map|feature)_", "", name)
        if name in INPUTS or re.search(r"_(pos|positions|shape|size)$", name) or bare in case.skipped:
            continue
        place = case.places.get(bare, bare)
        if bare == "logits" and bare not in case.places:
            value: Any = logits
        elif place.startswith(AUXILIARY):
            value = results[place]
        else:
            value = kept[bare]
            value = (
                value()
                if isinstance(value, _Later)
                else value[1 if bare.endswith("_thermal") and len(value) > 1 else 0]
            )
        positions = next(
            (stored[f"{name}{end}"] for end in ("_pos", "_positions") if f"{name}{end}" in stored), None
        )
        if positions is None:
            given = value.flatten()
        else:
            given = at(value, positions, wanted.shape[-1], rgb.shape[2] / rgb.shape[3])
        expected = torch.from_numpy(wanted).reshape(given.shape)
        found[bare] = float((given - expected).abs().max() / expected.abs().max())
    return found
