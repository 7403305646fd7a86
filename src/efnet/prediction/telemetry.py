"""Importing OpenVINO without the report that it sends about it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

_REPORTER = "openvino_telemetry"


def import_silenced(package: str) -> Any:
    """Import a package; if it is OpenVINO, without telemetry.

    `import openvino` sends an event to its makers, unasked, and each conversion more of them. Where the
    package `openvino_telemetry` is missing it has a stand-in that sends nothing. A program that imported
    either of them itself has decided for itself, and nothing is changed.

    Raises:
        ImportError: it is not installed.
    """
    if package != "openvino" or "openvino" in sys.modules or _REPORTER in sys.modules:
        return importlib.import_module(package)
    # None in place of a module: importing it fails as if it were not installed.
    sys.modules[_REPORTER] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(package)
    finally:
        del sys.modules[_REPORTER]
