"""EFNet (arXiv 2501.10958): early fusion, token clustering, a decoder without layers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.base import CONFIG_FILE, SegmentationModel, read_config
from efnet.models.config import EFNetConfig, NetworkOptions
from efnet.models.dbtc import DBTC, Readings
from efnet.models.decoders import MFAD, make_decoder
from efnet.models.fusion import make_fusion
from efnet.models.layers import Tokens, init_weights
from efnet.models.position import PixelCoordinateEncoding, PositionEmbedding
from efnet.models.stages import GridStage, TokenStage
from efnet.models.tcformer import load_tcformer
from efnet.models.weights import LoadReport

_SEPARABLE = "separable DeepLabV3+"
"""Recorded in checkpoints of `decoder` deeplab: those of earlier versions have another head."""


def _is_dense(name: str) -> bool:
    """Whether only the dense DeepLab head has a parameter."""
    return name.startswith("decoder.project.")


class DownPath(nn.Module):
    """The features of the stage before, halved and added to a stage's tokens (section II-A)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, before: Tokens, tokens: Tokens) -> Tokens:
        """Tokens (B, N, out_channels) plus `before` (B, N', in_channels), halved, at their cells."""
        halved = self.norm(self.conv(before.to_map()).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return tokens.with_features(tokens.features + tokens.from_map(halved))


class EFNet(SegmentationModel):
    """Two stages 1, one fusion, three clustered stages, one decoder.

    ::

        rgb ----> stage 1 -+
                           +- fusion -> F1 -> DBTC, stage 2 -> X2 (+ down F1) -> DBTC, stage 3 -> X3
        thermal > stage 1 -+            X3 (+ down X2) -> DBTC, stage 4 -> X4;   F1, X2, X3, X4 -> decoder

    Args:
        config: preset or ablation.
        name: the preset's name.
        classes: names and colours of the K classes; numbered ones if None.
    """

    architecture = "efnet"
    options = (*NetworkOptions.names(), "drop_path")
    config_type = EFNetConfig
    config: EFNetConfig

    def _build(self) -> None:
        config = self.config
        backbone = config.backbone
        widths = backbone.widths
        self.rgb = GridStage(backbone) if config.modality != "thermal" else None
        self.thermal = GridStage(backbone) if config.modality != "rgb" else None
        self.fusion = make_fusion(config.fusion, widths[0]) if config.modality == "rgbt" else None
        readings: Readings = {
            "distance": config.distance,
            "density": config.density,
            "unit": config.unit,
        }
        self.token_stages = nn.ModuleList(
            TokenStage(backbone, stage, config.position, config.tau[stage - 1], config.merging, readings)
            for stage in (1, 2, 3)
        )
        self.down = nn.ModuleList(DownPath(*widths[stage : stage + 2]) for stage in (0, 1))
        self.decoder = make_decoder(config.decoder, widths, config.num_classes, config.enlargement)
        # Layers as TCFormer's, then those that have an initialisation of their own.
        self.apply(init_weights)
        for module in self.modules():
            if isinstance(module, MFAD | PixelCoordinateEncoding | PositionEmbedding):
                module.reset_parameters()
            elif isinstance(module, DBTC):
                module.reset_position_score()

    def describe(self) -> dict[str, Any]:
        """Return the contents of `config.json`."""
        values = super().describe()
        return values | {"head": _SEPARABLE} if self.config.decoder == "deeplab" else values

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a checkpoint; raises InputError also for the dense DeepLab head of earlier versions."""
        values = read_config(Path(folder))
        config = values.get("config")
        is_deeplab = isinstance(config, dict) and config.get("decoder") == "deeplab"
        if is_deeplab and values.get("head") != _SEPARABLE:
            raise InputError(
                f"{Path(folder) / CONFIG_FILE}: a checkpoint with the dense DeepLab head of earlier "
                "versions; `decoder` deeplab is now the separable head of DeepLabV3+: train it again, or use "
                f"the version of efnet that wrote it ({values.get('efnet_version')})"
            )
        return super().read(folder)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Load as every module does; raises InputError for the dense DeepLab head of earlier versions."""
        if self.config.decoder == "deeplab" and any(map(_is_dense, state_dict)):
            raise InputError(
                "has the dense DeepLab head of earlier versions; `decoder` deeplab is now the separable head "
                "of DeepLabV3+: train anew, or use the version of efnet that wrote it"
            )
        return super().load_state_dict(state_dict, *args, **options)

    @property
    def checkpoint_activations(self) -> bool:
        """Whether the backward pass recomputes the blocks' activations: less memory, more time."""
        return any(stage.checkpoint_activations for stage in self._all_stages())

    @checkpoint_activations.setter
    def checkpoint_activations(self, again: bool) -> None:
        for stage in self._all_stages():
            stage.checkpoint_activations = again

    def _all_stages(self) -> list[GridStage | TokenStage]:
        return [stage for stage in self.modules() if isinstance(stage, GridStage | TokenStage)]

    def stages(self, rgb: Tensor | None, thermal: Tensor | None) -> list[Tokens]:
        """Normalised images (B, 3, H, W) to the tokens F1, X2, X3, X4."""
        stages = [self._first_stage(rgb, thermal)]
        for index, stage in enumerate(self.token_stages):
            tokens = stages[-1] if index == 0 else self.down[index - 1](stages[-2], stages[-1])
            stages.append(stage(tokens))
        return stages

    def _first_stage(self, rgb: Tensor | None, thermal: Tensor | None) -> Tokens:
        maps: list[Tokens] = [
            stage(images) for stage, images in ((self.rgb, rgb), (self.thermal, thermal)) if stage is not None
        ]
        if self.fusion is None:
            return maps[0]
        size = maps[0].map_size
        fused = self.fusion(*(tokens.features.view(-1, *size, tokens.features.shape[-1]) for tokens in maps))
        return maps[0].with_features(fused.flatten(1, 2))

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, h, w) on the initial grid."""
        logits: Tensor = self.decoder(self.stages(rgb, thermal))
        return logits

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start from an official TCFormer checkpoint; stage 1 serves both modalities.

        Raises:
            InputError: the file cannot be read, is not a TCFormer, or is one of another size.
        """
        return load_tcformer(self, path)
