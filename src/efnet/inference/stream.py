"""Many files through one predictor: read ahead in threads, predict in batches, write in threads.

Memory does not grow with the number of files: a bounded number of pairs is under way at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from efnet.core.errors import InputError
from efnet.inference.inputs import InputPair
from efnet.inference.missing_cameras import NOT_GIVEN
from efnet.inference.postprocess import Prediction
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared

Result = TypeVar("Result")


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

    Args:
        predictor: the model.
        pairs: what to read.
        finish: called in a thread with each prediction; writes it, for example.
        batch_size: pairs in one pass of the network, as far as they have one size.
        workers: threads that read and finish.
        probabilities: whether predictions carry them.

    Yields:
        each pair with what `finish` returned, or with the error that its files gave. Pairs that cannot
        be read come early, all others in order. Where writing one or predicting one fails, those that
        were already under way still come before the error is raised.

    Raises:
        InputError: a batch does not fit the device's memory, or `finish` failed; likewise OSError.
    """
    waiting = iter(pairs)
    # Not a `with` block: on Ctrl-C its exit would wait for everything that is queued.
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="efnet-predict")

    def read(pair: InputPair) -> tuple[InputPair, Future[Prepared]]:
        image = pair.rgb if pair.rgb is not None else pair.thermal
        if pair.absent is not None and predictor.modality == "rgbt":
            absent = {pair.absent: NOT_GIVEN}
            return pair, pool.submit(predictor.prepare, pair.rgb, pair.thermal, absent)
        if predictor.modality == "thermal" and pair.rgb is None:
            return pair, pool.submit(predictor.prepare, None, image)
        return pair, pool.submit(predictor.prepare, image, pair.thermal)

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
    """As `Predictor.run`; where memory does not suffice, the message says what helps.

    Raises:
        InputError: it does not suffice.
    """
    try:
        return predictor.run(prepared, probabilities)
    except RuntimeError as error:
        # On the CPU it is a plain RuntimeError, and often the kernel ends the process before.
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        height, width = prepared[0].network_size
        count = f"{len(prepared)} images at once" if len(prepared) > 1 else f"an image of {width}x{height}"
        if len(prepared) > 1:
            remedy = "use a smaller --batch-size"
        elif predictor.tiling is not None:
            remedy = "use a smaller --tile"
        else:
            remedy = "cut it into tiles: --tile 480x640"
        raise InputError(f"{count} exceeds the memory of {predictor.device}; {remedy}") from error
