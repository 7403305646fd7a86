"""One thread that runs the network, on as many waiting pairs of one size at once as may go together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from efnet.inference.postprocess import Prediction
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a pair.

    Attributes:
        prediction: its label map.
        queue_seconds: from its arrival to the pass that took it.
        network_seconds: of that pass.
        batch: pairs in that pass.
    """

    prediction: Prediction
    queue_seconds: float
    network_seconds: float
    batch: int


@dataclass(eq=False)
class _Job:
    prepared: Prepared
    probabilities: bool
    future: Future[Outcome] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Pairs that the network sees at one size and that wait together go through it together.

    The oldest pair decides: it waits at most `wait_seconds` for others of its size, then goes with those that
    came. A pair whose future was cancelled is left out. If a batch fails, each of its pairs is tried
    alone, so that one cannot spoil another.

    Args:
        predictor: runs in the batcher's thread alone.
        batch_size: most pairs in a pass.
        wait_seconds: least latency that a lone pair pays.
        observe: called after each pass with its number of pairs and its seconds.
    """

    def __init__(
        self,
        predictor: Predictor,
        batch_size: int,
        wait_seconds: float,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._predictor = predictor
        self._batch_size = batch_size
        self._wait_seconds = wait_seconds
        self._observe = observe
        self._queue: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        # A daemon: a pass that never ends must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="efnet-network", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of pairs in the queue."""
        return len(self._queue)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, prepared: Prepared, probabilities: bool = False) -> Future[Outcome]:
        """Queue a pair.

        Args:
            prepared: what `Predictor.prepare` returned.
            probabilities: whether the prediction is to carry them.

        Raises:
            RuntimeError: the batcher is closed.
        """
        job = _Job(prepared, probabilities)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._queue.append(job)
            self._changed.notify()
        return job.future

    def close(self, timeout: float) -> bool:
        """Take no more pairs, finish those that wait, and end the thread.

        Returns:
            whether it ended within `timeout` seconds.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            jobs = self._next()
            if jobs is None:
                return
            if jobs:
                self._run(jobs)

    def _next(self) -> list[_Job] | None:
        """The next batch, in order of arrival; empty if all of it was cancelled; None: the end."""
        with self._changed:
            while not self._queue:
                if self._closed:
                    return None
                self._changed.wait()
            due = self._queue[0].arrived + self._wait_seconds
            while True:
                size = self._queue[0].prepared.network_size
                fitting = [job for job in self._queue if job.prepared.network_size == size]
                left = due - time.monotonic()
                if len(fitting) >= self._batch_size or left <= 0 or self._closed:
                    break
                self._changed.wait(left)
            batch = fitting[: self._batch_size]
            self._queue = [job for job in self._queue if job not in batch]
        return [job for job in batch if job.future.set_running_or_notify_cancel()]

    def _run(self, jobs: list[_Job]) -> None:
        started = time.monotonic()
        try:
            predictions = self._predictor.run(
                [job.prepared for job in jobs], any(job.probabilities for job in jobs)
            )
        except Exception as error:  # whatever it is, its sender has to hear of it and the thread goes on
            if len(jobs) > 1:
                for job in jobs:
                    self._run([job])
            else:
                jobs[0].future.set_exception(error)
            return
        seconds = time.monotonic() - started
        self._observe(len(jobs), seconds)
        for job, prediction in zip(jobs, predictions, strict=True):
            job.future.set_result(Outcome(prediction, started - job.arrived, seconds, len(jobs)))
