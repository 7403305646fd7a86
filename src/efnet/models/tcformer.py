"""TCFormer (CVPR 2022, arXiv 2204.08680): the plain single-image backbone, and its published weights.

`load_tcformer` fills it, or EFNet, with TCFormer's or PVTv2's weights. PVTv2 (arXiv 2106.13797) has the same
blocks on regular grids, and convolutions of stride 2 where TCFormer clusters: it fills everything but the
token skips, which then start at zero, as if they did not exist, and the importance of the clusterings.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.base import check_images
from efnet.models.config import BACKBONES, BackboneConfig
from efnet.models.layers import Tokens, init_weights
from efnet.models.stages import GridStage, TokenStage
from efnet.models.weights import LoadReport, describe_misfit, fill, read_state_dict, translate


class TCFormer(nn.Module):
    """Four stages of tokens, each made of a quarter as many clusters as the one before.

    Args:
        config: a preset (`tiny`, `light`, `base`, `large`) or a configuration of your own.

    Raises:
        ValueError: no such preset.
    """

    def __init__(self, config: str | BackboneConfig = "light") -> None:
        super().__init__()
        if isinstance(config, str):
            if config not in BACKBONES:
                raise ValueError(f"no TCFormer preset {config!r}; there are {', '.join(BACKBONES)}")
            config = BACKBONES[config]
        self.config = config
        self.stage1 = GridStage(config)
        self.token_stages = nn.ModuleList(TokenStage(config, stage) for stage in (1, 2, 3))
        self.apply(init_weights)

    def forward(self, images: Tensor) -> list[Tokens]:
        """Normalised images (B, 3, H, W), H and W >= 32, to the tokens of four stages.

        Raises:
            ValueError: wrong rank or channels, or an image under 32 pixels.
        """
        check_images(images, channels=3, name="images")
        stages = [self.stage1(images)]
        for stage in self.token_stages:
            stages.append(stage(stages[-1]))
        return stages

    def load_checkpoint(self, path: str | os.PathLike[str]) -> LoadReport:
        """Load an official TCFormer checkpoint.

        Args:
            path: `.pth` (read with `weights_only`) or `.safetensors`.

        Returns:
            what was loaded, what stayed fresh and what was left over.

        Raises:
            InputError: the file is missing, unreadable, or of another network or size.
        """
        return load_tcformer(self, path)


STAGE1_PREFIXES = ("stage1.", "rgb.", "thermal.")
"""Where a network keeps a stage 1; the official one fills each."""

_RULES = tuple(
    (re.compile(pattern), ours, first)
    for pattern, ours, first in (
        (r"patch_embed(1)\.(.+)", "stage1.patch_embed.{1}", 1),
        (r"block(1)\.(\d+)\.mlp\.dwconv\.dwconv\.(.+)", "stage1.blocks.{1}.mlp.dwconv.{2}", 1),
        (r"block(1)\.(.+)", "stage1.blocks.{1}", 1),
        (r"norm(1)\.(.+)", "stage1.norm.{1}", 1),
        (r"ctm([123])\.(.+)", "token_stages.{0}.dbtc.{1}", 1),
        (r"patch_embed([234])\.proj\.(.+)", "token_stages.{0}.dbtc.conv.{1}", 2),
        (r"patch_embed([234])\.norm\.(.+)", "token_stages.{0}.dbtc.norm.{1}", 2),
        (r"block([234])\.(\d+)\.mlp\.dwconv\.dwconv\.(.+)", "token_stages.{0}.blocks.{1}.mlp.dwconv.{2}", 2),
        (r"block([234])\.(.+)", "token_stages.{0}.blocks.{1}", 2),
        (r"norm([234])\.(.+)", "token_stages.{0}.norm.{1}", 2),
    )
)

_TIMM_PARTS = {"downsample": "patch_embed", "blocks": "block", "norm": "norm"}


def _authors_name(name: str) -> str:
    """The PVTv2 authors' name of a tensor in timm's PVTv2, which counts stages from 0."""
    name = name.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")
    if name.startswith("patch_embed."):
        return name.replace("patch_embed.", "patch_embed1.", 1)
    match = re.fullmatch(r"stages\.(\d+)\.(downsample|blocks|norm)\.(.+)", name)
    return f"{_TIMM_PARTS[match[2]]}{int(match[1]) + 1}.{match[3]}" if match else name


def load_tcformer(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Fill a network that contains a TCFormer (itself, or EFNet) from an official TCFormer or PVTv2.

    EFNet's stage 1 is filled once per modality; its clusterings take those of TCFormer. Raises InputError:
    the file cannot be read, is neither, or is one of other depths or widths.
    """
    state = read_state_dict(path)
    if "patch_embed.proj.weight" in state:
        state = {_authors_name(name): value for name, value in state.items()}
    if "patch_embed1.proj.weight" not in state:
        raise InputError(f"{path}: neither a TCFormer nor a PVTv2 (no patch_embed1.proj.weight in it)")
    own = dict(network.state_dict())
    skips = {
        name: torch.zeros_like(value)
        for name, value in own.items()
        if "patch_embed2.proj.weight" in state and name.endswith("conv.skip.weight")
    }
    filled: dict[str, Tensor] = {}
    left_over = []
    for official, value in state.items():
        name = translate(official, _RULES) or ""
        names = [name]
        if name.startswith("stage1."):
            names = [prefix + name.removeprefix("stage1.") for prefix in STAGE1_PREFIXES]
        targets = [name for name in names if name in own]
        if not targets:
            left_over.append(official)
        filled.update(dict.fromkeys(targets, value))
    # A checkpoint of another size must not be loaded in part, so every block must be filled; what EFNet has
    # beyond TCFormer lies outside the blocks.
    missing = [name for name in own if ".blocks." in name and name not in filled and name not in skips]
    surplus = [name for name in left_over if translate(name, _RULES) is not None]
    detail = describe_misfit(own, filled, missing, surplus)
    if detail is not None:
        raise InputError(
            f"{Path(path)}: weights of another network size: blocks {_depths(filled, left_over)} there, "
            f"{_depths(own)} here ({detail}); choose the preset that fits, or weights that do"
        )
    network.load_state_dict(skips, strict=False)
    return fill(network, path, filled, left_over)


def _depths(state: dict[str, Tensor], official: list[str] | None = None) -> str:
    """Blocks per stage, such as 2-2-2-2."""
    names = [*state, *(translate(name, _RULES) or "" for name in official or [])]
    deepest: dict[str, int] = {}
    for name in names:
        match = re.fullmatch(r"(stage1|rgb|thermal|token_stages\.\d)\.blocks\.(\d+)\..+", name)
        if match:
            stage = "stage1" if match[1] in ("stage1", "rgb", "thermal") else match[1]
            deepest[stage] = max(deepest.get(stage, 0), int(match[2]) + 1)
    return "-".join(str(deepest[stage]) for stage in sorted(deepest))
