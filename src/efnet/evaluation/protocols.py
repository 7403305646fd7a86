"""Named protocols: everything about scoring that decides an mIoU once the predictions are fixed.

Published RGB-thermal figures differ in which classes are averaged, which pixels are left out, what a
class that does not occur counts as, and the resolution at which label maps are compared. Each such
choice is a `Protocol`; a report names the one it was made under.

Common to all of them: one confusion matrix over the whole split (never a mean of per-image scores);
truth pixels of value 255 are left out; IoU = TP / (TP + FP + FN); acc = recall = TP / (TP + FN); mIoU
and mAcc are plain means over the averaged classes under the same rule for absent ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError

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
        fitting = [name for name, other in _BY_NAME.items() if other.num_classes in (None, len(classes))]
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
        return _BY_NAME[name]
    except KeyError:
        raise InputError(f"no protocol is called {name!r}; there are: {', '.join(_BY_NAME)}") from None


_MFNET = partial(Protocol, num_classes=9, size=(480, 640))
"""MFNet and MSRS (9 classes, 640x480).

The code published with RTFNet scores a 9x9 matrix and prints two means: over classes that occur, and with
absent ones as 0; CMX takes the mean over those that occur. On the day or night part alone a class may be
absent (guardrail), so there the two rules differ by whole points.

The code published with MFNet removes row and column 0 of the matrix before it takes the IoU: a pixel whose
truth *or prediction* is unlabeled is not counted at all, which hides both false alarms on background and
objects missed altogether. That is `mfnet-authors`. (The average that this code prints includes a constant 0
for unlabeled, so it is 8/9 of the mean over eight classes given here; its class accuracy divides by column
sums and so is precision, where acc here is recall.) `mfnet-no-unlabeled` is the milder reading: all pixels
count, unlabeled is not averaged.
"""

_PST900 = partial(Protocol, num_classes=5)
"""PST900 (5 classes, 1280x720): the same rule at three resolutions.

The authors' code averages an absent class as 0; on their test split every class occurs, so the rule changes
nothing there and all three leave absent classes out.
"""

_FMB = partial(Protocol, num_classes=15, size=(600, 800))
"""FMB (15 label values, 800x600), of which value 0 is "unlabeled".

MMSFormer and others train and score 14 classes: truth pixels of value 0 are never counted, so nothing
predicted there is a false positive. Their networks have no output for value 0; one that has it and predicts
it on a counted pixel is wrong there (a miss of the true class).
"""

_PST900_RULE = "5 classes with background, nothing but 255 ignored, scored at"

PROTOCOLS = (
    _MFNET(
        "mfnet",
        "9 classes with unlabeled, nothing but 255 ignored, absent classes not averaged",
        "RTFNet, CMX, EAEFNet",
    ),
    _MFNET(
        "mfnet-absent-zero",
        "as mfnet, but a class absent from truth and prediction is averaged as 0",
        "second mean printed by RTFNet",
        absent="zero",
    ),
    _MFNET(
        "mfnet-no-unlabeled",
        "as mfnet, but unlabeled is not averaged; its pixels still count as false positives",
        "works that average the eight object classes",
        left_out=(0,),
    ),
    _MFNET(
        "mfnet-authors",
        "8 classes; pixels whose truth or prediction is unlabeled are not counted at all, absent classes are "
        "averaged as 0",
        "evaluation code published with MFNet (Ha 2017)",
        left_out=(0,),
        ignored_truth=(0,),
        ignored_prediction=(0,),
        absent="zero",
    ),
    _PST900("pst900", f"{_PST900_RULE} 720x1280", "LASNet, MRFS, Sigma, MMSFormer", size=(720, 1280)),
    _PST900("pst900-480x640", f"{_PST900_RULE} 480x640", "EAEFNet", size=(480, 640)),
    _PST900(
        "pst900-360x640",
        f"{_PST900_RULE} 360x640",
        "evaluation code published with PST900 (Shivakumar 2020)",
        size=(360, 640),
    ),
    _FMB(
        "fmb",
        "14 classes; pixels whose truth is unlabeled are not counted",
        "MMSFormer",
        left_out=(0,),
        ignored_truth=(0,),
    ),
    _FMB("fmb-15", "15 classes, unlabeled counted as a class", "works that report 15 classes"),
    _FMB(
        "fmb-no-bicycle",
        "as fmb, but bicycle (said to be absent from the test split) is not averaged; its pixels still count",
        "works that average 13 classes",
        left_out=(0, 13),
        ignored_truth=(0,),
    ),
    Protocol(
        "native",
        "all classes, nothing but 255 ignored, each pair scored at its label's own size",
        "efnet, for any data set",
        None,
    ),
)
"""All of them, in the order of the documentation."""

_BY_NAME = {protocol.name: protocol for protocol in PROTOCOLS}
