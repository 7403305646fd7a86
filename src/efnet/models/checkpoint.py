"""From what a user calls a checkpoint to a network."""

from __future__ import annotations

import os
from pathlib import Path

from efnet.core.errors import InputError
from efnet.models.base import CONFIG_FILE, SegmentationModel, fetch, read_config
from efnet.models.registry import ARCHITECTURES

BEST_FOLDER = "best"


def load_checkpoint(
    path_or_hub_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> SegmentationModel:
    """Load a network for evaluation from a run folder, a checkpoint folder or the hub.

    Args:
        path_or_hub_id: folder that `efnet train` or `save_pretrained` wrote (of a run, its best
            checkpoint is taken), or the name `owner/name` of a hub repository. `~` is the home folder.
        revision: branch, tag or commit of a hub repository; its main branch if None. This and the
            following are of no use for a folder.
        token: for a private repository; None: the one that the user is logged in with.
        cache_dir: where fetched files are kept.
        local_files_only: take what was fetched before, and do not go to the network.

    Returns:
        the network in evaluation mode, on the CPU.

    Raises:
        InputError: nothing there, or it is not a checkpoint.
    """
    name = os.path.expanduser(path_or_hub_id)  # noqa: PTH111 - unlike pathlib's, leaves ~nobody as it is
    if not name:
        raise InputError("--checkpoint is empty; give a run folder")
    folder = Path(name)
    if folder.is_file():
        folder = folder.parent if folder.name == CONFIG_FILE else folder
    if folder.is_file():
        raise InputError(f"{folder}: a file; give the folder that holds {CONFIG_FILE}")
    if folder.is_dir():
        best = folder / BEST_FOLDER
        return read_network(best if (best / CONFIG_FILE).is_file() else folder)
    # `runs/x` beside an existing `runs` is a slip of the pen, not a repository to be fetched.
    if name.count("/") != 1 or folder.parent.is_dir() or name.startswith("."):
        raise InputError(f"{name}: no such folder; give a run folder or the name of a hub repository")
    cached = None if cache_dir is None else Path(cache_dir).expanduser()
    return read_network(fetch(name, revision, cached, local_files_only=local_files_only, token=token))


def read_network(folder: Path) -> SegmentationModel:
    """Read a checkpoint folder, whatever network is in it.

    Raises:
        InputError: a file is missing or damaged, or the network is unknown.
    """
    architecture = read_config(folder).get("architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise InputError(
            f"{folder / CONFIG_FILE}: a checkpoint of {architecture!r}; known are {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[architecture].read(folder)
