"""Official TCFormer checkpoints into our backbone and into EFNet: the only place that knows their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.weights import read_state_dict

STAGE1_PREFIXES = ("stage1.", "rgb.", "thermal.")
"""Where a network keeps a stage 1; each gets the official one."""

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"patch_embed1\.(.+)", r"stage1.patch_embed.\1"),
        (r"block1\.(\d+)\.mlp\.dwconv\.dwconv\.(.+)", r"stage1.blocks.\1.mlp.dwconv.\2"),
        (r"block1\.(.+)", r"stage1.blocks.\1"),
        (r"norm1\.(.+)", r"stage1.norm.\1"),
        (r"ctm([123])\.(.+)", r"token_stages.{\1-1}.dbtc.\2"),
        (r"block([234])\.(.+)", r"token_stages.{\1-2}.blocks.\2"),
        (r"norm([234])\.(.+)", r"token_stages.{\1-2}.norm.\2"),
    )
)


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint.

    Attributes:
        source: the file.
        loaded: parameters of the network that the file filled.
        fresh: parameters of the network that keep their initialisation.
        left_over: entries of the file that the network has no place for.
    """

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.source}: loaded {len(self.loaded)} tensors; "
            f"fresh {len(self.fresh)}{_list(self.fresh)}; "
            f"left over {len(self.left_over)}{_list(self.left_over)}"
        )


def _list(names: tuple[str, ...]) -> str:
    """The modules that the names belong to, in brackets."""
    modules = dict.fromkeys(".".join(name.split(".")[:3]) for name in names)
    shown = ", ".join(list(modules)[:12]) + (", ..." if len(modules) > 12 else "")
    return f" ({shown})" if names else ""


def our_name(official: str) -> str | None:
    """Our backbone's name of an official one; None if it is not of the backbone."""
    for pattern, ours in _RULES:
        match = pattern.fullmatch(official)
        if match:
            name = match.expand(ours)
            return re.sub(r"\{(\d)-(\d)\}", lambda sum_: str(int(sum_[1]) - int(sum_[2])), name)
    return None


def is_official(state: dict[str, Tensor]) -> bool:
    """Whether a state dict has the official names."""
    return "patch_embed1.proj.weight" in state


def load_tcformer(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Fill a network that contains a TCFormer (itself, or EFNet) from an official checkpoint.

    EFNet's stage 1 is filled once per modality; its clusterings take those of TCFormer.

    Raises:
        InputError: the file cannot be read, is not a TCFormer, or is one of other depths or widths.
    """
    state = read_state_dict(path)
    if not is_official(state):
        raise InputError(f"{path}: not a TCFormer checkpoint (no patch_embed1.proj.weight in it)")
    own = dict(network.state_dict())
    filled, left_over = {}, []
    for official, value in state.items():
        targets = [name for name in _targets(official) if name in own]
        if not targets:
            left_over.append(official)
        filled.update(dict.fromkeys(targets, value))
    _refuse_misfit(Path(path), own, filled, left_over)
    network.load_state_dict(filled, strict=False)
    fresh = tuple(name for name in own if name not in filled)
    return LoadReport(str(path), tuple(filled), fresh, tuple(left_over))


def _targets(official: str) -> Iterator[str]:
    """Every name under which a network may keep an official entry."""
    name = our_name(official)
    if name is not None and name.startswith("stage1."):
        yield from (prefix + name.removeprefix("stage1.") for prefix in STAGE1_PREFIXES)
    elif name is not None:
        yield name


def _refuse_misfit(
    path: Path, own: dict[str, Tensor], filled: dict[str, Tensor], left_over: list[str]
) -> None:
    """A checkpoint of another size is an error, not a partial load."""
    reshaped = [name for name, value in filled.items() if value.shape != own[name].shape]
    # Every block must be filled; what EFNet has beyond TCFormer lies outside the blocks.
    missing = [name for name in own if ".blocks." in name and name not in filled]
    surplus = [name for name in left_over if our_name(name) is not None]
    if not (reshaped or missing or surplus):
        return
    if reshaped:
        name = reshaped[0]
        detail = f"{name} is {tuple(filled[name].shape)} there and {tuple(own[name].shape)} here"
    else:
        detail = f"{(missing or surplus)[0]} is only {'here' if missing else 'there'}"
    raise InputError(
        f"{path}: weights of another network size: blocks {_depths(filled, left_over)} there, "
        f"{_depths(own)} here ({detail}); choose the preset that fits, or weights that do"
    )


def _depths(state: dict[str, Tensor], official: list[str] | None = None) -> str:
    """Blocks per stage, such as 2-2-2-2."""
    names = [*state, *(our_name(name) or "" for name in official or [])]
    deepest: dict[str, int] = {}
    for name in names:
        match = re.fullmatch(r"(stage1|rgb|thermal|token_stages\.\d)\.blocks\.(\d+)\..+", name)
        if match:
            stage = "stage1" if match[1] in ("stage1", "rgb", "thermal") else match[1]
            deepest[stage] = max(deepest.get(stage, 0), int(match[2]) + 1)
    return "-".join(str(deepest[stage]) for stage in sorted(deepest))
