"""The base of all networks: their interface, the checks of their input, and their files."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import huggingface_hub
import safetensors.torch
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard, ModelHubMixin
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import Tensor, nn

from efnet import __version__
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.core.files import replacing, write_json, write_text
from efnet.core.precision import at_least_float32
from efnet.core.safe_parse import parse_json
from efnet.data.false_color import check_scale
from efnet.data.pairs import ThermalScale
from efnet.models.config import Modality, ModelConfig
from efnet.models.weights import LoadReport, read_state_dict

MIN_SIZE = 32  # smallest height and width: below it the last map would be less than one cell

CLASSIFIER_STD = 0.01
"""Deviation of a fresh classifier's weights: training starts from nearly equal probabilities, loss ln K."""


def check_images(images: Tensor, channels: int, name: str) -> None:
    """Refuse anything but floating-point (B, channels, H, W) with H and W >= 32.

    Only shapes and types are checked, so that the program never waits for the device. Raises ValueError for a
    wrong shape or type, with the expected one; TypeError for anything but a tensor.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(images).__name__}; Predictor takes images")
    if images.ndim != 4 or images.shape[1] != channels or images.shape[0] == 0:
        raise ValueError(f"{name} must be (B, {channels}, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"{name} must be floating point in [0, 1], got {images.dtype}")
    if min(images.shape[2:]) < MIN_SIZE:
        raise ValueError(
            f"{name} must be at least {MIN_SIZE}x{MIN_SIZE}, got {images.shape[2]}x{images.shape[3]}"
        )


TRAINING_FACTS = (
    ("source", "weights"),
    ("recipe", "recipe"),
    ("dataset", "data set"),
    ("train_split", "trained on split"),
    ("train_pairs", "training pairs"),
    ("teacher", "teacher"),
    ("unlabelled", "pairs without masks"),
    ("selected_on", "checkpoint chosen on split"),
    ("selection_protocol", "by protocol"),
    ("epoch", "epoch"),
    ("epochs", "of epochs"),
    ("seed", "seed"),
)
"""Keys of `training_summary`, with their labels in a model card."""


_MODEL_CARD = """\
---
library_name: efnet
pipeline_tag: image-segmentation
tags: [{architecture}, rgb-thermal, semantic-segmentation]
---
# {name}

RGB-thermal semantic segmentation (arXiv 2501.10958), modality `{modality}`, efnet {version}.

Input: {size}. Classes: {classes}.

```python
import efnet
predictor = efnet.Predictor.from_pretrained("this folder or repository")
prediction = predictor(rgb_image, thermal_image)
```
"""

_TRAINING_CARD = """
| training | |
|---|---|
{facts}

Limits: figures hold for the named split and protocol. The weights inherit the licence of the training data.
"""


CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_MAX_SIZE = 16384  # pixels of a side: no camera has more

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """How images are prepared for the network, as in its training."""

    size: tuple[int, int] | None = None  # (H, W) to which images are resized; None: they keep theirs
    thermal_scale: ThermalScale = "auto"  # how thermal values become [0, 1]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """Read the values of JSON; raises ValueError for a size or a range that no network can have."""
        size, scale = values.get("size"), values.get("thermal_scale", "auto")
        spec = cls(
            None if size is None else (int(size[0]), int(size[1])),
            scale if isinstance(scale, str) else (float(scale[0]), float(scale[1])),
        )
        if spec.size is not None and not all(MIN_SIZE <= side <= _MAX_SIZE for side in spec.size):
            raise ValueError(f"an input of {spec.size[0]}x{spec.size[1]}")
        if isinstance(spec.thermal_scale, str):
            check_scale(spec.thermal_scale)
        else:
            low, high = spec.thermal_scale
            if not -math.inf < low < high < math.inf:
                raise ValueError(f"a thermal range from {low} to {high}")
        return spec


def check_temperature(value: Any) -> float:
    """Return a temperature that a file holds; raises ValueError for one that is not positive and finite."""
    number = float(value)
    if not 0.0 < number < math.inf:
        raise ValueError(f"a temperature of {value}")
    return number


class SegmentationModel(nn.Module, ModelHubMixin):
    """An RGB-thermal segmentation network with its classes and constants inside.

    A subclass names its architecture and configuration, makes its modules in `_build` (what returns logits is
    called `classify`), and implements `score_cells`. Saved as safetensors and JSON; nothing is unpickled. The
    preset it came from is its `name`; classes are numbered unless they are given.
    """

    mean: Tensor
    std: Tensor
    architecture: ClassVar[str] = ""  # kind of network; a checkpoint names it
    options: ClassVar[tuple[str, ...]] = ("modality",)  # what `create_model` takes beside name and classes
    config_type: ClassVar[type[ModelConfig]]
    module: ClassVar[str | None] = None  # that registers a user's network
    config: ModelConfig

    def __init__(self, config: ModelConfig, name: str = "custom", classes: ClassSet | None = None) -> None:
        super().__init__()
        if classes is not None and len(classes) != config.num_classes:
            raise ValueError(f"{len(classes)} classes for a network of {config.num_classes}")
        self.config = config
        self.name = name
        self.classes = classes or ClassSet.generic(config.num_classes)
        self.input = InputSpec()  # how images are prepared for it; set by training
        self.training_summary: dict[str, Any] = {}  # data, recipe and choice of the checkpoint
        self.temperature = 1.0  # divides logits before they become probabilities; set by `efnet temperature`
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self._build()
        for name, module in self.named_modules():
            if name.endswith("classify") and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=CLASSIFIER_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _build(self) -> None:
        """Make the network's modules, with fresh weights."""

    @property
    def imagenet_package(self) -> str | None:
        """An optional package that holds ImageNet weights for `load_encoder`; None: there is none."""
        return None

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the encoders from published weights; an `InputError` if there are none or they misfit."""
        raise InputError(
            f"{path}: no pretrained encoder is known for {self.name}; give a checkpoint folder of ours"
        )

    @property
    def num_classes(self) -> int:
        """K."""
        return self.config.num_classes

    @property
    def modality(self) -> Modality:
        """Which images the network uses."""
        return self.config.modality

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, H, W), None where not used, to logits on a coarser grid."""
        raise NotImplementedError

    def forward(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Return the class logits of every pixel.

        Args:
            rgb: (B, 3, H, W) in [0, 1]; None for a network of modality `thermal`.
            thermal: (B, 1, H, W) in [0, 1]; None for a network of modality `rgb`.

        Returns:
            (B, K, H, W), float32 (float64 for a network of that type).

        Raises:
            ValueError: wrong rank, channels or type, unequal sizes, or sides under 32 pixels.
        """
        rgb, thermal = self._look_at(rgb, thermal)
        image = rgb if rgb is not None else thermal
        assert image is not None
        logits = self.score_cells(*self.normalize(rgb, thermal))
        # Also under autocast: differences between classes are small beside the logits.
        logits = at_least_float32(logits)
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)

    def _look_at(self, rgb: Tensor | None, thermal: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The images that the network uses, checked."""
        if self.modality == "rgbt":
            if rgb is None or thermal is None:
                raise ValueError("this network needs both rgb and thermal")
            check_images(rgb, 3, "rgb")
            check_images(thermal, 1, "thermal")
            sizes = tuple(rgb.shape), tuple(thermal.shape)
            if sizes[0][0] != sizes[1][0] or sizes[0][2:] != sizes[1][2:]:
                raise ValueError(f"rgb {sizes[0]} and thermal {sizes[1]} differ in batch or size")
            return rgb, thermal
        image, channels = (rgb, 3) if self.modality == "rgb" else (thermal, 1)
        if image is None:
            raise ValueError(f"this network needs {self.modality}")
        check_images(image, channels, self.modality)
        return (image, None) if self.modality == "rgb" else (None, image)

    def normalize(self, rgb: Tensor | None, thermal: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Images in [0, 1] to what `score_cells` takes; the thermal one gets three channels (B, 3, H, W)."""
        # Three equal channels, so that a stem made for colour images serves.
        both = (rgb, None if thermal is None else thermal.expand(-1, 3, -1, -1))
        first, second = (
            None if images is None else (images.to(self.mean.dtype) - self.mean) / self.std for images in both
        )
        return first, second

    def _save_pretrained(self, save_directory: Path) -> None:
        """Called by `save_pretrained` and `push_to_hub` (`ModelHubMixin`)."""
        self.write(save_directory)

    def write(self, folder: Path) -> None:
        """Write weights, JSON and model card, each whole or not at all; raises InputError where it cannot.

        Unlike `save_pretrained` it never deletes an older file first: the folder always holds a checkpoint.
        """
        state = {name: value.contiguous().cpu() for name, value in self.state_dict().items()}
        with replacing(folder / WEIGHTS_FILE) as temporary:
            safetensors.torch.save_file(state, temporary, metadata={"format": "pt"})
        write_json(folder / CONFIG_FILE, self.describe())
        write_text(folder / "README.md", str(self.generate_model_card()))

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return the README.md that is saved beside the weights (`ModelHubMixin`)."""
        size, trained = self.input.size, self.training_summary
        card = _MODEL_CARD.format(
            architecture=self.architecture,
            name=self.name,
            modality=self.modality,
            version=__version__,
            size=f"{size[0]}x{size[1]}" if size else "any size",
            classes=", ".join(self.classes.names),
        )
        facts = [f"| {label} | {trained[key]} |" for key, label in TRAINING_FACTS if key in trained]
        if trained.get("selection_miou") is not None:
            facts.append(f"| mIoU on that split | {100 * trained['selection_miou']:.2f} |")
        return ModelCard(card + (_TRAINING_CARD.format(facts="\n".join(facts)) if facts else ""))

    def describe(self) -> dict[str, Any]:
        """Return the contents of `config.json`."""
        return {
            "efnet_version": __version__,
            "architecture": self.architecture,
            **({} if self.module is None else {"module": self.module}),
            "name": self.name,
            "config": self.config.to_dict(),
            "classes": self.classes.to_dict(),
            "input": asdict(self.input),
            "training": self.training_summary,
            **({} if self.temperature == 1.0 else {"temperature": self.temperature}),
        }

    @classmethod
    def _from_pretrained(cls, *, model_id: str, map_location: str = "cpu", **options: Any) -> Self:
        """Read a folder, or fetch both files from the hub (`ModelHubMixin`)."""
        # The mixin also passes what JSON and constructor have in common, which `read` reads itself.
        options = {key: value for key, value in options.items() if key not in ("config", "name", "classes")}
        unknown = [key for key in options if key not in _HUB_OPTIONS]
        if unknown:
            raise TypeError(
                f"from_pretrained takes no {', '.join(unknown)}: a checkpoint says itself what it is; for "
                "other classes build a network and start it from the checkpoint"
            )
        folder = Path(model_id)
        return cls.read(folder if folder.is_dir() else fetch(model_id, **options)).to(map_location)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what `save_pretrained` wrote; raises InputError for a missing, damaged or foreign file."""
        folder = Path(folder)
        values = read_config(folder)
        if values.get("architecture") != cls.architecture:
            raise InputError(
                f"{folder / CONFIG_FILE}: a checkpoint of {values.get('architecture')!r}, "
                f"not of {cls.architecture!r}"
            )
        try:
            config = cls.config_type.from_dict(values["config"])
            if not isinstance(values["name"], str):
                raise ValueError("the name is not text")
            classes = ClassSet.from_dict(values["classes"])
            if len(classes) != config.num_classes:
                raise ValueError(f"{len(classes)} classes for a network of {config.num_classes}")
            spec, summary = InputSpec.from_dict(values["input"]), dict(values["training"])
            temperature = check_temperature(values.get("temperature", 1.0))
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / CONFIG_FILE}: not a checkpoint's configuration ({error}); fetch it again"
            ) from error
        state = read_state_dict(folder / WEIGHTS_FILE)
        # Before any memory is taken: the file has at least one byte for each weight.
        if config.least_parameters > (folder / WEIGHTS_FILE).stat().st_size:
            raise InputError(
                f"{folder / WEIGHTS_FILE}: does not fit {CONFIG_FILE} beside it, which needs "
                f"{config.least_parameters} weights or more; they are of different checkpoints"
            )
        model = cls(config, values["name"], classes)
        model.input, model.training_summary, model.temperature = spec, summary, temperature
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(
                f"{folder / WEIGHTS_FILE}: does not fit {CONFIG_FILE} beside it; they are of different "
                f"checkpoints ({str(error).splitlines()[-1].strip()})"
            ) from error
        return model.eval()


_HUB_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token")


def fetch(name: str, **options: Any) -> Path:
    """Fetch weights and JSON from the hub, return their folder; raises InputError where it cannot."""
    try:
        for filename in (WEIGHTS_FILE, CONFIG_FILE):
            fetched = huggingface_hub.hf_hub_download(name, filename, **options)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"{name}: neither a checkpoint folder here nor one on the hub that can be fetched "
            f"({type(error).__name__}); check the path or the name"
        ) from error
    return Path(fetched).parent


def read_config(folder: Path) -> dict[str, Any]:
    """Read the JSON of a checkpoint folder; raises InputError if it is missing or damaged."""
    path = folder / CONFIG_FILE
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: not a checkpoint (no {CONFIG_FILE} in it)") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a checkpoint's configuration; fetch it again")
    return values
