"""Running statistics of batch norms, which a forward pass changes even where its step is not made."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class RunningStatistics:
    """A copy of the running statistics of a network, to go back to.

    Args:
        network: whose; one without batch norms has none, and nothing is done.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = [module for module in network.modules() if isinstance(module, _NormBase)]
        self._values = [value for norm in norms for value in norm.buffers()]
        self._kept: list[Tensor] = []

    def keep(self) -> None:
        """Copy them."""
        self._kept = [value.clone() for value in self._values]

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the copy."""
        for value, kept in zip(self._values, self._kept, strict=True):
            value.copy_(kept)
