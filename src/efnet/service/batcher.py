"""One thread that runs the network on batches of the waiting pairs."""

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
    """The prediction of a pair, with the times and the batch of its pass."""

    prediction: Prediction
    queue_seconds: float  # from its arrival to the pass that took it
    network_seconds: float  # of that pass
    batch: int  # pairs in that pass


Observe = Callable[[int, float], None]


@dataclass(eq=False)
class _Job:
    prepared: Prepared
    probabilities: bool
    future: Future[Outcome] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Runs pairs of one network size that wait together as one batch.

    The oldest pair waits at most `wait_seconds` for others of its size, then runs with those that arrived.
    A pair whose future was cancelled is left out. If a batch fails, each of its pairs is tried alone, so
    that one cannot spoil another. The predictor runs in the batcher's thread alone. `observe` is called after
    each pass with its number of pairs and its seconds.
    """

    def __init__(
        self, predictor: Predictor, batch_size: int, wait_seconds: float, observe: Observe = lambda *_: None
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
        """Queue a pair from `Predictor.prepare`; raise a `RuntimeError` if the batcher is closed."""
        job = _Job(prepared, probabilities)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._queue.append(job)
            self._changed.notify()
        return job.future

    def close(self, timeout: float) -> bool:
        """Refuse new pairs, finish waiting ones, and return whether the thread ended in `timeout` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            if jobs:
                self._run(jobs)

    def _next(self) -> list[_Job] | None:
        """Return the next batch in order of arrival, empty if all of it was cancelled; None at the end."""
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
        except Exception as error:  # its sender gets the error, and the thread goes on
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
