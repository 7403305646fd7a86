"""Load a checkpoint by the name that a user gives it, or copy its weights into another network."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from efnet.core.errors import InputError
from efnet.core.shipped import DEFAULT_WEIGHTS, SHIPPED_FOLDER
from efnet.models.base import CONFIG_FILE, SegmentationModel, fetch, read_config
from efnet.models.registry import ARCHITECTURES, find_network
from efnet.models.weights import LoadReport, fill

BEST_FOLDER = "best"


def load_checkpoint(
    path_or_hub_id: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> SegmentationModel:
    """Load a network in evaluation mode, on the CPU, from a run folder, a checkpoint folder or the hub.

    `path_or_hub_id` is a folder that training (its best checkpoint is loaded) or `save_pretrained` wrote, the
    name `owner/name` of a hub repository, or `efnet-edge-streets`, the weights that come with the package
    (unless there is a folder of that name); `~` is the home folder. The options concern the hub: `revision`
    is a branch, tag or commit (None: the main branch), `token` opens a private repository (None: that of the
    user's login), fetched files stay in `cache_dir`, and with `local_files_only` nothing is fetched. Raises
    InputError if there is nothing, or it is not a checkpoint.
    """
    options = {"revision": revision, "token": token, "local_files_only": local_files_only}
    return read_network(find_checkpoint(path_or_hub_id, cache_dir=cache_dir, **options))


def find_checkpoint(
    path_or_hub_id: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Path:
    """Return the folder that `load_checkpoint` reads, fetched first if it is a hub repository's."""
    name = os.path.expanduser(path_or_hub_id)  # noqa: PTH111 - unlike pathlib's, leaves ~nobody as it is
    if not name:
        raise InputError("`checkpoint` is empty; give a run folder")
    folder = Path(name)
    if folder.is_file():
        folder = folder.parent if folder.name == CONFIG_FILE else folder
    if folder.is_file():
        raise InputError(f"{folder}: a file; give the folder that holds {CONFIG_FILE}")
    if folder.is_dir():
        best = folder / BEST_FOLDER
        return best if (best / CONFIG_FILE).is_file() else folder
    if name == DEFAULT_WEIGHTS:
        return SHIPPED_FOLDER
    # `runs/x` beside an existing `runs` is a typing mistake, not a repository.
    if name.count("/") != 1 or folder.parent.is_dir() or name.startswith("."):
        raise InputError(f"{name}: no such folder; give a run folder or the name of a hub repository")
    cached = None if cache_dir is None else Path(cache_dir).expanduser()
    return fetch(name, cache_dir=cached, **options)


def read_network(folder: Path) -> SegmentationModel:
    """Read a checkpoint folder of any network; raises InputError if it is damaged or the network unknown."""
    values = read_config(folder)
    architecture, module = values.get("architecture"), values.get("module")
    network = find_network(architecture)
    if network is None and module is not None:
        raise InputError(
            f"{folder / CONFIG_FILE}: a checkpoint of {architecture!r}, a network that module {module} "
            f"registers; import that first (`import` {module})"
        )
    if network is None:
        raise InputError(
            f"{folder / CONFIG_FILE}: a checkpoint of {architecture!r}; known are {', '.join(ARCHITECTURES)}"
        )
    return network.read(folder)


def copy_weights(network: SegmentationModel, given: SegmentationModel, source: str) -> LoadReport:
    """Copy all tensors of equal shapes; raises InputError if the networks differ in more than classes."""
    own, theirs = network.state_dict(), given.state_dict()
    # Networks of equally many classes may still have other classes.
    left = set() if network.classes.names == given.classes.names else _per_class(network)
    loaded = {
        name: value
        for name, value in theirs.items()
        if name in own and own[name].shape == value.shape and name not in left
    }
    blocks = [name for name in own if ".blocks." in name]
    missing = [name for name in blocks if name not in loaded]
    if missing:
        raise InputError(
            f"{source}: weights of another network size ({missing[0]} does not fit); "
            "choose the preset that fits"
        )
    return fill(network, source, loaded, [name for name in theirs if name not in loaded])


def _per_class(network: SegmentationModel) -> set[str]:
    """Return the names of the tensors whose shapes depend on the number of classes."""
    count = network.num_classes
    config: Any = network.config
    other = replace(config, num_classes=count - 1 if count > 2 else count + 1)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in type(network)(other).state_dict().items()}
    return {name for name, value in network.state_dict().items() if value.shape != shapes[name]}
