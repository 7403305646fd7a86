"""What each ingredient of a recipe does alone: a Markdown table over seeds, on stdout and in OUT/table.md.

    python experiments/recipe_study.py --root DIR --model efnet_tiny --size 192x256 --epochs 26 \
        --seeds 0 1 2 --out runs/study [--only ohem ema] [--pretrained runs/pre]

Every run is the base recipe with one ingredient, scored on a split that did not choose its checkpoint. Runs
that are done are not repeated, an interrupted one goes on: start the same command again. All rows of one seed
come before the next seed, so the table is of use before the last run is done. A difference counts only where
it is large beside its deviation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from efnet.cli.options import parse_size
from efnet.data.layouts import open_split
from efnet.devices import pick_device
from efnet.errors import InputError
from efnet.evaluation.evaluate import evaluate
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import build_report
from efnet.files import write_json, write_text
from efnet.models.checkpoint import load_checkpoint
from efnet.training import TrainConfig, get_recipe, train
from efnet.training.logs import Reporter
from efnet.training.run_folder import RunFolder

BASE = "base"

INGREDIENTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "ohem": {"loss.ohem": 0.7},
    "dice": {"loss.dice": 1.0},
    "lovasz": {"loss.lovasz": 1.0},
    "enet weights": {"loss.class_weights": "enet"},
    "median weights": {"loss.class_weights": "median"},
    "smoothing": {"loss.label_smoothing": 0.1},
    "ema": {"ema.decay": 0.999},
    "rare crops": {"augment.rare_crop": 0.5},
    "long scale": {"augment.scale": (0.5, 2.0)},
    "modality dropout": {"augment.drop_rgb": 0.1, "augment.drop_thermal": 0.1},
    "thermal gain": {"augment.thermal_gain": 0.2, "augment.thermal_offset": 0.1},
}
"""Name: options by their place in the configuration."""

Score = dict[str, float]


def main() -> None:
    """Read the options, train what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="mfnet")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--split", default="test", help="on which the runs are compared")
    parser.add_argument("--base", default="scratch", help="recipe that the ingredients are added to")
    parser.add_argument("--also", nargs="*", default=["strong-scratch"], help="whole recipes, as rows")
    parser.add_argument("--only", nargs="+", choices=[name for name in INGREDIENTS if name != BASE])
    parser.add_argument("--pretrained", help="checkpoint; adds the ingredients 'init' and 'init, fresh_lr'")
    parser.add_argument("--model", default="efnet_tiny")
    parser.add_argument("--size", default="192x256")
    parser.add_argument("--epochs", type=int, default=26)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", type=float, help="in place of the recipes'")
    parser.add_argument("--val-every", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        study(args)
    except InputError as error:
        sys.exit(f"recipe_study: error: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"recipe_study: {stop}\nthe same command goes on with it")


def study(args: argparse.Namespace) -> None:
    """Train and score every row and seed; the table is written anew after each run."""
    rows = make_rows(args)
    scores: dict[str, dict[int, Score]] = {name: {} for name in rows}
    for seed in args.seeds:
        for name, config in rows.items():
            folder = args.out / name.replace(", ", "_").replace(" ", "_") / f"seed_{seed}"
            scores[name][seed] = run(dataclasses.replace(config, seed=seed), folder, args.split)
            write_text(args.out / "table.md", table(scores, args.split) + "\n")
            last = scores[name][seed]
            print(f"{name}, seed {seed}: mIoU {100 * last['miou']:.2f}", file=sys.stderr, flush=True)
    print(table(scores, args.split))


def make_rows(args: argparse.Namespace) -> dict[str, TrainConfig]:
    """The configuration of every row, its seed left open."""
    chosen = {name: INGREDIENTS[name] for name in [BASE, *(args.only or list(INGREDIENTS)[1:])]}
    if args.pretrained:
        init = {"network.init": args.pretrained}
        chosen |= {"init": init, "init, fresh_lr": {**init, "optimizer.fresh_lr": 10.0}}
    circumstances: dict[str, Any] = {
        "data.dataset": args.dataset,
        "data.root": str(args.root),
        "data.train_split": args.train_split,
        "data.val_split": args.val_split,
        "data.size": parse_size(args.size, 32),
        "data.batch_size": args.batch_size,
        "data.workers": args.workers,
        "data.cache": True,
        "network.name": args.model,
        "schedule.epochs": args.epochs,
        "validation.every": args.val_every,
        "validation.samples": 0,
        "device": args.device,
    }
    if args.lr:
        circumstances["optimizer.lr"] = args.lr
    base = changed(get_recipe(args.base), circumstances)
    rows = {name: changed(base, options) for name, options in chosen.items()}
    return rows | {name: changed(get_recipe(name), circumstances) for name in args.also}


def changed(config: TrainConfig, options: Mapping[str, Any]) -> TrainConfig:
    """The configuration with some values, named by their place, in place of its own."""
    for place, value in options.items():
        part, _, name = place.rpartition(".")
        if part:
            config = dataclasses.replace(
                config, **{part: dataclasses.replace(getattr(config, part), **{name: value})}
            )
        else:
            config = dataclasses.replace(config, **{name: value})
    return config


def run(config: TrainConfig, out: Path, split: str) -> Score:
    """The figures of one run, which is trained unless it is done.

    Raises:
        InputError: the folder holds a run of another configuration.
    """
    folder, result = RunFolder(out), out / "study.json"
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    if result.is_file():
        known = json.loads(result.read_text(encoding="utf-8"))
        if known["config"] != plain or known["split"] != split:
            raise InputError(f"{out}: holds a run of another configuration; choose another --out")
        score: Score = known["score"]
        return score
    begun = folder.state.is_file()
    if begun and yaml.safe_load(folder.config.read_text(encoding="utf-8")) != plain:
        raise InputError(f"{out}: holds a run of another configuration; choose another --out")
    if "result" not in folder.read_facts():
        train(config, out, resume=begun, reporter=Reporter())
    facts = folder.read_facts()["result"]
    score = {
        "miou": miou(config, out, split, False),
        "tta": miou(config, out, split, True),
        "val": facts["best_miou"],
        "seconds": facts["seconds"],
    }
    write_json(result, {"config": plain, "split": split, "score": score})
    return score


def miou(config: TrainConfig, out: Path, split: str, tta: bool) -> float:
    """Mean IoU of a run's best checkpoint on a split."""
    model = load_checkpoint(out)
    pairs = open_split(config.data.dataset, Path(config.data.root), split)
    pairs = dataclasses.replace(pairs, thermal_scale=model.input.thermal_scale)
    device = pick_device(config.device)
    tally = evaluate(
        model.to(device),
        pairs,
        get_protocol(pairs.protocol),
        device=device,
        tta=tta,
        input_size=model.input.size,
    )
    value: float = build_report(tally, {"dataset": pairs.dataset, "split": pairs.split})["miou"]
    return value


def table(scores: Mapping[str, Mapping[int, Score]], split: str) -> str:
    """Rows of means over the seeds; beside the base's, only seeds that both have are compared."""
    base = scores[BASE]
    lines = [
        f"| | seeds | mIoU {split} | against base | with TTA | mIoU val | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in scores.items():
        if not runs:
            continue
        differences = [runs[seed]["miou"] - base[seed]["miou"] for seed in runs if seed in base]
        cells = [
            name,
            str(len(runs)),
            spread([score["miou"] for score in runs.values()]),
            "" if name == BASE else spread(differences, signed=True),
            spread([score["tta"] for score in runs.values()]),
            spread([score["val"] for score in runs.values()]),
            f"{statistics.mean(score['seconds'] for score in runs.values()) / 60:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float], signed: bool = False) -> str:
    """Mean and standard deviation in percent."""
    if not values or any(math.isnan(value) for value in values):
        return ""
    sign: Callable[[float], str] = ("{:+.2f}" if signed else "{:.2f}").format
    mean = sign(100 * statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.2f}"


if __name__ == "__main__":
    main()
