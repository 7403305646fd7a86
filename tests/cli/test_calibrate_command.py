"""`efnet calibrate` as a user types it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from efnet.alignment.homography import Homography, apply_matrix, corners, warp_matrix
from efnet.cli.main import main
from efnet.scenes import render

SIZE, THERMAL_SIZE = (240, 320), (120, 160)
TRUTH = np.array([[1.75, -0.1, 40.0], [0.1, 1.7, 5.0], [2e-4, -1e-4, 1.0]])
PLACES = np.array([[20, 20], [140, 25], [135, 100], [15, 95], [80, 60], [50, 80]], dtype=float)


@pytest.fixture(scope="session")
def head(tmp_path_factory):
    """A generated pair seen by two cameras with `TRUTH` between them."""
    folder = tmp_path_factory.mktemp("head")
    sample = render(0, SIZE, "day")
    Image.fromarray(sample.rgb).save(folder / "rgb.png")
    thermal = warp_matrix(sample.thermal, np.linalg.inv(TRUTH), THERMAL_SIZE)
    Image.fromarray(np.rint(thermal * 255).astype(np.uint8)).save(folder / "thermal.png")
    return folder


@pytest.fixture
def command(head, tmp_path):
    def run(*more: str) -> int:
        images = [f"--rgb={head}/rgb.png", f"--thermal={head}/thermal.png"]
        return main(["calibrate", *images, f"--out={tmp_path}/h.json", *more])

    return run


def words(pairs) -> list[str]:
    return [f"--point={x},{y},{X},{Y}" for (x, y), (X, Y) in pairs]


def truth(places: np.ndarray) -> list[tuple]:
    return list(zip(places.tolist(), apply_matrix(TRUTH, places).tolist(), strict=True))


def off(path) -> float:
    found = Homography.load(path)
    place = corners(THERMAL_SIZE)
    return float(np.linalg.norm(found.map(place) - apply_matrix(TRUTH, place), axis=1).max())


def test_from_points(command, tmp_path, capsys):
    assert command(*words(truth(PLACES)), f"--preview={tmp_path}/p.png") == 0
    assert off(tmp_path / "h.json") < 1e-6
    values = json.loads((tmp_path / "h.json").read_text())
    assert (values["thermal_size"], values["rgb_size"]) == ([120, 160], [240, 320])
    assert values["about"]["method"] == "points"
    assert len(values["about"]["residuals"]) == 6
    assert Image.open(tmp_path / "p.png").size == (2 * 320 + 8, 240)
    assert "6 of 6 point pairs used" in capsys.readouterr().out


def test_from_a_file_with_a_wrong_line(command, tmp_path, capsys):
    pairs = truth(np.vstack([PLACES, [[100, 30]]]))
    lines = [f"{x};{y}; {X:.2f} {Y:.2f}" for (x, y), (X, Y) in pairs]
    lines[2] = "135, 100, 50, 50  # a slip"
    (tmp_path / "p.csv").write_text("x,y,X,Y\n# by hand\n\n" + "\n".join(lines))
    assert command(f"--points={tmp_path}/p.csv") == 0
    assert off(tmp_path / "h.json") < 0.5
    out = capsys.readouterr().out
    assert re.search(r"pair 3: \d+\.\d+ pixels off, left out", out)
    assert "6 of 7 point pairs used" in out


def test_four_points_prove_nothing(command, capsys):
    assert command(*words(truth(PLACES[:4]))) == 0
    assert "fit exactly whatever they are" in capsys.readouterr().out


def test_from_edges(command, tmp_path, capsys):
    assert command(f"--preview={tmp_path}/p.png") == 0
    assert off(tmp_path / "h.json") < 4, "at the corners of the thermal image, some beyond the colour image"
    assert re.search(
        r"homography from the edges of 1 image pairs: \d+ of 30 image parts agree", capsys.readouterr().out
    )
    sheet = np.asarray(Image.open(tmp_path / "p.png")).astype(float)

    def disagreement(panel: np.ndarray) -> float:
        """Of green (colour) with magenta (thermal), by their correlation."""
        return -np.corrcoef(np.abs(np.diff(panel[..., 0])).ravel(), np.abs(np.diff(panel[..., 1])).ravel())[
            0, 1
        ]

    assert disagreement(sheet[:, 328:]) < disagreement(sheet[:, :320]), "the preview shows the gain"


def test_not_replaced_unasked(command, tmp_path, capsys):
    (tmp_path / "h.json").write_text("mine")
    assert command(*words(truth(PLACES))) == 2
    assert "is there already" in capsys.readouterr().err
    assert command(*words(truth(PLACES)), "--overwrite") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point=1,2,3"], "--point 1,2,3: give four numbers"),
        (["--point=1,2,3,nan"], "give four numbers"),
        (["--point=1,2,3,4"], "1 point pairs; a homography needs four or more"),
        (words([((k, k), (2 * k, 2 * k)) for k in (10, 20, 30, 40)]), "lie on a line"),
        (
            words([((0, 0), (9, 9)), ((9, 0), (0, 9)), ((9, 9), (0, 0)), ((0, 9), (9, 4))]),
            "mirrors or folds|on a line",
        ),
        (words([((300, 5), (10, 10))] * 4), r"300, 5 lies outside the thermal image of 160x120"),
        (words([*truth(PLACES)[:4], ((80, 60), (10, 230))]), "do not agree on a homography"),
        (["--points=none.csv"], r"--points none\.csv: cannot be read"),
        (["--pairs=0"], "--pairs 0: give 1 or more"),
        (["--tolerance=0"], "--tolerance 0.0: give a number"),
        (["--rgb=none.png"], r"none\.png: no such file"),
    ],
)
def test_bad_input(command, options, message, capsys, tmp_path):
    assert command(*options) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert "Traceback" not in captured.err
    assert not (tmp_path / "h.json").exists()


def test_a_bad_line_is_named(command, tmp_path, capsys):
    (tmp_path / "p.csv").write_text("1,2,3,4\n1,2,x,4\n")
    assert command(f"--points={tmp_path}/p.csv") == 2
    assert "p.csv, line 2: give four numbers" in capsys.readouterr().err
