"""Bad input of `efnet predict` on images: pictures, folders, options."""

from __future__ import annotations

import os
from pathlib import Path

import fault_pictures as pictures
from fault_case import Arrange, Case, Content, both, cut, dangling, edited, folder, gone, holds, loop, put

PAIR = "predict --checkpoint model --rgb rgb/a.png --thermal thermal/a.png --out out"
RGBT = "predict --checkpoint model --rgbt rgbt.png --out out"
FOLDERS = "predict --checkpoint model --rgb rgb --thermal thermal --out out"
H = "homography.json"
NO_HOMOGRAPHY = ("not a homography file", "efnet calibrate")
KEEPS = ("out", "out/predictions.jsonl")
"""A journal of nothing done: the next run goes on from it."""
OTHERS = (*KEEPS, "out/*", "out/*/b.png")
"""Of two pairs the good one was predicted."""


def colour(name: str, content: Content, *says: str) -> Case:
    """The colour image of a pair is this."""
    return Case(name, PAIR, ("rgb/a.png", *says), holds("rgb/a.png", content), leaves=KEEPS)


def thermal(name: str, content: bytes | str, *says: str) -> Case:
    """The thermal image of a pair is this."""
    return Case(name, PAIR, ("thermal/a.png", *says), holds("thermal/a.png", content), leaves=KEEPS)


def options(name: str, words: str, *says: str) -> Case:
    """These options are added to a good line."""
    return Case(name, f"{PAIR} {words}", says)


def latin_name(home: Path) -> None:
    """A name that is no UTF-8."""
    for kind in ("rgb", "thermal"):
        (home / kind / "a.png").rename(home / kind / os.fsdecode(b"caf\xe9.png"))
    (home / "rgb" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")


def long_name(home: Path) -> None:
    """A name as long as file systems allow, to which nothing can be added."""
    for kind in ("rgb", "thermal"):
        (home / kind / "a.png").rename(home / kind / f"{'n' * 251}.png")


def unwritable_out(path: str) -> Arrange:
    return holds(path, "a file")


CASES = [
    colour("an empty colour image", b"", "is empty (0 bytes)", "copy it again"),
    colour("text under an image's name", "hello\n", "not an image format", "save it as PNG"),
    colour("a page of HTML under an image's name", "<!doctype html><title>404</title>", "copy it again"),
    colour("a cut-off PNG", pictures.COLOUR[:-400], "cannot be read", "copy it again"),
    colour("a PNG of its signature alone", pictures.COLOUR[:8], "cannot be read", "save it as PNG"),
    colour("a cut-off JPEG", pictures.turned()[:700], "cannot be read", "copy it again"),
    colour("a PNG bomb", pictures.png_bomb(), "too large for an image", "is this the file you mean?"),
    colour("a BMP bomb", pictures.bmp_bomb(), "too large for an image", "is this the file you mean?"),
    colour("a PNG with a bomb in its comment", pictures.text_bomb, "cannot be read", "copy it again"),
    colour("an animated GIF", pictures.animation("GIF"), "2 frames", "save the one you mean"),
    colour("an animated PNG", pictures.animation("PNG"), "2 frames", "save the one you mean"),
    colour("an animated WebP", pictures.animation("WEBP"), "2 frames", "save the one you mean"),
    colour("a TIFF stack", pictures.animation("TIFF"), "2 pages", "--page"),
    colour("one pixel", pictures.encoded(pictures.colours(1, 1, 1)), "1x1", "thermal/a.png"),
    colour("a portrait beside a landscape", pictures.encoded(pictures.colours(1, 64, 48)), "register"),
    colour("a photo on its side beside an upright thermal image", pictures.turned(), "differ", "register"),
    thermal("a colour-mapped thermal image", pictures.COLOUR, "three channels differ", "greyscale"),
    thermal("CMYK as thermal", pictures.cmyk(), "three channels differ", "greyscale"),
    thermal("three channels of 16 bits", pictures.wide_colours(), "16 bits", "one channel"),
    thermal("a float TIFF with NaN", pictures.floats(float("nan")), "NaN or infinite", "replace"),
    thermal("a float TIFF with infinity", pictures.floats(float("inf")), "NaN or infinite", "replace"),
    thermal("an empty thermal image", b"", "is empty (0 bytes)", "copy it again"),
    thermal("a thermal stack", pictures.animation("TIFF", "L"), "2 pages", "--page"),
    thermal("a thermal bomb", pictures.png_bomb(colour_type=0), "too large", "is this the file you mean?"),
    Case(
        "three channels as RGBT",
        RGBT,
        ("rgbt.png", "not a four-channel", "file of its own"),
        holds("rgbt.png", pictures.COLOUR),
        leaves=KEEPS,
    ),
    Case(
        "CMYK as RGBT",
        RGBT,
        ("rgbt.png", "not a four-channel", "file of its own"),
        holds("rgbt.png", pictures.cmyk()),
        leaves=KEEPS,
    ),
    Case(
        "a 20x20 pair for a network of any size",
        PAIR.replace("model", "other"),
        ("rgb/a.png", "20x20", "at least 32", "enlarge it"),
        both(
            holds("rgb/a.png", pictures.encoded(pictures.colours(1, 20, 20))),
            holds("thermal/a.png", pictures.encoded(pictures.heat(1, 20, 20))),
        ),
        leaves=KEEPS,
    ),
    Case("a folder of that name", PAIR, ("no image there", "check the path"), folder("rgb/a.png")),
    Case("no such image", PAIR, ("rgb/a.png", "no such file", "check the path"), gone("rgb/a.png")),
    Case("a link to itself", PAIR, ("rgb/a.png", "no such file", "check the path"), loop("rgb/a.png")),
    Case("a link to nothing", PAIR, ("rgb/a.png", "no such file", "check"), dangling("rgb/a.png")),
    Case(
        "a link to itself among others",
        FOLDERS,
        ("thermal/a.png", "no RGB image of that name", "same name"),
        loop("rgb/a.png"),
    ),
    Case(
        "a folder that holds itself",
        FOLDERS,
        ("no image there", "check the path"),
        both(gone("rgb"), lambda home: (home / "rgb").mkdir(), loop("rgb/rgb")),
    ),
    Case(
        "an image without its partner",
        FOLDERS,
        ("rgb/b.png", "no thermal image of that name", "same name"),
        gone("thermal/b.png"),
    ),
    Case("an empty folder", FOLDERS, ("no image there", "check the path"), both(gone("rgb"), folder("rgb"))),
    Case(
        "a glob that finds nothing",
        f"{FOLDERS.replace('--rgb rgb', '--rgb rgb/*.tif')}",
        ("rgb/*.tif", "no image there", "check the path"),
    ),
    Case(
        "a glob that is none",
        f"{FOLDERS.replace('--rgb rgb', '--rgb rgb/**x')}",
        ("rgb/**x", "not a pattern"),
    ),
    Case(
        "a pair of which one is damaged",
        FOLDERS,
        ("rgb/a.png", "is empty", "same command again"),
        holds("rgb/a.png", b""),
        leaves=OTHERS,
    ),
    Case(
        "a name that is no UTF-8",
        FOLDERS,
        ("caf", "is empty", "same command again"),
        latin_name,
        leaves=OTHERS,
    ),
    Case(
        "a name of 255 characters",
        FOLDERS,
        ("n" * 251, "is empty", "same command again"),
        both(long_name, lambda home: (home / "rgb" / f"{'n' * 251}.png").write_bytes(b"")),
        leaves=OTHERS,
    ),
    Case("a path of 5000 characters", PAIR.replace("rgb/a.png", "r" * 5000), ("too long", "check the path")),
    Case(
        "one name with two suffixes",
        FOLDERS,
        ("a", "rgb/a.png", "rgb/a.jpg"),
        holds("rgb/a.jpg", pictures.turned(1)),
    ),
    Case("an out that is a file", PAIR, ("out", "not a folder", "choose another"), unwritable_out("out")),
    Case(
        "an out below a file",
        PAIR.replace("--out out", "--out rgbt.png/out"),
        ("rgbt.png", "is not a folder", "choose another"),
    ),
    Case(
        "other predictions in out",
        PAIR,
        ("out", "other results", "--overwrite"),
        holds("out/index/a.png", pictures.THERMAL),
        leaves=("out/predictions.jsonl",),
    ),
    Case(
        "a journal of another program",
        PAIR,
        ("out", "other settings", "--overwrite"),
        holds("out/predictions.jsonl", "[1, 2]\n"),
    ),
    Case(
        "a journal that is a folder",
        PAIR,
        ("predictions.jsonl", "choose another"),
        folder("out/predictions.jsonl"),
    ),
    Case(
        "a journal of nested lists",
        PAIR,
        ("out", "other settings", "--overwrite"),
        holds("out/predictions.jsonl", "[" * 100_000),
    ),
    options("an opacity above 1", "--opacity 1.5", "--opacity 1.5", "between 0 and 1"),
    options("an opacity that is no number", "--opacity nan", "--opacity", "a number, got nan"),
    options("a batch of none", "--batch-size 0", "--batch-size 0", "give 1 or more"),
    options("a batch below none", "--batch-size -3", "--batch-size -3", "give 1 or more"),
    options("a batch in words", "--batch-size two", "--batch-size", "a whole number"),
    options("no workers", "--workers 0", "--workers 0", "give 1 or more"),
    options("no threads", "--threads 0", "--threads 0", "give 1 or more"),
    options("an unknown output", "--save index,masks", "masks", "index"),
    options("no output at all", "--save ,", "--save", "index, color"),
    options("an unknown precision", "--precision 8", "precision", "32 or bf16"),
    options("an unknown device", "--device toaster", "toaster", "cpu"),
    options("a device that is not here", "--device cuda:77", "cuda:77", "cpu"),
    options("a tile of one number", "--tile 64", "--tile 64", "height x width"),
    options("a tile of nothing", "--tile 0x0", "--tile 0x0", "such as 480x640"),
    options("a tile below the least", "--tile 16x16", "--tile 16x16", "at least 32"),
    options("an overlap above half a tile", "--tile 32x32 --overlap 30", "overlap 30", "half"),
    options("an overlap below nothing", "--tile 32x32 --overlap -1", "overlap -1", "half"),
    options("an overlap without a tile", "--overlap 8", "--overlap", "--tile"),
    options("an unknown policy", "--missing maybe", "maybe", "warn"),
    options("an unknown option", "--colour red", "--colour"),
    options("an option without its value", "--opacity", "--opacity", "--help"),
    options("an unknown runtime", "--runtime tensorrt", "tensorrt", "onnx"),
    options("four channels and two images", "--rgbt rgbt.png", "--rgbt", "leave out"),
    options("a homography that is not there", "--homography h.json", "h.json", "cannot be read"),
    Case("no input at all", "predict --checkpoint model --out out", ("nothing to predict", "--rgb")),
    Case(
        "colour alone for a network of both",
        "predict --checkpoint model --rgb rgb --out out",
        ("--thermal", "--rgbt"),
    ),
    *(
        Case(f"a homography {name}", f"{PAIR} --homography {H}", (H, *says), arrange)
        for name, arrange, says in (
            ("that is empty", holds(H, ""), NO_HOMOGRAPHY),
            ("that is a list", holds(H, "[]"), NO_HOMOGRAPHY),
            ("of nested lists", holds(H, "[" * 100_000), NO_HOMOGRAPHY),
            ("of bytes", holds(H, b"\xff\xfe\0"), NO_HOMOGRAPHY),
            ("that is cut off", cut(H), NO_HOMOGRAPHY),
            ("with NaN", edited(H, put("matrix", 0, 0, value=float("nan"))), ("finite numbers",)),
            ("that mirrors", edited(H, put("matrix", 0, 0, value=-1.0)), ("mirrors", "check")),
            ("of two rows", edited(H, put("matrix", value=[[1, 0, 0], [0, 1, 0]])), ("3x3",)),
            ("of words", edited(H, put("matrix", value="identity")), NO_HOMOGRAPHY),
            ("for no pixels", edited(H, put("rgb_size", value=[0, 0])), ("below 1",)),
            ("for infinite pixels", edited(H, put("rgb_size", value=[float("inf"), 1])), NO_HOMOGRAPHY),
            ("that is a folder", both(gone(H), folder(H)), ("cannot be read",)),
        )
    ),
    Case(
        "a homography for another shape",
        f"{PAIR} --homography {H}",
        ("rgb/a.png", "another shape", "calibrate again"),
        edited(H, put("rgb_size", value=[100, 100])),
        leaves=KEEPS,
    ),
]
