"""CMX (Zhang 2023, arXiv 2203.04838) as in its authors' code, MIT: two encoders that rectify each other.

Colours arrive as blue, green, red and are normalised with the constants of red, green, blue: the authors'
reader turns them round without meaning to, in training and in evaluation, so their weights expect it.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from efnet.models.baselines.base import Baseline, conv
from efnet.models.baselines.segformer import (
    HEADS,
    MIT,
    MiT,
    MiTConfig,
    SegFormerDecoder,
    decoder_renames,
    load_mit,
    official_mit,
)
from efnet.models.layers import Linear, init_weights

LAMBDA = 0.5  # weight of either rectification (section III-B)


class FeatureRectification(nn.Module):
    """CM-FRM (section III-B): each modality's map plus the other one's, weighted by channel and by cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = nn.Linear(4 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 2 * width)
        self.channel_weights = nn.ModuleDict({"mlp": nn.Sequential(*layers)})
        convolutions = nn.Conv2d(2 * width, width, 1), nn.ReLU(), nn.Conv2d(width, 2, 1)
        self.spatial_weights = nn.ModuleDict({"mlp": nn.Sequential(*convolutions)})

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps (B, C, h, w), rectified."""
        both = torch.cat([rgb, thermal], dim=1)
        statistics = torch.cat([both.mean((2, 3)), both.amax((2, 3))], dim=1)
        of_channels = self.channel_weights["mlp"](statistics).sigmoid()[..., None, None].chunk(2, dim=1)
        of_cells = self.spatial_weights["mlp"](both).sigmoid().chunk(2, dim=1)
        # Both weights of a modality apply to its own map, which is then added to the other one's.
        from_rgb, from_thermal = (
            LAMBDA * (by_channel + by_cell) * features
            for features, by_channel, by_cell in zip((rgb, thermal), of_channels, of_cells, strict=True)
        )
        return rgb + from_thermal, thermal + from_rgb


class CrossAttention(nn.Module):
    """The first stage of FFM: each modality reads a global context of the other one.

    A map is embedded, through a ReLU, into a residual and an interactive vector per cell. Interactive vectors
    make keys and values, and these the context G = K^T V / sqrt(C / heads), a square matrix per head; the
    other modality's interactive vectors times softmax(G), over the key's channel, are what it reads. Both
    vectors are then joined, embedded and added to the map.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.cross_attn = nn.Module()
        for index in (1, 2):
            self.add_module(f"channel_proj{index}", Linear(width, 2 * width))
            self.cross_attn.add_module(f"kv{index}", Linear(width, 2 * width, bias=False))
            self.add_module(f"end_proj{index}", Linear(2 * width, width))
            self.add_module(f"norm{index}", nn.LayerNorm(width))

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, N, C); returns both (B, N, C)."""
        parts, contexts, outputs = [], [], []
        for index, features in enumerate((rgb, thermal), 1):
            embedded = self.get_submodule(f"channel_proj{index}")(features).relu()
            residual, interactive = embedded.chunk(2, dim=-1)
            parts.append((features, residual, self._split_heads(interactive)))
            both = self.cross_attn.get_submodule(f"kv{index}")(interactive)
            keys, values = (self._split_heads(half) for half in both.chunk(2, dim=-1))
            contexts.append((keys.transpose(-2, -1) @ values / math.sqrt(keys.shape[-1])).softmax(dim=-2))
        for index, (features, residual, interactive) in enumerate(parts, 1):
            read = (interactive @ contexts[2 - index]).transpose(1, 2).flatten(2)
            joined = self.get_submodule(f"end_proj{index}")(torch.cat([residual, read], dim=-1))
            outputs.append(self.get_submodule(f"norm{index}")(features + joined))
        return outputs[0], outputs[1]

    def _split_heads(self, features: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, C/heads)."""
        return features.view(*features.shape[:2], self.heads, -1).transpose(1, 2)


class ChannelEmbedding(nn.Module):
    """The second stage of FFM: two maps to one, with the context of surrounding cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Conv2d(2 * width, width, 1, bias=False)
        self.channel_embed = nn.Sequential(
            nn.Conv2d(2 * width, width, 1),
            conv(width, width, groups=width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, both: Tensor) -> Tensor:
        """(B, 2C, h, w) to (B, C, h, w)."""
        mixed: Tensor = self.norm(self.residual(both) + self.channel_embed(both))
        return mixed


class FeatureFusion(nn.Module):
    """FFM (section III-C): exchange between both modalities' maps, then one map of both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross = CrossAttention(width, heads)
        self.channel_emb = ChannelEmbedding(width)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Both (B, C, h, w); returns (B, C, h, w)."""
        size = rgb.shape[2:]
        rgb, thermal = self.cross(*(maps.flatten(2).transpose(1, 2) for maps in (rgb, thermal)))
        both = torch.cat([rgb, thermal], dim=-1).view(rgb.shape[0], *size, -1).permute(0, 3, 1, 2)
        fused: Tensor = self.channel_emb(both)
        return fused


class RectifiedPair(Baseline):
    """Four stages of two encoders, rectified and fused; then SegFormer's decoder.

    ::

        rgb ----> stage 1 -+              +-> stage 2 -+              +-> ...
                           +- CM-FRM -+---+            +- CM-FRM -+---+
        thermal > stage 1 -+          |   +-> stage 2 -+          |   +-> ...
                                     FFM                         FFM            -> decoder

    The rectified maps go to the next stages and to the fusion. A subclass makes the second encoder.
    """

    encoder_config: ClassVar[MiTConfig]
    decoder_width: ClassVar[int] = 512
    fuse_bias: ClassVar[bool]  # whether the decoder's fusing layer has one
    load_encoder = load_mit

    @classmethod
    def official_name(cls, name: str) -> str | None:
        """Return our name of a tensor in the authors' file; None if the output does not depend on it."""
        ours = official_mit(name)
        return super().official_name(name) if ours is None else f"rgb.{ours}"

    def _build(self) -> None:
        widths = self.encoder_config.widths
        self.rgb = MiT(self.encoder_config)
        self.thermal = self._second_encoder()
        self.FRMs = nn.ModuleList(FeatureRectification(width) for width in widths)
        self.FFMs = nn.ModuleList(
            FeatureFusion(width, heads) for width, heads in zip(widths, HEADS, strict=True)
        )
        self.apply(init_weights)
        self.decoder = SegFormerDecoder(widths, self.config.num_classes, self.decoder_width, self.fuse_bias)

    def _second_encoder(self) -> nn.Module:
        """Make an encoder with `stages`."""
        raise NotImplementedError

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        second = self.thermal.get_submodule("stages")
        assert isinstance(second, nn.ModuleList)
        maps = []
        for *stages, rectify, fuse in zip(self.rgb.stages, second, self.FRMs, self.FFMs, strict=True):
            rgb, thermal = rectify(
                *(stage(image) for stage, image in zip(stages, (rgb, thermal), strict=True))
            )
            maps.append(fuse(rgb, thermal))
        logits: Tensor = self.decoder(maps)
        return logits


class CMX(RectifiedPair):
    """Both encoders are MiT. A subclass names their size."""

    blue_first = True
    fuse_bias = True
    renames = ((r"backbone\.", ""), *decoder_renames("0", "1"))

    @classmethod
    def official_name(cls, name: str) -> str | None:
        """Return our name of a tensor in the authors' file; None if the output does not depend on it."""
        ours = official_mit(name.replace("backbone.extra_", "backbone.", 1)) if "extra_" in name else None
        return super().official_name(name) if ours is None else f"thermal.{ours}"

    def _second_encoder(self) -> nn.Module:
        encoder = MiT(self.encoder_config)
        # A slip of the authors: in stage 2 the blocks' chances are not on the line, but equal in each branch.
        for mit, index in ((self.rgb, 0), (encoder, 1)):
            blocks = mit.stages[1].get_submodule("blocks")
            chance = [block.get_submodule("drop_path").chance for block in blocks.children()][index]
            for block in blocks.children():
                block.get_submodule("drop_path").chance = chance
        return encoder


class CMXB0(CMX, architecture="cmx_b0", encoder_config=MIT["b0"], decoder_width=256):
    """CMX with MiT-B0; the authors publish no configuration of this size, so the decoder's width is ours."""


class CMXB2(CMX, architecture="cmx_b2", encoder_config=MIT["b2"]):
    """CMX with MiT-B2."""


class CMXB4(CMX, architecture="cmx_b4", encoder_config=MIT["b4"]):
    """CMX with MiT-B4."""
