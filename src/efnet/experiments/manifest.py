"""The plan that a folder of experiments keeps, so that what is added to it later began alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from efnet.errors import InputError
from efnet.experiments.plan import Plan
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

    Tables that share a folder may be of different networks; one network starts from the same weights in all.

    Raises:
        InputError: `out` is a file, holds something else, or experiments of another plan.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; choose another folder")
    runs = sorted(out.glob("*/seed*/config.yaml"))
    if runs:
        changes = [*_changes(read_plan(out), plan), *_other_weights(runs, plan)]
        if changes:
            raise InputError(
                f"--out {out}: holds experiments that began otherwise ({', '.join(changes)}); go on as they "
                "began, or choose another folder"
            )
        return
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise InputError(f"--out {out}: holds other files; choose another folder")
    write_json(out / MANIFEST, _shared(plan))


def _shared(plan: Plan) -> dict[str, Any]:
    """What of a plan is the same for all networks, and so for all processes that work in a folder."""
    return {key: value for key, value in plan.to_dict().items() if key != "init"}


def _changes(before: Plan, now: Plan) -> list[str]:
    old, new = _shared(before), _shared(now)
    return [f"{key} was {old[key]}, now {new[key]}" for key in new if old[key] != new[key]]


def _other_weights(runs: Sequence[Path], plan: Plan) -> list[str]:
    """Networks that runs of the folder started from other weights than the plan says."""
    found = {}
    for path in runs:
        run = _flat(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        name, before = str(run.get("network.name")), run.get("network.init")
        if name in plan.init and plan.init[name] != before:
            found[name] = f"init of {name} was {before or 'fresh'}, now {plan.init[name] or 'fresh'}"
    return list(found.values())


def read_plan(out: Path) -> Plan:
    """The plan of a folder of experiments, without the weights: each run says its own.

    Raises:
        InputError: it holds none.
    """
    try:
        values = parse_json((out / MANIFEST).read_text(encoding="utf-8"))
        size = values.get("size")
        return Plan(**values | {"size": None if size is None else tuple(size), "init": {}})
    except OSError:
        raise InputError(
            f"--out {out}: holds no experiments; start them with: efnet experiment run"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{out / MANIFEST}: damaged ({error}); choose another folder") from error


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
