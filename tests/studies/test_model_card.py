"""Model cards, and their publication through the hub's own client to a server on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.layouts.public import MFNET_CLASSES
from efnet.data.pairs import Pair
from efnet.evaluation.intervals import add_evidence
from efnet.evaluation.metrics import Tally
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import build_report
from efnet.evaluation.resampling import Resampling
from efnet.models.checkpoint import load_checkpoint
from efnet.studies.model_card import PUBLISHED, Published, Terms, push, write_card

TERMS = Terms("other", "research", "https://example.org/terms", "none stated by the authors")
LICENCES = ["--licence", "mit", "--data-licence", "none stated"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "x"
    torch.manual_seed(0)
    model = efnet.create_model("efnet_tiny", classes=MFNET_CLASSES)
    model.training_summary = {
        "dataset": "mfnet",
        "train_pairs": 100,
        "selected_on": "val",
        "teacher": "large",
        "selection_miou": 0.5,
    }
    model.save_pretrained(folder / "best")
    facts = {
        "init": "imagenet (/home/me/site-packages/weights.pth): licence Apache-2.0; loaded 3 tensors; ...",
        "data": {"train": {"split": "train", "pairs": 100, "sha256": "ab" * 32}},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    """A report of the run, as `efnet evaluate --json` writes it."""
    rng = np.random.default_rng(0)
    tally = Tally(MFNET_CLASSES, get_protocol("native"), boundaries=True)
    for number in range(5):
        truth = rng.integers(0, 9, (20, 30)).astype(np.uint8)
        prediction = np.where(rng.random(truth.shape) < 0.6, truth, 0).astype(np.uint8)
        tally.add(Pair(f"p{number}", Path(), None, None), truth, prediction)
    about = {"dataset": "mfnet", "split": "test", "checkpoint": "/home/me/runs/x", "model": "efnet_tiny"}
    values = add_evidence(build_report(tally, about), tally, Resampling(resamples=200))
    path = run.parent / "report.json"
    path.write_text(json.dumps(values))
    return path


def test_a_card_states_figures_licences_and_limits(run: Path, report: Path) -> None:
    text = write_card(Published.read(run, [report]), TERMS, "me/streets")
    values = json.loads(report.read_text())
    low, high = values["interval"]["miou"]
    assert f"mIoU {100 * values['miou']:.2f} [{100 * low:.2f}, {100 * high:.2f}]" in text
    assert "| imagenet | Apache-2.0 |" in text
    assert "| 100 pairs of mfnet | none stated by the authors |" in text
    assert "| teacher | large | not stated |" in text
    assert "research (https://example.org/terms)" in text
    assert "SHA-256 abababababababab" in text
    assert 'from_pretrained("me/streets")' in text
    assert "Probabilities were not calibrated." in text
    assert "/home/me" not in text  # no path of the training machine
    data = ModelCard(text).data
    assert (data.license, data.license_name, data.library_name) == ("other", "research", "efnet")
    assert data.eval_results is not None
    assert data.eval_results[0].metric_value == pytest.approx(100 * values["miou"], abs=0.005)
    assert data.eval_results[0].dataset_split == "test"


def test_a_card_without_figures_does_not_invent_them(run: Path) -> None:
    text = write_card(Published.read(run), Terms())
    assert "None were given with this card." in text
    assert "| these weights |  | not stated |" in text
    assert ModelCard(text).data.license is None


def test_an_experiment_s_evaluation_is_taken(run: Path, report: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "seed0"
    shutil.copytree(run, folder)
    shutil.copyfile(report, folder / "evaluation.json")
    assert len(Published.read(folder).reports) == 1


def test_the_command_writes_the_card(run: Path, report: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "card.md"
    assert main(["card", str(run), "--report", str(report), *LICENCES, "--out", str(path)]) == 0
    assert f"wrote {path}" in capsys.readouterr().out
    assert main(["card", str(run), "--report", str(report), *LICENCES]) == 0
    assert capsys.readouterr().out == path.read_text()


# --- Publication ------------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """The part of the hub's HTTP interface that one commit of small files needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.repositories: dict[str, dict[str, Any]] = {}
        self.tokens: set[str | None] = set()
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses:
            self._answer(403, {"error": "no right to write here"})
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.server.repositories[name] = wanted
            self._answer(200, {"url": f"{self.server.address}/{name}", "id": name, "name": name})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif self.path.endswith("/commit/main"):
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._answer(
                200,
                {"commitUrl": f"{self.server.address}/me/streets/commit/{'c' * 40}", "commitOid": "c" * 40},
            )
        else:
            self._answer(404, {"error": f"no {self.path}"})

    def do_GET(self) -> None:
        self._answer(404, {"error": f"no {self.path}"})

    def _answer(self, status: int, values: dict[str, Any]) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_network_is_published_with_its_card(run: Path, report: Path, hub: Hub, tmp_path: Path) -> None:
    address = push(
        Published.read(run, [report]), TERMS, "me/streets", private=True, token="hf_x", endpoint=hub.address
    )
    assert address.endswith(f"/commit/{'c' * 40}")
    made = hub.repositories["me/streets"]
    assert made.get("private") or made.get("visibility") == "private"  # by the client's version
    assert hub.tokens == {"Bearer hf_x"}
    assert set(hub.files) == set(PUBLISHED)
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    sent, own = load_checkpoint(tmp_path), load_checkpoint(run)
    for name, tensor in own.state_dict().items():
        assert torch.equal(sent.state_dict()[name], tensor)
    assert sent.classes == own.classes
    assert ModelCard.load(tmp_path / "README.md").data.license_name == "research"


def test_a_refusal_of_the_hub_is_a_message(run: Path, hub: Hub) -> None:
    hub.refuses = True
    with pytest.raises(InputError, match="me/streets: not published"):
        push(Published.read(run), TERMS, "me/streets", token="hf_x", endpoint=hub.address)
    assert not hub.files


def test_a_hub_that_cannot_be_reached_is_a_message(run: Path, hub: Hub) -> None:
    address = hub.address
    hub.server_close()
    with pytest.raises(InputError, match="check the name, the token"):
        push(Published.read(run), TERMS, "me/streets", token="hf_x", endpoint=address)


def test_a_dry_run_sends_nothing(run: Path, report: Path, capsys: Any) -> None:
    """The hub's client is offline here, so that anything sent would be an error."""
    words = ["push", str(run), "me/streets", "--report", str(report), *LICENCES]
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "license: mit" in out
    assert "dry run, nothing was sent: me/streets would get model.safetensors" in out
    assert main(words) == 2
    assert "me/streets: not published" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["me/x"], "state the licence of the weights with --licence"),
        (["me/x", "--licence", "mit"], "state the licence of the training data with --data-licence"),
        (
            ["me/x", "--licence", "other", "--data-licence", "none"],
            "--licence other: name it with --licence-name",
        ),
        (
            ["me/x", "--licence", "MIT License", "--data-licence", "none"],
            "--licence MIT License: give an identifier",
        ),
        (["streets", *LICENCES], "streets: give the repository as owner/name"),
        (["a/b/c", *LICENCES], "a/b/c: give the repository as owner/name"),
        (["me/x", *LICENCES, "--report", "missing.json"], "missing.json: not a report"),
    ],
)
def test_nothing_is_published_without_licences_or_with_wrong_words(
    run: Path, hub: Hub, capsys: Any, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    assert main(["push", str(run), *words]) == 2
    assert message in capsys.readouterr().err
    assert not hub.repositories


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["protocol"].update(model="mfnet"), "is a report of mfnet, not of efnet_tiny"),
        (lambda values: values["iou"].pop("bump"), "is a report of other classes"),
        (lambda values: values["interval"].pop("with"), "a damaged report"),
        (lambda values: values.pop("trivial"), "a damaged report"),
    ],
)
def test_reports_of_others_are_refused(
    run: Path, report: Path, tmp_path: Path, change: Any, message: str
) -> None:
    values = json.loads(report.read_text())
    change(values)
    (tmp_path / "other.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        Published.read(run, [tmp_path / "other.json"])
