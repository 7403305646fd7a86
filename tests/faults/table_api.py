"""Bad calls of the Python interface.

What a user holds (files, images, checkpoints) is an `InputError`; an argument that a program has wrong a
`ValueError` or `TypeError`. Never one of PyTorch's or numpy's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from fault_case import Arrange, cut, folder, gone, holds
from fault_pictures import colours, heat
from fault_world import SIZE, small_model
from PIL import Image

import efnet
from efnet.alignment.homography import Homography
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig
from efnet.data.dataset import PairDataset
from efnet.data.images import read_thermal, scale_thermal
from efnet.data.labels import read_label
from efnet.data.layouts import open_split
from efnet.evaluation.evaluate import evaluate
from efnet.evaluation.protocols import get_protocol
from efnet.explain import explain
from efnet.export.export import export_model
from efnet.inference.engine import Engine
from efnet.inference.predictor import Predictor
from efnet.inference.tiles import Tiling
from efnet.models.checkpoint import load_checkpoint
from efnet.ops import dpc_knn

Action = Callable[[Path], object]


@dataclass(frozen=True)
class Call:
    """A bad call.

    Attributes:
        name: what is wrong.
        call: given the folder that it runs in (`fault_world`).
        says: parts of the message.
        kind: exactly what is raised.
        arrange: spoils the folder first.
    """

    name: str
    call: Action
    says: tuple[str, ...]
    kind: type[Exception] = InputError
    arrange: Arrange = lambda home: None


RGB, THERMAL = colours(1), heat(1)
TOKENS, PLACES = torch.zeros(1, 6, 4), torch.zeros(1, 6, 2)


def made(
    name: str, *says: str, kind: type[Exception] = ValueError, model: Any = "efnet_tiny", **options: Any
) -> Call:
    return Call(f"create_model: {name}", lambda home: efnet.create_model(model, **options), says, kind)


def shown(name: str, rgb: Any, thermal: Any, *says: str, kind: type[Exception] = ValueError) -> Call:
    """Given to the network itself."""
    return Call(f"network: {name}", lambda home: small_model()(rgb, thermal), says, kind)


def clustered(name: str, *says: str, kind: type[Exception] = ValueError, **options: Any) -> Call:
    values = {"features": TOKENS, "num_clusters": 2, **options}
    return Call(f"dpc_knn: {name}", lambda home: dpc_knn(**values), says, kind)


def loaded(name: str, path: Any, *says: str, arrange: Arrange = lambda home: None, **options: Any) -> Call:
    def call(home: Path) -> object:
        return Predictor.from_pretrained(path, **{"device": "cpu", "local_files_only": True, **options})

    return Call(f"from_pretrained: {name}", call, says, arrange=arrange)


def predictor() -> Predictor:
    return Predictor(small_model(), device="cpu")


def predicted(name: str, rgb: Any, thermal: Any, *says: str, arrange: Arrange = lambda home: None) -> Call:
    return Call(f"predict: {name}", lambda home: predictor()(rgb, thermal), says, arrange=arrange)


def of_prediction(name: str, use: Callable[[Any], object], *says: str) -> Call:
    return Call(f"prediction: {name}", lambda home: use(predictor()(RGB, THERMAL)), says)


def split(dataset: str = "mfnet", root: str = "mfnet", name: str = "test") -> Any:
    return open_split(dataset, root, name)


def evaluated(
    name: str, *says: str, kind: type[Exception] = InputError, protocol: str = "mfnet",
    arrange: Arrange = lambda home: None, change: Callable[[Any], Any] = lambda pairs: pairs,
    engine: Mapping[str, Any] = MappingProxyType({}), **options: Any
) -> Call:  # fmt: skip
    def call(home: Path) -> object:
        pairs = change(split())
        return evaluate(
            Engine(small_model(), split().classes, **engine), pairs, get_protocol(protocol), **options
        )

    return Call(f"evaluate: {name}", call, says, kind, arrange)


def exported(
    name: str, *says: str, path: str = "x.pt2", format: Any = "torch", kind: type[Exception] = InputError,
    arrange: Arrange = lambda home: None, **options: Any
) -> Call:  # fmt: skip
    return Call(
        f"export_model: {name}",
        lambda home: export_model(small_model(), home / path, format, **options), says, kind, arrange,
    )  # fmt: skip


MODELS = [
    made("a name that is none", "'efnet_huge'", "efnet_tiny", model="efnet_huge"),
    made("no name", "None", "efnet_tiny", model=None),
    made("one class", "num_classes must be at least 2", kind=InputError, num_classes=1),
    made("half a class", "num_classes", "2.5", kind=InputError, num_classes=2.5),
    made("too many classes", "num_classes", "at most 255", "300", kind=InputError, num_classes=300),
    made("classes that are a number", "ClassSet", "int", "num_classes", kind=TypeError, classes=9),
    made("classes that are names", "ClassSet", "list", kind=TypeError, classes=["road", "car"]),
    made("more classes than named", "5 classes", "of 9", num_classes=9, classes=ClassSet.generic(5)),
    made("an option that is none", "no option depth", "fusion", depth=3),
    made("an option of another network", "no option fusion", "modality", model="rtfnet50", fusion="add"),
    made("a fusion that is none", "fusion must be one of", "'mean'", kind=InputError, fusion="mean"),
    made("a camera that is none", "modality must be one of", "'depth'", kind=InputError, modality="depth"),
    made("one tau", "tau must be three numbers", "0.5", kind=InputError, tau=0.5),
    made("two taus", "tau must be three numbers", kind=InputError, tau=(0.1, 0.2)),
    made("taus in words", "tau must be three numbers", kind=InputError, tau=("a", "b", "c")),
    made("a tau of NaN", "tau must be three numbers", kind=InputError, tau=(0.1, float("nan"), 1.0)),
    made("a drop_path above one", "drop_path", "1.5", kind=InputError, drop_path=1.5),
    made("a drop_path in words", "drop_path", "'much'", kind=InputError, drop_path="much"),
]
IMAGES = torch.zeros(1, 3, 48, 64), torch.zeros(1, 1, 48, 64)
NETWORKS = [
    shown("no batch", IMAGES[0][0], IMAGES[1], "rgb must be (B, 3, H, W)", "(3, 48, 64)"),
    shown("thermal of three channels", IMAGES[0], IMAGES[0], "thermal must be (B, 1, H, W)"),
    shown("whole numbers", IMAGES[0].byte(), IMAGES[1], "floating point", "uint8"),
    shown("arrays", IMAGES[0].numpy(), IMAGES[1].numpy(), "rgb", "tensor", "ndarray", kind=TypeError),
    shown("other sizes", IMAGES[0], IMAGES[1][..., :40], "differ in batch or size"),
    shown("one camera", IMAGES[0], None, "both rgb and thermal"),
    shown("too small", IMAGES[0][..., :20], IMAGES[1][..., :20], "at least 32x32"),
]
CLUSTERS = [
    clustered("no batch", "(B, N, C)", "(6, 4)", features=TOKENS[0]),
    clustered("no tokens", "not empty", features=TOKENS[:, :0]),
    clustered("an array", "features", "tensor", "ndarray", kind=TypeError, features=TOKENS.numpy()),
    clustered("whole numbers", "floating point", "int64", features=TOKENS.long()),
    clustered("no clusters", "num_clusters", "N = 6", num_clusters=0),
    clustered("more clusters than tokens", "num_clusters", "N = 6, got 7", num_clusters=7),
    clustered("half a cluster", "num_clusters", "2.5", kind=TypeError, num_clusters=2.5),
    clustered("no neighbours", "k must be at least 1", k=0),
    clustered("half a neighbour", "k must be", "1.5", kind=TypeError, k=1.5),
    clustered("a weight below none", "spatial_weight", "-1", spatial_weight=-1.0, positions=PLACES),
    clustered("a weight of NaN", "spatial_weight", "nan", spatial_weight=float("nan"), positions=PLACES),
    clustered("a weight without positions", "needs positions", spatial_weight=0.5),
    clustered("positions of others", "positions must be", "(1, 5, 2)", positions=PLACES[:, :5]),
    clustered("a grid of others", "grid", "N = 6", grid=(2, 2)),
]
LOADED = [
    loaded("nothing", "runs/none", "runs/none", "neither a checkpoint folder"),
    loaded("no name", "", "empty", "give a run folder"),
    loaded("an image", "rgbt.png", "rgbt.png: a file", "config.json"),
    loaded("a folder of images", "rgb", "rgb: not a checkpoint"),
    loaded("no configuration", "model", "model", "config.json", arrange=gone("model/config.json")),
    loaded("a damaged configuration", "model", "config.json", "fetch it",
           arrange=cut("model/config.json")),
    loaded("weights cut off", "model", "model.safetensors", arrange=cut("model/model.safetensors")),
    loaded("a device that is none", "model", "'tpu'", "use auto, cpu", device="tpu"),
    loaded("a precision that is none", "model", "precision '8'", "bf16", precision="8"),
    loaded("an exported file that is not there", "x.onnx", "x.onnx", "no such file"),
    loaded("an exported file of text", "x.pt2", "x.pt2", arrange=holds("x.pt2", "text")),
    loaded("a runtime that is none", "x.onnx", "'tensorrt'", "onnx", runtime="tensorrt"),
    Call("load_checkpoint: nothing", lambda home: load_checkpoint("none/"), ("none/",)),
    Call("load_checkpoint: a checkpoint of nobody", lambda home: load_checkpoint("model"),
         ("config.json", "'unet'", "efnet"), arrange=holds("model/config.json", '{"architecture": "unet"}')),
    Call("Predictor: a network of another kind", lambda home: Predictor(torch.nn.Linear(2, 2), "cpu"),  # type: ignore[arg-type]
         ("Linear", "create_model"), TypeError),
    Call("Predictor: a path", lambda home: Predictor("model", "cpu"),  # type: ignore[arg-type]
         ("str", "from_pretrained"), TypeError),
]  # fmt: skip
PREDICTED = [
    predicted("nothing", None, None, "the RGB image is missing"),
    predicted("no thermal", RGB, None, "thermal", "(height, width, 4)"),
    predicted("no colour", None, THERMAL, "the RGB image is missing"),
    predicted("channels first", RGB.transpose(2, 0, 1), THERMAL, "rgb array", "transpose(1, 2, 0)"),
    predicted("a batch", RGB[None], THERMAL, "rgb array", "predictor.batch"),
    predicted("a tensor", IMAGES[0], THERMAL, "rgb is a Tensor", "numpy"),
    predicted("a list", RGB.tolist(), THERMAL, "rgb is a list", "numpy"),
    predicted("whole numbers", RGB.astype(np.int32), THERMAL, "rgb array is int32", "uint8"),
    predicted("floats up to 255", RGB.astype(np.float32), THERMAL, "rgb array", "scale it to [0, 1]"),
    predicted("colours of NaN", np.full(RGB.shape, np.nan), THERMAL, "rgb array", "nan_to_num"),
    predicted("heat without end", RGB, np.full(THERMAL.shape, np.inf), "thermal array", "nan_to_num"),
    predicted("complex heat", RGB, THERMAL.astype(complex), "thermal array is complex128"),
    predicted("heat in words", RGB, np.full(THERMAL.shape, "hot"), "thermal array is <U3"),
    predicted("heat in three colours", RGB, RGB, "thermal image", "three channels differ"),
    predicted("an empty array", RGB[:0], THERMAL, "rgb array", "empty"),
    predicted("too small", RGB[:20, :20], THERMAL[:20, :20], "32"),
    predicted("another shape", RGB, THERMAL.T, "64x48", "48x64"),
    predicted("a float picture", Image.fromarray(THERMAL.astype(np.float32)), THERMAL, "has mode F"),
    predicted("a file that is not there", "rgb/none.png", "thermal/a.png", "rgb/none.png"),
    predicted("a file cut off", "rgb/a.png", "thermal/a.png", "rgb/a.png", arrange=cut("rgb/a.png")),
    predicted("a file of text", "rgb/a.png", "thermal/a.png", "thermal/a.png",
              arrange=holds("thermal/a.png", "hot")),
    predicted("a folder", "rgb", "thermal/a.png", "rgb"),
    Call("batch: no pairs in a batch", lambda home: predictor().batch([(RGB, THERMAL)], batch_size=0),
         ("`batch_size` 0",)),
    Call("batch: the second is damaged", lambda home: predictor().batch([(RGB, THERMAL), (RGB[0], THERMAL)]),
         ("pair 1", "rgb array")),
    Call("batch: images that are no pairs", lambda home: predictor().batch([Path("rgb/a.png")]),  # type: ignore[list-item]
         ("pair 0", "(rgb, thermal)"), TypeError),
    Call("Tiling: too small", lambda home: Tiling((16, 64)), ("tile 16x64", "32")),
    Call("Tiling: nothing but overlap", lambda home: Tiling((64, 64), 60), ("overlap 60", "32")),
    of_prediction("confidence that was not asked for", lambda it: it.confidence, "probabilities=True"),
    of_prediction("an output that is none", lambda it: it.save("out", "a", ["heat"]), "heat", "overlay"),
    of_prediction("an overlay of nothing", lambda it: it.save("out", "a", ["overlay"]), "rgb=..."),
    of_prediction("an overlay of another image", lambda it: it.overlay(RGB[:40]), "64x40"),
    of_prediction("opacity above one", lambda it: it.overlay(RGB, 2.0), "opacity", "2"),
]  # fmt: skip
DATA = [
    Call("open_split: a data set that is none", lambda home: split("kitti"), ("'kitti'", "mfnet")),
    Call("open_split: a split that is none", lambda home: split(name="dev"), ("dev", "train")),
    Call("open_split: no folder", lambda home: split(root="none"), ("none", "no such folder")),
    Call("open_split: no description", lambda home: split("own/none.yaml", "own"), ("own/none.yaml",)),
    Call("read_thermal: a range upside down", lambda home: read_thermal("thermal/a.png", (9, 2)),
         ("thermal scale", "low < high")),
    Call("scale_thermal: a range in words", lambda home: scale_thermal(THERMAL, "warm"),  # type: ignore[arg-type]
         ("thermal scale warm", "low < high")),
    Call("read_label: classes beyond",
         lambda home: read_label("mfnet/labels/00001D.png", ClassSet.generic(2)),
         ("00001D.png", "outside the 2 classes")),
    Call("read_label: a folder", lambda home: read_label("mfnet", ClassSet.generic(2)), ("mfnet",)),
    Call("Homography: of nothing", lambda home: Homography(np.zeros((3, 3)), SIZE, SIZE), ("3x3 matrix",)),
    Call("Homography: one that is not there", lambda home: Homography.load("none.json"), ("none.json",)),
    Call("PairDataset: crops of no size", lambda home: PairDataset(split(), augment=AugmentConfig()),
         ("augmentation", "480x640")),
    Call("get_protocol: one that is none", lambda home: get_protocol("kitti"), ("'kitti'", "mfnet")),
]  # fmt: skip
EVALUATED = [
    evaluated("an empty split", "test split", "no pairs", change=lambda pairs: replace(pairs, pairs=())),
    evaluated("no labels", "2 pairs of test have no label", "00003D",
              change=lambda pairs: replace(pairs, pairs=tuple(replace(p, label=None) for p in pairs.pairs))),
    evaluated("an image that is gone", "00004N.png", arrange=gone("mfnet/images/00004N.png")),
    evaluated("a label of text", "labels/00003D.png", arrange=holds("mfnet/labels/00003D.png", "text")),
    evaluated("a protocol of other classes", "pst900", "5", protocol="pst900"),
    evaluated("augmented images", "without augmentation", kind=ValueError,
              change=lambda pairs: PairDataset(pairs, (32, 32), AugmentConfig())),
    evaluated("no pairs in a batch", "batch_size", "0", kind=ValueError, batch_size=0),
    evaluated("workers below none", "workers", "-1", kind=ValueError, workers=-1),
    evaluated("a precision that is none", "precision '8'", "bf16", engine={"precision": "8"}),
    evaluated("a device that is none", "'tpu'", "use auto, cpu", engine={"device": "tpu"}),
    evaluated("too small", "at least 32 pixels each way", engine={"size": (16, 16)}),
]  # fmt: skip
EXPLAINED = [
    Call("explain: a network of another paper",
         lambda home: explain(efnet.create_model("mfnet"), RGB, THERMAL), ("not an EFNet",)),
    Call("explain: a network without clusters",
         lambda home: explain(efnet.create_model("efnet_tiny", merging="pool"), RGB, THERMAL),
         ("pool", "no clusters", "dbtc")),
    Call("explain: no thermal", lambda home: explain(small_model(), RGB), ("thermal", "(height, width, 4)")),
    Call("explain: a path", lambda home: explain("model", RGB, THERMAL),  # type: ignore[arg-type]
         ("str", "from_pretrained"), TypeError),
]  # fmt: skip
EXPORTED = [
    exported("a format that is none", "'tflite'", "onnx", format="tflite"),
    exported("a suffix of another format", "x.onnx", ".pt2", path="x.onnx"),
    exported("a precision of another format", "precision", "int8", precision="int8"),
    exported("inputs that are none", "inputs 'int4'", "uint8", inputs="int4"),
    exported("outputs that are none", "outputs 'masks'", "classes", outputs="masks"),
    exported("OpenVINO of any size", "needs `size`", path="x.xml", format="openvino"),
    exported("too small", "32", size=(16, 16)),
    exported("into a file", "rgbt.png is a file", path="rgbt.png/x.pt2"),
    exported("onto a folder", "x.pt2: is a folder", arrange=folder("x.pt2")),
]  # fmt: skip
CASES = [*MODELS, *NETWORKS, *CLUSTERS, *LOADED, *PREDICTED, *DATA, *EVALUATED, *EXPLAINED, *EXPORTED]
