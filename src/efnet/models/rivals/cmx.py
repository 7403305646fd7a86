"""CMX (Zhang 2023, arXiv 2203.04838): two MiT encoders that rectify each other, fused at every stage."""

from __future__ import annotations

import os
from typing import ClassVar

from torch import Tensor, nn

from efnet.classes import ClassSet
from efnet.models.layers import init_weights
from efnet.models.official import LoadReport
from efnet.models.rivals.base import Rival, RivalConfig
from efnet.models.rivals.cmx_fusion import FeatureFusion, FeatureRectification
from efnet.models.rivals.mit import HEADS, MIT, MiT, MiTConfig
from efnet.models.rivals.mit_weights import load_mit
from efnet.models.rivals.segformer_decoder import SegFormerDecoder


class CMX(Rival):
    """Two encoders, four rectifications and fusions, SegFormer's decoder (section III-A).

    ::

        rgb ----> stage 1 -+              +-> stage 2 -+              +-> ...
                           +- CM-FRM -+---+            +- CM-FRM -+---+
        thermal > stage 1 -+          |   +-> stage 2 -+          |   +-> ...
                                     FFM                         FFM            -> decoder

    The rectified maps go to the next stages and to the fusion. The paper names the decoder, not its
    width: the one that meets the parameter count. A subclass names encoder and width.
    """

    encoder_config: ClassVar[MiTConfig]
    decoder_width: ClassVar[int]

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name, classes)
        encoder, both = self.encoder_config, config.modality == "rgbt"
        self.rgb = MiT(encoder) if config.modality != "thermal" else None
        self.thermal = MiT(encoder) if config.modality != "rgb" else None
        self.rectify = nn.ModuleList(FeatureRectification(width) for width in encoder.widths if both)
        self.fuse = nn.ModuleList(
            FeatureFusion(width, heads) for width, heads in zip(encoder.widths, HEADS, strict=True) if both
        )
        self.decoder = SegFormerDecoder(encoder.widths, config.num_classes, self.decoder_width)
        self.apply(init_weights)

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        if rgb is not None and thermal is not None:
            maps = self._fuse_stages(rgb, thermal)
        else:
            encoder, image = (self.rgb, rgb) if thermal is None else (self.thermal, thermal)
            assert encoder is not None
            maps = encoder(image)
        logits: Tensor = self.decoder(maps)
        return logits

    def _fuse_stages(self, rgb: Tensor, thermal: Tensor) -> list[Tensor]:
        """Normalised images to the fused maps of four stages, (B, C, h, w) each."""
        assert self.rgb is not None
        assert self.thermal is not None
        fused = []
        for rgb_stage, thermal_stage, rectify, fuse in zip(
            self.rgb.stages, self.thermal.stages, self.rectify, self.fuse, strict=True
        ):
            rgb, thermal = rectify(rgb_stage(rgb), thermal_stage(thermal))
            fused.append(fuse(rgb, thermal))
        return fused

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start both encoders from published weights: `mit_b2.pth`, or `nvidia/mit-b2` of the hub.

        Raises:
            InputError: the file cannot be read, is no MiT, or is one of another size.
        """
        return load_mit(self, path)


class CMXB0(CMX):
    """CMX with MiT-B0 and a decoder of width 256."""

    architecture = "cmx_b0"
    encoder_config = MIT["b0"]
    decoder_width = 256


class CMXB2(CMX):
    """CMX with MiT-B2 and a decoder of width 512."""

    architecture = "cmx_b2"
    encoder_config = MIT["b2"]
    decoder_width = 512
