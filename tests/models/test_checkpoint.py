"""Checkpoints: a round trip, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from model_cases import random_pair

import efnet
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.models import EFNet, InputSpec
from efnet.models.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "best"
    model = efnet.create_model(
        "efnet_tiny", classes=ClassSet.generic(4), fusion="cat", tau=(0.5, 0.5, 0.5), position="pe"
    )
    model.input = InputSpec((96, 128), (20000.0, 30000.0))
    model.training_summary = {"selected_on": "val", "epoch": 7}
    model.save_pretrained(folder)
    return folder


def test_round_trip(saved: Path) -> None:
    first, second = EFNet.from_pretrained(saved), load_checkpoint(saved.parent)
    assert first.config == second.config
    assert (second.config.fusion, second.config.tau) == ("cat", (0.5, 0.5, 0.5))
    assert second.input == InputSpec((96, 128), (20000.0, 30000.0))
    assert second.classes == ClassSet.generic(4)
    assert second.training_summary["epoch"] == 7
    assert not second.training
    with torch.inference_mode():
        assert torch.equal(first(*random_pair()), second(*random_pair())) is False  # other images
        pair = random_pair()
        assert torch.equal(first(*pair), second(*pair))


def test_files_say_what_they_are(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((saved / "config.json").read_text())
    assert config["architecture"] == "efnet"
    assert config["classes"]["names"] == ["class_0", "class_1", "class_2", "class_3"]
    assert "class_3" in (saved / "README.md").read_text()


def broken(saved: Path, tmp_path: Path, **changes: object) -> Path:
    """A copy with other values in its configuration."""
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "unet"},
        {"classes": {"names": ["a", "b"], "palette": [[0, 0, 0], [1, 1, 1]]}},
        {"classes": {"names": ["a"]}},
        {"config": {"fusion": "mif"}},
        {"input": None},
        {"training": 3},
    ],
)
def test_wrong_configuration_is_refused(saved: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load_checkpoint(broken(saved, tmp_path, **changes))


def test_weights_of_another_network_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = broken(saved, tmp_path)
    other = tmp_path / "other"
    efnet.create_model("efnet_tiny", num_classes=4).save_pretrained(other)
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(InputError, match="does not fit"):
        load_checkpoint(folder)


def test_damaged_files_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = broken(saved, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        load_checkpoint(folder)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_checkpoint(tmp_path / "missing")
    with pytest.raises(InputError, match="empty"):
        load_checkpoint("")
    (tmp_path / "file.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="a file"):
        load_checkpoint(tmp_path / "file.pth")


def test_hub_name_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="someone/nothing"):
        load_checkpoint("someone/nothing")
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="no such folder"):
        load_checkpoint("runs/nothing")


def test_unknown_keywords_are_refused(saved: Path) -> None:
    with pytest.raises(TypeError, match="num_classes"):
        EFNet.from_pretrained(saved, num_classes=5)
