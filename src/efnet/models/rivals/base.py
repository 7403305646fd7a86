"""What the networks of other papers share."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Self, get_args

from efnet.classes import ClassSet
from efnet.errors import InputError
from efnet.models.base import SegmentationModel
from efnet.models.config import Modality
from efnet.models.official import LoadReport


@dataclass(frozen=True)
class RivalConfig:
    """A network as its paper has it, for K classes."""

    num_classes: int = 9
    modality: Modality = "rgbt"
    """Both images, or one alone: then the other one's branch does not exist and nothing is fused."""

    def __post_init__(self) -> None:
        if type(self.num_classes) is not int or self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        if self.modality not in get_args(Modality):
            raise ValueError(
                f"modality must be one of {', '.join(get_args(Modality))}, got {self.modality!r}"
            )

    @property
    def least_parameters(self) -> int:
        """A filter for each class."""
        return self.num_classes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: an unknown key or a value out of its range.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"not a configuration: {error}") from error


class Rival(SegmentationModel):
    """A network of another paper. A subclass names its `architecture` and implements `score_cells`.

    Args:
        config: classes and modality.
        name: as of `create_model`.
        classes: names and colours of the K classes; numbered ones if None.
    """

    config_type = RivalConfig
    config: RivalConfig

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name or self.architecture, classes)

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the encoder, or each of them, from a file of published weights.

        Raises:
            InputError: the file cannot be read or does not fit, or no weights are published for this network.
        """
        raise InputError(
            f"{path}: no pretrained encoder is known for {self.name}; give a checkpoint folder of ours"
        )
