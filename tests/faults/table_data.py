"""Bad data sets and options of `efnet data`, `evaluate` and `score`."""

from __future__ import annotations

import fault_pictures as pictures
import numpy as np
from fault_case import Arrange, Case, both, cut, dangling, folder, gone, holds, loop

CHECK = "data check --dataset mfnet --root mfnet"
OWN = "data check --dataset folders --root own"
SCORE = "score --predictions maps --dataset mfnet --root mfnet"
PACK = "data pack --dataset mfnet --root mfnet --out packed"
VIEW = "data view --dataset mfnet --root mfnet --out page.html"
EVALUATE = "evaluate --checkpoint model --dataset mfnet --root mfnet --workers 0 --device cpu"
IMAGE, LABEL, MAP = "mfnet/images/00003D.png", "mfnet/labels/00003D.png", "maps/00003D.png"
YAML = "own/dataset.yaml"


def found(name: str, arrange: Arrange, *says: str, line: str = CHECK) -> Case:
    """`data check` finds it and exits 1; scoring and evaluation refuse it."""
    return Case(name, line, ("problem: ", *says), arrange, status=1)


def described(name: str, text: str | bytes, *says: str) -> Case:
    """The data set's own YAML is this."""
    return Case(f"dataset.yaml: {name}", OWN, (YAML, *says), holds(YAML, text))


def label(value: int) -> bytes:
    wrong = pictures.labels(1, 9)
    wrong[2:4, 5] = value
    return pictures.encoded(wrong)


NAMES = "names: [background, person, car]\n"

CASES = [
    found("an empty image", holds(IMAGE, b""), IMAGE, "is empty", "copy it again"),
    found("a cut-off image", cut(IMAGE), IMAGE, "cannot be read", "copy it again"),
    found(
        "three channels in place of four", holds(IMAGE, pictures.COLOUR), IMAGE, "four-channel", "of its own"
    ),
    found("a bomb", holds(IMAGE, pictures.png_bomb(colour_type=6)), IMAGE, "too large", "the file you mean"),
    found("an image that is a folder", both(gone(IMAGE), folder(IMAGE)), IMAGE, "is a folder", "image file"),
    found("an image that is a link to itself", loop(IMAGE), IMAGE, "no such file", "check"),
    found("an image that is a link to nothing", dangling(IMAGE), IMAGE, "no such file", "check"),
    found("a label out of range", holds(LABEL, label(9)), LABEL, "9 (2 pixels)", "use 0..8"),
    found(
        "a label of another size",
        holds(LABEL, pictures.encoded(pictures.labels(1, 9, 40, 64))),
        LABEL,
        "64x40",
        "register",
    ),
    found(
        "a label of unknown colours", holds(LABEL, pictures.COLOUR), LABEL, "outside the palette", "correct"
    ),
    found(
        "a label of fractions", holds(LABEL, pictures.floats(0.5)), LABEL, "32-bit float", "save it as PNG"
    ),
    found(
        "an animated label", holds(LABEL, pictures.animation("PNG", "L")), LABEL, "2 frames", "save the one"
    ),
    *(
        Case(
            f"a name of the list {name}",
            CHECK,
            ("mfnet/test.txt", word, "leads out of", "write image names"),
            holds("mfnet/test.txt", f"00003D\n{word}\n"),
        )
        for name, word in (
            ("that climbs out", "../../etc/passwd"),
            ("that climbs below", "a/../../b"),
            ("that is absolute", "/etc/passwd"),
            ("that climbs on Windows", "..\\b"),
        )
    ),
    found("a name of the list twice", holds("mfnet/test.txt", "00003D\n00003D\n"), "00003D", "twice"),
    found("a very long name in the list", holds("mfnet/test.txt", "n" * 5000 + "\n"), "no such file"),
    Case(
        "a zero in a name of the list",
        CHECK,
        ("mfnet/test.txt", "not a text file", "save it as UTF-8"),
        holds("mfnet/test.txt", "a\0b\n"),
    ),
    Case(
        "a list of bytes",
        CHECK,
        ("mfnet/test.txt", "not a text file", "one image name per line"),
        holds("mfnet/test.txt", b"\xff\xfe\x00"),
    ),
    Case(
        "an empty list",
        CHECK,
        ("mfnet/test.txt", "is empty", "one image name per line"),
        holds("mfnet/test.txt", "\n\n"),
    ),
    Case(
        "a list that is a folder",
        f"{CHECK} --split test",
        ("mfnet/test.txt", "cannot be read"),
        both(gone("mfnet/test.txt"), folder("mfnet/test.txt")),
    ),
    Case(
        "no such root",
        CHECK.replace("--root mfnet", "--root nowhere"),
        ("nowhere", "no such folder", "--root"),
    ),
    Case(
        "a root that is a file",
        CHECK.replace("--root mfnet", "--root rgbt.png"),
        ("rgbt.png", "file", "--root"),
    ),
    Case(
        "a root that is a link to itself",
        CHECK.replace("--root mfnet", "--root turn"),
        ("turn", "--root"),
        loop("turn"),
    ),
    Case(
        "an empty root",
        CHECK.replace("--root mfnet", "--root void"),
        ("void", "not the mfnet layout", "check"),
        folder("void"),
    ),
    Case(
        "an unknown data set", CHECK.replace("--dataset mfnet", "--dataset coco"), ("'coco'", "give one of")
    ),
    Case(
        "a data set's YAML that is not there",
        CHECK.replace("--dataset mfnet", "--dataset x.yaml"),
        ("x.yaml", "no such file", "write one"),
    ),
    Case("an unknown split", f"{CHECK} --split probe", ("'probe'", "it has")),
    Case("a report into a folder", f"{CHECK} --json maps", ("--json maps", "is a folder", "name of a file")),
    Case(
        "a report below a file",
        f"{CHECK} --json rgbt.png/x.json",
        ("rgbt.png", "not a folder", "choose another"),
    ),
    described("empty", "", "holds no keys", "write at least"),
    described("bytes", b"\xff\xfe\x00\x01", "not valid YAML", "correct it"),
    described("an open bracket", "names: [", "not valid YAML", "correct it"),
    described(
        "a tag of Python", "names: !!python/object/apply:os.system ['touch canary']\n", "not valid YAML"
    ),
    described("a class of Python", "names: !!python/name:os.system\n", "not valid YAML"),
    described("an unknown key", NAMES + "pallete: []\n", "'pallete'", "did you mean 'palette'"),
    described("a key twice", NAMES + "names: [a, b]\n", "'names'", "twice"),
    described("nested lists", "names: " + "[" * 20_000, "not valid YAML", "correct it"),
    described(
        "a bomb of aliases",
        "a: &a [x, x]\n"
        + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
        ),
        "100000 values",
        "correct it",
    ),
    described("a list in itself", "names: &a [*a]\n", "100000 values", "correct it"),
    described("a number of 5000 digits", f"names: [{'9' * 5000}, b]\n", "not valid YAML", "correct it"),
    described("a date that is none", "names: [2001-99-99, b]\n", "not valid YAML", "correct it"),
    described("names in words", "names: person\n", "'names' must be a list", "such as"),
    described("one class", "names: [person]\n", "2 to 255 classes", "palette"),
    described("300 classes", f"names: [{', '.join(f'c{n}' for n in range(300))}]\n", "2 to 255"),
    described("a colour short", NAMES + "palette: [[0, 0, 0]]\n", "3 class names but 1 colours", "per name"),
    described("a colour in words", NAMES + "palette: [red, green, blue]\n", "'palette' has one"),
    described("a range that is none", NAMES + "thermal_scale: [9, 1]\n", "'thermal_scale'", "low < high"),
    described("a range of NaN", NAMES + "thermal_scale: [.nan, 1]\n", "'thermal_scale'", "low < high"),
    described("an infinite range", NAMES + "thermal_scale: [0, .inf]\n", "'thermal_scale'", "low < high"),
    described("a split that is a list", NAMES + "splits: [train]\n", "'splits' must be a mapping", "such as"),
    described("an unknown condition", NAMES + "conditions: {dusk: '*'}\n", "dusk", "day and night"),
    Case(
        "dataset.yaml: a split that is not there",
        f"{OWN} --split test",
        ("nowhere.txt", "correct 'splits'"),
        holds(YAML, NAMES + "splits: {test: nowhere.txt}\n"),
    ),
    Case(
        "dataset.yaml: no folders",
        OWN,
        ("not the folders layout", "check"),
        holds(YAML, NAMES + "rgb: vis\nthermal: tir\n"),
    ),
    Case("dataset.yaml: itself a folder", OWN, (YAML, "cannot be read"), both(gone(YAML), folder(YAML))),
    found(
        "a colour image without its thermal one",
        gone("own/thermal/x1.png"),
        "own/thermal/x1.png",
        "no such file",
        line=OWN,
    ),
    found(
        "thermal of another size",
        holds("own/thermal/x1.png", pictures.encoded(pictures.heat(1, 24, 32))),
        "own/thermal/x1.png",
        "32x24",
        "register",
        line=OWN,
    ),
    found(
        "a colour-mapped thermal image",
        holds("own/thermal/x1.png", pictures.COLOUR),
        "own/thermal/x1.png",
        "greyscale",
        line=OWN,
    ),
    Case("two images of one stem", OWN, ("x1.jpg", "same stem", "keep one"), holds("own/rgb/x1.jpg", b"")),
    Case("viewing an unknown split", f"{VIEW} --split probe", ("'probe'", "it has")),
    Case("viewing with an impossible likeness", f"{VIEW} --near 2", ("--near 2", "at most 1")),
    Case("no such public set", "data info imagenet", ("'imagenet'", "there are mfnet, pst900")),
    Case("packing no split", f"{PACK} --split ,", ("--split is empty", "name at least one")),
    Case("packing an unknown split", f"{PACK} --split probe", ("'probe'", "it has")),
    Case(
        "packing into tars of nothing",
        f"{PACK} --split test --shard-size 0",
        ("--shard-size 0", "give 1 or more"),
    ),
    Case(
        "packing into a file",
        f"{PACK} --split test".replace("packed", "rgbt.png"),
        ("rgbt.png", "choose another"),
    ),
    Case("packing what is gone", f"{PACK} --split test", (IMAGE, "no such file"), gone(IMAGE)),
    Case("a label to score that is damaged", SCORE, (LABEL, "cannot be read", "copy it again"), cut(LABEL)),
    Case("a map cut off", SCORE, (MAP, "cannot be read", "copy it again"), cut(MAP)),
    Case("a map out of range", SCORE, (MAP, "12 (2 pixels)", "use 0..8"), holds(MAP, label(12))),
    Case("a map of colours", SCORE, (MAP, "outside the palette", "correct"), holds(MAP, pictures.COLOUR)),
    Case(
        "a map of 16 bits",
        SCORE,
        (MAP, "outside the 9 classes", "use 0..8"),
        holds(MAP, pictures.wide(np.full((48, 64), 300))),
    ),
    Case("a map that is missing", SCORE, (MAP, "missing", "write a label map"), gone(MAP)),
    Case("two maps of one pair", SCORE, ("same stem", "keep one"), holds("maps/00003D.tif", b"")),
    Case("no maps at all", SCORE.replace("maps", "rgb"), ("no file is named after", "expected")),
    Case("maps in a file", SCORE.replace("maps", "rgbt.png"), ("rgbt.png", "is not a folder")),
    Case("an unknown protocol", f"{SCORE} --protocol best", ("best", "mfnet")),
    Case("a protocol of another data set", f"{SCORE} --protocol pst900", ("pst900", "classes")),
    Case("a sheet that is no picture", f"{SCORE} --sheet x.txt", ("--sheet x.txt", ".png")),
    Case("a sheet of no rows", f"{SCORE} --sheet x.png --sheet-rows 0", ("--sheet-rows 0", "give 1 or more")),
    Case("scoring a split without labels", SCORE, ("label",), gone("mfnet/labels")),
    Case("evaluating a damaged image", EVALUATE, (IMAGE, "is empty", "copy it again"), holds(IMAGE, b"")),
    Case(
        "evaluating a label out of range",
        EVALUATE,
        (LABEL, "77 (2 pixels)", "use 0..8"),
        holds(LABEL, label(77)),
    ),
    Case("evaluating without labels", EVALUATE, ("label",), gone("mfnet/labels")),
    Case("evaluating other classes", EVALUATE.replace("model", "other"), ("classes",)),
    Case("evaluating at no size", f"{EVALUATE} --size 0x0", ("--size 0x0", "at least 32", "native")),
    Case("evaluating at a size in words", f"{EVALUATE} --size big", ("--size big", "480x640", "native")),
    Case("evaluating with no batch", f"{EVALUATE} --batch-size 0", ("--batch-size 0", "give 1 or more")),
    Case(
        "evaluating with workers below none", f"{EVALUATE} --workers -1", ("--workers -1", "give 0 or more")
    ),
    Case(
        "evaluating into a file",
        f"{EVALUATE} --save-predictions rgbt.png",
        ("rgbt.png", "not a folder", "another"),
    ),
]
