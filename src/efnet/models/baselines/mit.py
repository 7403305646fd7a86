"""MiT, the encoder of SegFormer (arXiv 2105.15203, section 3.1 and table 6): one map per stage.

Its blocks are those of this package on a regular grid (`efnet.models.layers`): attention whose keys come
from patches of the map (the paper's equations 1 and 2) and Mix-FFN (equation 3). Normalisations, their
epsilons and stochastic depth, of which the paper says nothing, are those of the published weights and of
the configurations that lie beside them (`nvidia/mit-b0`, `nvidia/mit-b2` on the Hugging Face hub).

Published SegFormer weights into MiT encoders: the only place that knows their names.

Two sets of names are about: those of the authors' files (`mit_b2.pth`, also inside a whole SegFormer) and
those of the Hugging Face hub (`nvidia/mit-b2`), where keys and values are apart.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.layers import Block, Tokens, layer_norm
from efnet.models.tcformer_weights import LoadReport
from efnet.models.weights import read_state_dict
from efnet.ops.tokens import Size, TokenGrid

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
MLP_RATIO = 4
DROP_PATH = 0.1
"""Chance to skip the last block's residuals in training; rises linearly from 0 at the first."""


@dataclass(frozen=True)
class MiTConfig:
    """One row of table 6: a value per stage."""

    depths: tuple[int, int, int, int]
    """Transformer blocks."""
    widths: tuple[int, int, int, int]
    """Channels."""


MIT: dict[str, MiTConfig] = {
    "b0": MiTConfig((2, 2, 2, 2), (32, 64, 160, 256)),
    "b2": MiTConfig((3, 4, 6, 3), (64, 128, 320, 512)),
}


class PatchMerging(nn.Module):
    """Overlapped patch merging: a convolution with a kernel wider than its stride, then LayerNorm.

    Args:
        in_channels: of the map.
        width: channels of a token.
        kernel: side of a patch.
        stride: distance of patches.
    """

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
    """A quarter of the cells (a sixteenth in the first stage), then transformer blocks.

    Args:
        config: depths and widths.
        stage: 0 to 3.
        in_channels: of the images, for the first stage.
    """

    def __init__(self, config: MiTConfig, stage: int, in_channels: int = 3) -> None:
        super().__init__()
        width = config.widths[stage]
        before, total = sum(config.depths[:stage]), sum(config.depths)
        self.patch_embed = (
            PatchMerging(in_channels, width, 7, 4)
            if stage == 0
            else PatchMerging(config.widths[stage - 1], width, 3, 2)
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                HEADS[stage],
                MLP_RATIO,
                REDUCTIONS[stage],
                drop_path=DROP_PATH * (before + index) / (total - 1),
                skip=False,
            )
            for index in range(config.depths[stage])
        )
        self.norm = layer_norm(width)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', h, w)."""
        tokens: Tokens = self.patch_embed(maps)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.with_features(self.norm(tokens.features)).to_map()


class MiT(nn.Module):
    """Four stages, at strides 4, 8, 16 and 32.

    Args:
        config: depths and widths.
        in_channels: of the images.
    """

    def __init__(self, config: MiTConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList(MiTStage(config, stage, in_channels) for stage in range(4))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, in_channels, H, W) to the maps of four stages, (B, C, h, w) each."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


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
    (re.compile(prefix + pattern), ours, first)
    for prefix, rules, first in (
        (r"(?:backbone\.)?", _AUTHORS, 1),
        (r"(?:segformer\.)?encoder\.", _HUB, 0),
    )
    for pattern, ours in rules
)
"""Pattern of a published name, our name after the stage, and the number of the first stage there."""


def our_name(published: str) -> str | None:
    """Our encoder's name of a published one; None if it is not of the encoder."""
    for pattern, ours, first in _RULES:
        match = pattern.fullmatch(published)
        if match:
            stage, *rest = match.groups()
            return f"stages.{int(stage) - first}.{ours.format(*rest)}"
    return None


def load_mit(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Fill every MiT of a network from one file, authors' or hub's, bare or inside a whole SegFormer.

    A stem with a fourth channel gets the mean of the three colours' filters there.

    Args:
        network: what contains the encoders.
        path: `.pth` or `.bin` (read with `weights_only`), or `.safetensors`.

    Raises:
        InputError: the file cannot be read, is no MiT, or is one of another size.
    """
    state = read_state_dict(path)
    published = {name: ours for name in state if (ours := our_name(name)) is not None}
    if "stages.1.patch_embed.proj.weight" not in published.values():
        raise InputError(f"{path}: not a MiT checkpoint (no patch_embed2.proj.weight in it)")
    values = _join_keys_values({ours: state[name] for name, ours in published.items()})
    filled: dict[str, Tensor] = {}
    for prefix, encoder in network.named_modules():
        if isinstance(encoder, MiT):
            fitted = _fit(path, encoder, values)
            filled.update({f"{prefix}.{name}": value for name, value in fitted.items()})
    network.load_state_dict(filled, strict=False)
    fresh = tuple(name for name in network.state_dict() if name not in filled)
    return LoadReport(str(path), tuple(filled), fresh, tuple(name for name in state if name not in published))


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
    """The file's entries as the encoder takes them.

    Raises:
        InputError: not every one fits; a checkpoint of another size is an error, not a partial load.
    """
    own, stem = encoder.state_dict(), "stages.0.patch_embed.proj.weight"
    if stem in values and (values[stem].shape[1], own[stem].shape[1]) == (3, 4):
        values = values | {stem: torch.cat([values[stem], values[stem].mean(1, keepdim=True)], dim=1)}
    missing = [name for name in own if name not in values]
    surplus = [name for name in values if name not in own]
    reshaped = [name for name, value in values.items() if name in own and value.shape != own[name].shape]
    if reshaped:
        name = reshaped[0]
        detail = f"{name} is {tuple(values[name].shape)} there and {tuple(own[name].shape)} here"
    elif missing or surplus:
        detail = f"{(missing or surplus)[0]} is only {'here' if missing else 'there'}"
    else:
        return values
    raise InputError(
        f"{path}: weights of another network size ({detail}); "
        "choose the network that fits (MiT-B0 or MiT-B2), or weights that do"
    )
