"""Generated scenes written as a data set on disk."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from PIL import Image

from efnet.core.errors import InputError
from efnet.core.files import replacing, write_json, write_text
from efnet.core.journal import changes, find_manifest
from efnet.data.layouts.public import LISTS, MFNET_CLASSES
from efnet.data.pairs import Condition
from efnet.scenes.sensor import MAX_SIDE, MIN_SIDE, render

SceneLayout = Literal["mfnet", "folders"]

MANIFEST = "scenes.json"
GENERATOR_VERSION = 2  # raise it whenever the same seed gives other pixels

_SPLITS = ("train", "val", "test")
_MAX_SCENES = 99_999


@dataclass(frozen=True)
class SceneSpec:
    """One scene to be written: file stem, such as 00012N, split, seed of `render`, and condition."""

    name: str
    split: str
    seed: int
    condition: Condition


@dataclass(frozen=True)
class DatasetPlan:
    """The arguments of `write_dataset` that decide the content of a generated data set."""

    train: int
    val: int
    test: int
    size: tuple[int, int]
    seed: int
    night_share: float
    layout: SceneLayout
    thermal_bits: int

    def __post_init__(self) -> None:
        least, total = min(self.train, self.val, self.test), self.train + self.val + self.test
        if least < 0 or not 0 < total <= _MAX_SCENES:
            raise InputError(f"{total} scenes: ask for 1 to {_MAX_SCENES} in all, none of a split below 0")
        small, size = min(self.size) < MIN_SIDE, f"size {self.size[0]}x{self.size[1]}"
        if small or max(self.size) > MAX_SIDE:
            bound = f"at least {MIN_SIDE}x{MIN_SIDE}" if small else f"at most {MAX_SIDE}x{MAX_SIDE}"
            raise InputError(f"{size}: scenes are {bound} pixels")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: give 0 or more")
        if not 0 <= self.night_share <= 1:
            raise InputError(f"night share {self.night_share}: give a number from 0 to 1")
        if self.layout not in get_args(SceneLayout):
            raise InputError(f"layout '{self.layout}': choose one of {', '.join(get_args(SceneLayout))}")
        if self.thermal_bits not in (8, 16) or (self.thermal_bits == 16 and self.layout == "mfnet"):
            thermal = f"{self.thermal_bits}-bit thermal in layout '{self.layout}'"
            raise InputError(f"{thermal}: mfnet has 8, folders 8 or 16")

    def scenes(self) -> Iterator[SceneSpec]:
        """Yield the scenes in order; a split's scenes do not depend on the sizes of the others."""
        number = 0
        for stream, split in enumerate(_SPLITS):
            for index in range(getattr(self, split)):
                number += 1
                night = int((index + 1) * self.night_share) > int(index * self.night_share)
                state = np.random.SeedSequence([self.seed, stream, index]).generate_state(1, np.uint64)
                yield SceneSpec(
                    f"{number:05d}{'N' if night else 'D'}", split, int(state[0]), "night" if night else "day"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {"generator": GENERATOR_VERSION, **asdict(self), "size": list(self.size)}


@dataclass(frozen=True)
class WrittenDataset:
    """Result of `write_dataset`: folder, plan, number of scenes rendered now and of those already there."""

    root: Path
    plan: DatasetPlan
    written: int
    kept: int


def write_dataset(
    out: Path,
    train: int,
    val: int,
    test: int,
    size: tuple[int, int] = (480, 640),
    seed: int = 0,
    night_share: float = 0.5,
    layout: SceneLayout = "mfnet",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    thermal_bits: int = 8,
    overwrite: bool = False,
) -> WrittenDataset:
    """Write a data set of generated scenes; an interrupted call is resumed.

    The pixels do not depend on `workers`. The lists of splits are written last, so that an unfinished
    folder cannot be mistaken for a finished one.

    Args:
        out: folder to write.
        train: number of scenes to train on.
        val: number of scenes to select a checkpoint by.
        test: number of scenes to test on.
        size: (H, W) in pixels.
        seed: of the data set; other seeds give other scenes.
        night_share: share of night scenes in each split.
        layout: `mfnet` (four-channel PNG) or `folders` (rgb/ thermal/ labels/ and dataset.yaml).
        workers: processes; with more than one, call this under `if __name__ == "__main__"`.
        progress: called with the scenes done and their total.
        thermal_bits: 8, or 16 with layout `folders`.
        overwrite: replace a data set of another configuration.

    Raises:
        InputError: impossible numbers, or `out` holds something else.
    """
    plan = DatasetPlan(train, val, test, (size[0], size[1]), seed, night_share, layout, thermal_bits)
    out = Path(out)
    scenes = list(plan.scenes())
    _claim(out, plan, scenes, overwrite)
    missing = [scene for scene in scenes if not all(path.exists() for path in _paths(out, plan, scene.name))]
    done = len(scenes) - len(missing)
    for finished in _render_all(out, plan, missing, workers):
        if progress is not None:
            progress(done + finished, len(scenes))
    _write_lists(out, plan, scenes)
    return WrittenDataset(out, plan, len(missing), done)


def _claim(out: Path, plan: DatasetPlan, scenes: list[SceneSpec], overwrite: bool) -> None:
    """Make sure that `out` is empty or holds this very data set, then leave the manifest there."""
    found = find_manifest(out, MANIFEST, overwrite)
    if found is not None and found.get("plan") != plan.to_dict():
        if not overwrite:
            before, differences = found.get("plan"), f"{MANIFEST} is damaged"
            if isinstance(before, dict):
                differences = ", ".join(changes(before, plan.to_dict()))
            raise InputError(
                f"{out}: holds generated scenes of another configuration ({differences}); "
                "choose another folder, or replace them with `overwrite`"
            )
        # Delete what an earlier call wrote, and nothing else.
        names = found.get("scenes")
        for name in names if isinstance(names, dict) else ():
            for folder in ("images", "rgb", "thermal", "labels"):
                (out / folder / f"{Path(name).name}.png").unlink(missing_ok=True)
        for name in (*(f"{split}.txt" for split in LISTS), "dataset.yaml", MANIFEST):
            (out / name).unlink(missing_ok=True)
    content = {"plan": plan.to_dict(), "scenes": {scene.name: scene.seed for scene in scenes}}
    if found != content:
        write_json(out / MANIFEST, content)


def _paths(out: Path, plan: DatasetPlan, name: str) -> tuple[Path, ...]:
    folders = ("images", "labels") if plan.layout == "mfnet" else ("rgb", "thermal", "labels")
    return tuple(out / folder / f"{name}.png" for folder in folders)


def _render_all(out: Path, plan: DatasetPlan, scenes: list[SceneSpec], workers: int) -> Iterator[int]:
    """Render and write; yield the number finished so far."""
    if workers <= 1 or len(scenes) < 2:
        for count, scene in enumerate(scenes, 1):
            _write_scene(out, plan, scene)
            yield count
        return
    # Spawned, not forked: the caller may hold threads (progress bars, torch). Ctrl-C is left to the parent,
    # which lets the scenes under way be finished.
    context, ignore = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    pool = concurrent.futures.ProcessPoolExecutor(min(workers, len(scenes)), context, signal.signal, ignore)
    try:
        futures = [pool.submit(_write_scene, out, plan, scene) for scene in scenes]
        for count, future in enumerate(concurrent.futures.as_completed(futures), 1):
            future.result()
            yield count
    finally:
        pool.shutdown(cancel_futures=True)


def _write_scene(out: Path, plan: DatasetPlan, scene: SceneSpec) -> None:
    sample = render(scene.seed, plan.size, scene.condition)
    assert sample.label is not None
    label = Image.fromarray(sample.label, "P")
    label.putpalette(MFNET_CLASSES.flat_palette())
    top = 2**plan.thermal_bits - 1
    thermal = np.rint(sample.thermal * np.float32(top)).astype(np.uint8 if top == 255 else np.uint16)
    joined = plan.layout == "mfnet"
    arrays = (np.dstack([sample.rgb, thermal]),) if joined else (sample.rgb, thermal)
    images = (*map(Image.fromarray, arrays), label)
    for path, image in zip(_paths(out, plan, scene.name), images, strict=True):
        with replacing(path) as temporary:
            # Level 1: noisy pictures hardly shrink further, and it takes a fifth of the time.
            image.save(temporary, compress_level=1)


def _write_lists(out: Path, plan: DatasetPlan, scenes: list[SceneSpec]) -> None:
    """Names of each split that has any, and the description of the layout `folders`."""
    lists = {split: [scene.name for scene in scenes if scene.split == split] for split in _SPLITS}
    test = [scene for scene in scenes if scene.split == "test"]
    for condition in get_args(Condition):
        lists[f"test_{condition}"] = [scene.name for scene in test if scene.condition == condition]
    lists = {name: names for name, names in lists.items() if names}
    if plan.layout == "folders":
        description: dict[str, Any] = {
            **MFNET_CLASSES.to_dict(),
            "splits": {name: f"{name}.txt" for name in lists},
            "thermal_scale": "auto" if plan.thermal_bits == 8 else [0, 65535],
            "conditions": {"day": "*D", "night": "*N"},
        }
        text = yaml.safe_dump(description, sort_keys=False, default_flow_style=None)
        write_text(out / "dataset.yaml", text)
    for name, names in lists.items():
        write_text(out / f"{name}.txt", "".join(f"{entry}\n" for entry in names))
