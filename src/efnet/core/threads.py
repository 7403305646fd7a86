"""Threads of this process that share loops which release the interpreter's lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="efnet-loops")


# In a fork, only the thread that called it goes on.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def share_out(task: Callable[[int, int], int], size: int, step: int) -> list[int]:
    """Return what `task(first, last)` does for the parts of `range(size)`, `step` long, in no fixed order.

    `task` releases the interpreter's lock; whichever thread is free takes the next part.
    """
    parts = itertools.count()
    stopped = False

    def work() -> int:
        nonlocal stopped
        done = 0
        try:
            while not stopped and (first := next(parts) * step) < size:
                done += task(first, min(first + step, size))
        except BaseException:
            stopped = True
            raise
        return done

    helpers = min(torch.get_num_threads(), -(-size // step)) - 1
    if helpers <= 0:
        return [work()]
    started = [_pool(helpers).submit(work) for _ in range(helpers)]
    own = work()
    # A helper that has not begun is not needed any more, and may wait behind another caller's work.
    return [own, *(helper.result() for helper in started if not helper.cancel())]
