"""Validation within a run: an evaluation as the command makes it, plus a picture sheet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image

from efnet.core.distributed import Group
from efnet.data.dataset import PairDataset
from efnet.data.pairs import Pair, PairSet, ThermalScale
from efnet.data.sample import read_sample
from efnet.evaluation.evaluate import evaluate
from efnet.evaluation.metrics import LabelMap
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import Report, build_report
from efnet.evaluation.sheet import SheetRow, draw_sheet
from efnet.inference.engine import Engine
from efnet.models.base import SegmentationModel
from efnet.training.config import TrainConfig


class Validator:
    """Scores a network on the validation split, shared by the processes of `group` (None: this one alone)."""

    def __init__(
        self, config: TrainConfig, pairs: PairSet, scale: ThermalScale, group: Group | None = None
    ) -> None:
        self.config = config
        self.group = group or Group.alone()
        self.protocol = get_protocol(config.validation.protocol or pairs.protocol)
        self.protocol.check(pairs.classes)
        self.scale = scale
        self.dataset = PairDataset(pairs, config.data.size, None, scale, cache=config.data.cache)
        self.shown = _spread(pairs, config.validation.samples)

    def __call__(
        self, network: SegmentationModel, device: torch.device, check: Callable[[], None]
    ) -> tuple[Report, Image.Image | None]:
        """Return report and picture sheet of an evaluation; `check`, called after each batch, may end it."""
        maps: dict[str, tuple[LabelMap, LabelMap]] = {}

        def keep(pair: Pair, prediction: LabelMap, truth: LabelMap) -> None:
            if pair in self.shown:
                maps[pair.name] = (prediction, truth)

        pairs = self.dataset.pairset
        tally = evaluate(
            Engine(network, pairs.classes, device, self.config.precision, self.config.data.size),
            self.dataset,
            self.protocol,
            batch_size=self.config.data.pass_size,
            # A cache lives in this process; workers would each fill their own.
            workers=0 if self.config.data.cache else self.config.data.workers,
            progress=lambda _done, _total: check(),
            keep=keep,
            group=self.group,
        )
        maps = {name: both for part in self.group.gather(maps) for name, both in part.items()}
        circumstances = {"dataset": pairs.dataset, "split": pairs.split, "input_size": self.config.data.size}
        return build_report(tally, circumstances), self.group.once(lambda: self._draw(maps))

    def _draw(self, maps: dict[str, tuple[LabelMap, LabelMap]]) -> Image.Image | None:
        if not self.shown:
            return None
        classes = self.dataset.pairset.classes
        rows = []
        for pair in self.shown:
            sample = read_sample(pair, classes, self.scale)
            rows.append(SheetRow(pair.name, sample.rgb, sample.thermal, *maps[pair.name]))
        return draw_sheet(rows, classes, self.protocol)


def _spread(pairs: PairSet, count: int) -> tuple[Pair, ...]:
    """`count` pairs at even distances over the split, the same ones at every validation."""
    count = min(count, len(pairs))
    return tuple(pairs.pairs[round((index + 0.5) * len(pairs) / count - 0.5)] for index in range(count))
