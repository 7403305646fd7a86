"""The file of a program says nothing of the machine that made it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

import efnet
from efnet.export.formats import Deployed, trace, write_program


def test_a_program_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    model = efnet.create_model("mfnet", num_classes=3).eval()
    program = trace(Deployed(model, "float", "classes"), (32, 32))
    assert any("nn_module_stack" in node.meta for node in program.graph.nodes), "names of layers stay"
    path = tmp_path / "small.pt2"
    write_program(program, path, "torch", "32", (["rgb", "thermal"], "classes"), {})
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    folders = {str(Path(package.__file__).parents[1]) for package in (efnet, torch)}
    for folder in (*folders, ".py\\", "File "):
        assert not [name for name, content in contents.items() if folder.encode() in content], folder
