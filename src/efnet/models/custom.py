"""Networks of users: registered under a name by a decorator, then usable wherever a network is named."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.base import SegmentationModel
from efnet.models.config import BaselineConfig
from efnet.models.registry import add_network

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Register a network under a name that every command and function takes from then on.

    Decorate a class or function that is called as `factory(num_classes)` and returns a module with
    `forward(rgb, thermal)`: float images (B, 3, H, W) and (B, 1, H, W) in [0, 1], of any size from 32x32, to
    logits (B, K, h, w) of any grid, which are resized to the images. A subclass of `SegmentationModel` is
    taken as it is. The decorated object is returned unchanged.

    Registering the same object's name again replaces it, so that a cell of a notebook can be repeated.

    Raises:
        InputError: not a name of small letters, digits and underscores, or one of the package's own.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"model name {name!r}: use small letters, digits and underscores, a letter first")

    def register(factory: Factory) -> Factory:
        if isinstance(factory, type) and issubclass(factory, SegmentationModel):
            factory.architecture = name
            network: type[SegmentationModel] = factory
            if not hasattr(factory, "config_type"):
                factory.config_type = BaselineConfig
        else:
            network = type(
                "CustomNetwork", (_Wrapped,), {"architecture": name, "factory": staticmethod(factory)}
            )
        network.module = factory.__module__
        add_network(name, network)
        return factory

    return register


class _Wrapped(SegmentationModel):
    """A user's module behind the interface of all networks; its weights are those of `network`."""

    config_type = BaselineConfig
    options: ClassVar[tuple[str, ...]] = ()
    factory: ClassVar[Callable[..., nn.Module]]

    def _build(self) -> None:
        try:
            self.network = self.factory(self.num_classes)
        except TypeError as error:
            raise InputError(
                f"model {self.architecture}: cannot be made from the number of classes alone ({error}); "
                "give it one parameter, or defaults for the others"
            ) from error
        if not isinstance(self.network, nn.Module):
            raise InputError(
                f"model {self.architecture}: its factory returned a {type(self.network).__name__}; return a "
                "torch.nn.Module"
            )

    def normalize(self, rgb: Tensor | None, thermal: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Images in [0, 1] as they are: the module does what it needs."""
        return rgb, thermal

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Images in [0, 1], (B, 3, H, W) and (B, 1, H, W), to the module's logits (B, K, h, w)."""
        logits: Any = self.network(rgb, thermal)
        expected = f"logits (B, {self.num_classes}, h, w)"
        if not isinstance(logits, Tensor):
            raise InputError(f"model {self.architecture}: returned a {type(logits).__name__}, not {expected}")
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise InputError(f"model {self.architecture}: returned {tuple(logits.shape)}, not {expected}")
        return logits


def import_models(source: str) -> None:
    """Import a module, or a file that ends in .py, that registers networks.

    A module is also looked for in the current folder. Raises InputError if it cannot be imported.
    """
    path = Path(source)
    try:
        if path.suffix == ".py":
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module  # workers and saved classes find it by its name
            spec.loader.exec_module(module)
            return
        here = str(Path.cwd())
        if here not in sys.path:  # as `python -m` does
            sys.path.insert(0, here)
        importlib.import_module(source)
    except Exception as error:  # a module may raise anything
        sys.modules.pop(path.stem, None)
        raise InputError(
            f"`import` {source}: cannot be imported ({type(error).__name__}: {error}); give a module or a "
            ".py file that registers networks with efnet.register_model"
        ) from error
