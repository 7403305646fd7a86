"""CMX (Zhang 2023, arXiv 2203.04838): two MiT encoders that rectify each other, fused at every stage.

The modules of CMX (arXiv 2203.04838): rectification (section III-B) and fusion (section III-C).

Widths of hidden layers are not in the text: those here give the parameter count and the multiply-adds of
the published network for B0 and B2, which fixes their sum, not each of them.
"""

from __future__ import annotations

import math
import os
from typing import ClassVar

import torch
from torch import Tensor, nn

from efnet.core.classes import ClassSet
from efnet.models.baselines.base import Rival, RivalConfig
from efnet.models.baselines.mit import HEADS, MIT, MiT, MiTConfig, load_mit
from efnet.models.baselines.segformer import SegFormerDecoder
from efnet.models.layers import Linear, init_weights
from efnet.models.tcformer_weights import LoadReport

LAMBDA = 0.5
"""Weight of either rectification (section III-B)."""


class FeatureRectification(nn.Module):
    """CM-FRM: each modality's map plus what the other one's says, weighted by channel and by cell.

    Our reading where the text is silent: 4C channels in the MLP's hidden layer, C between the convolutions.

    Args:
        width: channels C of a map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = nn.Sequential(
            nn.Linear(4 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 2 * width)
        )
        self.cells = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.ReLU(), nn.Conv2d(width, 2, 1))

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps (B, C, h, w), rectified."""
        both = torch.cat([rgb, thermal], dim=1)
        statistics = torch.cat([both.mean((2, 3)), both.amax((2, 3))], dim=1)
        of_channels = self.channels(statistics).sigmoid()[..., None, None].chunk(2, dim=1)
        of_cells = self.cells(both).sigmoid().chunk(2, dim=1)
        # Both weights of a modality apply to its own map, which is then added to the other one's.
        from_rgb, from_thermal = (
            LAMBDA * (by_channel + by_cell) * features
            for features, by_channel, by_cell in zip((rgb, thermal), of_channels, of_cells, strict=True)
        )
        return rgb + from_thermal, thermal + from_rgb


class CrossAttention(nn.Module):
    """The first stage of FFM: either modality reads a global context of the other one.

    A map is embedded into a residual and an interactive vector per cell. Interactive vectors make keys and
    values, and these the context G = K^T V, a square matrix per head; the other modality's interactive
    vectors times softmax(G) are what it reads. Both vectors are then joined, embedded and added to the map.

    Open in the paper: the axis of the softmax (here the rows, over which the product sums), whether G is
    scaled (here by 1/sqrt(C/heads)), the number of heads (here the encoder's), activations (here none).

    Args:
        width: channels C.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.ModuleList(Linear(width, 2 * width) for _ in range(2))
        self.kv = nn.ModuleList(Linear(width, 2 * width) for _ in range(2))
        self.proj = nn.ModuleList(Linear(2 * width, width) for _ in range(2))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, N, C); returns both (B, N, C)."""
        features = (rgb, thermal)
        residual, interactive = zip(
            *(embed(part).chunk(2, dim=-1) for embed, part in zip(self.embed, features, strict=True)),
            strict=True,
        )
        contexts = [self._context(kv(part)) for kv, part in zip(self.kv, interactive, strict=True)]
        outputs = []
        for index in range(2):
            read = self._split_heads(interactive[index]) @ contexts[1 - index]
            joined = torch.cat([residual[index], read.transpose(1, 2).flatten(2)], dim=-1)
            outputs.append(self.norm[index](features[index] + self.proj[index](joined)))
        return outputs[0], outputs[1]

    def _context(self, keys_values: Tensor) -> Tensor:
        """(B, N, 2C) to softmax(K^T V), (B, heads, C/heads, C/heads)."""
        keys, values = (self._split_heads(part) for part in keys_values.chunk(2, dim=-1))
        return (keys.transpose(-2, -1) @ values / math.sqrt(keys.shape[-1])).softmax(dim=-2)

    def _split_heads(self, features: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, C/heads)."""
        return features.view(*features.shape[:2], self.heads, -1).transpose(1, 2)


class ChannelMixing(nn.Module):
    """The second stage of FFM: two maps to one, with a look at surrounding cells.

    1x1 convolutions and, between them, a depthwise 3x3 one, beside a 1x1 convolution as skip. Where the
    normalisations and the ReLU stand is not in the text.

    Args:
        width: channels C of a map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(2 * width, width, 1, bias=False)
        self.mix = nn.Sequential(
            nn.Conv2d(2 * width, width, 1),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, both: Tensor) -> Tensor:
        """(B, 2C, h, w) to (B, C, h, w)."""
        mixed: Tensor = self.norm(self.skip(both) + self.mix(both))
        return mixed


class FeatureFusion(nn.Module):
    """FFM: exchange between both modalities' maps, then one map of both.

    Args:
        width: channels C of a map.
        heads: of the exchange.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.exchange = CrossAttention(width, heads)
        self.mixing = ChannelMixing(width)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Both (B, C, h, w); returns (B, C, h, w)."""
        size = rgb.shape[2:]
        rgb, thermal = self.exchange(*(maps.flatten(2).transpose(1, 2) for maps in (rgb, thermal)))
        both = torch.cat([rgb, thermal], dim=-1).view(rgb.shape[0], *size, -1).permute(0, 3, 1, 2)
        fused: Tensor = self.mixing(both)
        return fused


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
