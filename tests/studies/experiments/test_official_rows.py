"""`efnet experiment run TABLE --official DIR`: authors' files scored in place of trained rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.studies.experiments.official import find_file


def save(path: Path, network: str = "mfnet", classes: int = 9) -> Path:
    """A file as an author would publish it, of made weights."""
    torch.manual_seed(3)
    state = efnet.create_model(network, classes).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: value for key, value in state.items() if key not in ("mean", "std")}, path)
    return path


def command(scenes: Path, folder: Path, out: Path, *words: str) -> list[str]:
    base = ["experiment", "run", "rivals", "--official", str(folder), "--root", str(scenes)]
    return [*base, "--out", str(out), "--device", "cpu", "--workers", "0", *words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("authors")
    save(root / "mfnet" / "mfnet" / "final.pth")
    return root


def test_a_file_is_scored_as_evaluate_scores_it(
    folder: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rows = tmp_path / "runs", ("--rows", "mfnet", "pstnet", "efnet_light")
    assert main(command(scenes, folder, out, *rows)) == 0
    printed = capsys.readouterr()
    assert printed.out == (out / "rivals-official.md").read_text()
    assert "Skipped for want of a file: EFNet-light (efnet_light), PSTNet (pstnet)." in printed.out
    assert "the official test split has 393 pairs, this one 2" in printed.out
    written = json.loads((out / "rivals-official.json").read_text())["rows"]
    rows_by_name = {row["row"]: row for row in written}
    assert rows_by_name["pstnet"]["skipped"] == "no mfnet/pstnet.pth there"
    # The same by the two commands that a user would type.
    file, single = folder / "mfnet" / "mfnet" / "final.pth", tmp_path / "single"
    assert main(["convert-weights", "mfnet", str(file), "--dataset", "mfnet", "--out", str(single)]) == 0
    words = ["evaluate", "--checkpoint", str(single), "--dataset", "mfnet", "--root", str(scenes)]
    report = tmp_path / "report.json"
    assert main([*words, "--device", "cpu", "--workers", "0", "--json", str(report)]) == 0
    alone = json.loads(report.read_text())
    assert rows_by_name["mfnet"]["miou"]["mean"] == alone["miou"]
    assert rows_by_name["mfnet"]["iou"] == alone["iou"]
    # The converted checkpoint is one that other commands take.
    assert efnet.Predictor.from_pretrained(out / "official" / "rivals_mfnet").model.name == "mfnet"


def test_what_is_done_is_not_done_again_unless_the_file_changed(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "authors" / "mfnet" / "mfnet.pth")
    words = command(scenes, tmp_path / "authors", tmp_path / "runs", "--rows", "mfnet")
    progress = []
    for _ in range(2):
        assert main(words) == 0
        progress.append("done before" in "".join(capsys.readouterr()))
    state = torch.load(file, weights_only=True)
    torch.save({"state_dict": state, "epoch": 1}, file)
    assert main(words) == 0
    progress.append("done before" in "".join(capsys.readouterr()))
    assert progress == [False, True, False]


def test_accuracy_of_a_benchmark_reads_the_report(folder: Path, scenes: Path, tmp_path: Path) -> None:
    from efnet.studies.benchmark.networks import read_accuracy

    assert main(command(scenes, folder, tmp_path, "--rows", "mfnet", "pstnet")) == 0
    assert list(read_accuracy(str(tmp_path / "rivals-official.json"))) == ["mfnet"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "pstnet"], "holds no file of rivals; name them mfnet/pstnet.pth"),
        (["--rows", "efnet_light"], "holds no file of rivals, whose chosen rows have no authors' weights"),
        (["--recipe", "paper"], "--official trains nothing; leave out --recipe"),
        (["--epochs", "3", "--seeds", "1"], "--official trains nothing; leave out --epochs, --seeds"),
    ],
)
def test_refusals(
    words: list[str],
    message: str,
    folder: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(scenes, folder, tmp_path / "runs", *words)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_wrong_files_are_refused(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "authors"
    words = command(scenes, root, tmp_path / "runs", "--rows", "mfnet")
    assert main(words) == 2
    assert f"--official {root}: no such folder" in capsys.readouterr().err
    (root / "mfnet").mkdir(parents=True)
    (root / "mfnet" / "mfnet.pth").write_bytes(b"hello\n" * 9)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"{root / 'mfnet' / 'mfnet.pth'}: not a readable weights file (it is damaged" in error
    save(root / "mfnet" / "mfnet.pth", classes=5)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "not the authors' weights of mfnet for 9 classes" in error
    assert "decode1" in error
    save(root / "mfnet" / "mfnet.pt")
    with pytest.raises(
        InputError, match=r"several files of mfnet for mfnet \(mfnet/mfnet.pth, mfnet/mfnet.pt\)"
    ):
        find_file(root, "mfnet", "mfnet")


@pytest.mark.slow
def test_mfnets_own_weights_on_the_real_pairs(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figure of docs/baselines.md: another reading of the file gives another."""
    source = samples / "rivals" / "mfnet" / "final.pth"
    if not source.is_file():
        pytest.skip("no file of MFNet's authors")
    (tmp_path / "authors" / "mfnet").mkdir(parents=True)
    (tmp_path / "authors" / "mfnet" / "mfnet.pth").symlink_to(source)
    words = command(samples / "mfnet", tmp_path / "authors", tmp_path / "runs", "--rows", "mfnet")
    assert main(words) == 0
    (row,) = json.loads((tmp_path / "runs" / "rivals-official.json").read_text())["rows"]
    assert row["miou"]["mean"] == pytest.approx(0.5807, abs=1e-3)
    assert row["macc"] == pytest.approx(0.6808, abs=1e-3)
