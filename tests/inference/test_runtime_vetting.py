"""Programs of torch.export that could run code are refused before PyTorch reads them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from efnet.core.errors import InputError
from efnet.inference.vetting import load_program

Files = dict[str, bytes]
GRAPH = "models/model.json"


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("shift", torch.arange(3.0))

    def forward(self, rows: Tensor) -> Tensor:
        return (self.linear(rows) + self.shift).view(rows.shape[0] * 3)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "good.pt2"
    exported = torch.export.export(
        Network().eval(), (torch.randn(2, 4),), dynamic_shapes=({0: Dim("rows", min=1, max=64)},)
    )
    torch.export.save(exported, path, extra_files={"efnet": "about"})
    return path


def rewritten(source: Path, target: Path, change: Callable[[Files, str], None]) -> Path:
    """A copy whose files, by their names below the archive's folder, went through `change`."""
    with zipfile.ZipFile(source) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(contents)).split("/")[0]
    files = {name.removeprefix(f"{folder}/"): content for name, content in contents.items()}
    change(files, folder)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)
    return target


def graph(change: Callable[[Any], None]) -> Callable[[Files, str], None]:
    """A change of every part of the graph's description."""

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            change(value)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)

    def apply(files: Files, folder: str) -> None:
        values = json.loads(files[GRAPH])
        walk(values)
        files[GRAPH] = json.dumps(values).encode()

    return apply


def calls(target: str) -> Callable[[Files, str], None]:
    def change(part: dict[str, Any]) -> None:
        if "target" in part and "inputs" in part:
            part["target"] = target

    return graph(change)


def sizes(text: str) -> Callable[[Files, str], None]:
    def change(part: dict[str, Any]) -> None:
        if "expr_str" in part:
            part["expr_str"] = text

    return graph(change)


def names(text: str) -> Callable[[Files, str], None]:
    def change(part: dict[str, Any]) -> None:
        for key in ("name", "as_name"):
            if isinstance(part.get(key), str):
                part[key] = text

    return graph(change)


class Canary:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def pickled_weights(files: Files, folder: str) -> None:
    name = "data/weights/model_weights_config.json"
    config = json.loads(files[name])
    for payload in config["config"].values():
        payload["use_pickle"] = True
    files[name] = json.dumps(config).encode()


def added(name: str) -> Callable[[Files, str], None]:
    return lambda files, folder: files.update({name: b"x"})


BAD = {
    "a function below torch": (calls("torch.os.system"), "calls 'torch.os.system'"),
    "a builtin": (calls("builtins.eval"), "calls 'builtins.eval'"),
    "an operator of a library": (calls("torch.ops.mylib.run.default"), "calls 'torch.ops.mylib"),
    "an operator that opens files": (calls("torch.ops.aten.from_file.default"), "calls"),
    "a size that is code": (sizes("__import__('os').system('true')"), "computes a size as"),
    "a size with attributes": (sizes("s0.__class__"), "computes a size as"),
    "a size that never ends": (sizes("(" * 3000 + "s0" + ")" * 3000), "computes a size as"),
    "a name that is code": (names("x):\n    import os #"), "names something"),
    "pickled weights": (pickled_weights, "as a pickle"),
    "a compiled library": (added("data/aotinductor/model/model.so"), "holds the file"),
    "a path out of the archive": (added("../evil"), "holds the file"),
}


def test_a_program_of_plain_operators_is_loaded(program: Path) -> None:
    held = {"efnet": ""}
    rows = torch.randn(5, 4)
    loaded = load_program(program, held).module()
    assert held == {"efnet": "about"}
    assert loaded(rows).shape == (15,)


@pytest.mark.parametrize("name", BAD)
def test_what_could_run_code_is_refused(name: str, program: Path, tmp_path: Path) -> None:
    change, message = BAD[name]
    bad = rewritten(program, tmp_path / "bad.pt2", change)
    with pytest.raises(
        InputError, match=r"bad\.pt2: .*was not loaded: export the checkpoint again"
    ) as caught:
        load_program(bad, {})
    assert message in str(caught.value)


def test_a_pickle_in_the_sample_inputs_does_not_run(program: Path, tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    buffer = io.BytesIO()
    torch.save(Canary(canary), buffer, pickle_module=pickle)

    def change(files: Files, folder: str) -> None:
        files["data/sample_inputs/model.pt"] = buffer.getvalue()

    bad = rewritten(program, tmp_path / "bad.pt2", change)
    with pytest.raises(InputError, match="sample inputs that are not plain tensors"):
        load_program(bad, {})
    assert not canary.exists()


def test_a_file_twice_is_refused(program: Path, tmp_path: Path) -> None:
    """Readers may differ in which of the two they take."""
    bad = rewritten(program, tmp_path / "bad.pt2", lambda files, folder: None)
    with zipfile.ZipFile(bad, "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        content = archive.read(f"{folder}/{GRAPH}")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(f"{folder}/{GRAPH}", content)
    with pytest.raises(InputError, match="holds the file"):
        load_program(bad, {})
