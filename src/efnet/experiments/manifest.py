"""The plan that a folder of experiments keeps, so that what is added to it later began alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from efnet.errors import InputError
from efnet.experiments.plan import STANDARD, Plan
from efnet.experiments.tables import plain
from efnet.files import write_json
from efnet.texts import parse_json
from efnet.training.config import TrainConfig
from efnet.training.run_folder import RunFolder

MANIFEST = "experiment.json"
"""The plan, in the folder of the experiments."""

_FREE = ("data.root", "data.workers", "data.cache", "device")
"""What may differ when a run goes on: it decides nothing."""


def claim(out: Path, plan: Plan) -> None:
    """Make sure that `out` is new or holds experiments of this very plan, and leave the plan there.

    Tables that share a folder may name the weights of different networks; those of one are the same in all.

    Raises:
        InputError: `out` is a file, holds something else, or experiments of another plan.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; choose another folder")
    if any(out.glob("*/seed*/config.yaml")):
        before = read_plan(out)
        plan = _added(out, before, plan)
        if plan == before:
            return
    elif out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise InputError(f"--out {out}: holds other files; choose another folder")
    write_json(out / MANIFEST, plan.to_dict())


def _added(out: Path, before: Plan, plan: Plan) -> Plan:
    """The plan of a folder after runs of `plan` were added to it.

    Raises:
        InputError: the two differ in more than networks that one of them has not.
    """
    both = dataclasses.replace(plan, init={**before.init, **plan.init})
    old, new = before.to_dict(), both.to_dict()
    old["init"] = {**plan.init, **before.init}
    if old != new:
        listed = ", ".join(f"{key} was {old[key]}, now {new[key]}" for key in new if old[key] != new[key])
        raise InputError(
            f"--out {out}: holds experiments that began otherwise ({listed}); go on as they began, or "
            "choose another folder"
        )
    return both


def read_plan(out: Path) -> Plan:
    """The plan of a folder of experiments.

    Raises:
        InputError: it holds none.
    """
    try:
        values = parse_json((out / MANIFEST).read_text(encoding="utf-8"))
        size = values.get("size")
        return Plan(**values | {"size": None if size is None else tuple(size), "init": _init(values)})
    except OSError:
        raise InputError(
            f"--out {out}: holds no experiments; start them with: efnet experiment run"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{out / MANIFEST}: damaged ({error}); choose another folder") from error


def _init(values: dict[str, Any]) -> dict[str, str | None]:
    """Weights by network; older folders name one file, for whatever is in the preset's place."""
    init = values.get("init")
    if isinstance(init, dict):
        return init
    return {values.get("model") or ("efnet_tiny" if values.get("budget") == "tiny" else STANDARD): init}


def refuse_changes(folder: RunFolder, config: TrainConfig) -> None:
    """A run keeps what decides its result, whether it is finished or goes on.

    Raises:
        InputError: the folder's configuration is another one; the message says in what.
    """
    if not folder.config.is_file():
        return
    # Options that came after the run began had their defaults.
    before = _flat(plain(TrainConfig())) | _flat(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
    now = _flat(plain(config))
    changed = [place for place in now if place not in _FREE and before.get(place) != now[place]]
    if changed:
        listed = ", ".join(f"{place} was {before.get(place)}, now {now[place]}" for place in changed)
        raise InputError(
            f"{folder.path}: was run with another configuration ({listed}); remove it, or "
            "choose another --out"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
