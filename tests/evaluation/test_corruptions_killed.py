"""`efnet evaluate --corrupt --journal`, killed at random moments: nothing lost, nothing counted twice."""

import json
import random
import subprocess
import sys
import time

import pytest
import torch

import efnet
from efnet.cli.main import main
from efnet.data.layouts import open_split

KILLS = 20
PAIRS = 240


@pytest.mark.slow
def test_killed_twenty_times_gives_the_figures_of_one_run(tmp_path):
    data, words = (
        str(tmp_path / "data"),
        ["--train", "1", "--val", "1", "--test", str(PAIRS), "--size", "64x96"],
    )
    assert main(["data", "synthesize", "--out", data, *words]) == 0
    torch.manual_seed(0)
    model = efnet.create_model("efnet_tiny", classes=open_split("mfnet", tmp_path / "data", "test").classes)
    model.save_pretrained(tmp_path / "model")
    command = [
        *("evaluate", "--checkpoint", str(tmp_path / "model"), "--dataset", "mfnet", "--root", data),
        *("--protocol", "native", "--corrupt", "fog,dead_lines,missing", "--severities", "1,5"),
        *("--batch-size", "7", "--device", "cpu", "--workers", "0"),
    ]
    journal, report = tmp_path / "journal.jsonl", tmp_path / "report.json"
    killed = [sys.executable, "-m", "efnet", *command, "--journal", str(journal), "--json", str(report)]
    dice = random.Random(0)
    for kill in range(KILLS):
        before = size(journal)
        process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while size(journal) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.15))
        assert process.poll() is None, f"kill {kill}: it ended by itself"
        process.kill()
        process.wait()
    assert subprocess.run(killed, capture_output=True, check=False).returncode == 0
    whole = tmp_path / "whole.json"
    assert main([*command, "--json", str(whole)]) == 0
    assert json.loads(report.read_text()) == json.loads(whole.read_text())
    names = [json.loads(line)["name"] for line in journal.read_text().splitlines()[1:]]
    assert sorted(names) == sorted(set(names))
    assert len(names) == PAIRS


def size(path):
    """Bytes of a file; none if it is not there."""
    return path.stat().st_size if path.exists() else 0
