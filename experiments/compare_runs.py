"""Score several runs on one split: a Markdown table on stdout, and a picture of their label maps.

    python experiments/compare_runs.py --root DIR --split test --out maps.png \
        "both=runs/mfnet_rgbt" "RGB alone=runs/mfnet_rgb" "thermal alone=runs/mfnet_thermal"

The picture shows label maps alone: camera images of a data set may not be free to publish.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from efnet.core.files import write_image
from efnet.data.layouts import open_split
from efnet.data.pairs import Pair, PairSet
from efnet.evaluation.evaluate import check_classes, evaluate
from efnet.evaluation.metrics import LabelMap
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import Report, build_report, percent, protocol_lines
from efnet.inference.predictor import Predictor

Maps = dict[str, tuple[LabelMap, LabelMap]]


def main() -> None:
    """Read the options, score the runs, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--dataset", default="mfnet")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--protocol")
    parser.add_argument("--by-condition", action="store_true", help="rows for day and night")
    parser.add_argument("--out", type=Path, help="picture of label maps")
    parser.add_argument("--pairs", nargs="*", default=[], help="pairs in the picture; default: four, spread")
    args = parser.parse_args()
    pairs = open_split(args.dataset, args.root, args.split)
    runs = dict(run.split("=", 1) for run in args.runs)
    scored = {name: score_run(folder, pairs, args.protocol) for name, folder in runs.items()}
    reports = {name: report for name, (report, _) in scored.items()}
    print(table(reports, args.by_condition))
    print("\n" + "\n".join(protocol_lines(next(iter(reports.values())))))
    if args.out:
        chosen = args.pairs or [pairs.pairs[(2 * i + 1) * len(pairs) // 8].name for i in range(4)]
        write_image(args.out, draw({name: maps for name, (_, maps) in scored.items()}, chosen, pairs))
        print(f"wrote {args.out}", file=sys.stderr)


def score_run(folder: str, pairs: PairSet, protocol_name: str | None) -> tuple[Report, Maps]:
    """The report of one run, and every pair's prediction and truth."""
    predictor = Predictor.from_pretrained(folder, device="cpu")
    check_classes(predictor.classes, pairs)
    pairs = replace(pairs, thermal_scale=predictor.thermal_scale)
    maps: Maps = {}

    def keep(pair: Pair, prediction: LabelMap, truth: LabelMap) -> None:
        maps[pair.name] = (prediction, truth)

    tally = evaluate(predictor, pairs, get_protocol(protocol_name or pairs.protocol), keep=keep)
    summary = predictor.model.training_summary
    print(f"{folder}: epoch {summary.get('epoch')} of {summary.get('epochs')}", file=sys.stderr)
    return build_report(tally, {"dataset": pairs.dataset, "split": pairs.split}), maps


def table(reports: dict[str, Report], by_condition: bool = False) -> str:
    """Runs as rows: mIoU, mAcc and the IoU of each class in percent; day and night as rows of their own."""
    first = next(iter(reports.values()))
    conditions = [part for part in ("day", "night") if part in first]
    heads = ["", "mIoU", *(f"mIoU {part}" for part in conditions if not by_condition), "mAcc", *first["iou"]]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, report in reports.items():
        if by_condition:
            lines += [_row(f"{name}, {part}", report[part], []) for part in conditions]
        else:
            lines.append(_row(name, report, [report[part]["miou"] for part in conditions]))
    trivial = first["trivial"]
    lines.append(f"\n{trivial['prediction']} everywhere: mIoU {percent(trivial['miou'])}")
    return "\n".join(lines)


def _row(name: str, scores: Report, parts: list[float | None]) -> str:
    values = [scores["miou"], *parts, scores["macc"], *scores["iou"].values()]
    return "| " + " | ".join([name, *(percent(value) for value in values)]) + " |"


def draw(scored: dict[str, Maps], names: Sequence[str], pairs: PairSet, width: int = 240) -> Image.Image:
    """A row per pair: truth, then the prediction of each run."""
    columns = ["truth", *scored]
    first = next(iter(scored.values()))
    height = width * first[names[0]][1].shape[0] // first[names[0]][1].shape[1]
    sheet = Image.new("RGB", (len(columns) * (width + 6), 28 + len(names) * (height + 6)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for column, title in enumerate(columns):
        pen.text((column * (width + 6) + 4, 5), title, fill="black", font=font)
        for row, name in enumerate(names):
            index = first[name][1] if column == 0 else scored[title][name][0]
            picture = Image.fromarray(pairs.classes.colorize(index)).resize(
                (width, height), Image.Resampling.NEAREST
            )
            sheet.paste(picture, (column * (width + 6), 28 + row * (height + 6)))
    return sheet


if __name__ == "__main__":
    main()
