"""Contestants on the user's own pairs: what they see in turn, and whether they see the same classes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import efnet
from efnet.cli.main import main
from efnet.export.export import shares
from efnet.scenes import render
from efnet.studies.benchmark import measure, networks, worker
from efnet.studies.benchmark.markdown import agreement_percent
from efnet.studies.benchmark.networks import (
    Plan,
    agreements,
    compare,
    missing_references,
    reference_of,
    steps,
)
from efnet.studies.benchmark.subject import Files, Subject, batches, open_model

SIZE = (32, 48)
QUICK = Plan(runs=1, warmup=0, parts=False, memory=False)
COMMAND = ("benchmark", "--size", "32x48", "--device", "cpu", "--threads", "1", "--warmup", "0")


@pytest.fixture(autouse=True)
def _small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure.GEMM_SIZES, "cpu", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs in rgb/ and thermal/, one of them larger than the networks are measured at."""
    made = tmp_path_factory.mktemp("pairs")
    for kind in ("rgb", "thermal"):
        (made / kind).mkdir()
    for seed, size in enumerate([(64, 96), (64, 96), (96, 144)]):
        sample = render(seed, size, "day")
        Image.fromarray(sample.rgb).save(made / "rgb" / f"{seed}.png")
        thermal = (sample.thermal * 255).round().astype(np.uint8)
        Image.fromarray(thermal).save(made / "thermal" / f"{seed}.png")
    return made


@pytest.fixture
def files(folder: Path) -> tuple[Files, ...]:
    return tuple(
        (str(folder / "rgb" / f"{seed}.png"), str(folder / "thermal" / f"{seed}.png")) for seed in range(3)
    )


def checks(folder: Path) -> list[str]:
    return ["--check-rgb", str(folder / "rgb"), "--check-thermal", str(folder / "thermal")]


def test_shares_of_all_pixels_and_of_the_worst_map() -> None:
    large, small = torch.ones(1, 4, 5, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
    small[0, :3] = False
    assert shares([large, small]) == (pytest.approx(27 / 30), pytest.approx(7 / 10))
    assert shares([large]) == (1.0, 1.0)


def test_pairs_come_as_a_predictor_prepares_them(files: tuple[Files, ...]) -> None:
    """In order and at the contestant's size; a batch that the pairs do not fill begins again."""
    model = open_model("mfnet")
    predictor = efnet.Predictor(model, "cpu")
    predictor.size = SIZE
    subject = Subject("mfnet", SIZE, batch=2, pairs=files)
    found = batches(subject, model)
    assert subject.passes == len(found) == 2
    for place, (batch, row) in zip([0, 1, 2, 0], [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        rgb, thermal = found[batch]
        pair = predictor.prepare(*files[place])
        assert rgb is not None
        assert thermal is not None
        assert torch.equal((rgb[row] * 255).round().to(torch.uint8).permute(1, 2, 0), torch.tensor(pair.rgb))
        assert torch.equal(thermal[row, 0], torch.tensor(pair.thermal))
    few = Subject("mfnet", SIZE, batch=4, pairs=files[:1])
    ((rgb, _),) = batches(few, model)
    assert rgb is not None
    assert rgb.shape == (4, 3, *SIZE)
    assert torch.equal(rgb[0], rgb[3])


@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_a_network_of_one_camera_is_shown_no_other(modality: str, files: tuple[Files, ...]) -> None:
    model = efnet.create_model("segformer_b0", modality=modality)
    for pairs in ((), files):
        (images, *_) = batches(Subject("mfnet", SIZE, pairs=pairs), model)
        assert [image is None for image in images] == [modality == "thermal", modality == "rgb"]


def test_agreement_is_that_of_predictors(files: tuple[Files, ...]) -> None:
    """Of bfloat16, which differs here, with float32, which is no contestant itself."""
    subject = Subject("mfnet", SIZE, precision="bf16", pairs=files)
    seen: list[tuple[int, int]] = []
    (row,) = compare([subject], QUICK, lambda *counts: seen.append(counts))["rows"]
    total = steps([subject], QUICK)
    assert seen == [(done, total) for done in range(1, total + 1)]
    same = []
    for pair in files:
        ours, theirs = (
            efnet.Predictor(open_model("mfnet"), "cpu", precision) for precision in ("bf16", "32")
        )
        ours.size = theirs.size = SIZE
        prepared = ours.prepare(*pair)
        with torch.inference_mode():
            same.append((ours.logits([prepared]).argmax(1) == theirs.logits([prepared]).argmax(1)).numpy())
    assert 0 < np.mean(same) < 1
    assert row["pairs"] == row["agreement"]["pairs"] == 3
    assert row["agreement"]["overall"] == pytest.approx(np.mean(same))
    assert row["agreement"]["worst"] == pytest.approx(min(one.mean() for one in same))


def test_files_agree_and_the_network_is_the_reference(exported: Path, files: tuple[Files, ...]) -> None:
    plain = Subject("mfnet", SIZE, batch=2, pairs=files)
    file = Subject("mfnet", SIZE, batch=2, variant="onnx", file=str(exported), pairs=files)
    given = Subject(str(exported), SIZE, batch=2, variant="onnx", file=str(exported), pairs=files)
    assert (reference_of(file), reference_of(given)) == (plain, None)
    assert missing_references([file, given]) == [plain]
    assert missing_references([plain, file]) == []
    rows = compare([plain, file, given], QUICK)["rows"]
    assert [row["agreement"]["overall"] is None for row in rows] == [True, False, True]
    assert rows[1]["agreement"]["overall"] > 0.999
    ratio = rows[1]["seconds"]["median"] / rows[0]["seconds"]["median"]
    assert [row["times_plain"] for row in rows] == [1.0, pytest.approx(ratio), None]


def test_a_file_of_other_weights_is_told_apart(exported: Path, files: tuple[Files, ...]) -> None:
    torch.manual_seed(7)
    other = efnet.create_model("mfnet").eval()
    file = Subject("mfnet", SIZE, variant="onnx", file=str(exported), pairs=files)
    with torch.inference_mode():
        seen = torch.cat([other(*images).argmax(1).to(torch.uint8) for images in batches(file, other)])
    found = agreements([file], {file: seen}, lambda: None)[file]
    assert found["worst"] <= found["overall"] < 0.9


def test_a_subject_with_pairs_travels(files: tuple[Files, ...]) -> None:
    """To the process that measures memory, which reads no more pairs than it comes to."""
    subject = Subject("mfnet", SIZE, pairs=(*files, (None, "t.png")))
    assert Subject.from_dict(json.loads(json.dumps(subject.to_dict()))) == subject
    work, _, runs = worker._prepare({"kind": "network", "subject": subject.to_dict()})
    assert runs == 3
    assert work().shape == (1, 9, *SIZE)


def measured(tmp_path: Path, *words: str) -> tuple[dict[str, Any], str]:
    """The JSON report of one size, and the Markdown."""
    report, text = tmp_path / "x.json", tmp_path / "x.md"
    assert main([*COMMAND, *words, "--json", str(report), "--markdown", str(text)]) == 0
    (values,) = json.loads(report.read_text())["reports"]
    return values, text.read_text()


def test_one_table_of_time_and_agreement(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    # The fixture `exported` exports in a process of its own, as users do.
    here = lambda words: SimpleNamespace(returncode=main(words[1:]), stderr="")  # noqa: E731
    monkeypatch.setattr(networks.measure, "run_python", here)
    words = ["--models", "mfnet", "--runtime", "torch,onnx-16", "--runs", "2", "--no-memory"]
    values, text = measured(tmp_path, *words, *checks(folder), "--check-pairs", "2")
    plain, file = values["rows"]
    assert [row["variant"] for row in (plain, file)] == ["plain", "onnx-16"]
    assert file["file"] == "mfnet_32x48.onnx"
    assert plain["agreement"] == {"pairs": 2, "overall": None, "worst": None}
    assert 0.99 <= file["agreement"]["overall"] <= 1
    assert str(folder) not in json.dumps(values)
    first, *_ = text.splitlines()
    assert first == "forward pass, 32x48, batch 1, precision 32, 2 given pairs in turn"
    heading, _, row, other = (line for line in text.splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in heading.split("|")[-4:-1]] == [
        "to PyTorch",
        "classes agree",
        "worst pair",
    ]
    assert [cell.strip() for cell in row.split("|")[-4:-1]] == ["1.00", "-", "-"]
    assert other.split("|")[-3].strip() == agreement_percent(file["agreement"]["overall"])


def test_every_pair_gets_its_turn(tmp_path: Path) -> None:
    """More pairs than rounds otherwise are; without files no column compares."""
    for seed in range(12):
        sample = render(seed, (64, 96), "night")
        thermal = (sample.thermal * 255).round().astype(np.uint8)
        Image.fromarray(np.dstack([sample.rgb, thermal]), "RGBA").save(tmp_path / f"{seed}.png")
    words = ["--models", "mfnet", "--no-memory", "--check-rgbt", str(tmp_path / "*.png")]
    values, text = measured(tmp_path, *words)
    assert values["rows"][0]["seconds"]["runs"] == 12
    assert "breakdown" in values["rows"][0]
    assert "to PyTorch" not in text


def record_exports(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace processes that export by successful ones that do nothing; their words."""
    ran: list[list[str]] = []

    def stand_in(words: list[str]) -> SimpleNamespace:
        ran.append(words)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(networks.measure, "run_python", stand_in)
    return ran


def test_two_checkpoints_of_one_name_get_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = record_exports(monkeypatch)
    paths = []
    for run in ("a", "b"):
        efnet.create_model("mfnet").write(tmp_path / run / "best")
        path, fault = networks.export_for(
            str(tmp_path / run / "best"), ("onnx", "int8"), SIZE, tmp_path, ["--check-rgbt", "x"]
        )
        assert fault is None
        paths.append(path)
    assert paths[0] != paths[1]
    assert [command[-2:] for command in ran] == [["--check-rgbt", "x"]] * 2
    assert all("int8" in command for command in ran)


@pytest.mark.parametrize(
    ("share", "expected"), [(1, "100 %"), (0.99999999, "99.9999 %"), (0.5, "50.0000 %"), (0, "0.0000 %")]
)
def test_only_all_is_a_hundred_percent(share: float, expected: str) -> None:
    assert agreement_percent(share) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--check-rgbt", "gone"], "--check-rgbt gone"),
        (["--check-rgb", "gone", "--check-thermal", "gone"], "--check-rgb gone"),
        (
            ["--check-rgbt", "a", "--check-rgb", "b"],
            "--check-rgbt already holds both images; leave out --check-rgb",
        ),
        (["--check-rgbt", "a", "--check-pairs", "0"], "--check-pairs 0: give 1 or more"),
        (["--mode", "train", "--check-rgb", "a"], "--check-rgb belongs to --mode forward, not train"),
        (["--check-rgbt", "a", "--cuda-graph"], "--cuda-graph repeats one pass"),
        (["--runtime", "onnx-4"], "--runtime onnx-4: onnx comes in 32, 16, int8"),
        (["--runtime", "openvino-4"], "--runtime openvino-4: openvino comes in 32, 16, int8"),
        (["--runtime", "torch-16"], "--runtime torch-16: torch comes in 32"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--models", "mfnet", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.lstrip().startswith(f"efnet: error: {message}")
    assert captured.out == ""


def test_pairs_are_refused_before_anything_is_exported(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    ran = record_exports(monkeypatch)
    words = ["--models", "mfnet", "--runtime", "onnx", "--check-rgb", str(folder / "rgb")]
    assert main([*COMMAND, *words]) == 2
    assert "give the thermal image as a file of its own" in capsys.readouterr().err
    assert ran == []
