"""What SECURITY.md promises of the network, of hub repositories and of configurations (see `guard/`)."""

from __future__ import annotations

import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from efnet.cli.main import main
from efnet.models.base import SegmentationModel
from efnet.models.config import BackboneConfig, EFNetConfig
from efnet.models.efnet import EFNet

GUARD = Path(__file__).parent / "guard"

SESSION = """
import sys
from efnet.cli.main import main
for line in sys.argv[1:]:
    status = main(line.split())
    assert status == 0, f"{line}: {status}"
"""

COMMANDS = (
    "data synthesize --out scenes --train 2 --val 1 --test 1 --size 64x64 --workers 2",
    "train --dataset mfnet --root scenes --out run --model mfnet --size 32x32 --epochs 1 --batch-size 1 "
    "--workers 1 --device cpu --quiet",
    "evaluate --checkpoint run --dataset mfnet --root scenes --device cpu",
    "predict --checkpoint run --rgbt scenes/images --out maps --device cpu",
    "explain --checkpoint model --rgbt pair.png --out explained --device cpu",
    "export --checkpoint run --out mfnet.pt2 --format torch --size 32x32",
    "predict --checkpoint mfnet.pt2 --rgbt small.png --out again",
    "models",
    "doctor",
)


def guarded(
    home: Path, words: list[str], **variables: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run Python in a folder with the guard loaded; what it did, and what the guard noted.

    Nothing says that the hub is out of reach: the guard has to be what keeps a process from it.
    """
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in offline}
    notes = home / "notes.txt"
    notes.write_text("")
    own = {"HOME": str(home), "PYTHONPATH": str(GUARD), "EFNET_NOTES": str(notes)}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=home,
        env={**kept, **own, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done, notes.read_text().splitlines()


def small_model() -> SegmentationModel:
    torch.manual_seed(5)
    backbone = BackboneConfig((1, 1, 1, 1), (8, 16, 24, 32), (1, 1, 1, 1), (2, 2, 2, 2))
    return EFNet(EFNetConfig(backbone, 3), "efnet_tiny")


def write_pair(path: Path, side: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (side, side, 4), dtype=np.uint8)
    Image.fromarray(values, "RGBA").save(path)


@pytest.mark.slow
def test_commands_ask_nothing_of_the_network(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path / "model")
    write_pair(tmp_path / "pair.png", 64)
    write_pair(tmp_path / "small.png", 32)
    done, notes = guarded(tmp_path, ["-c", SESSION, *COMMANDS])
    assert done.returncode == 0, done.stderr[-2000:]
    assert notes == []
    for made in ("run/best", "maps", "explained", "mfnet.pt2", "again"):
        assert (tmp_path / made).exists(), made


def test_runtimes_of_exported_files_ask_nothing_of_the_network(tmp_path: Path) -> None:
    """OpenVINO reports its use as soon as it is imported, unless kept from it."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    load = "from efnet.inference.runtime import import_silenced as load; load(%r)"
    for package in ("openvino", "onnxruntime"):
        done, notes = guarded(tmp_path, ["-c", load % package])
        assert (done.returncode, notes) == (0, []), done.stderr
    # OpenVINO's reporter leaves an identity of this user there.
    assert not (tmp_path / "intel").exists()


def test_the_service_asks_nothing_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    small_model().save_pretrained(tmp_path / "model")
    script = """
import re, signal, subprocess, sys, time, urllib.error, urllib.request
words = "serve --checkpoint model --port 0 --device cpu --threads 1".split()
service = subprocess.Popen([sys.executable, "-m", "efnet", *words], stdout=subprocess.PIPE, text=True)
place = re.search(r"http://\\S+/", service.stdout.readline())[0]
for _ in range(600):  # a signal during the warm-up may abort PyTorch
    try:
        urllib.request.urlopen(place + "healthz")
        break
    except urllib.error.HTTPError as error:
        assert error.code == 503
        time.sleep(0.1)
else:
    sys.exit("never ready")
for path in ("", "docs", "v1/model"):
    assert urllib.request.urlopen(place + path).status == 200
service.send_signal(signal.SIGTERM)
assert service.wait(60) == 0
"""
    done, notes = guarded(tmp_path, ["-c", script])
    assert done.returncode == 0, done.stderr[-2000:]
    assert notes == []


def test_only_the_hub_is_asked_and_only_for_a_name_of_the_hub(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair.png", 32)
    line = "predict --checkpoint someone/network --rgbt pair.png --out maps --device cpu"
    # The hub's client waits longer from try to try.
    impatient = f"import time; time.sleep = lambda seconds: None\n{SESSION}"
    done, notes = guarded(tmp_path, ["-c", impatient, line])
    assert done.returncode == 1
    assert "someone/network" in done.stderr
    assert set(notes) == {"ask huggingface.co"}


class Canary:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkpoint among files that loaders of other packages would run."""
    folder = tmp_path / "repository"
    small_model().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "modeling.Net"}, "trust_remote_code": True}
    (folder / "config.json").write_text(json.dumps(config))
    run = f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    for name in ("modeling.py", "__init__.py", "setup.py", "handler.py", "sitecustomize.py"):
        (folder / name).write_text(run)
    for name in ("pytorch_model.bin", "model.pth", "training_args.bin", "model.pkl"):
        (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    return folder


LOAD = """
import sys
from efnet.models.checkpoint import load_checkpoint
from efnet.models.efnet import EFNet
for load in (load_checkpoint, EFNet.from_pretrained):
    assert load(sys.argv[1]).num_classes == 3
assert "modeling" not in sys.modules
"""


def test_of_a_folder_weights_and_json_are_read_and_no_code(repository: Path, tmp_path: Path) -> None:
    done, notes = guarded(tmp_path, ["-c", LOAD, str(repository)], EFNET_GUARDED=str(repository))
    assert done.returncode == 0, done.stderr[-2000:]
    # The weights are mapped into memory by a library that Python's hooks do not see.
    assert set(notes) - {"read model.safetensors"} == {"read config.json"}
    assert not (tmp_path / "ran").exists()


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client needs for one repository: any file of a folder, by its name."""

    folder: Path
    asked: set[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.asked.add(self.path)
        path = self.folder / self.path.rpartition("/resolve/main/")[2]
        found = "/resolve/main/" in self.path and path.is_file()
        content = path.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{path.name}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(repository: Path) -> Iterator[tuple[str, set[str]]]:
    """Its address, and the paths that it was asked for."""
    asked: set[str] = set()
    kind = type("OneHub", (Hub,), {"folder": repository, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_of_a_hub_repository_two_files_are_fetched(
    hub: tuple[str, set[str]], repository: Path, tmp_path: Path
) -> None:
    address, asked = hub
    done, notes = guarded(tmp_path, ["-c", LOAD, "someone/network"], HF_ENDPOINT=address)
    assert done.returncode == 0, done.stderr[-2000:]
    assert notes == []
    # The client's own: a list against which it tells in its requests which program called it.
    asked.discard("/api/agent-harnesses")
    assert asked == {f"/someone/network/resolve/main/{name}" for name in ("config.json", "model.safetensors")}
    assert not (tmp_path / "ran").exists()


CONFIGURATIONS = {
    "a class to make": "data: {class_path: canary.Thing, init_args: {name: x}}\n",
    "a class for the whole": "class_path: canary.Thing\ninit_args: {}\n",
    "a class for a value": "network: {name: {class_path: canary.Thing}}\n",
    "a tag that calls": "seed: !!python/object/apply:canary.run []\n",
    "a tag that makes": "seed: !!python/object:canary.Thing {}\n",
    "a tag that names": "recipe: !!python/name:canary.Thing\n",
    "a tag of a module": "recipe: !!python/module:canary\n",
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that can be imported; the file that is there once it was."""
    ran = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nrun = Thing = dict\n"
    (tmp_path / "canary.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield ran
    sys.modules.pop("canary", None)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_imports_nothing(
    name: str, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIGURATIONS[name])
    assert main(["train", "--out", str(tmp_path / "run"), "--quiet", "--config", str(path)]) == 2
    assert "efnet: error: " in capsys.readouterr().err
    assert not canary.exists()
    assert "canary" not in sys.modules
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_data_description_imports_nothing(
    name: str, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(f"names: [background, car]\n{CONFIGURATIONS[name]}")
    assert main(["data", "check", "--dataset", str(path), "--root", str(tmp_path)]) == 2
    assert "dataset.yaml" in capsys.readouterr().err
    assert not canary.exists()
    assert "canary" not in sys.modules
