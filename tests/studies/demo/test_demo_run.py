"""The demo itself: the commands as typed, from scenes to page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.studies.demo import QUICK, STANDARD, DemoPaths, DemoPlan, demo_commands, run_demo

TINY = DemoPlan(15, 4, 6, "64x80", "32x48", 1, 5, 1e-3, "0002*.png", 2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny") / "demo"
    own = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for camera, shape in (("rgb", (40, 60, 3)), ("thermal", (40, 60))):
        (own / camera / "sub").mkdir(parents=True)
        for name in ("first", "second", "third"):
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(own / camera / "sub" / f"{name}.png")
    lines: list[str] = []
    report = run_demo(out, TINY, main, lines.append, str(own / "rgb"), str(own / "thermal"))
    return DemoPaths(out), report, lines


def test_writes_everything(finished):
    paths, report, lines = finished
    assert report == paths.report
    html = report.read_text(encoding="utf-8")
    assert "efnet_tiny" in html
    assert html.count("<article") == 6, "two of the user's pairs and four generated ones"
    first, _, trained = html.partition("What it sees")
    assert "Before any training" in first
    assert [first.count(name) > 0 for name in ("first", "second", "third")] == [True, True, False]
    assert trained.count("<article") == 2
    assert len(lines) == 7
    assert lines[0].startswith("[1/7] efnet predict --rgb")
    assert lines[1].startswith("[2/7] efnet data synthesize --out")
    shown = re.search(r"<pre[^>]*>(.*?)</pre>", html, re.DOTALL)[1]
    assert shown.count("efnet ") == 7


def test_one_camera_of_ones_own_is_not_enough(tmp_path):
    with pytest.raises(InputError, match="both `rgb` and `thermal`"):
        run_demo(tmp_path / "demo", TINY, main, str, rgb=str(tmp_path))
    assert not (tmp_path / "demo").exists()
    inside = str(tmp_path / "demo" / "yours" / "rgb")
    with pytest.raises(InputError, match="whose results are replaced"):
        run_demo(tmp_path / "demo", TINY, main, str, rgb=inside, thermal=str(tmp_path))


def test_predicted_files_score_as_the_evaluation(finished):
    """`evaluate`, and `score` on what `predict` wrote, are two ways to one figure."""
    paths, _, _ = finished
    evaluated, scored = (json.loads(path.read_text()) for path in (paths.evaluation, paths.score))
    assert evaluated["images"] == scored["images"] == TINY.test
    assert evaluated["confusion"] == scored["confusion"]
    assert evaluated["miou"] == scored["miou"]
    assert {"day", "night", "trivial"} <= evaluated.keys()


def test_again_replaces_its_own_results_only(finished):
    paths, report, _ = finished
    stranger = paths.out / "notes.txt"
    stranger.write_text("mine")
    before = {path.name: path.stat().st_mtime_ns for path in (paths.data / "images").iterdir()}
    report.write_text("old")
    seen: list[list[str]] = []

    def stop_at_training(words) -> int:
        seen.append(list(words))
        return main(words) if words[0] == "data" else 3

    with pytest.raises(InputError, match="failed with exit status 3"):
        run_demo(paths.out, TINY, stop_at_training, str)
    assert stranger.read_text() == "mine"
    assert not report.exists(), "a report never outlives the run it is about"
    assert not paths.run.exists()
    after = {path.name: path.stat().st_mtime_ns for path in (paths.data / "images").iterdir()}
    assert after == before, "scenes are kept"


def test_ctrl_c_inside_a_command_stops_the_demo(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="starts it over"):
        run_demo(tmp_path / "demo", TINY, lambda words: 130, str)


def test_folders_of_others_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        run_demo(tmp_path, TINY, main, str)
    with pytest.raises(InputError, match="is a file"):
        run_demo(tmp_path / "thesis.tex", TINY, main, str)


@pytest.mark.parametrize("plan", [STANDARD, QUICK, TINY])
def test_the_glob_finds_the_test_scenes(plan, tmp_path):
    """Scenes are numbered through train, val and test; the pattern has to fit the counts."""
    for number in range(1, plan.train + plan.val + plan.test + 1):
        (tmp_path / f"{number:05d}D.png").touch()
    found = sorted(tmp_path.glob(plan.test_images))
    first = plan.train + plan.val + 1
    assert [int(path.name[:5]) for path in found] == list(range(first, first + plan.test))
    command = demo_commands(DemoPaths(tmp_path), plan)[4]
    assert command[command.index("--rgbt") + 1].endswith(plan.test_images)


@pytest.mark.slow
def test_the_real_demo_is_visibly_good(tmp_path):
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    evaluation = json.loads((tmp_path / "demo" / "evaluation.json").read_text())
    assert evaluation["miou"] > 3 * evaluation["trivial"]["miou"]
