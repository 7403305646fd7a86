"""The network as a program of plain operators, for any size or for one: all formats come from it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental import _config as shapes
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._sympy.value_ranges import ValueRanges

from efnet.models.base import SegmentationModel

Inputs = Literal["float", "uint8"]
Outputs = Literal["logits", "probabilities", "classes"]

_TRACED = (2, 100, 132)
"""Batch, height and width that are traced: no number among them that another size could be taken for."""

_ORIGINS = ("stack_trace", "from_node", "source_fn_stack", "torch_fn")

_ASSERTIONS = (torch.ops.aten._assert_scalar.default, torch.ops.aten._assert_tensor_metadata.default)


class Deployed(nn.Module):
    """A network between the images as a program is given them and what it hands back.

    Args:
        model: the network.
        inputs: `float`: rgb (B, 3, H, W) and thermal (B, 1, H, W) in [0, 1]; `uint8`: as cameras give them,
            rgb (B, H, W, 3) and thermal (B, H, W), 0 to 255.
        outputs: `logits` (B, K, H, W) and `probabilities` (B, K, H, W), float32; `classes` (B, H, W), uint8.
    """

    def __init__(self, model: SegmentationModel, inputs: Inputs, outputs: Outputs) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, *images: Tensor) -> Tensor:
        """The images that the network looks at, RGB first, to its output."""
        if self.inputs == "uint8":
            images = tuple(self._from_pixels(image) for image in images)
        rgb = None if self.model.modality == "thermal" else images[0]
        thermal = None if self.model.modality == "rgb" else images[-1]
        logits: Tensor = self.model(rgb, thermal)
        if self.outputs == "classes":
            return logits.argmax(1).to(torch.uint8)
        return logits.softmax(1) if self.outputs == "probabilities" else logits

    def example(self, size: tuple[int, int, int] = _TRACED) -> tuple[Tensor, ...]:
        """Images of this batch, height and width, as the program takes them."""
        batch, height, width = size
        channels = {"rgb": (3,), "thermal": (1,), "rgbt": (3, 1)}[self.model.modality]
        generator = torch.Generator().manual_seed(0)
        images = [torch.rand(batch, count, height, width, generator=generator) for count in channels]
        if self.inputs == "float":
            return tuple(images)
        pixels = [(image * 255).to(torch.uint8).permute(0, 2, 3, 1) for image in images]
        return tuple(image if image.shape[3] == 3 else image[..., 0] for image in pixels)

    @staticmethod
    def _from_pixels(image: Tensor) -> Tensor:
        image = image.permute(0, 3, 1, 2) if image.ndim == 4 else image[:, None]
        return image.float() / 255


def input_names(model: SegmentationModel) -> list[str]:
    """`rgb` and `thermal`, as far as the network looks at them."""
    return {"rgb": ["rgb"], "thermal": ["thermal"], "rgbt": ["rgb", "thermal"]}[model.modality]


def trace(deployed: Deployed, size: tuple[int, int] | None = None) -> ExportedProgram:
    """Trace a network on the CPU, without autocast: everything in float32.

    Args:
        deployed: in evaluation mode.
        size: height and width of the one pair that the program is for.

    Returns:
        the program; without `size` its batch, height and width are free (height and width from 32).
    """
    images = deployed.example() if size is None else deployed.example((1, *size))
    free = [_free(image) if size is None else {} for image in images]
    # Loops that ran before stay compiled, and PyTorch 2.13 may fail to compare new ones with them.
    torch.compiler.reset()
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        # The layout that a fused kernel's result has would be taken for granted.
        sdpa_kernel(SDPBackend.MATH),
        shapes.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
    ):
        program = torch.export.export(
            deployed,
            images,
            # The arguments of a *images are one tuple.
            dynamic_shapes=(tuple(free),),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    _free_layouts(program)
    _forget_origins(program)
    return program


def _free(image: Tensor) -> dict[int, object]:
    channels_first = image.ndim == 4 and image.is_floating_point()
    axes = (0, 2, 3) if channels_first else (0, 1, 2)
    return dict.fromkeys(axes, Dim.DYNAMIC)


def _forget_origins(program: ExportedProgram) -> None:
    """Take out which line of which file each node came from: it would name folders of this machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            for kind in _ORIGINS:
                node.meta.pop(kind, None)


def _free_layouts(program: ExportedProgram) -> None:
    """Take out what holds of the memory layouts of the traced size alone: assertions, and views."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
        elif node.target in _ASSERTIONS:
            program.graph.erase_node(node)
    for size, found in list(program.range_constraints.items()):
        program.range_constraints[size] = ValueRanges(1, found.upper)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
