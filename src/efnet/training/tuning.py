"""A search for better options: runs with options drawn by Optuna, of which poor ones end early.

The folder of a search holds everything it needs to go on:

study.db         Optuna's study: every trial with its options and validations
trials/0003/     the run folder of a trial
trials.csv       the trials, the best first
best.yaml        the configuration of the best finished trial, which `efnet train` takes
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from efnet.core.errors import InputError
from efnet.core.files import write_text
from efnet.core.safe_parse import read_yaml
from efnet.training.config import TrainConfig, flatten, to_values
from efnet.training.launch import train
from efnet.training.logs import Reporter
from efnet.training.options import keep_settings, make_config, place_of
from efnet.training.run_folder import RunFolder
from efnet.training.stopping import Callbacks, Validated, is_early

DEFAULT_SPACE: dict[str, dict[str, Any]] = {
    "optimizer.lr": {"low": 1e-5, "high": 3e-3, "log": True},
    "optimizer.weight_decay": {"low": 1e-3, "high": 0.1, "log": True},
}
"""Options that are searched where no space is given."""

_FREE = ("device", "track", "data.root", "data.workers", "data.cache")  # may change from call to call

_STARTUP = 4  # finished trials before the pruner compares


@dataclass(frozen=True)
class Finished:
    """A trial that came to its end."""

    number: int
    miou: float | None  # best validation mIoU; None where it was pruned before the first
    epochs: int  # that it trained
    pruned: bool
    options: Mapping[str, Any]  # by place


@dataclass(frozen=True)
class Tuning:
    """Result of a search."""

    out: Path
    trials: tuple[Finished, ...]  # the best first
    best: Path | None  # configuration of the best one; None: no trial has finished
    unfinished: int = 0  # trials that the next call goes on with


def read_space(path: str | Path, base: TrainConfig) -> dict[str, dict[str, Any]]:
    """Read a search space: a YAML file from options, by short name or place, to what they may be.

    `{low: 1.0e-5, high: 1.0e-2, log: true}` is a range of numbers, `{low: 1, high: 4, step: 1}` one of
    whole numbers, `{choices: [mif, add, cat]}` a list. Raises InputError that names the file and the option.
    """
    example = "lr: {low: 1.0e-5, high: 1.0e-2}"
    values = read_yaml(path, example)
    if not values:
        raise InputError(f"{path}: holds no options; write them as '{example}'")
    return check_space({str(name): entry for name, entry in values.items()}, base, str(path))


def check_space(
    values: Mapping[str, Any], base: TrainConfig, source: str = "the space"
) -> dict[str, dict[str, Any]]:
    """Return a space by place, after trying both ends of every range; errors as `read_space`."""
    space: dict[str, dict[str, Any]] = {}
    for name, entry in values.items():
        try:
            place = place_of(name)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        keys = set(entry) if isinstance(entry, dict) else set()
        ranged = {"low", "high"} <= keys <= {"low", "high", "log", "step"}
        if not ranged and not (keys == {"choices"} and isinstance(entry["choices"], list)):
            raise InputError(f"{source}: {name}: give low and high (and log or step), or a list of choices")
        if ranged:
            low, high, log, step = (entry.get(key) for key in ("low", "high", "log", "step"))
            numbers = all(
                isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high)
            )
            if not numbers or not low < high:
                raise InputError(f"{source}: {name}: low {low} and high {high} are not two rising numbers")
            if log and (low <= 0 or step is not None):
                raise InputError(f"{source}: {name}: log needs a low above 0, and no step")
            if step is not None and not (isinstance(step, int | float) and step > 0):
                raise InputError(f"{source}: {name}: step {step} is not a positive number")
        elif not entry["choices"]:
            raise InputError(f"{source}: {name}: choices is empty")
        for value in entry["choices"] if not ranged else (entry["low"], entry["high"]):
            try:
                make_config(base, {place: value})
            except InputError as error:
                raise InputError(f"{source}: {name}: {error}") from error
        space[place] = dict(entry)
    fixed = {"schedule.epochs", "validation.every", "seed"} & set(space)
    if fixed:
        raise InputError(f"{source}: {', '.join(fixed)} must be the same in all trials; take it out")
    return space


def tune(
    config: TrainConfig,
    out: str | Path,
    space: Mapping[str, Any] | None = None,
    *,
    minutes: float | None = None,
    trials: int | None = None,
    reporter: Reporter | None = None,
) -> Tuning:
    """Search for the options with the best validation mIoU; a folder that holds a search is continued.

    The first trial has the options of `config`, where they lie in the space. A trial whose mIoU is below the
    median of the others at the same epoch ends early. A trial that was interrupted, by Ctrl-C or because the
    time was up, goes on from its last step in the next call.

    Args:
        config: all other options.
        out: folder of the search.
        space: as `read_space` returns it; None: rate and weight decay.
        minutes: time for this call; None: until `trials` are done.
        trials: trials altogether; None: until the time is up.
        reporter: shows the progress.

    Raises:
        InputError: neither a time nor a number, another configuration or space than the search began with,
            Optuna is not installed, or errors as of `train`.
        Interrupted: after Ctrl-C.
    """
    if minutes is None and trials is None:
        raise InputError("give `minutes` or `trials`: the search has no end of its own")
    for name, value in (("minutes", minutes), ("trials", trials)):
        if value is not None and not value > 0:
            raise InputError(f"`{name}` {value:g}: give a number above 0")
    reporter = reporter or Reporter()
    search = _Search(config, Path(out), check_space(space or DEFAULT_SPACE, config), reporter)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    with search.lock():
        while deadline is None or time.monotonic() < deadline:
            if trials is not None and search.ended() >= trials:
                break
            search.run_one(deadline)
            search.write()
    return search.write()


class _Search:
    """An Optuna study and its folder."""

    def __init__(
        self, config: TrainConfig, out: Path, space: dict[str, dict[str, Any]], reporter: Reporter
    ) -> None:
        try:
            self.optuna: Any = importlib.import_module("optuna")
        except ImportError as error:
            raise InputError(f"tuning needs optuna ({error}): pip install 'efnet[tune]'") from error
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        self.config, self.out, self.space, self.reporter = config, out, space, reporter
        out.mkdir(parents=True, exist_ok=True)
        database = out / "study.db"
        began = database.is_file()
        try:
            self.study = self.optuna.create_study(
                storage=f"sqlite:///{database.absolute()}",
                study_name="efnet",
                direction="maximize",
                sampler=self.optuna.samplers.TPESampler(seed=config.seed, n_startup_trials=_STARTUP),
                pruner=self.optuna.pruners.MedianPruner(n_startup_trials=_STARTUP),
                load_if_exists=True,
            )
        except Exception as error:  # of SQLAlchemy and of Optuna
            raise InputError(f"{database}: cannot be opened ({error}); choose another `out`") from error
        self._bind(began)

    def _bind(self, began: bool) -> None:
        """Store what the trials depend on in the study, or compare it with what is there."""
        settings = {"config": to_values(self.config), "space": self.space}
        before = self.study.user_attrs.get("settings")
        if not began or before is None:
            self.study.set_user_attr("settings", settings)
            own = flatten(to_values(self.config))
            start = {place: own[place] for place in self.space}
            if all(_holds(self.space[place], value) for place, value in start.items()):
                self.study.enqueue_trial(start)
            return
        old, new = (flatten({key: each[key] for key in settings}) for each in (before, settings))
        free = tuple(f"config.{place}" for place in _FREE)
        differs = [key for key in {**old, **new} if old.get(key) != new.get(key) and not key.startswith(free)]
        if differs:
            raise InputError(
                f"{self.out}: the search began with other options ({', '.join(sorted(differs))}); give those "
                "again, or another `out`"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder, so that a second process does not go on with the same trials."""
        with (self.out / "lock").open("w") as stream:
            try:
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{self.out}: another search runs here now; wait for its end") from error
            except (ImportError, OSError):  # Windows, some network file systems
                pass
            yield

    def run_one(self, deadline: float | None) -> None:
        """Run a trial to its end, or go on with an interrupted one; it stays unfinished past the deadline."""
        running = self._states("RUNNING")
        make = self.optuna.trial.Trial
        trial = make(self.study, running[0]._trial_id) if running else self.study.ask()
        options = {place: self._suggest(trial, place) for place in self.space}
        shown = ", ".join(f"{place} {_short(value)}" for place, value in options.items())
        self.reporter.say(f"trial {trial.number}: {shown}")
        folder = RunFolder(self.out / "trials" / f"{trial.number:04d}")
        over = pruned = False

        def follow(validated: Validated) -> bool:
            nonlocal over, pruned
            if validated.miou is not None:
                if validated.epoch not in self._reported(trial):
                    trial.report(validated.miou, validated.epoch)
                pruned = trial.should_prune()
            over = deadline is not None and time.monotonic() > deadline
            return pruned or over

        config = make_config(self.config, options)
        result = folder.read_facts().get("result")
        if result is None or not _is_over(result, config):
            if folder.has_state():
                config = keep_settings(folder, config)
            train(config, folder.path, folder.has_state(), Reporter(quiet=True), Callbacks(follow))
        result = folder.read_facts()["result"]  # also of a trial whose end the study did not learn
        miou, epochs = result["best_miou"], result["epochs"]
        trial.set_user_attr("epochs", epochs)
        if pruned:
            self.study.tell(trial, state=self.optuna.trial.TrialState.PRUNED)
        elif over and not _is_over(result, config):
            self.reporter.say(f"trial {trial.number}: the time is up after epoch {epochs}; it goes on later")
            return
        else:
            self.study.tell(trial, miou)
        folder.drop_state()
        end = f", pruned after epoch {epochs}" if pruned else ""
        self.reporter.say(f"trial {trial.number}: best val mIoU {100 * miou:.2f}{end}")

    def _reported(self, trial: Any) -> Mapping[int, float]:
        values: Mapping[int, float] = self.study._storage.get_trial(trial._trial_id).intermediate_values
        return values

    def _suggest(self, trial: Any, place: str) -> Any:
        entry = self.space[place]
        if "choices" in entry:
            return trial.suggest_categorical(place, entry["choices"])
        low, high, step = entry["low"], entry["high"], entry.get("step")
        whole = all(isinstance(value, int) for value in (low, high, 1 if step is None else step))
        if whole:
            return trial.suggest_int(place, low, high, step=step or 1, log=bool(entry.get("log")))
        return trial.suggest_float(place, low, high, step=step, log=bool(entry.get("log")))

    def _states(self, *names: str) -> list[Any]:
        states = tuple(getattr(self.optuna.trial.TrialState, name) for name in names)
        found: list[Any] = self.study.get_trials(deepcopy=False, states=states)
        return found

    def ended(self) -> int:
        """Number of trials that came to their end."""
        return len(self._states("COMPLETE", "PRUNED"))

    def write(self) -> Tuning:
        """Write the table of trials and the best configuration, and return the result so far."""
        done = [
            Finished(
                trial.number,
                max(trial.intermediate_values.values(), default=None) if trial.value is None else trial.value,
                trial.user_attrs.get("epochs", 0),
                trial.state.name == "PRUNED",
                trial.params,
            )
            for trial in self._states("COMPLETE", "PRUNED")
        ]
        done.sort(key=lambda trial: (trial.pruned, -(trial.miou or 0.0), trial.number))
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["trial", "val_miou", "epochs", "pruned", *self.space])
        for trial in done:
            row = [trial.number, trial.miou, trial.epochs, trial.pruned]
            writer.writerow([*row, *(trial.options.get(place) for place in self.space)])
        write_text(self.out / "trials.csv", table.getvalue())
        best = None
        if done and not done[0].pruned:
            best = self.out / "best.yaml"
            chosen = make_config(self.config, done[0].options)
            write_text(best, yaml.safe_dump(to_values(chosen), sort_keys=False))
        return Tuning(self.out, tuple(done), best, len(self._states("RUNNING")))


def _is_over(result: Mapping[str, Any], config: TrainConfig) -> bool:
    """Whether a run with this result has no epoch left: it made all, or ended by its own early stopping."""
    return result["epochs"] >= config.schedule.epochs or is_early(result.get("stopped"))


def _holds(entry: Mapping[str, Any], value: Any) -> bool:
    """Whether a value lies in a part of the space."""
    if "choices" in entry:
        return value in entry["choices"]
    return value is not None and bool(entry["low"] <= value <= entry["high"])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
