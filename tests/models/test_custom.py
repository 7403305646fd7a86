"""Networks that users register: by a decorator, a module, a file, an entry point."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.models import registry
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.models.custom import import_models, register_model

SOURCE = """
import torch
from torch import nn
import efnet


@efnet.register_model("{name}")
class Mine(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Conv2d(4, num_classes, 4, stride=4)

    def forward(self, rgb, thermal):
        return self.body(torch.cat((rgb, thermal), 1))
"""


@pytest.fixture
def forget() -> Any:
    """Unregister what a test registers."""
    known, architectures, modules = dict(registry._PRESETS), dict(registry.ARCHITECTURES), set(sys.modules)

    def undo() -> None:
        for now, before in ((registry._PRESETS, known), (registry.ARCHITECTURES, architectures)):
            now.clear()
            now.update(before)
        for name in set(sys.modules) - modules:
            if name.startswith("my_"):
                del sys.modules[name]

    yield undo
    undo()


def test_a_module_is_a_network_by_name(forget: Any, tmp_path: Path) -> None:
    @register_model("mine_a")
    class Net(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.body = nn.Conv2d(4, num_classes, 3, stride=2, padding=1)

        def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
            assert rgb.shape[1:2] == (3,)
            assert thermal.shape[1:2] == (1,)
            return self.body(torch.cat((rgb, thermal), 1))

    assert "mine_a" in efnet.list_models()
    model = efnet.create_model("mine_a", num_classes=5).eval()
    rgb, thermal = torch.rand(2, 3, 41, 57), torch.rand(2, 1, 41, 57)
    logits = model(rgb, thermal)
    inner = Net(5)
    inner.load_state_dict(
        {
            key.removeprefix("network."): value
            for key, value in model.state_dict().items()
            if key.startswith("network.")
        }
    )
    expected = nn.functional.interpolate(inner(rgb, thermal), (41, 57), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, expected)
    model.save_pretrained(tmp_path / "saved")
    again = load_checkpoint(tmp_path / "saved")
    torch.testing.assert_close(again(rgb, thermal), logits)
    with pytest.raises(ValueError, match="has no option modality"):
        efnet.create_model("mine_a", modality="rgb")


def test_a_subclass_of_the_base_is_taken_as_it_is(forget: Any) -> None:
    @efnet.register_model("mine_b")
    class Net(SegmentationModel):
        def _build(self) -> None:
            self.classify = nn.Conv2d(6, self.num_classes, 1)

        def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
            assert rgb is not None
            assert thermal is not None
            result: Tensor = self.classify(torch.cat((rgb, thermal), 1))
            return result

    model = efnet.create_model("mine_b", num_classes=4, modality="rgbt")
    assert isinstance(model, Net)
    assert model(torch.rand(1, 3, 32, 40), torch.rand(1, 1, 32, 40)).shape == (1, 4, 32, 40)


@pytest.mark.parametrize("name", ["efnet_tiny", "mfnet", "tcformer efnet", "Mine", "", "1a"])
def test_names_that_cannot_be_taken(name: str, forget: Any) -> None:
    with pytest.raises(InputError, match=r"model name|is a network of this package"):
        register_model(name)(nn.Identity)


def test_a_network_that_is_none_says_so(forget: Any) -> None:
    register_model("mine_c")(lambda: nn.Identity())
    with pytest.raises(InputError, match="cannot be made from the number of classes alone"):
        efnet.create_model("mine_c")
    register_model("mine_c")(lambda count: count)  # a cell of a notebook, repeated
    with pytest.raises(InputError, match="returned a int; return a torch"):
        efnet.create_model("mine_c")

    class Flat(nn.Module):
        def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
            return rgb

    register_model("mine_c")(lambda count: Flat())
    with pytest.raises(InputError, match=r"returned \(1, 3, 32, 32\), not logits \(B, 9, h, w\)"):
        efnet.create_model("mine_c")(torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32))


@pytest.mark.parametrize("form", ["module", "file"])
def test_commands_import_it_first(
    forget: Any, form: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    from efnet.scenes import write_dataset

    root = tmp_path / "scenes"
    write_dataset(root, train=2, val=1, test=1, size=(64, 64), seed=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "nowhere"))  # restores sys.path afterwards
    (tmp_path / f"my_{form}.py").write_text(SOURCE.format(name=f"mine_{form}"))
    source = f"my_{form}" + (".py" if form == "file" else "")
    data = ["--dataset", "mfnet", "--root", str(root), "--workers", "0", "--device", "cpu"]
    train = ["train", *data, "--model", f"mine_{form}", "--size", "48x64", "--epochs", "1", "--quiet"]
    assert main([*train, "--out", "run"]) == 2
    assert f"no model 'mine_{form}'" in capsys.readouterr().err
    assert main([*train, "--out", "run", "--import", source]) == 0
    assert main(["evaluate", "--checkpoint", "run", f"--import={source}", *data]) == 0
    capsys.readouterr()
    forget()
    for command in (["evaluate", "--checkpoint", "run", *data], [*train, "--init", "run", "--out", "b"]):
        words = ["efnet_tiny" if word == f"mine_{form}" else word for word in command]
        assert main(words) == 2
        message = capsys.readouterr().err
        assert f"a network that module my_{form} registers; import that first (--import my_{form})" in message


def test_what_cannot_be_imported_is_named(tmp_path: Path, capsys: Any) -> None:
    broken = tmp_path / "my_broken.py"
    broken.write_text("raise RuntimeError('of the user')\n")
    with pytest.raises(InputError, match=r"my_broken.py: cannot be imported \(RuntimeError: of the user\)"):
        import_models(str(broken))
    assert main(["models", "--import", "my_absent"]) == 2
    assert "--import my_absent: cannot be imported (ModuleNotFoundError" in capsys.readouterr().err


def test_installed_packages_are_found(forget: Any, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "my_plugin.py").write_text(SOURCE.format(name="mine_plugin"))
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = [
        importlib.metadata.EntryPoint("good", "my_plugin", "efnet.models"),
        importlib.metadata.EntryPoint("bad", "my_missing", "efnet.models"),
    ]
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: entries)
    registry.load_plugins.cache_clear()
    with pytest.warns(UserWarning, match="entry point bad of efnet.models"):
        model = efnet.create_model("mine_plugin", num_classes=3)
    assert model.num_classes == 3
    registry.load_plugins.cache_clear()
