"""Measure one contestant in a process of its own: `python -m efnet.studies.benchmark.worker`.

Reads a task as JSON from stdin and prints `{"peak": bytes, "added": bytes}`, or `null` where not measured.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from efnet.core.cpu_tuning import tune_process
from efnet.core.errors import InputError

_RUNS = {"forward": 3, "train": 2, "clustering": 1}
"""Runs by kind: more than one where the next reuses memory of the first, or the first creates state."""


def main() -> int:
    """Run the task and return the exit status."""
    tune_process()
    task = json.loads(sys.stdin.read())
    import torch

    from efnet.studies.benchmark.measure import peak_so_far

    torch.set_num_threads(task["threads"])
    try:
        work, device, runs = _prepare(task)
        before = peak_so_far(device)
        for _ in range(runs):
            work()
        after = peak_so_far(device)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    measured = before is not None and after is not None
    print(json.dumps({"peak": after, "added": (after or 0) - (before or 0)} if measured else None))
    return 0


def _prepare(task: dict[str, Any]) -> tuple[Any, Any, int]:
    """Return the work, its device and the number of runs."""
    import torch

    if task["kind"] == "clustering":
        from efnet.studies.benchmark.scaling import Case, clustering_work

        case = Case.from_dict(task["case"])
        return clustering_work(case, task["contestant"]), torch.device(case.device), _RUNS["clustering"]
    from dataclasses import replace

    from efnet.studies.benchmark.subject import Subject, make_work, open_model

    subject = Subject.from_dict(task["subject"])
    runs = _RUNS["train" if subject.training else "forward"]
    # Pairs that no run reaches would only take memory.
    subject = replace(subject, pairs=subject.pairs[: runs * subject.batch])
    work = make_work(subject, open_model(subject.source, subject.device))
    return work, torch.device(subject.device), runs


if __name__ == "__main__":
    sys.exit(main())
