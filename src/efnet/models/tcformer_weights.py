"""Load official TCFormer checkpoints into our backbone and into EFNet; only this module knows their names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.weights import LoadReport, describe_misfit, fill, read_state_dict, translate

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
        (r"block([234])\.(.+)", "token_stages.{0}.blocks.{1}", 2),
        (r"norm([234])\.(.+)", "token_stages.{0}.norm.{1}", 2),
    )
)


def load_tcformer(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Fill a network that contains a TCFormer (itself, or EFNet) from an official checkpoint.

    EFNet's stage 1 is filled once per modality; its clusterings take those of TCFormer. Raises InputError:
    the file cannot be read, is not a TCFormer, or is one of other depths or widths.
    """
    state = read_state_dict(path)
    if "patch_embed1.proj.weight" not in state:
        raise InputError(f"{path}: not a TCFormer checkpoint (no patch_embed1.proj.weight in it)")
    own = dict(network.state_dict())
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
    missing = [name for name in own if ".blocks." in name and name not in filled]
    surplus = [name for name in left_over if translate(name, _RULES) is not None]
    detail = describe_misfit(own, filled, missing, surplus)
    if detail is not None:
        raise InputError(
            f"{Path(path)}: weights of another network size: blocks {_depths(filled, left_over)} there, "
            f"{_depths(own)} here ({detail}); choose the preset that fits, or weights that do"
        )
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
