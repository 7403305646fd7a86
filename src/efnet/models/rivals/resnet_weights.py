"""Published ResNet weights (`resnet18-*.pth`, `resnet50-*.pth`, `resnet152-*.pth`) into our encoders."""

from __future__ import annotations

import os

from torch import Tensor, nn

from efnet.errors import InputError
from efnet.models.official import LoadReport
from efnet.models.rivals.resnet import ResNet
from efnet.models.weights import read_state_dict

_COUNTER = ".num_batches_tracked"
"""Older files lack it, and nothing depends on it."""


def load_resnets(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Fill every ResNet of a network from one file with torchvision's names.

    A stem for one channel gets the sum of the three channels' filters: what they would see in a thermal
    image repeated three times.

    Raises:
        InputError: the file cannot be read, is no ResNet, or is one of another depth.
    """
    state = read_state_dict(path)
    if "conv1.weight" not in state or "layer1.0.conv1.weight" not in state:
        raise InputError(f"{path}: not a ResNet checkpoint (no conv1.weight and layer1.0.conv1.weight in it)")
    filled: dict[str, Tensor] = {}
    known: set[str] = set()
    for prefix, encoder in network.named_modules():
        if isinstance(encoder, ResNet):
            values = _fit(path, encoder, state)
            filled.update({f"{prefix}.{name}": value for name, value in values.items()})
            known.update(values)
    network.load_state_dict(filled, strict=False)
    fresh = tuple(name for name in network.state_dict() if name not in filled)
    return LoadReport(str(path), tuple(filled), fresh, tuple(name for name in state if name not in known))


def _fit(path: str | os.PathLike[str], encoder: ResNet, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's entries as the encoder takes them.

    Raises:
        InputError: not every one fits.
    """
    own = encoder.state_dict()
    values = {name: value for name, value in state.items() if name in own}
    stem = values["conv1.weight"]
    if own["conv1.weight"].shape[1] == 1 and stem.shape[1:] == (3, 7, 7):
        values["conv1.weight"] = stem.sum(1, keepdim=True)
    missing = [name for name in own if name not in values and not name.endswith(_COUNTER)]
    surplus = [name for name in state if name.startswith("layer") and name not in own]
    reshaped = [name for name, value in values.items() if value.shape != own[name].shape]
    if missing or surplus:
        detail = f"{(missing or surplus)[0]} is only {'here' if missing else 'there'}"
    elif reshaped:
        name = reshaped[0]
        detail = f"{name} is {tuple(values[name].shape)} there and {tuple(own[name].shape)} here"
    else:
        return values
    raise InputError(
        f"{path}: weights of another network ({detail}); a ResNet-{encoder.depth} is needed, "
        f"such as resnet{encoder.depth}-*.pth"
    )
