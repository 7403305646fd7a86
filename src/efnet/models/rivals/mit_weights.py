"""Published SegFormer weights into MiT encoders: the only place that knows their names.

Two sets of names are about: those of the authors' files (`mit_b2.pth`, also inside a whole SegFormer) and
those of the Hugging Face hub (`nvidia/mit-b2`), where keys and values are apart.
"""

from __future__ import annotations

import os
import re

import torch
from torch import Tensor, nn

from efnet.errors import InputError
from efnet.models.official import LoadReport
from efnet.models.rivals.mit import MiT
from efnet.models.weights import read_state_dict

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
