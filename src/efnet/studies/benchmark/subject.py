"""The contestants: networks at a size, in plain values that other processes can read, and their work.

They see generated smooth images, or the user's own pairs. Shapes: B batch, (H, W) size of the contestant.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from efnet.core.devices import Precision, autocast
from efnet.core.errors import InputError
from efnet.data.images import ThermalScale
from efnet.inference.preprocess import Preparation, as_tensors
from efnet.inference.runtime import ExportedModel, is_exported, load_exported
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.models.config import Modality
from efnet.models.registry import create_model, list_models
from efnet.studies.benchmark.dense import clustering_by, dense_dpc_knn
from efnet.studies.benchmark.measure import Work
from efnet.training.config import OptimizerConfig
from efnet.training.loss import cross_entropy
from efnet.training.optimizer import make_optimizer

Images = tuple[Tensor | None, Tensor | None]
"""Colour (B, 3, H, W) and thermal (B, 1, H, W) in [0, 1]; None: the network does not use it."""


def images(subject: Subject, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make smooth images with noise, the same every time: (B, 3, H, W) and (B, 1, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(1)

    def draw(channels: int) -> Tensor:
        height, width = subject.size
        coarse = torch.rand(
            subject.batch, channels, max(2, height // 24), max(2, width // 24), generator=generator
        )
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
        noise = torch.rand(smooth.shape, generator=generator)
        return (0.9 * smooth + 0.1 * noise).to(device)

    return draw(3), draw(1)


def batches(subject: Subject, model: Network) -> Sequence[Images]:
    """Return the images of `subject.passes` batches, pairs resized as for a prediction.

    The first pairs fill up the last batch. Raises InputError if a pair is unreadable or does not fit the
    network.
    """
    if subject.pairs:
        plain = replace(subject, model="", precision="32", variant="plain", dense=False, file=None)
        return _given(plain, model.modality, model.input.thermal_scale)
    rgb, thermal = images(subject, torch.device(subject.device))
    return [(None if model.modality == "thermal" else rgb, None if model.modality == "rgb" else thermal)]


# Contestants of one model see the same tensors: a copy for each would fill the memory.
@functools.lru_cache(maxsize=1)
def _given(subject: Subject, modality: Modality, scale: ThermalScale) -> list[Images]:
    """Read the batches for every contestant with these pairs, size, batch and device."""
    steps = Preparation(modality, scale, subject.size)
    prepared = [steps.prepare(rgb, thermal) for rgb, thermal in subject.pairs]
    turns = itertools.islice(itertools.cycle(prepared), subject.passes * subject.batch)
    device = torch.device(subject.device)
    return [as_tensors([next(turns) for _ in range(subject.batch)], device) for _ in range(subject.passes)]


Files = tuple[str | None, str | None]
"""Files of a pair, colour and thermal; None: it has no file of its own, as with a four-channel image."""


@dataclass(frozen=True)
class Subject:
    """One contestant."""

    model: str  # preset or checkpoint
    size: tuple[int, int]  # (H, W)
    batch: int = 1  # pairs
    device: str = "cpu"  # as of `torch.device`
    precision: Precision = "32"
    training: bool = False  # a step of training; else a forward pass
    # plain, compile or cuda-graph; exported: program (PyTorch), onnx or openvino, perhaps with -16 or -int8
    variant: str = "plain"
    dense: bool = False  # cluster by the dense formulation
    checkpoint_activations: bool = False  # recompute them in the backward pass
    file: str | None = None  # an exported file, which runs in the model's place
    pairs: tuple[Files, ...] = ()  # its images, one pass after another; empty: generated images

    @property
    def source(self) -> str:
        """Name for `open_model`."""
        return self.file or self.model

    @property
    def label(self) -> str:
        """Name in a table."""
        extras = [] if self.variant == "plain" else [self.variant]
        extras += ["checkpointed"] if self.checkpoint_activations else []
        extras += ["dense clustering"] if self.dense else []
        return ", ".join([self.model, *extras])

    @property
    def passes(self) -> int:
        """Number of passes over every pair."""
        return max(1, -(-len(self.pairs) // self.batch))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Subject:
        """Read the result of `to_dict`."""
        size = int(values["size"][0]), int(values["size"][1])
        return replace(cls(**values), size=size, pairs=tuple((rgb, th) for rgb, th in values["pairs"]))


Network = SegmentationModel | ExportedModel


def open_model(name: str, device: str = "cpu") -> Network:
    """Open a preset with fresh weights, a checkpoint or an exported file; raises InputError for others.

    `device`: where a file runs, see `load_exported`; other networks are moved by `make_work`.
    """
    if is_exported(name):
        return load_exported(name, device=device)
    if name in list_models():
        torch.manual_seed(0)
        return create_model(name)
    try:
        return load_checkpoint(name)
    except InputError as error:
        raise InputError(f"`model` {name}: no preset ({', '.join(list_models())}) and {error}") from None


def make_work(subject: Subject, model: Network) -> Work:
    """Return one run of a contestant, whose network from `open_model` moves to the device.

    Raises InputError if the network cannot checkpoint activations, or a pair cannot be read.
    """
    # Images and scores of a file are on the CPU, wherever it runs.
    device = torch.device("cpu" if isinstance(model, ExportedModel) else subject.device)
    model = model.to(device)
    if subject.training:
        assert isinstance(model, SegmentationModel)
        return _clustering(subject, TrainingStep(subject, model))
    model.eval()
    turns = itertools.cycle(batches(replace(subject, device=str(device)), model))
    network = torch.compile(model, dynamic=False) if subject.variant == "compile" else model

    def forward() -> Tensor:
        with torch.inference_mode(), autocast(device, subject.precision):
            logits: Tensor = network(*next(turns))
            return logits

    work = _captured(forward, device) if subject.variant == "cuda-graph" else forward
    return _clustering(subject, work)


class TrainingStep:
    """Forward pass, loss, backward pass and a step of AdamW, always on the same images."""

    def __init__(self, subject: Subject, model: SegmentationModel) -> None:
        self.device = torch.device(subject.device)
        self.precision = subject.precision
        self.model = model.train()
        if subject.checkpoint_activations:
            if not hasattr(model, "checkpoint_activations"):
                raise InputError("`checkpoint_activations`: this network cannot; leave it out")
            setattr(model, "checkpoint_activations", True)  # noqa: B010 - a property of some networks
        self.network = torch.compile(model, dynamic=False) if subject.variant == "compile" else model
        self.optimizer = make_optimizer(model, OptimizerConfig())
        self.images = images(subject, self.device)
        shape = (subject.batch, *subject.size)
        generator = torch.Generator().manual_seed(2)
        labels = torch.randint(0, model.num_classes, shape, generator=generator)
        self.labels = labels.to(self.device)

    def forward(self) -> Tensor:
        """Return logits (B, K, H, W)."""
        with autocast(self.device, self.precision):
            logits: Tensor = self.network(*self.images)
            return logits

    def loss(self, logits: Tensor) -> Tensor:
        """Return the cross entropy, a scalar."""
        return cross_entropy(logits, self.labels)

    def backward(self, loss: Tensor) -> None:
        """Compute gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Take a step of AdamW."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def __call__(self) -> None:
        """Run the whole step."""
        self.backward(self.loss(self.forward()))
        self.update()


def _clustering(subject: Subject, work: Work) -> Work:
    """Return the work with the contestant's kind of clustering."""
    if not subject.dense:
        return work

    def densely() -> object:
        with clustering_by(dense_dpc_knn):
            return work()

    return densely


def _captured(forward: Work, device: torch.device) -> Work:
    """Capture the pass as a CUDA graph and return its replay."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            forward()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    return graph.replay


@contextlib.contextmanager
def named_shortage(subject: Subject) -> Iterator[None]:
    """Raise InputError in place of the error of a block that runs out of memory."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate" not in text:
            raise
        raise InputError(
            f"{subject.label}: {subject.batch} pairs of {subject.size[0]}x{subject.size[1]} do not fit into "
            "memory; give a smaller `size` or `batch`"
        ) from error
