"""Train the weights that come with the package, `efnet-edge-streets`, from the pairs of MFNet.

    python experiments/streets.py --root MFNET --out runs/streets

Two commands of `efnet train`, at half and at full size, then the best checkpoint in half precision in
`OUT/efnet-edge-streets`. An interrupted run goes on where it stopped. Needs `efnet[pretrained]`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from efnet.cli.main import main as efnet
from efnet.core.shipped import DEFAULT_WEIGHTS
from efnet.models.checkpoint import load_checkpoint

COMMON = (
    *("--model", "efnet_edge", "--dataset", "mfnet", "--recipe", "strong-scratch", "--batch-size", "4"),
    *("--workers", "1", "--cache", "true", "--val-every", "5"),
    *("--augment.thermal_gain", "0.3", "--augment.thermal_offset", "0.1", "--augment.rare_crop", "0.5"),
    *("--augment.drop_rgb", "0.05", "--augment.drop_thermal", "0.05"),
    *("--augment.contrast", "0.4", "--augment.brightness", "0.4"),
)
HALF = ("--init", "imagenet", "--size", "240x320", "--epochs", "120")
FULL = ("--size", "480x640", "--epochs", "45", "--lr", "2.5e-4", "--augment.scale", "0.5,1.75")


def main() -> None:
    """Run the stages that are not finished, then write the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    half, full = args.out / "half", args.out / "full"
    for run, words in ((half, HALF), (full, ("--init", str(half), *FULL))):
        facts = run / "run.json"
        if facts.is_file() and "result" in json.loads(facts.read_text(encoding="utf-8")):
            continue
        start = ["--out", str(run), "--resume"]
        if not (run / "last").is_dir():
            start = ["--out", str(run), "--root", args.root, *COMMON, *words]
        if efnet(["train", *start]) != 0:
            raise SystemExit(f"{run} stopped; the same command goes on")
    load_checkpoint(full).half().save_pretrained(args.out / DEFAULT_WEIGHTS)


if __name__ == "__main__":
    main()
