"""Many files through one predictor: read ahead in threads, predicted in batches, written in threads.

Memory does not grow with the number of files: a bounded number of pairs is under way at any time. Several
processes or machines may share the work.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Self, TypeVar

import torch
from torch import distributed as torch_distributed

from efnet.core import distributed
from efnet.core.errors import InputError
from efnet.inference.inputs import InputPair
from efnet.inference.missing_cameras import NOT_GIVEN
from efnet.inference.postprocess import Prediction
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared

Result = TypeVar("Result")
T = TypeVar("T")

_LONGEST_WAIT = timedelta(days=30)
"""For the slowest process. One that dies does not make the others wait: torchrun ends them all."""


def predict_files(
    predictor: Predictor,
    pairs: Sequence[InputPair],
    finish: Callable[[InputPair, Prediction, Prepared], Result],
    *,
    batch_size: int = 1,
    workers: int = 2,
    probabilities: bool = False,
) -> Generator[tuple[InputPair, Result | InputError]]:
    """Predict files, and do something with each prediction.

    A pass of the network takes `batch_size` pairs, as far as they have one size; `workers` threads read files
    and call `finish`, for example to write a prediction. Yields each pair with what `finish` returned, or
    with the error that its files gave. Pairs that cannot be read come early, all others in order. Where
    writing one or predicting one fails, those that were already under way still come before the error is
    raised. Raises InputError: a batch does not fit the device's memory, or `finish` failed; likewise OSError.
    """
    waiting = iter(pairs)
    # Not a `with` block: on Ctrl-C its exit would wait for everything that is queued.
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="efnet-predict")

    def read(pair: InputPair) -> tuple[InputPair, Future[Prepared]]:
        if pair.absent is not None and predictor.modality == "rgbt":
            return pair, pool.submit(predictor.prepare, pair.rgb, pair.thermal, {pair.absent: NOT_GIVEN})
        if predictor.modality == "thermal" and pair.rgb is None:
            return pair, pool.submit(predictor.prepare, None, pair.thermal)
        return pair, pool.submit(predictor.prepare, pair.rgb or pair.thermal, pair.thermal)

    finishing: deque[tuple[InputPair, Future[Result]]] = deque()
    try:
        ahead = batch_size + 2 * workers
        reading = deque(read(pair) for pair in islice(waiting, ahead))
        batch: list[tuple[InputPair, Prepared]] = []
        while reading:
            pair, future = reading.popleft()
            reading.extend(read(following) for following in islice(waiting, 1))
            try:
                batch.append((pair, future.result()))
            except InputError as error:
                yield pair, error
            if batch and (len(batch) == batch_size or not reading):
                predictions = run_in_memory(predictor, [prepared for _, prepared in batch], probabilities)
                for (pair, prepared), prediction in zip(batch, predictions, strict=True):
                    finishing.append((pair, pool.submit(finish, pair, prediction, prepared)))
                batch = []
            while len(finishing) > ahead:
                pair, done = finishing.popleft()
                yield pair, done.result()
        while finishing:
            pair, done = finishing.popleft()
            yield pair, done.result()
    except (InputError, OSError):
        for pair, done in finishing:
            if done.exception() is None:  # waits
                yield pair, done.result()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_in_memory(
    predictor: Predictor, prepared: Sequence[Prepared], probabilities: bool
) -> list[Prediction]:
    """Do as `Predictor.run`; where memory does not suffice, the InputError contains what helps."""
    try:
        return predictor.run(prepared, probabilities)
    except RuntimeError as error:
        # On the CPU it is a plain RuntimeError, and often the kernel ends the process before.
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        height, width = prepared[0].network_size
        count = f"{len(prepared)} images at once" if len(prepared) > 1 else f"an image of {width}x{height}"
        if len(prepared) > 1:
            remedy = "use a smaller `batch_size`"
        elif predictor.tiling is not None:
            remedy = "use a smaller `tile`"
        else:
            remedy = "cut it into tiles: `tile` 480x640"
        raise InputError(f"{count} exceeds the memory of {predictor.device}; {remedy}") from error


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count` parts of the work, which together hold every pair once."""

    number: int = 1
    count: int = 1

    @classmethod
    def choose(cls, text: str | None) -> Self:
        """Read a text such as `2/5` (None: by this process's rank); raises InputError if it does not fit."""
        processes = distributed.world_size()
        if text is None:
            return cls(distributed.rank() + 1, processes)
        if processes > 1:
            raise InputError(
                f"`shard` {text}: the {processes} processes of torchrun or srun share the work already; "
                "leave it out"
            )
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count:
            raise InputError(f"`shard` {text}: give the part and the number of parts, from 1/5 to 5/5")
        return cls(number, count)

    def pick(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th item: parts differ by one item at most."""
        return list(items[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number} of {self.count}"


def device_of_rank(device: str) -> str:
    """Give each process of a machine a GPU of its own, unless one is named (`cuda:1`) or there is none."""
    if distributed.world_size() == 1 or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    place = int(local) if local.isdecimal() else 0
    return f"cuda:{place % torch.cuda.device_count()}"


def wait_for_others(faults: int) -> int:
    """Sum the faults of all processes of torchrun, which would end all if one left with an error."""
    if distributed.world_size() == 1 or not torch_distributed.is_torchelastic_launched():
        return faults
    torch_distributed.init_process_group("gloo", timeout=_LONGEST_WAIT)
    total = torch.tensor(faults)
    torch_distributed.all_reduce(total)
    torch_distributed.destroy_process_group()
    return int(total)
