"""How far tiles change a prediction: a Markdown table on stdout.

    python experiments/tile_agreement.py --checkpoint demo/run

Generated scenes at 480x640, whole and in tiles: share of pixels of the same class, the same among pixels that
either prediction calls something but background, and mIoU of both.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from efnet.cli.options import parse_size
from efnet.data.sample import Sample
from efnet.inference.predictor import Predictor
from efnet.inference.tiles import Tiling
from efnet.scenes import render

TILINGS = (
    ("256x352", 0),
    ("256x352", 32),
    ("256x352", 64),
    ("256x352", 128),
    ("128x160", 32),
    ("128x160", 64),
)


def main() -> None:
    """Read the options, predict, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--scenes", type=int, default=8)
    args = parser.parse_args()
    predictor = Predictor.from_pretrained(args.checkpoint, device="cpu")
    predictor.size = None
    scenes = [render(9000 + k, (480, 640), "day" if k % 2 else "night") for k in range(args.scenes)]
    whole = _predict(predictor, scenes)
    print("| tile | overlap | same class | same, background apart | mIoU whole | mIoU tiled |")
    print("|---|---|---|---|---|---|")
    for tile, overlap in TILINGS:
        predictor.tiling = Tiling(parse_size(tile), overlap)
        tiled = _predict(predictor, scenes)
        pairs = list(zip(whole, tiled, strict=True))
        same = np.mean([(one == other).mean() for one, other in pairs])
        things = np.mean([(one == other)[(one > 0) | (other > 0)].mean() for one, other in pairs])
        print(
            f"| {tile} | {overlap} | {100 * same:.1f} % | {100 * things:.1f} % "
            f"| {_miou(whole, scenes):.3f} | {_miou(tiled, scenes):.3f} |"
        )


def _predict(predictor: Predictor, scenes: list[Sample]) -> list[NDArray[np.uint8]]:
    return [predictor(scene.rgb, scene.thermal).index for scene in scenes]


def _miou(predictions: list[NDArray[np.uint8]], scenes: list[Sample]) -> float:
    """Over all nine classes that occur; a comparison of two predictions, not a protocol's figure."""
    confusion = np.zeros((9, 9))
    for index, scene in zip(predictions, scenes, strict=True):
        assert scene.label is not None
        np.add.at(confusion, (scene.label.ravel(), index.ravel()), 1)
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return float((hit[union > 0] / union[union > 0]).mean())


if __name__ == "__main__":
    main()
