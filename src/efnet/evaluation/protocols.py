"""Named protocols: everything about scoring that decides an mIoU once the predictions are fixed.

Published RGB-thermal figures differ in which classes are averaged, which pixels are left out, what a
class that does not occur counts as, and the resolution at which label maps are compared. Each such
choice is a `Protocol`, a row of `protocols.yaml`; a report names the one it was made under.

Common to all of them: one confusion matrix over the whole split (never a mean of per-image scores);
truth pixels of value 255 are left out; IoU = TP / (TP + FP + FN); acc = recall = TP / (TP + FN); mIoU
and mAcc are plain means over the averaged classes under the same rule for absent ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet

AbsentRule = Literal["skip", "zero"]


@dataclass(frozen=True)
class Protocol:
    """How a confusion matrix becomes a figure.

    Leaving a class out of the mean (`left_out`) and leaving its pixels out of the count
    (`ignored_truth`) are different things: in the first case its pixels still are false positives of
    the class that was predicted there, in the second nobody looks at them.
    """

    name: str  # by which it is chosen
    description: str  # one sentence on what decides the figure
    source: str  # who scores like this
    num_classes: int | None  # class count that the protocol is made for; None: any
    left_out: tuple[int, ...] = ()  # label values that are not averaged
    ignored_truth: tuple[int, ...] = ()  # label values whose truth pixels are not counted at all, beside 255
    ignored_prediction: tuple[int, ...] = ()  # label values whose predicted pixels are not counted at all
    absent: AbsentRule = "skip"
    """A class that does not occur (IoU: in neither map; acc: not in truth): `skip` leaves it out of the mean,
    `zero` averages a 0."""
    size: tuple[int, int] | None = None  # (H, W) at which maps are compared; None: each label's own

    def averaged(self, num_classes: int) -> tuple[int, ...]:
        """Label values that enter the mean, for a data set of `num_classes` classes."""
        return tuple(value for value in range(num_classes) if value not in self.left_out)

    def check(self, classes: ClassSet) -> None:
        """Raise InputError, with the protocols that fit, for a class set that this one is not made for."""
        if self.num_classes in (None, len(classes)):
            return
        fitting = [name for name, other in _protocols().items() if other.num_classes in (None, len(classes))]
        raise InputError(
            f"protocol {self.name} is for {self.num_classes} classes, but the data has {len(classes)} "
            f"({', '.join(classes.names)}); protocols that fit: {', '.join(fitting)}"
        )

    def to_dict(self, classes: ClassSet) -> dict[str, Any]:
        """Plain values for a report, label values spelled as class names where they have one."""
        return {
            "name": self.name,
            "description": self.description,
            "source": self.source,
            "classes": [classes.names[value] for value in self.averaged(len(classes))],
            "left_out": [classes.names[value] for value in self.left_out],
            "ignore_index": IGNORE_INDEX,
            "ignored_truth": [classes.names[value] for value in self.ignored_truth],
            "ignored_prediction": [classes.names[value] for value in self.ignored_prediction],
            "absent": self.absent,
            "size": list(self.size) if self.size else None,
            "resize": "logits bilinear (align_corners=False) before the argmax, label maps nearest",
            "summary": self.line(classes),
        }

    def line(self, classes: ClassSet) -> str:
        """One printed line that says what decides the figure."""
        names = classes.names
        averaged = self.averaged(len(classes))
        parts = [f"mean over {len(averaged)} of {len(classes)} classes"]
        if self.left_out:
            parts[0] += f" (without {', '.join(names[value] for value in self.left_out)})"
        parts.append("truth " + ", ".join([*(names[v] for v in self.ignored_truth), "255"]) + " ignored")
        if self.ignored_prediction:
            parts.append("predicted " + ", ".join(names[v] for v in self.ignored_prediction) + " ignored")
        parts.append("absent classes left out" if self.absent == "skip" else "absent classes count 0")
        parts.append(
            f"scored at {self.size[0]}x{self.size[1]}" if self.size else "scored at the label's size"
        )
        return f"{self.name}: {'; '.join(parts)}"


def get_protocol(name: str) -> Protocol:
    """Return the protocol called `name`; raises InputError, with the known names, if there is none."""
    try:
        return _protocols()[name]
    except KeyError:
        raise InputError(f"no protocol is called {name!r}; there are: {', '.join(_protocols())}") from None


def open_with_protocol(
    dataset: str, root: str | Path, split: str, name: str | None
) -> tuple[PairSet, Protocol]:
    """Open a split and the protocol called `name`; None: the data set's own.

    Raises InputError as `get_protocol`, `Protocol.check` and `open_split`.
    """
    named = None if name is None else get_protocol(name)  # a wrong name shows before the files are looked at
    pairset = open_split(dataset, Path(root), split)
    protocol = named or get_protocol(pairset.protocol)
    protocol.check(pairset.classes)
    return pairset, protocol


@cache
def _protocols() -> dict[str, Protocol]:
    """All of them by name, in the order of the documentation."""
    text = resources.files("efnet.evaluation").joinpath("protocols.yaml").read_text(encoding="utf-8")
    tables: dict[str, dict[str, Any]] = yaml.safe_load(text)
    found = {}
    for name, table in tables.items():
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        found[name] = Protocol(name, **values)
    return found


PROTOCOLS = tuple(_protocols().values())
