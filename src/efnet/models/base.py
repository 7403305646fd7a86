"""What every network of this package shares: its interface, its constants, and its files.

Checks of what a network is given: shapes only, so that it never waits for its device.

The model card that goes with a checkpoint, written from what the checkpoint says of itself.
"""

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
from efnet.core.safe_parse import parse_json
from efnet.data.pairs import ThermalScale
from efnet.models.config import Modality, ModelConfig
from efnet.models.weights import read_state_dict

MIN_SIZE = 32
"""Smallest height and width: below it the last map would be less than one cell."""


def check_images(images: Tensor, channels: int, name: str) -> None:
    """Refuse anything but floating-point (B, channels, H, W) with H and W >= 32.

    Raises:
        ValueError: with the shape that came and the one that is due.
        TypeError: no tensor.
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


def check_pair(rgb: Tensor, thermal: Tensor) -> None:
    """Refuse a pair whose images do not go together.

    Raises:
        ValueError: with both shapes.
    """
    check_images(rgb, 3, "rgb")
    check_images(thermal, 1, "thermal")
    if rgb.shape[0] != thermal.shape[0] or rgb.shape[2:] != thermal.shape[2:]:
        raise ValueError(f"rgb {tuple(rgb.shape)} and thermal {tuple(thermal.shape)} differ in batch or size")


_TRAINED = (
    ("recipe", "recipe"),
    ("dataset", "data set"),
    ("train_split", "trained on split"),
    ("train_pairs", "training pairs"),
    ("selected_on", "checkpoint chosen on split"),
    ("selection_protocol", "by protocol"),
    ("epoch", "epoch"),
    ("epochs", "of epochs"),
    ("seed", "seed"),
)


def model_card(description: dict[str, Any], architecture: str, modality: str) -> str:
    """Markdown with the hub's metadata on top.

    Args:
        description: what `config.json` holds.
        architecture: of the network.
        modality: which images it looks at.

    Returns:
        the text of README.md.
    """
    trained = description["training"]
    facts = [f"| {label} | {trained[key]} |" for key, label in _TRAINED if key in trained]
    if trained.get("selection_miou") is not None:
        facts.append(f"| mIoU on that split | {100 * trained['selection_miou']:.2f} |")
    size = description["input"]["size"]
    lines = [
        "---",
        "library_name: efnet",
        "pipeline_tag: image-segmentation",
        f"tags: [{architecture}, rgb-thermal, semantic-segmentation]",
        "---",
        f"# {description['name']}",
        "",
        f"RGB-thermal semantic segmentation (arXiv 2501.10958), modality `{modality}`, "
        f"efnet {description['efnet_version']}.",
        "",
        f"Input: {f'{size[0]}x{size[1]}' if size else 'any size'}. "
        f"Classes: {', '.join(description['classes']['names'])}.",
        "",
        "```python",
        "import efnet",
        'predictor = efnet.Predictor.from_pretrained("this folder or repository")',
        "prediction = predictor(rgb_image, thermal_image)",
        "```",
    ]
    if facts:
        lines += ["", "| training | |", "|---|---|", *facts]
        lines += [
            "",
            "Limits: figures hold for the named split and protocol. The weights inherit the licence of the "
            "training data.",
        ]
    return "\n".join(lines) + "\n"


CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_MAX_SIZE = 16384  # pixels of a side: more is no camera's

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """How images are brought to the network, as it was trained.

    Attributes:
        size: (H, W) to which images are resized; None: as they come.
        thermal_scale: how thermal values become [0, 1].
    """

    size: tuple[int, int] | None = None
    thermal_scale: ThermalScale = "auto"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """Read plain values as JSON holds them.

        Raises:
            ValueError: a size or a range that no network can have.
        """
        size, scale = values.get("size"), values.get("thermal_scale", "auto")
        spec = cls(
            None if size is None else (int(size[0]), int(size[1])),
            "auto" if scale == "auto" else (float(scale[0]), float(scale[1])),
        )
        if spec.size is not None and not all(MIN_SIZE <= side <= _MAX_SIZE for side in spec.size):
            raise ValueError(f"an input of {spec.size[0]}x{spec.size[1]}")
        if spec.thermal_scale != "auto":
            low, high = spec.thermal_scale
            if not -math.inf < low < high < math.inf:
                raise ValueError(f"a thermal range from {low} to {high}")
        return spec


class SegmentationModel(nn.Module, ModelHubMixin):
    """An RGB-thermal segmentation network with its classes and constants inside.

    A subclass names its architecture and configuration and implements `score_cells`. Saved as safetensors
    and JSON; nothing is unpickled.

    Args:
        config: what the network is made of.
        name: the preset it came from.
        classes: names and colours; numbered ones if None.

    Attributes:
        input: how images are brought to it; set by training.
        training_summary: what a run says of itself (data, recipe, how the checkpoint was chosen).
    """

    mean: Tensor
    std: Tensor
    architecture: ClassVar[str] = ""
    """Kind of network, by which a checkpoint says what can read it."""
    config_type: ClassVar[type[ModelConfig]]
    config: ModelConfig

    def __init__(self, config: ModelConfig, name: str = "custom", classes: ClassSet | None = None) -> None:
        super().__init__()
        if classes is not None and len(classes) != config.num_classes:
            raise ValueError(f"{len(classes)} classes for a network of {config.num_classes}")
        self.config = config
        self.name = name
        self.classes = classes or ClassSet.generic(config.num_classes)
        self.input = InputSpec()
        self.training_summary: dict[str, Any] = {}
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    @property
    def num_classes(self) -> int:
        """K."""
        return self.config.num_classes

    @property
    def modality(self) -> Modality:
        """Which images the network looks at."""
        return self.config.modality

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, H, W), None where not looked at, to logits on a coarser grid."""
        raise NotImplementedError

    def forward(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Class logits of every pixel.

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
        logits = self.score_cells(
            None if rgb is None else self._normalize(rgb),
            # One channel three times, so that a stem made for colour images serves.
            None if thermal is None else self._normalize(thermal.expand(-1, 3, -1, -1)),
        )
        # Whatever autocast made of them: differences between classes are small beside the logits.
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)

    def _look_at(self, rgb: Tensor | None, thermal: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The images that the network uses, checked."""
        if self.modality == "rgbt":
            if rgb is None or thermal is None:
                raise ValueError("this network needs both rgb and thermal")
            check_pair(rgb, thermal)
            return rgb, thermal
        image, channels = (rgb, 3) if self.modality == "rgb" else (thermal, 1)
        if image is None:
            raise ValueError(f"this network needs {self.modality}")
        check_images(image, channels, self.modality)
        return (image, None) if self.modality == "rgb" else (None, image)

    def _normalize(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def _save_pretrained(self, save_directory: Path) -> None:
        """Called by `save_pretrained` and `push_to_hub` (`ModelHubMixin`)."""
        self.write(save_directory)

    def write(self, folder: Path) -> None:
        """Write weights, JSON and model card, each whole or not at all.

        Unlike `save_pretrained` it never takes an older file away first: at every moment the folder
        holds a checkpoint.

        Raises:
            InputError: the folder cannot be written.
        """
        state = {name: value.contiguous().cpu() for name, value in self.state_dict().items()}
        with replacing(folder / WEIGHTS_FILE) as temporary:
            safetensors.torch.save_file(state, temporary, metadata={"format": "pt"})
        write_json(folder / CONFIG_FILE, self.describe())
        write_text(folder / "README.md", str(self.generate_model_card()))

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """The README.md beside the weights: what they are and how to use them (`ModelHubMixin`)."""
        return ModelCard(model_card(self.describe(), self.architecture, self.modality))

    def describe(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return {
            "efnet_version": __version__,
            "architecture": self.architecture,
            "name": self.name,
            "config": self.config.to_dict(),
            "classes": self.classes.to_dict(),
            "input": asdict(self.input),
            "training": self.training_summary,
        }

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str = "cpu",
        **unknown: Any,
    ) -> Self:
        """Read a folder, or fetch both files from the hub (`ModelHubMixin`)."""
        # The mixin hands over what the JSON and the constructor have in common; `read` reads it itself.
        unknown = {key: value for key, value in unknown.items() if key not in ("config", "name", "classes")}
        if unknown:
            raise TypeError(
                f"from_pretrained takes no {', '.join(unknown)}: a checkpoint says itself what it is; for "
                "other classes build a network and start it from the checkpoint"
            )
        folder = Path(model_id)
        if not folder.is_dir():
            folder = fetch(model_id, revision, cache_dir, force_download, local_files_only, token)
        return cls.read(folder).to(map_location)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a folder that `save_pretrained` wrote.

        Raises:
            InputError: a file is missing, damaged, or of another architecture.
        """
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
                raise ValueError("the name is no text")
            state = read_state_dict(folder / WEIGHTS_FILE)
            _require_weights_of(config, folder / WEIGHTS_FILE)
            model = cls(config, values["name"], ClassSet.from_dict(values["classes"]))
            model.input = InputSpec.from_dict(values["input"])
            model.training_summary = dict(values["training"])
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{folder / CONFIG_FILE}: not a checkpoint's configuration ({error}); fetch it again"
            ) from error
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(
                f"{folder / WEIGHTS_FILE}: does not fit {CONFIG_FILE} beside it; they are of different "
                f"checkpoints ({str(error).splitlines()[-1].strip()})"
            ) from error
        return model.eval()


def _require_weights_of(config: ModelConfig, path: Path) -> None:
    """Refuse a configuration of more weights than the file has bytes, before any memory is taken for them."""
    least = config.least_parameters
    if least > path.stat().st_size:
        raise InputError(
            f"{path}: does not fit {CONFIG_FILE} beside it, which speaks of {least} weights or more; they "
            "are of different checkpoints"
        )


def fetch(
    name: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Get weights and JSON of a hub repository; returns the folder they lie in.

    Raises:
        InputError: there is no such repository, or it cannot be reached.
    """
    try:
        for filename in (WEIGHTS_FILE, CONFIG_FILE):
            fetched = huggingface_hub.hf_hub_download(
                name,
                filename,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"{name}: neither a checkpoint folder here nor one to be had from the hub "
            f"({type(error).__name__}); check the path or the name"
        ) from error
    return Path(fetched).parent


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON of a checkpoint folder.

    Raises:
        InputError: missing or not JSON.
    """
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
