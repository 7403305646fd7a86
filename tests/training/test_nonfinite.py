"""A loss or gradient that is not finite: nothing changes; it is counted and named; too many end the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_helpers import TORCHRUN, finish, posix
from test_train import InterruptAfter, config, weights
from torch import Tensor

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.training import Interrupted, train
from efnet.training.config import DataConfig, EmaConfig, NetworkConfig, OptimizerConfig
from efnet.training.logs import Reporter
from efnet.training.loss import Objective
from efnet.training.state import read_state
from efnet.training.step import Learner, build_network


def batch_of(count: int, poisoned: int | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = {
        "rgb": torch.rand(count, 3, 64, 96, generator=generator),
        "thermal": torch.rand(count, 1, 64, 96, generator=generator),
        "label": torch.randint(0, 9, (count, 64, 96), generator=generator),
        "index": torch.arange(10, 10 + count),
    }
    if poisoned is not None:
        batch["rgb"][poisoned, 0, 5, 5] = float("nan")
    return batch


class SteepAtZero(Objective):
    """Loss zero, gradient not a number: the root's slope is infinite there."""

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return (logits * 0).sum().sqrt()


def learner_of(scenes: Path, name: str, **options: Any) -> Learner:
    torch.manual_seed(1)
    short = config(scenes, network=NetworkConfig(name=name), ema=EmaConfig(decay=0.9), **options)
    network, _ = build_network(short.network, ClassSet.generic(9))
    learner = Learner(short, network, (), (), 10)
    learner.model.train()
    return learner


def everything(learner: Learner) -> list[Tensor]:
    moments = learner.optimizer.state_dict()["state"].values()
    assert learner.average is not None
    return [
        value.clone()
        for values in (
            learner.network.state_dict().values(),
            learner.average.network.state_dict().values(),
            *(moment.values() for moment in moments),
        )
        for value in values
    ]


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("what", ["the loss", "the gradient"])
@pytest.mark.parametrize("name", ["efnet_tiny", "mfnet"])
def test_a_skipped_step_changes_nothing(name: str, what: str, clip: float | None, scenes: Path) -> None:
    """Batch norms, moments and averages included; the step after it is what it would have been."""
    data = DataConfig(root=str(scenes), size=(64, 96), batch_size=2, accumulate=2)
    learner = learner_of(scenes, name, optimizer=OptimizerConfig(clip=clip), data=data)
    assert learner.step(batch_of(4), 0).fault is None
    before, objective = everything(learner), learner.objective
    if what == "the gradient":
        learner.objective = SteepAtZero(learner.config.loss)
    outcome = learner.step(batch_of(4, poisoned=2 if what == "the loss" else None), 1)
    learner.objective = objective
    assert outcome.fault == f"{what} is not finite"
    assert outcome.pairs == ((12, 13) if what == "the loss" else (10, 11, 12, 13)), "of the pass alone"
    assert all(torch.equal(now, then) for now, then in zip(everything(learner), before, strict=True))
    assert learner.step(batch_of(4), 2).fault is None
    other = learner_of(scenes, name, optimizer=OptimizerConfig(clip=clip), data=data)
    for number in (0, 2):
        other.step(batch_of(4), number)
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(everything(learner), everything(other), strict=True)
    )


def test_a_gradient_whose_square_overflows_is_skipped(scenes: Path) -> None:
    """It would leave an infinite second moment, after which Adam never moves that weight again."""

    class Huge(Objective):
        def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
            return super().__call__(logits, label) * 1e25

    learner = learner_of(scenes, "efnet_tiny")
    learner.objective = Huge(learner.config.loss)
    outcome = learner.step(batch_of(2), 0)
    assert outcome.fault == "the gradient is not finite"
    assert outcome.loss > 1e25


class Listening(InterruptAfter):
    """Keeps what is said, and presses Ctrl-C after so many batches."""

    def __init__(self, batches: int = -1) -> None:
        super().__init__(batches)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second step meets an image with a value that is no number."""
    original = Learner.step

    def step(self: Learner, batch: dict[str, Tensor], number: int) -> Any:
        if number % 2:
            batch["rgb"][0, 0, 0, 0] = float("nan")
        return original(self, batch, number)

    monkeypatch.setattr(Learner, "step", step)


@pytest.mark.usefixtures("poisoned")
def test_skipped_steps_are_counted_named_and_survive_a_resume(scenes: Path, tmp_path: Path) -> None:
    listening = Listening()
    summary = train(config(scenes), tmp_path / "whole", reporter=listening)
    assert summary.skipped == 3
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [1, 2]
    assert all(0 < line["loss"] < 10 for line in lines)
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["result"]["skipped"] == 3
    told = [text for text in listening.said if "step skipped" in text]
    assert len(told) == 3
    names = (scenes / "train.txt").read_text().split()
    assert all(sum(name in text for name in names) == 2 for text in told), "the two pairs of the batch"
    with pytest.raises(Interrupted):
        train(config(scenes), tmp_path / "run", reporter=Listening(5))
    again = train(config(scenes), tmp_path / "run", resume=True, reporter=Listening())
    assert again.skipped == 3
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    states = [read_state(tmp_path / out / "last" / "state.pt")["progress"] for out in ("run", "whole")]
    assert [state | {"seconds": 0} for state in states] == [states[0] | {"seconds": 0}] * 2


def test_too_many_in_succession_end_the_run(scenes: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("efnet.training.step.Objective", SteepAtZero)
    patient = config(scenes, optimizer=OptimizerConfig(max_skipped=2))
    with pytest.raises(InputError, match=r"gradient is not finite in 2 steps in succession.*`lr`") as caught:
        train(patient, tmp_path / "run", reporter=Reporter(quiet=True))
    assert any(name in str(caught.value) for name in (scenes / "train.txt").read_text().split())
    with pytest.raises(InputError, match="max_skipped"):
        OptimizerConfig(max_skipped=0)


SCRIPT = """
import dataclasses, sys, torch
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_nonfinite import batch_of, everything, learner_of
from efnet.training.config import DataConfig, ParallelConfig
parallel = ParallelConfig(strategy={strategy!r})
learner = learner_of(Path("."), "mfnet", data=DataConfig(batch_size=1), parallel=parallel)
rank = learner.group.rank
assert learner.step(batch_of(1), 0).fault is None
before = everything(learner)
outcome = learner.step(batch_of(1, poisoned=0 if rank else None), 1)
assert outcome.fault == "the loss is not finite" and outcome.pairs == (10,), outcome
def local(value):
    return value.to_local() if hasattr(value, "to_local") else value
after = everything(learner)
assert all(torch.equal(local(now), local(then)) for now, then in zip(after, before, strict=True))
assert learner.step(batch_of(1), 2).fault is None
print("as it should be")
"""


@posix
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_process_has_it_and_all_skip(strategy: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), strategy=strategy))
    printed, _ = finish(*TORCHRUN, str(script))
    assert printed.count("as it should be") == 2
