"""Exported files as networks, run by ONNX Runtime, OpenVINO or PyTorch.

Each takes and returns what an `efnet.models` network does, so that the engine need not know which it has.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.classes import ClassSet
from efnet.core.devices import check_precision
from efnet.core.errors import InputError, one_of
from efnet.core.safe_parse import parse_json
from efnet.inference.vetting import load_program
from efnet.models.base import InputSpec, check_temperature
from efnet.models.config import BaselineConfig, Modality, ModelConfig
from efnet.models.registry import ARCHITECTURES

_REPORTER = "openvino_telemetry"


def import_silenced(package: str) -> Any:
    """Import a package; if it is OpenVINO, without telemetry.

    `import openvino` and each conversion send an event to its makers. Without the package
    `openvino_telemetry` a stand-in is used that sends nothing. A program that imported either of them itself
    has decided for itself, and nothing is changed. Raises ImportError if the package is not installed.
    """
    if package != "openvino" or "openvino" in sys.modules or _REPORTER in sys.modules:
        return importlib.import_module(package)
    # None in place of a module: importing it fails as if it were not installed.
    sys.modules[_REPORTER] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(package)
    finally:
        del sys.modules[_REPORTER]


Runtime = Literal["torch", "onnx", "openvino"]

METADATA = "efnet"  # key under which a file holds what it is, as JSON

SUFFIXES: dict[str, Runtime] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
"""Suffix of an exported file: what runs it unless the user chooses."""

_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


class ExportedModel(nn.Module):
    """A network in a file. Its images and scores are on the CPU, wherever the file runs.

    `about` is the description in the file; `config`, `name`, `architecture` and `training_summary` are those
    of the network. Raises InputError if `efnet export` did not write the description.
    """

    digest: Tensor

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        super().__init__()
        try:
            self.classes = ClassSet.from_dict(about["classes"])  # names and colours
            self.architecture: str = about["architecture"]
            # A file runs without the module that registered a user's network.
            custom = BaselineConfig if "module" in about else ARCHITECTURES[self.architecture].config_type
            self.config: ModelConfig = custom.from_dict(about["config"])
            self.modality: Modality = self.config.modality  # which images it looks at
            self.name: str = about["name"]
            self.training_summary: dict[str, Any] = about["training"]
            self.input = InputSpec.from_dict(about["input"])  # how images are brought to it
            self.inputs: str = about["inputs"]
            self.outputs: str = about["outputs"]  # `logits`, `probabilities` or `classes`
            # A file that gives probabilities has divided by it already.
            held = check_temperature(about.get("temperature", 1.0))
            self.temperature = held if self.outputs == "logits" else 1.0
            fixed: list[int] | None = about["fixed_size"]
            self.fixed_size = None if fixed is None else (int(fixed[0]), int(fixed[1]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _foreign(path) from error
        # Identifies a file as weights identify a network.
        digest = hashlib.sha256(path.read_bytes())
        if path.suffix == ".xml":
            digest.update(path.with_suffix(".bin").read_bytes())
        self.register_buffer("digest", torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8))

    def forward(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Return class logits (B, K, H, W), float32, of images (B, 3, H, W) and (B, 1, H, W) in [0, 1].

        Probabilities become their logarithms, classes become ones and zeros: the class of a pixel stays the
        same. Raises InputError for another size than the one that the file was exported for.
        """
        images = [image for image in (rgb, thermal) if image is not None]
        height, width = images[0].shape[2:]
        if self.fixed_size not in (None, (height, width)):
            known = "x".join(str(side) for side in self.fixed_size or ())
            raise InputError(
                f"{self.name}: this file was exported for {known} alone, not {height}x{width}; export it "
                "again for any size, or leave out tiles, test-time augmentation and other sizes"
            )
        if self.inputs == "uint8":
            images = [as_pixels(image) for image in images]
        if self.fixed_size is None:
            scores = self.infer(images)
        else:
            pairs = zip(*(torch.split(image, 1) for image in images), strict=True)
            scores = torch.cat([self.infer(list(pair)) for pair in pairs])
        if self.outputs == "classes":
            return F.one_hot(scores.long(), len(self.classes)).permute(0, 3, 1, 2).float()
        return scores.clamp_min(1e-30).log() if self.outputs == "probabilities" else scores

    def infer(self, images: list[Tensor]) -> Tensor:
        """Run the file on images in the form it takes."""
        raise NotImplementedError


def as_pixels(image: Tensor) -> Tensor:
    """Return images (B, 3, H, W) or (B, 1, H, W) in [0, 1] as uint8 (B, H, W, 3) or (B, H, W)."""
    pixels = (image * 255).round().to(torch.uint8)
    return pixels[:, 0] if pixels.shape[1] == 1 else pixels.permute(0, 2, 3, 1).contiguous()


_CPU = "CPUExecutionProvider"


def engine_cache() -> Path:
    """Return the folder where TensorRT keeps its engines: `efnet/tensorrt` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "efnet" / "tensorrt"


def choose_providers(device: str, available: Sequence[str]) -> list[str | tuple[str, dict[str, Any]]]:
    """Return the providers of ONNX Runtime for a device, the first choice first.

    `cuda` is TensorRT's provider where ONNX Runtime has it, then CUDA's, which runs what TensorRT does not
    take. `auto` is CUDA's alone, since TensorRT builds an engine for minutes, or else the CPU's. Raises
    InputError if ONNX Runtime has no provider for the device.
    """
    cuda, tensorrt = "CUDAExecutionProvider", "TensorrtExecutionProvider"
    if device == "cpu" or (device == "auto" and cuda not in available):
        return [_CPU]
    if cuda not in available:
        raise InputError(
            f"device {device!r}: the ONNX Runtime that is installed runs on the CPU alone; install "
            "onnxruntime-gpu in place of onnxruntime, or use `device` cpu"
        )
    number = {"device_id": int(device.partition(":")[2] or 0)}
    chosen: list[str | tuple[str, dict[str, Any]]] = [(cuda, number), _CPU]
    if device != "auto" and tensorrt in available:
        cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(engine_cache())}
        chosen.insert(0, (tensorrt, {**number, **cache}))
    return chosen


class OnnxModel(ExportedModel):
    """A file that ONNX Runtime runs, on the CPU or by its CUDA or TensorRT provider."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        runtime = _package("onnx")
        providers = choose_providers(device, runtime.get_available_providers())
        on_gpu = len(providers) > 1
        if on_gpu and hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()  # CUDA's libraries from the packages that PyTorch brings
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # its exceptions have no common type
            raise InputError(
                f"{path}: ONNX Runtime cannot read it ({_line(error)}); export it again"
            ) from error
        # A provider whose libraries are absent is left out without an error.
        if device.startswith("cuda") and self._session.get_providers()[0] == _CPU:
            raise InputError(
                f"device {device!r}: ONNX Runtime cannot use its CUDA provider here (a driver or a library "
                "is missing); use `device` cpu"
            )
        super().__init__(path, _parsed(path, self._session.get_modelmeta().custom_metadata_map.get(METADATA)))

    def __setattr__(self, name: str, value: Any) -> None:
        # A session is opened before the module is set up: the file must be known to be one of ours.
        object.__setattr__(self, name, value) if name == "_session" else super().__setattr__(name, value)

    def infer(self, images: list[Tensor]) -> Tensor:
        """See `ExportedModel`."""
        names = [given.name for given in self._session.get_inputs()]
        feed = {name: image.contiguous().numpy() for name, image in zip(names, images, strict=True)}
        return torch.from_numpy(self._session.run(None, feed)[0])


class OpenVINOModel(ExportedModel):
    """A file that OpenVINO runs, in float32 or, with precision `bf16`, in bfloat16."""

    def __init__(self, path: Path, precision: str = "32") -> None:
        runtime = _package("openvino")
        hint = "bf16" if precision == "bf16" else "f32"
        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": hint}
        core = runtime.Core()
        try:
            model = core.read_model(str(path))
            compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:
            raise InputError(f"{path}: OpenVINO cannot read it ({_line(error)}); export it again") from error
        held = model.get_rt_info(METADATA).astype(str) if model.has_rt_info(METADATA) else None
        super().__init__(path, _parsed(path, held))
        self._compiled = compiled

    def infer(self, images: list[Tensor]) -> Tensor:
        """See `ExportedModel`."""
        result = self._compiled([image.contiguous().numpy() for image in images])
        return torch.from_numpy(result[0].copy())


class TorchProgram(ExportedModel):
    """A program of `torch.export`."""

    def __init__(self, path: Path) -> None:
        held = {METADATA: ""}
        try:
            program = load_program(path, held)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path}: not a program of torch.export ({_line(error)})") from error
        super().__init__(path, _parsed(path, held[METADATA]))
        # A plain attribute: the weights are not this module's, the digest stands for them.
        self._program = [program.module(check_guards=False)]

    def infer(self, images: list[Tensor]) -> Tensor:
        """See `ExportedModel`."""
        scores: Tensor = self._program[0](*images)
        return scores


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether a path has the suffix of an exported file."""
    return Path(path).suffix.lower() in SUFFIXES


def load_exported(
    path: str | os.PathLike[str],
    runtime: Runtime | None = None,
    device: str = "cpu",
    precision: str = "32",
) -> ExportedModel:
    """Load a file that `efnet export` wrote: `.onnx`, `.xml` (with its `.bin` beside it) or `.pt2`.

    Args:
        path: the file.
        runtime: runs it; None: what the suffix says.
        device: `cpu`, or for ONNX Runtime `cuda`, `cuda:1` or `auto`, see `choose_providers`.
        precision: `32`, or for OpenVINO `bf16`: computed in bfloat16 whatever the file's weights are.

    Raises:
        InputError: no such file, not one of ours, a runtime that does not run it or is not installed, or that
            lacks the device or the precision.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    runtime = check_runtime(runtime) if runtime else SUFFIXES.get(suffix)
    if runtime is None or SUFFIXES.get(suffix) != runtime:
        kinds = " or ".join(kind for kind, runs in SUFFIXES.items() if runtime in (None, runs))
        raise InputError(
            f"{path}: runtime {runtime or 'of an exported file'} runs {kinds} files; write one with "
            "efnet export"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file; write it with efnet export")
    if suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise InputError(f"{path}: its weights {path.with_suffix('.bin').name} are not beside it; copy both")
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise InputError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:1")
    if runtime != "onnx" and device not in ("auto", "cpu"):
        raise InputError(
            f"device {device!r}: {suffix} files run on the CPU here, .onnx files also by CUDA; use `device` "
            "cpu"
        )
    if check_precision(precision) != "32" and runtime != "openvino":
        raise InputError(
            f"precision {precision!r}: that of a {suffix} file was chosen when it was exported; only "
            "OpenVINO computes in bf16 on demand"
        )
    model: ExportedModel
    if runtime == "onnx":
        model = OnnxModel(path, device)
    else:
        model = OpenVINOModel(path, precision) if runtime == "openvino" else TorchProgram(path)
    return model.eval()


def check_runtime(runtime: str) -> Runtime:
    """Return the runtime of that name, or raise an `InputError`."""
    known: tuple[Runtime, ...] = get_args(Runtime)
    return one_of(runtime, known, f"runtime {runtime!r} is unknown; choose")


def _package(runtime: Literal["onnx", "openvino"]) -> Any:
    try:
        return import_silenced(_PACKAGES[runtime])
    except ImportError as error:
        raise InputError(
            f"{_PACKAGES[runtime]} is not installed, which runs such files; pip install 'efnet[{runtime}]'"
        ) from error


def _parsed(path: Path, text: str | bytes | None) -> dict[str, Any]:
    try:
        about = parse_json(text or "")
    except ValueError as error:
        raise _foreign(path) from error
    if not isinstance(about, dict):
        raise _foreign(path)
    return about


def _foreign(path: Path) -> InputError:
    return InputError(f"{path}: was not written by efnet export (it does not say which classes it knows)")


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
