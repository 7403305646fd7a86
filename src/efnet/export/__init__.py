"""From a checkpoint to a file that other programs run: ONNX, OpenVINO, a program of torch.export.

The package can be called, as the function `efnet.export.checkpoints.export`: the module must not hide the
function that `efnet.export` promises.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from efnet.export.checkpoints import export

        return export(*args, **options)


sys.modules[__name__].__class__ = _Callable
