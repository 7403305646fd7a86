"""`efnet predict` as a user runs it: outputs, taking up again, faults, interruption."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from jsonargparse import ArgumentParser
from PIL import Image
from prediction_helpers import CLASSES, make_model, make_pair, write_pair

from efnet.cli import predict
from efnet.cli.main import main
from efnet.core.errors import InputError, ManyInputsError
from efnet.inference.inputs import find_pairs
from efnet.inference.predictor import Predictor
from efnet.inference.resume import FILE_NAME, fingerprint
from efnet.inference.stream import predict_files


@pytest.fixture
def run(checkpoint, folders):
    """Run the command on `folders`; further options replace or add to the usual ones."""

    def command(*more: str, **replaced: str | None) -> int:
        options = {
            "checkpoint": checkpoint,
            "rgb": folders / "rgb",
            "thermal": folders / "thermal",
            "out": folders / "out",
            "device": "cpu",
        } | replaced
        parser = ArgumentParser()
        predict.add_arguments(parser)
        argv = [f"--{key}={value}" for key, value in options.items() if value is not None]
        return predict.run(parser.parse_args([*argv, *more]))

    return command


def written(root) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*.*") if path.is_file()
    }


def test_writes_what_the_predictor_gives(run, folders, predictor, capsys):
    assert run("--save=index,color,overlay,probabilities", "--opacity=0.3") == 0
    for number in range(3):
        rgb, thermal = make_pair(number)
        expected = predictor(rgb, thermal, probabilities=True)
        out = folders / "out"
        with Image.open(out / "index" / f"frame{number}.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), expected.index)
        color = np.asarray(Image.open(out / "color" / f"frame{number}.png"))
        np.testing.assert_array_equal(color, CLASSES.colorize(expected.index))
        overlay = np.asarray(Image.open(out / "overlay" / f"frame{number}.png"))
        np.testing.assert_array_equal(overlay, np.asarray(expected.overlay(rgb, 0.3)))
        probabilities = np.load(out / "probabilities" / f"frame{number}.npy")
        np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-3)
    captured = capsys.readouterr()
    assert captured.out.startswith("predicted 3 of 3 images in ")
    assert "predict" in captured.err, "progress goes to stderr"


def test_default_outputs_and_journal(run, folders, checkpoint):
    run()
    assert sorted(path.name for path in (folders / "out").iterdir()) == [
        "color",
        "index",
        "overlay",
        FILE_NAME,
    ]
    head, *records = [json.loads(line) for line in (folders / "out" / FILE_NAME).read_text().splitlines()]
    assert head["checkpoint"] == str(checkpoint)
    assert head["classes"] == CLASSES.to_dict()
    assert [record["name"] for record in records] == ["frame0", "frame1", "frame2"]
    assert records[0]["size"] == [48, 64]
    assert sum(records[0]["shares"].values()) == pytest.approx(1, abs=1e-4)


def test_sizes_may_differ_within_a_batch(run, folders):
    write_pair(folders, "wide", 7, height=40, width=90)
    write_pair(folders, "drive/tall", 8, height=90, width=41)
    assert run("--batch-size=4", "--workers=3") == 0
    for name, size in (("frame0", (64, 48)), ("wide", (90, 40)), ("drive/tall", (41, 90))):
        for output in ("index", "color", "overlay"):
            assert Image.open(folders / "out" / output / f"{name}.png").size == size


def test_16_bit_thermal_and_four_channels(run, folders, predictor):
    rgb, thermal = make_pair(5, dtype=np.uint16)
    Image.fromarray(thermal).save(folders / "thermal" / "frame0.png")
    Image.fromarray(rgb).save(folders / "rgb" / "frame0.png")
    assert run("--save=index") == 0
    index = np.asarray(Image.open(folders / "out" / "index" / "frame0.png"))
    np.testing.assert_array_equal(index, predictor(rgb, thermal).index)

    rgb, thermal = make_pair(6)
    Image.fromarray(np.dstack([rgb, thermal]), "RGBA").save(folders / "00001D.png")
    assert run(rgb=None, thermal=None, rgbt=folders / "0*.png", out=folders / "out4") == 0
    index = np.asarray(Image.open(folders / "out4" / "index" / "00001D.png"))
    np.testing.assert_array_equal(index, predictor(rgb, thermal).index)


class TestTakingUpAgain:
    def test_finished_images_are_skipped(self, run, folders, capsys):
        run()
        before = written(folders / "out")
        (folders / "out" / "color" / "frame1.png").unlink()
        assert run() == 0
        after = written(folders / "out")
        changed = {name for name in after if after[name] != before.get(name)}
        assert changed == {f"{output}/frame1.png" for output in ("index", "color", "overlay")} | {FILE_NAME}
        assert "predicted 1 of 3 images" in capsys.readouterr().out
        assert run() == 0
        assert "predicted 0 of 3 images, 3 finished before" in capsys.readouterr().out

    def test_a_changed_image_is_predicted_again(self, run, folders, predictor):
        run()
        write_pair(folders, "frame2", 99)
        run()
        index = np.asarray(Image.open(folders / "out" / "index" / "frame2.png"))
        np.testing.assert_array_equal(index, predictor(*make_pair(99)).index)

    def test_further_outputs_are_added(self, run, folders):
        run("--save=index")
        run("--save=index,color")
        assert len(list((folders / "out" / "color").iterdir())) == 3

    def test_overwrite(self, run, folders):
        run()
        before = written(folders / "out")
        run("--overwrite")
        after = written(folders / "out")
        assert before.keys() == after.keys()
        assert all(after[name] > before[name] for name in after)

    def test_a_half_written_record_is_forgotten(self, run, folders):
        run()
        path = folders / "out" / FILE_NAME
        path.write_bytes(path.read_bytes()[:-40])
        assert run() == 0
        lines = path.read_text().splitlines()
        assert json.loads(lines[-1])["name"] == "frame2"

    def test_another_model_is_refused(self, run, folders, tmp_path):
        run()
        other = make_model()
        next(other.parameters()).data.add_(1)
        other.save_pretrained(tmp_path / "other")
        with pytest.raises(InputError, match="another model or other settings; choose another `out`"):
            run(checkpoint=tmp_path / "other")
        assert run("--overwrite", checkpoint=tmp_path / "other") == 0

    def test_other_images_of_the_same_names_are_refused(self, run, folders, tmp_path):
        run()
        for number in range(2):
            write_pair(tmp_path / "elsewhere", f"frame{number}", number + 50)
        with pytest.raises(ManyInputsError) as caught:
            run(rgb=tmp_path / "elsewhere" / "rgb", thermal=tmp_path / "elsewhere" / "thermal")
        assert len(caught.value.faults) == 2

    def test_files_of_others_are_not_replaced(self, run, folders):
        mine = folders / "out" / "color" / "frame1.png"
        mine.parent.mkdir(parents=True)
        mine.write_bytes(b"precious")
        with pytest.raises(ManyInputsError, match="is there already"):
            run()
        assert mine.read_bytes() == b"precious"


class TestFaults:
    def test_a_bad_file_does_not_end_the_run(self, run, folders, capsys):
        (folders / "rgb" / "frame0.png").write_bytes(b"not an image")
        write_pair(folders, "frame9", 3)
        Image.fromarray(make_pair(3)[1][:, :50]).save(folders / "thermal" / "frame9.png")
        assert run("--batch-size=2") == 2
        captured = capsys.readouterr()
        assert "predicted 2 of 4 images" in captured.out
        assert "(2 problems)" in captured.err
        assert str(folders / "rgb" / "frame0.png") in captured.err.replace("\n", "")
        assert str(folders / "thermal" / "frame9.png") in captured.err.replace("\n", "")
        assert len(list((folders / "out" / "index").iterdir())) == 2
        write_pair(folders, "frame0", 0)
        (folders / "rgb" / "frame9.png").unlink()
        (folders / "thermal" / "frame9.png").unlink()
        assert run("--batch-size=2") == 0
        assert "predicted 1 of 3 images" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--save=masks"], "unknown output masks; choose from index, color"),
            (["--save=,"], "--save is empty"),
            (["--opacity=2"], "--opacity 2.0"),
            (["--batch-size=0"], "--batch-size 0"),
            (["--workers=0"], "--workers 0"),
            (["--device=tpu9"], "device 'tpu9' is unknown"),
            (["--device=mps"], "no float64.*use `device` cpu"),
            (["--precision=8"], "precision '8' is unknown; choose 32 or bf16"),
            (["--precision=float32"], "choose 32 or bf16"),
        ],
    )
    def test_bad_options(self, run, folders, options, message):
        with pytest.raises(InputError, match=message):
            run(*options)
        assert not (folders / "out").exists()

    def test_missing_modality(self, run):
        with pytest.raises(InputError, match=r"needs --thermal too \(or --rgbt\)"):
            run(thermal=None)

    def test_video(self, run, folders):
        (folders / "drive.mp4").write_bytes(b"")
        with pytest.raises(InputError, match="there is no four-channel video"):
            run(rgb=None, thermal=None, rgbt=folders / "drive.mp4")

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_what_was_written_before_a_fault_of_writing_is_recorded(self, run, folders, capsys, batch_size):
        for number in range(3, 12):
            write_pair(folders, f"frame{number:02}", number)
        write_pair(folders, "frame05b/x", 20)
        blocked = folders / "out" / "index" / "frame05b"
        blocked.parent.mkdir(parents=True)
        blocked.write_text("in the way")  # where the folder of frame05b/x has to go
        with pytest.raises(InputError, match=r"frame05b/x.png: .*\nstopped after \d+ of 13 images"):
            run("--save=index", f"--batch-size={batch_size}")
        recorded = _recorded(folders / "out")
        assert recorded == {path.stem for path in (folders / "out" / "index").glob("*.png")}
        assert {"frame03", "frame04", "frame05"} <= recorded
        blocked.unlink()
        assert run("--save=index") == 0
        assert f"predicted {13 - len(recorded)} of 13 images" in capsys.readouterr().out

    def test_full_disk(self, checkpoint, folders):
        """A limit on the size of files stands in for a disk that is full: small maps fit, big ones not."""
        write_pair(folders, "frame1b", 7, height=150, width=200)
        words = ["predict", "--checkpoint", str(checkpoint), "--rgb", "rgb", "--thermal", "thermal"]
        words += ["--out", "out", "--save", "probabilities", "--device", "cpu"]
        script = (
            "import resource, sys; from efnet.cli.main import main; "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); sys.exit(main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=folders, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        message = done.stderr.partition("efnet: error: ")[2]
        assert "frame1b.npy" in message
        assert "run the same command again" in message
        written = {path.stem for path in (folders / "out" / "probabilities").iterdir()}
        assert _recorded(folders / "out") == written == {"frame0", "frame1", "frame2"}

    def test_output_folder_is_a_file(self, run, folders):
        (folders / "out").write_text("in the way")
        with pytest.raises(InputError, match="out"):
            run()


def _recorded(out) -> set[str]:
    lines = (out / FILE_NAME).read_text().splitlines()[1:]
    return {json.loads(line)["name"] for line in lines}


def test_one_modality(run, folders, tmp_path):
    make_model("thermal").save_pretrained(tmp_path / "thermal_model")
    assert run(rgb=None, checkpoint=tmp_path / "thermal_model") == 0
    expected = Predictor(make_model("thermal"), device="cpu")(None, make_pair(1)[1]).index
    index = np.asarray(Image.open(folders / "out" / "index" / "frame1.png"))
    np.testing.assert_array_equal(index, expected)


def test_interrupted_and_taken_up_again(run, folders, monkeypatch):
    """Ctrl-C while the second image is in the network: the first stays, the rest follows next time."""
    whole, calls = Predictor.run, []

    def interrupted(self, prepared, probabilities=False):
        calls.append(prepared)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, prepared, probabilities)

    for number in range(3, 16):
        write_pair(folders, f"frame{number}", number)
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "run", interrupted)
        with pytest.raises(KeyboardInterrupt, match="run the same command again to go on"):
            run("--workers=1")
    assert not list((folders / "out").rglob(".*")), "no temporary file is left"
    assert run("--workers=1") == 0
    assert len(list((folders / "out" / "index").iterdir())) == 16


def test_memory_is_bounded(predictor, folders):
    """Only a few pairs are read ahead of the one that is taken."""
    for number in range(3, 30):
        write_pair(folders, f"frame{number}", number)
    pairs = find_pairs(str(folders / "rgb"), str(folders / "thermal"))
    read: list[str] = []
    whole = predictor.prepare
    predictor.prepare = lambda *pair: (read.append(pair), whole(*pair))[1]
    try:
        stream = predict_files(predictor, pairs, lambda pair, *_: pair.name, batch_size=2, workers=2)
        first = next(stream)
        assert first[1] == "frame0"
        assert len(read) < 20
        assert [result for _, result in stream] == [f"frame{number}" for number in range(1, 30)]
    finally:
        del predictor.prepare


class TestAsTyped:
    def test_predicts(self, checkpoint, folders, monkeypatch, capsys):
        words = ["--rgb", "rgb/*.png", "--thermal", "thermal", "--out", "out", "--save", "index"]
        monkeypatch.chdir(folders)
        assert main(["predict", "--checkpoint", str(checkpoint), *words, "--device", "cpu"]) == 0
        assert capsys.readouterr().out.startswith("predicted 3 of 3 images")
        assert len(list((folders / "out" / "index").iterdir())) == 3

    def test_a_fault_is_a_message(self, folders):
        (folders / "thermal" / "frame1.png").unlink()
        words = ["--rgb", "rgb", "--thermal", "thermal", "--out", "out"]
        done = _efnet(folders, "predict", "--checkpoint", "nowhere", *words)
        assert done.returncode == 2
        assert done.stderr.startswith("efnet: error: rgb and thermal do not match")
        assert "Traceback" not in done.stderr


def _efnet(folder, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "efnet", *words], cwd=folder, capture_output=True, text=True, timeout=300
    )


def test_fingerprint_tells_models_apart():
    model = make_model()
    assert fingerprint(model) == fingerprint(make_model())
    list(model.parameters())[-1].data.mul_(1.001)
    assert fingerprint(model) != fingerprint(make_model())


def test_real_samples(run, folders, samples, tmp_path):
    for number, path in enumerate(sorted((samples / "mfnet" / "images").glob("*.png"))[:2]):
        (tmp_path / "mfnet").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "mfnet" / f"{number}.png")
    model = make_model()
    model.input = type(model.input)(size=(60, 80))
    model.save_pretrained(tmp_path / "model")
    assert run(checkpoint=tmp_path / "model", rgb=None, thermal=None, rgbt=tmp_path / "mfnet") == 0
    assert Image.open(folders / "out" / "index" / "0.png").size == (640, 480)
    fmb = samples / "fmb" / "test"
    assert run(rgb=fmb / "Visible", thermal=fmb / "Infrared", out=folders / "fmb") == 0
    assert len(list((folders / "fmb" / "overlay").iterdir())) == len(list((fmb / "Visible").iterdir()))
