"""Bad checkpoints, as `efnet predict` meets them, and a few as other commands do."""

from __future__ import annotations

import fault_weights as bad
import torch
from fault_case import Arrange, Case, both, cut, edited, folder, gone, holds, put
from fault_world import malicious_program

LINE = "predict --checkpoint model --rgb rgb/a.png --thermal thermal/a.png --out out"
CONFIG, WEIGHTS = "model/config.json", "model/model.safetensors"


def config(name: str, arrange: Arrange, *says: str) -> Case:
    """The checkpoint's JSON is spoilt."""
    return Case(name, LINE, says, arrange)


def entry(name: str, *keys: str | int, value: object, says: tuple[str, ...]) -> Case:
    """One entry of the checkpoint's JSON is another."""
    return Case(name, LINE, (CONFIG, *says), edited(CONFIG, put(*keys, value=value)))


def weights(name: str, arrange: Arrange, *says: str) -> Case:
    """The checkpoint's weights are spoilt."""
    return Case(name, LINE, (WEIGHTS, *says), arrange)


BACKBONE = ("config", "backbone")
NOT_ONE = ("not a checkpoint's configuration",)

CASES = [
    Case("no such checkpoint", LINE.replace("model", "models"), ("models", "no such folder", "run folder")),
    Case(
        "an empty name", LINE.replace("--checkpoint model", "--checkpoint="), ("--checkpoint is empty", "run")
    ),
    Case("a name on the hub that is none", LINE.replace("model", "a--b/..x"), ("a--b/..x", "hub", "check")),
    Case("weights in place of their folder", LINE.replace("model", WEIGHTS), (WEIGHTS, "give the folder")),
    Case("a folder without a checkpoint", LINE.replace("model", "rgb"), ("rgb", "not a checkpoint")),
    config("no weights", gone(WEIGHTS), WEIGHTS, "no such weights file"),
    config("no configuration", gone(CONFIG), "model", "no config.json"),
    config("a configuration that is empty", holds(CONFIG, ""), CONFIG, "not readable as JSON"),
    config("a configuration cut off", cut(CONFIG), CONFIG, "not readable as JSON"),
    config("a configuration in UTF-16", holds(CONFIG, "{}".encode("utf-16")), CONFIG, "not readable as JSON"),
    config("a configuration that is a list", holds(CONFIG, "[]"), CONFIG, "not a checkpoint's configuration"),
    config("a configuration of nested lists", holds(CONFIG, "[" * 100_000), CONFIG, "not readable as JSON"),
    config("a configuration of a huge number", holds(CONFIG, "9" * 10_000), CONFIG, "not readable as JSON"),
    config("a configuration that is a folder", both(gone(CONFIG), folder(CONFIG)), CONFIG, "not readable"),
    entry("an unknown architecture", "architecture", value="os.system", says=("'os.system'", "known are")),
    entry("an architecture that is a list", "architecture", value=[], says=("known are",)),
    entry("another architecture", "architecture", value="mfnet", says=("an earlier mfnet", "train it again")),
    entry("an unknown key", "config", "fusio", value="mif", says=(*NOT_ONE, "fusio")),
    entry("an unknown fusion", "config", "fusion", value="sum", says=(*NOT_ONE, "mif")),
    entry("a fusion that is a list", "config", "fusion", value=[], says=(*NOT_ONE, "mif")),
    entry("one class", "config", "num_classes", value=1, says=NOT_ONE),
    entry("a class too many", "config", "num_classes", value=10, says=NOT_ONE),
    entry("a thousand million classes", "config", "num_classes", value=10**9, says=NOT_ONE),
    entry("classes in words", "config", "num_classes", value="nine", says=NOT_ONE),
    entry("a class name twice", "classes", "names", 1, value="unlabeled", says=(*NOT_ONE, "twice")),
    entry("a colour of two numbers", "classes", "palette", 1, value=[1, 2], says=NOT_ONE),
    entry("a colour beyond 255", "classes", "palette", 1, value=[1, 2, 300], says=(*NOT_ONE, "255")),
    entry("classes that are no mapping", "classes", value=3, says=NOT_ONE),
    entry("an input of no pixels", "input", "size", value=[0, 0], says=NOT_ONE),
    entry("an input of gigapixels", "input", "size", value=[10**6, 10**6], says=NOT_ONE),
    entry("an input of infinite pixels", "input", "size", value=[float("inf"), 1], says=NOT_ONE),
    entry("an input of one side", "input", "size", value=[64], says=NOT_ONE),
    entry("a thermal range that is none", "input", "thermal_scale", value=[5, 1], says=NOT_ONE),
    entry("a thermal range of NaN", "input", "thermal_scale", value=[float("nan"), 1], says=NOT_ONE),
    entry("no head at all", *BACKBONE, "heads", value=[0, 1, 1, 1], says=NOT_ONE),
    entry("heads that do not divide", *BACKBONE, "heads", value=[1, 3, 1, 1], says=(*NOT_ONE, "heads: 3")),
    entry("a reduction above the map", *BACKBONE, "reductions", value=[9, 1, 1, 1], says=(*NOT_ONE, "9")),
    entry("a share of no token", *BACKBONE, "keep", value=1e-9, says=(*NOT_ONE, "keep")),
    entry("a depth below none", *BACKBONE, "depths", value=[-1, 1, 1, 1], says=NOT_ONE),
    entry("three stages", *BACKBONE, "depths", value=[1, 1, 1], says=NOT_ONE),
    entry("half a block", *BACKBONE, "depths", value=[0.5, 1, 1, 1], says=NOT_ONE),
    entry("a million blocks", *BACKBONE, "depths", value=[10**6, 1, 1, 1], says=NOT_ONE),
    entry("a width of a million", *BACKBONE, "widths", value=[10**6] * 4, says=NOT_ONE),
    Case(
        "a width of thousands",
        LINE,
        (WEIGHTS, "does not fit", "different checkpoints"),
        edited(CONFIG, put(*BACKBONE, "widths", value=[4096] * 4)),
    ),
    entry("a reduction by none", *BACKBONE, "reductions", value=[0, 1, 1, 1], says=NOT_ONE),
    entry("no neighbours", *BACKBONE, "neighbors", value=0, says=NOT_ONE),
    entry("a share of tokens above all", *BACKBONE, "keep", value=4, says=NOT_ONE),
    entry("a chance above certain", *BACKBONE, "drop_path", value=2, says=NOT_ONE),
    entry("a tau that is no number", "config", "tau", value=["a", 0, 0], says=NOT_ONE),
    entry("a tau of NaN", "config", "tau", value=[float("nan"), 0, 0], says=NOT_ONE),
    entry("a name that is a list", "name", value=["a"], says=NOT_ONE),
    entry("a name of half a letter", "name", value="\ud800", says=("not readable as JSON",)),
    entry("a summary that is a number", "training", value=4, says=NOT_ONE),
    weights("weights that are empty", holds(WEIGHTS, b""), "not a readable safetensors", "fetch it again"),
    weights("weights cut off", cut(WEIGHTS), "not a readable safetensors", "fetch it again"),
    weights(
        "weights of text",
        holds(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"),
        "not a readable safetensors",
        "fetch it again",
    ),
    weights(
        "a header of 2**60 bytes", holds(WEIGHTS, (2**60).to_bytes(8, "little") + b"{}"), "fetch it again"
    ),
    weights("weights that are a folder", both(gone(WEIGHTS), folder(WEIGHTS)), "no such weights file"),
    weights("a weight of NaN", bad.weights(bad.with_value(float("nan"))), "not finite", "damaged"),
    weights("a weight of infinity", bad.weights(bad.with_value(float("inf"))), "not finite", "damaged"),
    weights("a weight short", bad.weights(bad.without_one), "does not fit", "different checkpoints"),
    weights("a weight too many", bad.weights(bad.with_one_more), "does not fit", "different checkpoints"),
    weights("a weight of another shape", bad.weights(bad.reshaped), "does not fit", "different checkpoints"),
    weights("complex weights", bad.weights(bad.of_type(torch.complex64)), "complex"),
    weights(
        "weights of another checkpoint",
        lambda home: (home / "other/model.safetensors").replace(home / WEIGHTS),
        "does not fit",
        "different checkpoints",
    ),
    weights("a pickle under the name safetensors", holds(WEIGHTS, bad.malicious_pickle()), "fetch it again"),
    weights("a torch file under the name safetensors", holds(WEIGHTS, bad.malicious_zip()), "fetch it again"),
    Case(
        "a malicious program",
        LINE.replace("model", "program.pt2"),
        ("program.pt2", "efnet export"),
        malicious_program,
        extras=("program",),
    ),
    Case(
        "a program of another maker",
        LINE.replace("model", "program.pt2"),
        ("program.pt2", "efnet export"),
        extras=("program",),
    ),
    Case(
        "a program cut off",
        LINE.replace("model", "program.pt2"),
        ("program.pt2",),
        cut("program.pt2"),
        extras=("program",),
    ),
    Case(
        "a pickle under the name pt2",
        LINE.replace("model", "x.pt2"),
        ("x.pt2",),
        holds("x.pt2", bad.malicious_pickle()),
    ),
    Case(
        "a torch file under the name pt2",
        LINE.replace("model", "x.pt2"),
        ("x.pt2",),
        holds("x.pt2", bad.malicious_zip()),
    ),
    Case(
        "an ONNX file of noise",
        LINE.replace("model", "x.onnx"),
        ("x.onnx", "export it again"),
        holds("x.onnx", bytes(range(256))),
    ),
    Case("an empty ONNX file", LINE.replace("model", "x.onnx"), ("x.onnx", "export"), holds("x.onnx", b"")),
    Case(
        "an OpenVINO file without weights",
        LINE.replace("model", "x.xml"),
        ("x.xml", "x.bin", "copy both"),
        holds("x.xml", "<net/>"),
    ),
    Case(
        "an OpenVINO file of noise",
        LINE.replace("model", "x.xml"),
        ("x.xml", "export it again"),
        both(holds("x.xml", "<net"), holds("x.bin", b"")),
    ),
    Case(
        "an OpenVINO file that is an XML bomb",
        LINE.replace("model", "x.xml"),
        ("x.xml", "export it again"),
        both(
            holds("x.xml", '<!DOCTYPE a [<!ENTITY b "' + "c" * 99 + '">]><net name="&b;"/>'),
            holds("x.bin", b""),
        ),
    ),
    Case(
        "no such exported file", LINE.replace("model", "x.onnx"), ("x.onnx", "no such file", "efnet export")
    ),
    Case(
        "an exported file of the wrong runtime",
        f"{LINE.replace('model', 'x.onnx')} --runtime openvino",
        ("x.onnx", "openvino", "efnet export"),
        holds("x.onnx", b""),
    ),
    *(
        Case(f"a spoilt checkpoint for efnet {command}", line, (CONFIG, "JSON"), holds(CONFIG, "{"))
        for command, line in (
            ("evaluate", "evaluate --checkpoint model --dataset mfnet --root mfnet"),
            ("explain", "explain --checkpoint model --rgbt rgbt.png --out out"),
            ("export", "export --checkpoint model --format torch --out x.pt2"),
            ("serve", "serve --checkpoint model --port 0"),
            ("benchmark", "benchmark --model ./model --runs 1 --warmup 0 --no-memory --size 32x32"),
        )
    ),
    *(
        Case(
            f"{name} to start from",
            "train --dataset mfnet --root mfnet --out out --size 32x32 --workers 0 --device cpu "
            f"--model efnet_tiny --init {file}",
            (file, *says),
            holds(file, content),
        )
        for name, file, content, says in (
            ("a malicious torch file", "w.pth", bad.malicious_zip(), ("never loaded", "state_dict alone")),
            ("a malicious pickle", "w.pth", bad.malicious_pickle(), ("never loaded", "state_dict alone")),
            (
                "a malicious torch file of old",
                "w.pt",
                bad.malicious_legacy(),
                ("never loaded", "state_dict alone"),
            ),
            ("a malicious .bin", "w.bin", bad.malicious_zip(), ("never loaded", "state_dict alone")),
            (
                "a malicious .safetensors",
                "w.safetensors",
                bad.malicious_zip(),
                ("safetensors", "fetch it again"),
            ),
            ("a dictionary in itself", "w.pth", bad.endless(), ("holds no tensors", "state dict")),
            ("a tensor of 4 TB in 1 kB", "w.pth", bad.stretched(), ("larger than the file", "damaged")),
            ("a compressed torch file", "w.pth", bad.deflated, ("compressed archive", "unpack it")),
            ("a list", "w.pth", bad.torch_file([1, 2]), ("holds no tensors", "state dict")),
            ("a number", "w.pth", bad.torch_file(3), ("holds no tensors", "state dict")),
            ("NaN", "w.pth", bad.torch_file({"a": torch.tensor([float("nan")])}), ("not finite", "damaged")),
            (
                "a tensor without memory",
                "w.pth",
                bad.torch_file({"a": torch.zeros(2, device="meta")}),
                ("meta tensor", "save plain ones"),
            ),
            (
                "a sparse tensor",
                "w.pth",
                bad.torch_file({"a": torch.eye(2).to_sparse()}),
                ("sparse", "save plain ones"),
            ),
            (
                "weights of another network",
                "w.pth",
                bad.torch_file({"a": torch.zeros(2)}),
                ("neither a TCFormer",),
            ),
            ("an empty file", "w.pth", b"", ("not a readable weights file", "fetch it again")),
            ("a file of noise", "w.pth", bytes(range(256)), ("w.pth",)),
            ("a text", "w.pth", b"hello\n" * 9, ("it is damaged, or something else than weights",)),
            (
                "a page in place of a download",
                "w.pth",
                b"\n<!DOCTYPE html><title>Quota exceeded</title>",
                ("w.pth: not a readable weights file (it is a web page", "save the file itself"),
            ),
        )
    ),
]
