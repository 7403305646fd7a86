"""SegFormer (Xie 2021, arXiv 2105.15203), and with a fourth channel: early fusion that costs nothing.

With modality `rgb` or `thermal` the network is the authors', with three channels. With both the thermal image
is a fourth channel of the stem, which adds 49 weights per stem filter.

The blocks of MiT, its encoder (section 3.1, table 6), are those of this package on a regular grid: attention
whose keys come from patches of the map (equations 1 and 2) and Mix-FFN (equation 3). Normalisations, their
epsilons, stochastic depth and the order of concatenation are those of the authors' code.

Two sets of names exist for published weights: the authors' (`mit_b2.pth`, also inside a whole SegFormer) and
the hub's (`nvidia/mit-b2`), which keep keys and values apart. Only this module knows them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.baselines.base import Baseline, conv_norm
from efnet.models.layers import Block, Linear, Tokens, init_weights, layer_norm
from efnet.models.weights import LoadReport, describe_misfit, fill_encoders, read_state_dict, translate
from efnet.ops.tokens import Size, TokenGrid

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
MLP_RATIO = 4
DROP_PATH = 0.1  # chance to skip the last block's residuals in training; rises linearly from 0 at the first


@dataclass(frozen=True)
class MiTConfig:
    """One row of table 6: a value per stage."""

    depths: tuple[int, int, int, int]  # transformer blocks
    widths: tuple[int, int, int, int]  # channels


MIT: dict[str, MiTConfig] = {
    "b0": MiTConfig((2, 2, 2, 2), (32, 64, 160, 256)),
    "b2": MiTConfig((3, 4, 6, 3), (64, 128, 320, 512)),
    "b3": MiTConfig((3, 4, 18, 3), (64, 128, 320, 512)),
    "b4": MiTConfig((3, 8, 27, 3), (64, 128, 320, 512)),
}


class PatchMerging(nn.Module):
    """Overlapped patch merging: a convolution with a kernel wider than its stride, then LayerNorm."""

    def __init__(self, in_channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: Tensor) -> Tokens:
        """(B, in_channels, H, W) to one token per patch, on a grid of their own."""
        patches = self.proj(maps)
        size: Size = (patches.shape[2], patches.shape[3])
        features = self.norm(patches.flatten(2).transpose(1, 2))
        return Tokens(features, TokenGrid.whole(patches.shape[0], size, patches.device), size)


class MiTStage(nn.Module):
    """A quarter of the cells (in stage 0 a sixteenth), then transformer blocks."""

    def __init__(self, config: MiTConfig, stage: int, in_channels: int = 3) -> None:
        super().__init__()
        width = config.widths[stage]
        before, last = sum(config.depths[:stage]), sum(config.depths) - 1
        drop_paths = (DROP_PATH * (before + index) / last for index in range(config.depths[stage]))
        shape = (in_channels, width, 7, 4) if stage == 0 else (config.widths[stage - 1], width, 3, 2)
        self.patch_embed = PatchMerging(*shape)
        self.blocks = nn.ModuleList(
            Block(width, HEADS[stage], MLP_RATIO, REDUCTIONS[stage], drop_path=chance, skip=False)
            for chance in drop_paths
        )
        self.norm = layer_norm(width)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', h, w)."""
        tokens: Tokens = self.patch_embed(maps)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.with_features(self.norm(tokens.features)).to_map()


class MiT(nn.Module):
    """The encoder: four stages, at strides 4, 8, 16 and 32."""

    def __init__(self, config: MiTConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList(MiTStage(config, stage, in_channels) for stage in range(4))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, in_channels, H, W) to the maps of four stages, (B, C, h, w) each."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class SegFormerDecoder(nn.Module):
    """The all-MLP decoder (equation 4): a linear layer per stage, enlarged, concatenated, fused, classified.

    In the authors' code batch normalisation, ReLU and dropout of channels follow the fusing layer, which has
    no bias; with `bias` it has one, as in networks that took the decoder over.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, width: int, bias: bool = False) -> None:
        super().__init__()
        self.linears = nn.ModuleList(Linear(channels, width) for channels in in_channels)
        self.fuse = conv_norm(len(in_channels) * width, width, 1, nn.ReLU(), ("0", "1"), bias=bias)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The stages' maps (B, C_i, h_i, w_i), the finest first, to logits (B, K, h_1, w_1)."""
        # Concatenated coarsest first, unlike in the paper's text: the weights of the fusing layer say so.
        size = maps[0].shape[2:]
        upsampled = []
        for linear, features in zip(self.linears, maps, strict=True):
            projected = linear(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            upsampled.append(F.interpolate(projected, size, mode="bilinear", align_corners=False))
        logits: Tensor = self.classify(self.dropout(self.fuse(torch.cat(upsampled[::-1], dim=1))))
        return logits


_AUTHORS = (
    (r"patch_embed(\d)\.(.+)", "patch_embed.{}"),
    (r"block(\d)\.(\d+\.mlp\.dwconv)\.dwconv\.(.+)", "blocks.{}.{}"),
    (r"block(\d)\.(.+)", "blocks.{}"),
    (r"norm(\d)\.(.+)", "norm.{}"),
)
_HUB = (
    (r"patch_embeddings\.(\d)\.proj\.(.+)", "patch_embed.proj.{}"),
    (r"patch_embeddings\.(\d)\.layer_norm\.(.+)", "patch_embed.norm.{}"),
    (r"block\.(\d)\.(\d+)\.layer_norm_([12]\..+)", "blocks.{}.norm{}"),
    (r"block\.(\d)\.(\d+)\.attention\.self\.query\.(.+)", "blocks.{}.attn.q.{}"),
    (r"block\.(\d)\.(\d+)\.attention\.self\.(key\..+|value\..+)", "blocks.{}.attn.{}"),
    (r"block\.(\d)\.(\d+)\.attention\.self\.sr\.(.+)", "blocks.{}.attn.sr.{}"),
    (r"block\.(\d)\.(\d+)\.attention\.self\.layer_norm\.(.+)", "blocks.{}.attn.norm.{}"),
    (r"block\.(\d)\.(\d+)\.attention\.output\.dense\.(.+)", "blocks.{}.attn.proj.{}"),
    (r"block\.(\d)\.(\d+)\.mlp\.dense([12]\..+)", "blocks.{}.mlp.fc{}"),
    (r"block\.(\d)\.(\d+\.mlp\.dwconv)\.dwconv\.(.+)", "blocks.{}.{}"),
    (r"layer_norm\.(\d)\.(.+)", "norm.{}"),
)

_RULES = tuple(
    (re.compile(head + pattern), f"stages.{{}}.{ours}", first)
    for head, rules, first in ((r"(?:backbone\.)?", _AUTHORS, 1), (r"(?:segformer\.)?encoder\.", _HUB, 0))
    for pattern, ours in rules
)


def official_mit(name: str) -> str | None:
    """Return our name within a MiT of an authors' one, with or without `backbone.`; None for another part."""
    return translate(name, _RULES)


def decoder_renames(convolution: str, norm: str, theirs: str = "decode_head") -> tuple[tuple[str, str], ...]:
    """Patterns of the decoder's names; the fusing layer's differ among the networks that have it."""
    return (
        *((rf"{theirs}\.linear_c{stage}\.proj\.", f"decoder.linears.{stage - 1}.") for stage in range(1, 5)),
        (rf"{theirs}\.linear_fuse\.{convolution}\.", "decoder.fuse.0."),
        (rf"{theirs}\.linear_fuse\.{norm}\.", "decoder.fuse.1."),
        (rf"{theirs}\.linear_pred\.", "decoder.classify."),
    )


def load_mit(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Fill every MiT of a network from one file, authors' or hub's, bare or inside a whole SegFormer.

    A stem with a fourth channel gets the mean of the three colours' filters there.

    Raises:
        InputError: the file cannot be read, is not a MiT, or is one of another size.
    """
    state = read_state_dict(path)
    published = {name: ours for name in state if (ours := translate(name, _RULES)) is not None}
    if "stages.1.patch_embed.proj.weight" not in published.values():
        raise InputError(f"{path}: not a MiT checkpoint (no patch_embed2.proj.weight in it)")
    values = _join_keys_values({ours: state[name] for name, ours in published.items()})
    left_over = [name for name in state if name not in published]
    return fill_encoders(network, path, MiT, lambda encoder: _fit(path, encoder, values), left_over)


def _join_keys_values(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """One layer for keys and values, as our blocks have it."""
    joined = {}
    for name, value in values.items():
        other = values.get(name.replace(".attn.key.", ".attn.value."))
        if ".attn.key." in name and other is not None:
            joined[name.replace(".attn.key.", ".attn.kv.")] = torch.cat([value, other])
        elif ".attn.value." not in name:
            joined[name] = value
    return joined


def _fit(path: str | os.PathLike[str], encoder: MiT, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the file's entries for an encoder; raise InputError unless all fit."""
    own, stem = encoder.state_dict(), "stages.0.patch_embed.proj.weight"
    if stem in values and (values[stem].shape[1], own[stem].shape[1]) == (3, 4):
        values = values | {stem: torch.cat([values[stem], values[stem].mean(1, keepdim=True)], dim=1)}
    missing = [name for name in own if name not in values]
    surplus = [name for name in values if name not in own]
    detail = describe_misfit(own, values, missing, surplus)
    if detail is None:
        return values
    raise InputError(
        f"{path}: weights of another network size ({detail}); "
        "choose the network that fits (MiT-B0, B2, B3 or B4), or weights that do"
    )


class SegFormer(Baseline):
    """MiT and the all-MLP decoder. A subclass names the row of table 6."""

    encoder_config: ClassVar[MiTConfig]
    decoder_width: ClassVar[int]
    load_encoder = load_mit
    modalities = ("rgb", "rgbt", "thermal")
    renames = decoder_renames("conv", "bn")
    unused = (r"decode_head\.conv_seg\.",)

    @classmethod
    def official_name(cls, name: str) -> str | None:
        """Return our name of a tensor in the authors' file; None if the output does not depend on it."""
        ours = official_mit(name)
        return super().official_name(name) if ours is None else f"encoder.{ours}"

    def _build(self) -> None:
        self.encoder = MiT(self.encoder_config, in_channels=4 if self.config.modality == "rgbt" else 3)
        widths, classes = self.encoder_config.widths, self.config.num_classes
        self.decoder = SegFormerDecoder(widths, classes, self.decoder_width)
        self.apply(init_weights)

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        # Of the thermal image's three equal channels one is enough.
        channels = [image for image in (rgb, thermal) if image is not None]
        images = channels[0] if len(channels) == 1 else torch.cat([channels[0], channels[1][:, :1]], dim=1)
        logits: Tensor = self.decoder(self.encoder(images))
        return logits


class SegFormerB0(SegFormer, architecture="segformer_b0", encoder_config=MIT["b0"], decoder_width=256):
    """SegFormer-B0: MiT-B0, decoder of width 256."""


class SegFormerB2(SegFormer, architecture="segformer_b2", encoder_config=MIT["b2"], decoder_width=768):
    """SegFormer-B2: MiT-B2, decoder of width 768."""
