"""`efnet experiment` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from efnet.cli.experiment import read_init, read_roots
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.studies.experiments.paper_tables import list_tables


def test_tiny_run_on_generated_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing to a report; pst900 is not at hand and scenes stand in for it."""
    out = tmp_path / "runs"
    words = ["experiment", "run", "table2", "--budget", "tiny", "--out", str(out), "--epochs", "1", "--quiet"]
    assert main([*words, "--rows", "pstnet", "efnet", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# TINY RUN on generated scenes, not the paper's Table II")
    assert printed == (out / "table2.md").read_text(encoding="utf-8")
    values = json.loads((out / "table2.json").read_text())
    rows = {row["row"]: row for row in values["rows"]}
    assert [rows[name]["model"] for name in ("pstnet", "efnet")] == ["pstnet", "efnet_tiny"]
    assert rows["pstnet"]["seeds"][0]["epochs"] == 1
    assert values["protocol"]["name"] == "native"


def test_tiny_run_on_given_data(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment", "run", "table5", "--budget", "tiny", "--root", str(scenes), "--epochs", "1"]
    words += [
        "--rows",
        "none",
        "--seeds",
        "3",
        "4",
        "--out",
        str(tmp_path / "runs"),
        "--quiet",
        "--device",
        "cpu",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# TINY RUN on the given data")
    assert "| position none | 3, 4 |" in printed
    assert "±" in printed
    assert main(["experiment", "report", "table1", "--out", str(tmp_path / "runs")]) == 2


def test_list_names_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "list"]) == 0
    printed = capsys.readouterr().out
    for table in list_tables():
        assert f"{table.name}  {table.heading}" in printed
        assert all(str(row.path) in printed and row.path.is_file() for row in table.rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["table9", "--out", "x"], "no table 'table9'; there are table1"),
        (["table4"], "the following options are required: --out"),
        (["table4", "--out", "x"], "row cat needs mfnet: give --root mfnet=DIR, or leave it out with --rows"),
        (["table4", "--out", "x", "--budget", "huge"], "--budget huge: choose full or tiny"),
        (["table4", "--out", "x", "--root", "nowhere"], "nowhere: no such folder"),
        (
            ["table4", "--out", "x", "--root", "d", "--rows", "sum"],
            "--rows sum: table4 has the rows cat, add, mif",
        ),
        (["table4", "--out", "x", "--root", "d", "--seeds", "0", "0"], "--seeds 0 0: give different numbers"),
        (["table4", "--out", "x", "--root", "d", "--workers", "-1"], "--workers -1: give 0 or more"),
        (["table4", "--out", "x", "--root", "d", "--device", "abacus"], "device 'abacus' is unknown"),
        (["table4", "--out", "x", "--root", "d", "--precision", "8"], "precision '8' is unknown"),
        (
            ["baseline", "--out", "x", "--root", "d"],
            "--root d: the table is on several data sets; give --root fmb=DIR",
        ),
        (["baseline", "--out", "x", "--root", "mfnet=d"], "row pst900 needs pst900: give --root pst900=DIR"),
    ],
)
def test_wrong_options(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", "run", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"efnet: error: {message}")
    assert captured.out == ""
    assert not list(tmp_path.rglob("seed*"))


def test_roots() -> None:
    assert read_roots(["data/a=b"], {"mfnet"}) == {"mfnet": Path("data/a=b")}
    assert read_roots(["fmb=d", "mfnet=e"], {"mfnet", "fmb"}) == {"fmb": Path("d"), "mfnet": Path("e")}
    with pytest.raises(InputError, match="there is a folder for mfnet already"):
        read_roots(["d", "mfnet=e"], {"mfnet"})


def test_weights_by_network() -> None:
    networks = ["rtfnet152", "efnet_light"]
    assert read_init([], networks) == {}
    assert read_init(["runs/a=b.pth"], networks[:1]) == {"rtfnet152": "runs/a=b.pth"}
    assert read_init(["efnet_light=t.pth", "rtfnet152=fresh"], networks) == {
        "efnet_light": "t.pth",
        "rtfnet152": None,
    }
    with pytest.raises(InputError, match=r"several networks; give --init rtfnet152=FILE efnet_light=FILE"):
        read_init(["t.pth"], networks)
    with pytest.raises(InputError, match="--init: nothing for rtfnet152; give NAME=FILE, or NAME=fresh"):
        read_init(["efnet_light=t.pth"], networks)
    with pytest.raises(InputError, match="efnet_light has weights already"):
        read_init(["t.pth", "efnet_light=u.pth"], networks[1:])
    with pytest.raises(InputError, match="the rows that are run are of rtfnet152; leave it out"):
        read_init(["lasnet=t.pth"], networks[:1])
    with pytest.raises(
        InputError, match="there is no network efnet-light; the rows are of rtfnet152, efnet_l"
    ):
        read_init(["efnet-light=t.pth"], networks)
    with pytest.raises(InputError, match="names no file; give one, or efnet_light=fresh"):
        read_init(["efnet_light="], networks)


def test_weights_that_do_not_fit_show_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the last row too."""
    (tmp_path / "tcformer.pth").write_bytes(b"no weights")
    words = ["table2", "--budget", "tiny", "--out", str(tmp_path / "runs"), "--rows", "efnet", "pstnet"]
    words += ["--init", "pstnet=fresh", f"efnet_tiny={tmp_path / 'tcformer.pth'}"]
    assert main(["experiment", "run", *words]) == 2
    assert f"error: --init efnet_tiny: {tmp_path / 'tcformer.pth'}" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/seed0"))


def experiment(*words: str) -> None:
    """In a process of its own, which no fixture of these tests reaches."""
    subprocess.run([sys.executable, "-m", "efnet", "experiment", *words], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("table", [table.name for table in list_tables()])
def test_every_table_ends_with_a_report(table: str, tmp_path: Path) -> None:
    # The large networks of the rivals take minutes each, however small the images.
    quick = {
        "rivals": ["efnet_light", "mfnet", "segformer_b0", "cmx_b0", "rgb"],
        "table2": ["pstnet", "efnet"],
    }
    quick |= {"table1": ["efnet"], "table3": ["efnet"]}
    some = ["--rows", *quick[table]] if table in quick else []
    experiment("run", table, "--budget", "tiny", "--out", str(tmp_path / "runs"), *some)
    values = json.loads((tmp_path / "runs" / f"{table}.json").read_text())
    done = [row for row in values["rows"] if row["miou"] is not None]
    assert len(done) == len(some[1:] or values["rows"])
    assert all(row["miou"]["mean"] > 0 for row in done)
    assert values["title"].startswith("TINY RUN on generated scenes")


@pytest.mark.slow
def test_tiny_run_on_the_real_sample(samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    experiment("run", "table6", "--budget", "tiny", "--root", str(samples / "mfnet"), "--out", str(out))
    assert (out / "table6.md").read_text(encoding="utf-8").startswith("# TINY RUN on the given data")
