"""Bad input of the other commands: videos, calibration, conversion, scenes, export, explanations, service."""

from __future__ import annotations

import fault_pictures as pictures
from fault_case import Case, both, cut, folder, gone, holds, loop

VIDEO = "predict --checkpoint model --rgb rgb.mp4 --thermal thermal.mp4 --out out.mp4 --device cpu"
CALIBRATE = "calibrate --rgb rgb --thermal thermal --out h.json"
SCENES = "data synthesize --out scenes --train 1 --val 0 --test 0 --size 64x64 --workers 1"
LABEL = "pseudo-label --checkpoint model --rgb rgb --thermal thermal --out out"
SPLIT = "data convert --to folders --root mfnet --out out"
INDEX = "data convert --to index --root maps --out out"
ANNOTATED = "data convert --to index --annotations a.json --root own --out out"
SHAPES = '{"shapes": [], "imagePath": "z.jpg", "imageWidth": 4, "imageHeight": 4}'
DOUBT = "data issues --checkpoint model --dataset mfnet --root mfnet --out out --device cpu"
EXPORT = "export --checkpoint model --format torch --out x.pt2"
EXPLAIN = "explain --checkpoint model --rgb rgb/a.png --thermal thermal/a.png --out out"
SERVE = "serve --checkpoint model --port 0 --device cpu"
SPEED = "benchmark --model ./model --size 32x32 --runs 1 --warmup 0 --no-memory --device cpu"
POINTS = " ".join(f"--point {x},{y},{x},{y}" for x, y in ((1, 1), (60, 2), (58, 44), (2, 40)))
COMPARE = "compare maps model --dataset mfnet --root mfnet --workers 0 --device cpu --protocol native"
TEMPERATURE = "temperature --checkpoint model --dataset mfnet --root mfnet --workers 0 --device cpu"
MARKED = ("out/.efnet-conversion.json",)


def video(name: str, words: str, *says: str) -> Case:
    return Case(f"video: {name}", f"{VIDEO} {words}", says, extras=("videos",))


VIDEOS = [
    video("a style that is none", "--video-style heat", "heat", "overlay"),
    video("a clock that is none", "--clock sun", "sun", "start"),
    video("smoothing of all", "--smooth 1", "smooth", "below 1"),
    video("smoothing of NaN", "--smooth nan", "--smooth", "a number, got nan"),
    video("an offset of NaN", "--offset nan", "offset"),
    video("a gap below none", "--max-gap -1", "gap"),
    video("maps in a file", "--maps rgbt.png", "--maps rgbt.png", "not a folder", "choose another"),
    Case(
        "video: a container that is none",
        VIDEO.replace("out.mp4", "out.txt"),
        ("out.txt", ".mp4"),
        extras=("videos",),
    ),
    Case(
        "video: an out that is there",
        VIDEO,
        ("out.mp4", "there already", "--overwrite"),
        holds("out.mp4", b""),
        extras=("videos",),
    ),
    Case("video: an empty one", VIDEO, ("rgb.mp4",), holds("rgb.mp4", b""), extras=("videos",)),
    Case("video: text", VIDEO, ("rgb.mp4",), holds("rgb.mp4", "hello\n"), extras=("videos",)),
    Case("video: cut off before its index", VIDEO, ("rgb.mp4",), cut("rgb.mp4", 0.3), extras=("videos",)),
    Case(
        "video: one that is not there",
        VIDEO.replace("rgb.mp4", "none.mp4"),
        ("none.mp4",),
        extras=("videos",),
    ),
    Case(
        "video: a folder of that name",
        VIDEO,
        ("rgb.mp4",),
        both(gone("rgb.mp4"), folder("rgb.mp4")),
        extras=("videos",),
    ),
    Case(
        "video: beside a folder of images",
        VIDEO.replace("--thermal thermal.mp4", "--thermal thermal"),
        ("--rgb", "two videos or two folders"),
        extras=("videos",),
    ),
    Case(
        "video: of four channels",
        "predict --checkpoint model --rgbt rgb.mp4 --out out.mp4",
        ("--rgbt rgb.mp4", "give two videos"),
        extras=("videos",),
    ),
    Case(
        "video: a playlist that reads another file",
        VIDEO.replace("--rgb rgb.mp4", "--rgb list.mkv"),
        ("list.mkv",),
        holds("list.mkv", "ffconcat version 1.0\nfile '/etc/passwd'\n"),
        extras=("videos",),
    ),
    Case(
        "video: an HLS list under its name",
        VIDEO.replace("--rgb rgb.mp4", "--rgb list.mkv"),
        ("list.mkv",),
        holds("list.mkv", "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
        extras=("videos",),
    ),
]

CASES = [
    *VIDEOS,
    Case("calibrating with three points", f"{CALIBRATE} {POINTS.rpartition(' --')[0]}", ("four",)),
    Case(
        "calibrating with points on a line",
        f"{CALIBRATE} " + " ".join(f"--point {n},{n},{n},{n}" for n in range(5)),
        ("line",),
    ),
    Case(
        "calibrating with a point of words",
        f"{CALIBRATE} --point a,b,c,d",
        ("--point a,b,c,d", "four numbers"),
    ),
    Case(
        "calibrating with a point of NaN", f"{CALIBRATE} --point nan,1,1,1", ("--point nan", "four numbers")
    ),
    Case(
        "calibrating with a point outside",
        f"{CALIBRATE} {POINTS} --point 999,1,1,1",
        ("999", "outside", "order"),
    ),
    Case(
        "calibrating with points that are not there",
        f"{CALIBRATE} --points p.csv",
        ("p.csv", "cannot be read"),
    ),
    Case(
        "calibrating with points of bytes",
        f"{CALIBRATE} --points p.csv",
        ("p.csv", "cannot be read"),
        holds("p.csv", b"\xff\xfe\0"),
    ),
    Case(
        "calibrating with an empty list of points",
        f"{CALIBRATE} --points p.csv",
        ("four",),
        holds("p.csv", ""),
    ),
    Case(
        "calibrating with a line of three",
        f"{CALIBRATE} --points p.csv",
        ("p.csv, line 1", "four numbers"),
        holds("p.csv", "1,2,3\n"),
    ),
    Case(
        "calibrating with an empty image",
        f"{CALIBRATE} {POINTS}",
        ("rgb/a.png", "is empty", "copy it again"),
        holds("rgb/a.png", b""),
    ),
    Case("calibrating with no tolerance", f"{CALIBRATE} --tolerance 0", ("--tolerance 0", "above 0")),
    Case("calibrating with no pairs", f"{CALIBRATE} --pairs 0", ("--pairs 0", "give 1 or more")),
    Case(
        "calibrating over a file",
        f"{CALIBRATE} {POINTS}",
        ("h.json", "there already", "--overwrite"),
        holds("h.json", "mine"),
    ),
    Case(
        "calibrating into a folder",
        CALIBRATE.replace("h.json", "maps"),
        ("maps", "is a folder", "name of a file"),
    ),
    Case(
        "calibrating by edges of nothing",
        CALIBRATE,
        ("edges",),
        both(
            *(
                holds(f"{kind}/{stem}.png", pictures.encoded(pictures.heat(1) * 0))
                for kind in ("rgb", "thermal")
                for stem in "ab"
            )
        ),
    ),
    Case("a preview of no picture", f"{CALIBRATE} {POINTS} --preview x.txt", ("--preview x.txt", ".png")),
    Case("scenes below none", SCENES.replace("--train 1", "--train -1"), ("--train -1", "0 or more")),
    Case("no scenes at all", SCENES.replace("--train 1", "--train 0"), ("scene",)),
    Case("scenes of no size", SCENES.replace("64x64", "0x0"), ("--size", "0x0")),
    Case("scenes of gigapixels", SCENES.replace("64x64", "1000000x1000000"), ("1000000x1000000",)),
    Case("more night than all", f"{SCENES} --night 1.5", ("night", "0 to 1")),
    Case("a night of NaN", f"{SCENES} --night nan", ("--night", "a number, got nan")),
    Case("scenes of 12 bits", f"{SCENES} --thermal-bits 12", ("12", "16")),
    Case("scenes of 16 bits in four channels", f"{SCENES} --thermal-bits 16", ("16", "folders")),
    Case("a seed of scenes below none", f"{SCENES} --seed -1", ("seed", "-1")),
    Case(
        "workers of scenes below none", f"{SCENES.replace('--workers 1', '--workers -2')}", ("--workers -2",)
    ),
    Case("a layout that is none", f"{SCENES} --layout coco", ("--layout", "mfnet")),
    Case(
        "scenes among other files",
        SCENES.replace("--out scenes", "--out maps"),
        ("maps", "other files", "another"),
    ),
    Case(
        "scenes in a file",
        SCENES.replace("--out scenes", "--out rgbt.png"),
        ("rgbt.png", "is a file", "another"),
    ),
    Case(
        "scenes of another plan",
        SCENES,
        ("scenes", "other files", "--overwrite"),
        holds("scenes/synthesize.json", "["),
    ),
    Case("converting what is not there", SPLIT.replace("--root mfnet", "--root void"), ("void",)),
    Case(
        "converting into its own folder",
        SPLIT.replace("--out out", "--out mfnet"),
        ("mfnet", "choose another"),
    ),
    Case("converting into other files", SPLIT.replace("--out out", "--out rgb"), ("rgb", "choose another")),
    Case("converting into a file", SPLIT.replace("--out out", "--out rgbt.png"), ("rgbt.png",)),
    Case(
        "converting a damaged image",
        SPLIT,
        ("mfnet/images/00003D.png", "is empty", "copy it again"),
        holds("mfnet/images/00003D.png", b""),
        leaves=("out", "out/*", "out/*/*", *MARKED),
    ),
    Case(
        "converting three channels",
        SPLIT,
        ("00003D.png", "not a four-channel"),
        holds("mfnet/images/00003D.png", pictures.COLOUR),
        leaves=("out", "out/*", "out/*/*", *MARKED),
    ),
    Case("converting to what is none", SPLIT.replace("folders", "voc"), ("--to", "folders")),
    Case("annotations cut off", ANNOTATED, ("a.json", "not valid JSON", "again"), holds("a.json", "{")),
    Case("annotations of an unknown tool", ANNOTATED, ("a.json", "LabelMe, COCO"), holds("a.json", "{}")),
    Case("annotations that are missing", ANNOTATED, ("a.json", "no such file")),
    Case(
        "annotations of an image that is missing",
        ANNOTATED,
        ("z.jpg", "no such image"),
        holds("a.json", SHAPES),
        leaves=("out", "out/dataset.yaml", "out/train.txt", *MARKED),
    ),
    Case(
        "label maps to a file that is there",
        "data convert --to coco --root maps --dataset mfnet --out a.json",
        ("a.json", "exists", "--overwrite"),
        holds("a.json", "{}"),
    ),
    Case(
        "doubting a label that is empty",
        DOUBT,
        ("00003D.png", "is empty"),
        holds("mfnet/labels/00003D.png", b""),
    ),
    Case("doubting with a border below none", f"{DOUBT} --border -1", ("--border -1", "0 or more")),
    Case(
        "converting labels of other colours",
        INDEX,
        ("maps/00003D.png", "outside the palette", "correct"),
        holds("maps/00003D.png", pictures.COLOUR),
        leaves=("out", "out/*", *MARKED),
    ),
    Case("converting labels of an unknown set", f"{INDEX} --dataset coco", ("'coco'", "give one of")),
    Case(
        "joining pairs of unequal sizes",
        "data convert --to rgbt --root own --out out",
        ("own/thermal/x1.png", "24x32"),
        holds("own/thermal/x1.png", pictures.encoded(pictures.heat(1, 32, 24))),
        leaves=("out", "out/*", "out/*/*", *MARKED),
    ),
    Case(
        "joining 16 bits into eight",
        "data convert --to rgbt --root own --out out",
        ("own/thermal/x1.png", "8 bit"),
        holds("own/thermal/x1.png", pictures.wide()),
        leaves=("out", "out/*", "out/*/*", *MARKED),
    ),
    Case("exporting under another suffix", EXPORT.replace("x.pt2", "x.bin"), ("x.bin", ".pt2")),
    Case(
        "exporting into a folder",
        EXPORT.replace("x.pt2", "maps.pt2"),
        ("maps.pt2", "is a folder"),
        folder("maps.pt2"),
    ),
    Case("exporting to what is none", EXPORT.replace("torch", "coreml"), ("--format", "onnx")),
    Case("exporting an exported file", EXPORT.replace("model", "x.onnx"), ("x.onnx", "is an exported file")),
    Case("exporting in eight bits", f"{EXPORT} --precision int8", ("--precision int8", "comes in 32")),
    Case("exporting at a size below the least", f"{EXPORT} --size 8x8", ("--size 8x8", "at least 32")),
    Case(
        "exporting to OpenVINO without a size",
        "export --checkpoint model --format openvino --out x.xml",
        ("--size",),
    ),
    Case(
        "exporting with no pairs to check", f"{EXPORT} --check-pairs 0", ("--check-pairs 0", "give 1 or more")
    ),
    Case(
        "explaining a damaged image",
        EXPLAIN,
        ("rgb/a.png", "is empty", "same command again"),
        holds("rgb/a.png", b""),
        leaves=("out", "out/predictions.jsonl"),
    ),
    Case(
        "explaining in a file", EXPLAIN.replace("--out out", "--out rgbt.png"), ("rgbt.png", "not a folder")
    ),
    Case(
        "explaining one image for two",
        EXPLAIN.replace("--thermal thermal/a.png", ""),
        ("--thermal", "--rgbt"),
    ),
    Case(
        "explaining a link to itself",
        EXPLAIN,
        ("rgb/a.png", "no such file", "check the path"),
        loop("rgb/a.png"),
    ),
    Case("serving at a port beyond all", SERVE.replace("--port 0", "--port 99999"), ("--port 99999",)),
    Case("serving at a port below none", SERVE.replace("--port 0", "--port -1"), ("--port -1",)),
    Case("serving at an address that is none", f"{SERVE} --host 300.1.1.1", ("300.1.1.1",)),
    Case("serving with a timeout of NaN", f"{SERVE} --timeout nan", ("--timeout", "a number, got nan")),
    Case("serving nobody", f"{SERVE} --max-concurrent 0", ("--max-concurrent 0", "larger")),
    Case("serving with threads below none", f"{SERVE} --threads -1", ("--threads -1", "give 0 or more")),
    Case("measuring in no mode", f"{SPEED} --mode sideways", ("--mode sideways", "forward")),
    Case("measuring what is not there", SPEED.replace("./model", "./models"), ("models",)),
    Case("measuring no runs", SPEED.replace("--runs 1", "--runs 0"), ("--runs 0", "1 or more")),
    Case("measuring at no size", SPEED.replace("32x32", "1x1"), ("1x1", "at least 32")),
    Case("measuring no batch", f"{SPEED} --batch 0", ("--batch 0", "1 or more")),
    Case("measuring into a folder", f"{SPEED} --json maps", ("--json maps", "is a folder")),
    Case("sizes of networks into a folder", "models --json maps", ("--json maps", "is a folder")),
    Case("networks at no size", "models --size 2x2", ("--size 2x2", "at least 32")),
    Case("an unknown option of models", "models --tables", ("--tables", "efnet models --help")),
    Case("findings into a folder", "doctor --json maps", ("--json maps", "is a folder")),
    Case("findings below a file", "doctor --json rgbt.png/d.json", ("rgbt.png", "not a folder")),
    Case("a shell that is none", "completion powershell", ("powershell", "bash")),
    Case("a shell too few", "completion", ("shell", "required")),
    Case("a demo in a file", "demo --quick --out rgbt.png", ("rgbt.png", "is a file", "choose another")),
    Case("a demo among other files", "demo --quick --out maps", ("maps", "other files", "choose another")),
    Case("a list with a word too many", "experiment list all", ("all", "efnet experiment list --help")),
    Case("comparing one network", "compare model", ("two networks or more", "efnet compare")),
    Case("comparing without data", "compare model other", ("model", "no stored evaluation", "--root")),
    Case("comparing a report that is none", "compare rgbt.png.json model", ("rgbt.png.json", "not a report")),
    Case(
        "comparing a report that is damaged",
        "compare r.json model",
        ("r.json", "evaluate again"),
        holds("r.json", '{"miou": 1, "iou": {"a": 1}, "protocol": {}, "per_image": [{}]}'),
    ),
    Case("comparing by groups that are none", f"{COMPARE} --groups (", ("--groups (", "regular expression")),
    Case("comparing with a size that is none", f"{COMPARE} --size 0", ("--size 0", "height x width")),
    Case(
        "comparing networks of other classes",
        "compare model other --dataset mfnet --root mfnet --workers 0 --device cpu",
        ("classes", "mfnet"),
    ),
    Case(
        "a temperature of an exported file",
        TEMPERATURE.replace("model", "x.onnx"),
        ("x.onnx", "export that again"),
    ),
    Case(
        "a temperature of weights of the package",
        TEMPERATURE.replace("model", "efnet-edge-streets"),
        ("not yours to change", "--out"),
    ),
    Case("a temperature for other classes", TEMPERATURE.replace("model", "other"), ("classes", "mfnet")),
    Case("a temperature into a full folder", f"{TEMPERATURE} --out rgb", ("--out rgb", "choose another")),
    Case("a card of no run", "card nowhere", ("nowhere", "no such folder")),
    Case("a card of a licence that is none", "card model --licence MIT", ("--licence", "identifier")),
    Case("a card with a report that is none", "card model --report rgbt.png", ("rgbt.png", "not a report")),
    Case("publishing without a licence", "push model me/x", ("nothing was published", "--licence")),
    Case(
        "publishing without the data's licence",
        "push model me/x --licence mit",
        ("nothing was published", "--data-licence"),
    ),
    Case(
        "publishing under a wrong name",
        "push model x --licence mit --data-licence none",
        ("x: give the repository", "owner/name"),
    ),
    Case("converting weights of no network", "convert-weights yolo w.pth --out out", ("yolo", "mfnet")),
    Case(
        "converting weights that are not there", "convert-weights mfnet w.pth --out out", ("w.pth", "no such")
    ),
    Case(
        "converting weights of another network",
        "convert-weights mfnet model/model.safetensors --out out",
        ("model.safetensors", "mfnet"),
    ),
    Case(
        "pseudo-labels with a threshold of two",
        f"{LABEL} --threshold 2",
        ("--threshold 2", "probabilities from 0 to 1"),
    ),
    Case("pseudo-labels of a class that is none", f"{LABEL} --threshold 0.9,yeti=0.5", ("yeti", "car")),
    Case(
        "pseudo-labels with boxes from nowhere",
        f"{LABEL} --boxes nowhere",
        ("--boxes nowhere", "no such folder"),
    ),
    Case(
        "pseudo-labels with boxes of a class that is none",
        f"{LABEL} --boxes maps --box-classes yeti",
        ("--box-classes yeti", "no such class"),
    ),
    Case("an unknown command", "segment", ("'segment'", "predict")),
    Case("half a command", "data", ("'data'", "check")),
    Case("a command in capitals", "TRAIN", ("'TRAIN'", "train")),
]
