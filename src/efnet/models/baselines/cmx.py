"""CMX (Zhang 2023, arXiv 2203.04838): two MiT encoders that rectify each other, fused at every stage.

Widths of hidden layers are not in the text: those here give the parameter count and the multiply-adds of
the published network for B0 and B2, which fixes their sum, not each of them.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from efnet.models.baselines.base import Baseline
from efnet.models.baselines.segformer import HEADS, MIT, MiT, MiTConfig, SegFormerDecoder, load_mit
from efnet.models.layers import Linear, init_weights

LAMBDA = 0.5  # weight of either rectification (section III-B)


class FeatureRectification(nn.Module):
    """CM-FRM (section III-B): each modality's map plus the other one's, weighted by channel and by cell.

    Our reading where the text is silent: 4C channels in the MLP's hidden layer, C between the convolutions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.channels = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * width))
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
    """The first stage of FFM: each modality reads a global context of the other one.

    A map is embedded into a residual and an interactive vector per cell. Interactive vectors make keys and
    values, and these the context G = K^T V, a square matrix per head; the other modality's interactive
    vectors times softmax(G) are what it reads. Both vectors are then joined, embedded and added to the map.

    Open in the paper, see `docs/rivals.md`: axis of the softmax, scale of G, number of heads, activations.
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
        parts = [embed(part).chunk(2, dim=-1) for embed, part in zip(self.embed, features, strict=True)]
        contexts, outputs = [], []
        for kv, (_, interactive) in zip(self.kv, parts, strict=True):
            keys, values = (self._split_heads(half) for half in kv(interactive).chunk(2, dim=-1))
            contexts.append((keys.transpose(-2, -1) @ values / math.sqrt(keys.shape[-1])).softmax(dim=-2))
        for index, (residual, interactive) in enumerate(parts):
            read = self._split_heads(interactive) @ contexts[1 - index]
            joined = torch.cat([residual, read.transpose(1, 2).flatten(2)], dim=-1)
            outputs.append(self.norm[index](features[index] + self.proj[index](joined)))
        return outputs[0], outputs[1]

    def _split_heads(self, features: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, C/heads)."""
        return features.view(*features.shape[:2], self.heads, -1).transpose(1, 2)


class ChannelMixing(nn.Module):
    """The second stage of FFM: two maps to one, with the context of surrounding cells.

    Two 1x1 convolutions with a depthwise 3x3 one between them, beside a 1x1 one as skip; norms, ReLU: ours.
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
    """FFM (section III-C): exchange between both modalities' maps, then one map of both."""

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


class CMX(Baseline):
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
    load_encoder = load_mit

    def _build(self) -> None:
        encoder, both = self.encoder_config, self.config.modality == "rgbt"
        self.rgb = MiT(encoder) if self.config.modality != "thermal" else None
        self.thermal = MiT(encoder) if self.config.modality != "rgb" else None
        self.rectify = nn.ModuleList(FeatureRectification(width) for width in encoder.widths if both)
        self.fuse = nn.ModuleList(
            FeatureFusion(width, heads) for width, heads in zip(encoder.widths, HEADS, strict=True) if both
        )
        self.decoder = SegFormerDecoder(encoder.widths, self.config.num_classes, self.decoder_width)
        self.apply(init_weights)

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        if rgb is not None and thermal is not None:
            assert self.rgb is not None
            assert self.thermal is not None
            maps = []
            stages = zip(self.rgb.stages, self.thermal.stages, self.rectify, self.fuse, strict=True)
            for rgb_stage, thermal_stage, rectify, fuse in stages:
                rgb, thermal = rectify(rgb_stage(rgb), thermal_stage(thermal))
                maps.append(fuse(rgb, thermal))
        else:
            encoder, image = (self.rgb, rgb) if thermal is None else (self.thermal, thermal)
            assert encoder is not None
            maps = encoder(image)
        logits: Tensor = self.decoder(maps)
        return logits


class CMXB0(CMX, architecture="cmx_b0", encoder_config=MIT["b0"], decoder_width=256):
    """CMX with MiT-B0 and a decoder of width 256."""


class CMXB2(CMX, architecture="cmx_b2", encoder_config=MIT["b2"], decoder_width=512):
    """CMX with MiT-B2 and a decoder of width 512."""
