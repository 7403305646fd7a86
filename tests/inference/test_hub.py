"""Checkpoints by the name of a hub repository, out of a cache laid out as the hub's client does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prediction_helpers import make_model

from efnet.core.errors import InputError
from efnet.inference.predictor import Predictor
from efnet.models.checkpoint import load_checkpoint

REVISIONS = {"main": "a" * 40, "v1": "b" * 40}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`someone/network` with two revisions, which tell themselves apart by their summary."""
    cache = tmp_path_factory.mktemp("hub")
    repository = cache / "models--someone--network"
    (repository / "refs").mkdir(parents=True)
    model = make_model()
    for revision, commit in REVISIONS.items():
        (repository / "refs" / revision).write_text(commit)
        model.training_summary = {"revision": revision}
        model.save_pretrained(repository / "snapshots" / commit)
    return cache


@pytest.mark.parametrize("revision", [None, "main", "v1", REVISIONS["v1"]])
def test_revision_and_cache_reach_the_hub_s_client(cache: Path, revision: str | None) -> None:
    model = load_checkpoint("someone/network", revision=revision, cache_dir=cache, local_files_only=True)
    expected = "v1" if revision in ("v1", REVISIONS["v1"]) else "main"
    assert model.training_summary == {"revision": expected}


def test_predictor_passes_them_on(cache: Path) -> None:
    predictor = Predictor.from_pretrained(
        "someone/network",
        device="cpu",
        precision="bf16",
        revision="v1",
        token=False,
        cache_dir=str(cache),
        local_files_only=True,
    )
    assert predictor.model.training_summary == {"revision": "v1"}
    assert predictor.precision == "bf16"


def test_what_was_never_fetched_is_a_message(cache: Path, tmp_path: Path) -> None:
    for name, revision, folder in (
        ("someone/other", None, cache),
        ("someone/network", "v2", cache),
        ("someone/network", None, tmp_path),
    ):
        with pytest.raises(InputError, match=name):
            load_checkpoint(name, revision=revision, cache_dir=folder, local_files_only=True)


def test_home_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(cache.parent))
    folder = f"~/{cache.name}/models--someone--network/snapshots/{REVISIONS['v1']}"
    assert load_checkpoint(folder).training_summary == {"revision": "v1"}
    model = load_checkpoint("someone/network", cache_dir=f"~/{cache.name}", local_files_only=True)
    assert model.training_summary == {"revision": "main"}
    with pytest.raises(InputError, match="no such folder"):
        load_checkpoint("~/nothing")
