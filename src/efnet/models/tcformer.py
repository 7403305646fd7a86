"""TCFormer (CVPR 2022, arXiv 2204.08680): the plain single-image backbone."""

from __future__ import annotations

import os

from torch import Tensor, nn

from efnet.models.base import check_images
from efnet.models.config import BACKBONES, BackboneConfig
from efnet.models.layers import Tokens, init_weights
from efnet.models.stages import GridStage, TokenStage
from efnet.models.tcformer_weights import load_tcformer
from efnet.models.weights import LoadReport


class TCFormer(nn.Module):
    """Four stages of tokens, each made of a quarter as many clusters as the one before.

    Args:
        config: a preset (`tiny`, `light`, `base`, `large`) or a configuration of your own.

    Raises:
        ValueError: no such preset.
    """

    def __init__(self, config: str | BackboneConfig = "light") -> None:
        super().__init__()
        if isinstance(config, str):
            if config not in BACKBONES:
                raise ValueError(f"no TCFormer preset {config!r}; there are {', '.join(BACKBONES)}")
            config = BACKBONES[config]
        self.config = config
        self.stage1 = GridStage(config)
        self.token_stages = nn.ModuleList(TokenStage(config, stage) for stage in (1, 2, 3))
        self.apply(init_weights)

    def forward(self, images: Tensor) -> list[Tokens]:
        """Normalised images (B, 3, H, W), H and W >= 32, to the tokens of four stages.

        Raises:
            ValueError: wrong rank or channels, or an image under 32 pixels.
        """
        check_images(images, channels=3, name="images")
        stages = [self.stage1(images)]
        for stage in self.token_stages:
            stages.append(stage(stages[-1]))
        return stages

    def load_checkpoint(self, path: str | os.PathLike[str]) -> LoadReport:
        """Load an official TCFormer checkpoint.

        Args:
            path: `.pth` (read with `weights_only`) or `.safetensors`.

        Returns:
            what was loaded, what stayed fresh and what was left over.

        Raises:
            InputError: the file is missing, unreadable, or of another network or size.
        """
        return load_tcformer(self, path)
