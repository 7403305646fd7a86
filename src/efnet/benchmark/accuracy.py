"""Accuracy of the models that are measured, from the reports of other commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from efnet.errors import InputError


def read_accuracy(path: str) -> dict[str, float]:
    """The mIoU of each model, a fraction.

    Args:
        path: JSON of `efnet experiment` (rows of modality rgbt, mean over seeds), of `efnet evaluate`, or
            plain values such as `{"efnet_light": 0.51}`.

    Raises:
        InputError: it cannot be read, or says nothing of any model.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        found = dict(_found(values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"--accuracy {path}: cannot be read ({error}); give the JSON report of efnet experiment or efnet "
            'evaluate, or {"model": mIoU}'
        ) from error
    for model, miou in found.items():
        if not 0 <= miou <= 1:
            raise InputError(f"--accuracy {path}: {model} has {miou:g}; give fractions from 0 to 1")
    if not found:
        raise InputError(f"--accuracy {path}: has the mIoU of no model")
    return found


def _found(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    if "rows" in values:
        for row in values["rows"]:
            if row["model"] is not None and row["modality"] == "rgbt" and row["miou"] is not None:
                yield row["model"], float(row["miou"]["mean"])
    elif "protocol" in values:
        yield values["protocol"]["model"], float(values["miou"])
    else:
        for model, miou in values.items():
            yield model, float(miou)
