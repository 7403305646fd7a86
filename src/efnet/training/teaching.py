"""Learning from a teacher: its probabilities and stages, and its classes on pairs without masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.core.precision import at_least_float32
from efnet.data.pairs import PairSet, ThermalScale
from efnet.data.unlabelled import open_unlabelled
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.models.edge import EFNetEdge
from efnet.models.efnet import EFNet
from efnet.models.layers import Tokens
from efnet.training.config import TeachConfig, TrainConfig
from efnet.training.loss import cross_entropy


def load_teacher(
    source: str, classes: ClassSet, student: SegmentationModel, scale: ThermalScale
) -> SegmentationModel:
    """Load a teacher for a run whose thermal values are scaled by `scale`.

    Raises InputError if it cannot be read, or has other classes, cameras or another thermal range.
    """
    teacher = load_checkpoint(source)
    if teacher.classes.names != classes.names:
        raise InputError(
            f"{source}: a network of other classes ({', '.join(teacher.classes.names[:4])}, ...); a teacher "
            "has the student's classes in the same order"
        )
    if teacher.modality not in ("rgbt", student.modality) and student.modality != "rgbt":
        raise InputError(f"{source}: a network of {teacher.modality} alone; give one of both cameras")
    ranges = {own for own in (teacher.input.thermal_scale, scale) if not isinstance(own, str)}
    if ranges and teacher.input.thermal_scale != scale:  # relative values, grey or of colours, are alike
        raise InputError(
            f"{source}: learned with the thermal range {teacher.input.thermal_scale}, but this run has "
            f"{scale}; give the same `thermal_scale`"
        )
    return teacher.requires_grad_(False).eval()


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's, mean over pixels.

    Logits are (B, K, H, W), softened by the temperature T; times T^2, so that gradients keep their size
    (arXiv 1503.02531, section 2).
    """
    target = (at_least_float32(teacher) / temperature).softmax(1)
    log_probability = (at_least_float32(student) / temperature).log_softmax(1)
    per_pixel = F.kl_div(log_probability, target, reduction="none").sum(1)
    return temperature**2 * per_pixel.mean()


def similarity_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the cosines between all pairs of cells, over the stages.

    Maps are (B, C, H, W), as many of the student as of the teacher, of any channels and sizes: each is
    averaged to the cells of the teacher's last but one (stride 16). Pair-wise distillation (arXiv 1903.04197,
    equation 1) with cells in place of its pixels; it has no weights of its own.
    """
    height, width = teacher[-2].shape[2:]
    terms = []
    for maps in zip(student, teacher, strict=True):
        cosines = []
        for features in maps:
            vectors = F.adaptive_avg_pool2d(at_least_float32(features), (height, width)).flatten(2)
            vectors = F.normalize(vectors, dim=1)
            cosines.append(vectors.transpose(1, 2) @ vectors)
        terms.append((cosines[0] - cosines[1]).square().mean())
    return torch.stack(terms).mean()


class StageMaps:
    """The maps of a network's stages in its last forward pass, which are what its decoder took.

    Raises InputError for a network without such a decoder.
    """

    def __init__(self, network: SegmentationModel) -> None:
        if not isinstance(network, EFNet | EFNetEdge):
            raise InputError(
                f"`teach.features` compares stages of efnet_* networks; {network.name} has none: set it to 0"
            )
        self._stages: Sequence[Tensor | Tokens] = ()
        network.decoder.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._stages = arguments[0]

    def take(self) -> list[Tensor]:
        """The maps (B, C, H, W) from fine to coarse; they are not kept any longer."""
        stages, self._stages = self._stages, ()
        return [stage.to_map() if isinstance(stage, Tokens) else stage for stage in stages]


def confident_classes(logits: Tensor, confidence: float) -> Tensor:
    """Classes (B, H, W) of logits (B, K, H, W); 255 where the probability is below `confidence`."""
    probability, classes = at_least_float32(logits).softmax(1).max(1)
    return classes.masked_fill(probability < confidence, IGNORE_INDEX)


class Teaching:
    """The terms that a teacher adds to the loss; `own` is the teacher that the run was given, if any."""

    def __init__(self, config: TeachConfig, own: SegmentationModel | None, has_labels: bool) -> None:
        self.config = config
        self.own = own
        self.has_labels = has_labels
        self._maps: tuple[StageMaps, StageMaps] | None = None  # of student and teacher

    def watch(self, student: SegmentationModel) -> None:
        """Keep the stages of both networks where the loss needs them; raises InputError where it cannot."""
        if self.own is not None and self.config.features:
            self._maps = StageMaps(student), StageMaps(self.own)

    def distil(self, logits: Tensor, rgb: Tensor, thermal: Tensor) -> Tensor:
        """The weighted terms of labelled pairs, of which the student just gave `logits`; else zero."""
        config = self.config
        if self.own is None or not (config.weight or config.features):
            return logits.new_zeros(())
        with torch.no_grad():
            teacher = self.own(rgb, thermal)
        loss = config.weight * distillation_loss(logits, teacher, config.temperature)
        if self._maps is not None:
            student_maps, teacher_maps = (maps.take() for maps in self._maps)
            loss = loss + config.features * similarity_loss(student_maps, teacher_maps)
        return loss

    def semi_supervised(
        self, student: nn.Module, average: SegmentationModel | None, pairs: dict[str, Tensor]
    ) -> Tensor:
        """The weighted term of pairs without masks, entries of `SemiDataset` without their prefix.

        The targets are the pseudo-labels on disk, else the confident classes of the given teacher, else those
        of the `average` of the student's weights (mean teacher, arXiv 1703.01780). The student sees the pairs
        with other colours and thermal values. A pixel without a target counts as one that is right, so few
        targets weigh little.
        """
        label = pairs["label"]
        if not self.has_labels:
            teacher = self.own or average
            assert teacher is not None  # checked by the trainer
            with torch.no_grad():
                found = confident_classes(
                    teacher.eval()(pairs["rgb"], pairs["thermal"]), self.config.confidence
                )
            label = found.masked_fill(label == IGNORE_INDEX, IGNORE_INDEX)
        logits = student(pairs["strong_rgb"], pairs["strong_thermal"])
        share = (label != IGNORE_INDEX).to(logits.dtype).mean()
        return self.config.unlabelled_weight * share * cross_entropy(logits, label)


def open_teaching(
    config: TrainConfig, split: PairSet, network: SegmentationModel
) -> tuple[Teaching | None, PairSet | None]:
    """Return what teaches the network beside labels, and the pairs without masks.

    Raises InputError as `load_teacher` and `open_unlabelled` do, or if nothing can teach the pairs.
    """
    teach = config.teach
    if teach.teacher is None and teach.unlabelled is None:
        return None, None
    scale = network.input.thermal_scale
    own = None if teach.teacher is None else load_teacher(teach.teacher, split.classes, network, scale)
    if teach.unlabelled is None:
        return Teaching(teach, own, has_labels=False), None
    unlabelled = open_unlabelled(teach.unlabelled, split)
    has_labels = any(pair.label is not None for pair in unlabelled.pairs)
    if own is None and not has_labels and config.ema.decay is None:
        raise InputError(
            f"{teach.unlabelled}: without `teacher` the pairs are taught by the average of the weights; give "
            "`ema.decay`, such as 0.99, or a teacher"
        )
    return Teaching(teach, own, has_labels), unlabelled
