"""Bad requests to the service."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field

import fault_pictures as pictures
from fault_weights import malicious_zip

BOUNDARY = "line"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
MOST_BYTES, MOST_PIXELS = 1_000_000, 300_000
PAIR = {"rgb": pictures.COLOUR, "thermal": pictures.THERMAL}
SEGMENT = "/v1/segment"


@dataclass(frozen=True)
class Request:
    """A bad request.

    Attributes:
        name: what is wrong.
        status: of the answer.
        code: of the answer.
        says: parts of the message: what is wrong and where, and the remedy.
        body: what is sent.
        headers: sent with it.
        path: with its query.
        method: of HTTP.
    """

    name: str
    status: int
    code: str
    says: tuple[str, ...]
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: FORM)
    path: str = SEGMENT
    method: str = "POST"


def part(head: str, content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


def form(files: dict[str, bytes]) -> bytes:
    """A multipart form of these files."""
    heads = {name: f'Content-Disposition: form-data; name="{name}"; filename="{name}"' for name in files}
    parts = [part(heads[name], content) for name, content in files.items()]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


GOOD = form(PAIR)


def body(name: str, status: int, code: str, *says: str, content: bytes = GOOD, **headers: str) -> Request:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Request(name, status, code, says, content, FORM | named)


def image(name: str, status: int, code: str, *says: str, **files: bytes) -> Request:
    """The pair with other files in place of its own; `rgbt` comes alone."""
    sent = files if "rgbt" in files else PAIR | files
    return Request(f"image: {name}", status, code, (*says,), form(sent))


def query(name: str, text: str, *says: str) -> Request:
    return Request(f"query: {name}", 400, "wrong_parameter", (*says, "/docs"), GOOD, path=f"{SEGMENT}?{text}")


def path(name: str, text: str, status: int = 404, method: str = "GET") -> Request:
    return Request(f"path: {name}", status, "not_served", ("/docs",), b"", {}, text, method)


NOT_A_FORM = ("not a multipart form", "curl -F")
DAMAGED = ("damaged or breaks off", "again")
BODIES = [
    Request("no body", 415, "not_a_form", NOT_A_FORM, headers={}),
    body("an empty body", 400, "damaged_form", *DAMAGED, content=b""),
    body(
        "JSON", 415, "not_a_form", *NOT_A_FORM,
        content=json.dumps({"rgb": "aGVsbG8="}).encode(), Content_Type="application/json",
    ),
    body("JSON that calls itself a form", 400, "damaged_form", *DAMAGED, content=b'{"rgb": 1}'),
    body(
        "a form of a page", 415, "not_a_form", *NOT_A_FORM,
        content=b"rgb=1&thermal=2", Content_Type="application/x-www-form-urlencoded",
    ),
    body(
        "an image alone", 415, "not_a_form", *NOT_A_FORM,
        content=pictures.COLOUR, Content_Type="image/png",
    ),
    body("no boundary", 415, "not_a_form", *NOT_A_FORM, Content_Type="multipart/form-data"),
    body("an empty boundary", 415, "not_a_form", *NOT_A_FORM, Content_Type="multipart/form-data; boundary="),
    body(
        "a boundary without end", 400, "damaged_form", *DAMAGED,
        Content_Type=f"multipart/form-data; boundary={'x' * 5000}",
    ),
    body(
        "another boundary", 400, "damaged_form", *DAMAGED,
        Content_Type="multipart/form-data; boundary=other",
    ),
    body("a type of 60,000 characters", 415, "not_a_form", *NOT_A_FORM, Content_Type="m" * 60_000),
    body("mixed parts", 415, "not_a_form", *NOT_A_FORM, Content_Type="multipart/mixed; boundary=line"),
    body("a body that breaks off", 400, "damaged_form", *DAMAGED, content=GOOD[:-40]),
    body("a form without its end", 400, "damaged_form", *DAMAGED, content=GOOD[: -len(b"--\r\n")]),
    body("a packed form", 400, "damaged_form", *DAMAGED,
         content=gzip.compress(GOOD), Content_Encoding="gzip"),
    body("a part without a head", 400, "unknown_field", "''", "rgb and thermal",
         content=b"--line\r\nX: y\r\n\r\nz\r\n" + GOOD),
    body("a head without a name", 400, "unknown_field", "''", "rgb and thermal",
         content=part("Content-Disposition: form-data", b"z") + GOOD),
    body("a head that is none", 400, "damaged_form", *DAMAGED,
         content=b"--line\r\n\0\xff\r\n\r\nz\r\n" + GOOD),
    body("a name that is no text", 400, "unknown_field", "rgb and thermal",
         content=b'--line\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\nz\r\n' + GOOD),
    body("a name of 3,000 characters", 400, "damaged_form", *DAMAGED,
         content=form({"r" * 3000: b"z"})),
    body("more bytes than are taken", 413, "too_many_bytes", str(MOST_BYTES), "smaller",
         content=form(PAIR | {"rgb": bytes(MOST_BYTES)})),
    body("a length of 10,000 digits", 413, "too_many_bytes", str(MOST_BYTES), "smaller",
         Content_Length="9" * 10_000),
    body("ten thousand parts", 400, "repeated_field", "rgb was sent twice", "one pair",
         content=part('Content-Disposition: form-data; name="rgb"', b"") * 10_000),
]  # fmt: skip
FIELDS = [
    Request("field: rgb alone", 400, "missing_image", ("thermal is missing", "needs"),
            form({"rgb": pictures.COLOUR})),
    Request("field: thermal alone", 400, "missing_image", ("rgb is missing", "needs"),
            form({"thermal": pictures.THERMAL})),
    Request("field: one that is none", 400, "unknown_field", ("'depth'", "rgb and thermal"),
            form(PAIR | {"depth": b"x"})),
    Request("field: of another case", 400, "unknown_field", ("'RGB'", "rgb and thermal"),
            form({"RGB": pictures.COLOUR, "thermal": pictures.THERMAL})),
    Request("field: a path", 400, "unknown_field", ("'../../etc/passwd'", "rgb and thermal"),
            form({"../../etc/passwd": b"x"})),
    Request("field: twice", 400, "repeated_field", ("thermal was sent twice", "one pair"),
            form(PAIR)[: -len(b"--line--\r\n")] + form({"thermal": pictures.THERMAL})),
    Request("field: both and four channels", 400, "too_many_images", ("rgbt already", "alone"),
            form(PAIR | {"rgbt": pictures.four_channels()})),
]  # fmt: skip
IMAGES = [
    image("empty", 422, "empty_image", "rgb is empty", "send the image", rgb=b""),
    image("text", 415, "unknown_format", "rgb", "send PNG", rgb=b"a line of text\n"),
    image("a page", 415, "unknown_format", "rgb", "send PNG", rgb=b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    image("PostScript", 415, "unknown_format", "thermal", "send PNG", thermal=b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    image("GIF", 415, "unknown_format", "rgb", "send PNG", rgb=pictures.animation("GIF")),
    image("weights that run code", 415, "unknown_format", "rgb", "send PNG", rgb=malicious_zip()),
    image("cut off", 422, "damaged_image", "rgb cannot", "send it again", rgb=pictures.COLOUR[:-300]),
    image("only its first bytes", 415, "unknown_format", "rgb", "send PNG", rgb=pictures.COLOUR[:12]),
    image("a JPEG cut off", 422, "damaged_image", "rgb cannot", "send it again",
          rgb=pictures.encoded(pictures.colours(1), "JPEG")[:-300]),
    image("a byte flipped", 422, "damaged_image", "thermal cannot", "send it again",
          thermal=pictures.THERMAL[:60] + bytes([pictures.THERMAL[60] ^ 255]) + pictures.THERMAL[61:]),
    image("a bomb", 413, "too_many_pixels", "rgb is more than", "smaller", rgb=pictures.png_bomb()),
    image("a bomb for thermal", 413, "too_many_pixels", "thermal", "smaller", thermal=pictures.png_bomb()),
    image("a bomb below Pillow's limit", 413, "too_many_pixels", "rgb is 5000x5000", "smaller",
          rgb=pictures.png_bomb(5000, 5000)),
    image("a bomb of four channels", 413, "too_many_pixels", "rgbt", "smaller",
          rgbt=pictures.png_bomb(colour_type=6)),
    image("a BMP bomb", 413, "too_many_pixels", "rgb", "smaller", rgb=pictures.bmp_bomb()),
    image("a comment of 100 MB", 422, "damaged_image", "rgb", "save it as PNG", rgb=pictures.text_bomb()),
    image("a strip of 40 rows", 413, "too_many_pixels", "rgb is 60000x40", "smaller",
          rgb=pictures.png_bomb(60_000, 40)),
    image("moving PNG", 422, "several_frames", "rgb has 2 frames", "send the one",
          rgb=pictures.animation("PNG")),
    image("moving WebP", 422, "several_frames", "rgb has 2 frames", "send the one",
          rgb=pictures.animation("WEBP")),
    image("TIFF of two pages", 422, "several_frames", "thermal has 2 frames", "send the one",
          thermal=pictures.animation("TIFF", "L")),
    image("three channels of 16 bits", 422, "unfit_image", "thermal", "one channel",
          thermal=pictures.wide_colours()),
    image("CMYK for thermal", 422, "unfit_image", "thermal", thermal=pictures.cmyk()),
    image("CMYK for four channels", 422, "not_four_channels", "three channels", "rgb and thermal",
          rgbt=pictures.cmyk()),
    image("three of four channels", 422, "not_four_channels", "three channels", "rgb and thermal",
          rgbt=pictures.COLOUR),
    image("one of four channels", 422, "not_four_channels", "8-bit", "rgb and thermal",
          rgbt=pictures.THERMAL),
    image("false colours", 422, "unfit_image", "thermal", "greyscale", thermal=pictures.COLOUR),
    image("values that are NaN", 422, "unfit_image", "thermal", "NaN",
          thermal=pictures.floats(float("nan"))),
    image("values without end", 422, "unfit_image", "thermal", "infinite",
          thermal=pictures.floats(float("inf"))),
    image("another shape", 422, "unfit_image", "64x48", "48x64", "crop",
          thermal=pictures.encoded(pictures.heat(1, 64, 48))),
    image("one that lies on its side", 422, "unfit_image", "48x64", "crop", rgb=pictures.turned()),
]  # fmt: skip
QUERIES = [
    query("a format that is none", "format=gif", "format", "'overlay'"),
    query("an empty format", "format=", "format", "'png'"),
    query("two formats, one wrong", "format=json&format=gif", "format"),
    query("a mask that is none", "mask=svg", "mask", "'runs'"),
    query("confidence in words", "confidence=high", "confidence", "'deflate'"),
    query("probabilities perhaps", "probabilities=perhaps", "probabilities", "boolean"),
    query("views of a number", "views=2", "views", "boolean"),
    query("opacity above one", "opacity=1.5", "opacity", "less than or equal to 1"),
    query("opacity below none", "opacity=-0.1", "opacity", "greater than or equal to 0"),
    query("opacity of NaN", "format=overlay&opacity=nan", "opacity"),
    query("opacity without end", "opacity=inf", "opacity"),
    query("opacity in words", "opacity=half", "opacity", "number"),
    query("opacity of 50,000 digits", f"opacity={'9' * 50_000}", "opacity"),
    query("a slip of the pen", "opacty=0.5", "opacty", "opacity"),
]
PATHS = [
    path("none", "/nothing"),
    path("of another case", "/V1/SEGMENT", method="POST"),
    path("with a slash too many", "/v1/segment/", method="POST"),
    path("out of the page", "/page/%2e%2e/app.py"),
    path("out of the page, twice encoded", "/page/..%252fapp.py"),
    path("out of the page by a slash", "/page/..%2f..%2fapp.py"),
    path("of the machine", "/page//etc/passwd"),
    path("of another scheme", "/http://example.org/v1/model"),
    path("with a zero byte", "/page/page.css%00.txt"),
    path("of no text", "/page/%ff%fe"),
    path("of 50,000 characters", f"/page/{'x' * 50_000}"),
    path("an example that is none", "/v1/examples/none/rgb.png"),
    path("an example of another suffix", "/v1/examples/day/rgb.jpg"),
    path("an example out of its folder", "/v1/examples/..%2f/rgb.png"),
    path("segment by GET", "/v1/segment", 405),
    path("segment by PUT", "/v1/segment", 405, "PUT"),
    path("segment by a method that is none", "/v1/segment", 405, "BREW"),
    path("model by DELETE", "/v1/model", 405, "DELETE"),
    path("health by POST", "/healthz", 405, "POST"),
    Request("path: a camera that is none", 400, "wrong_parameter", ("image", "/docs"),
            b"", {}, "/v1/examples/day/depth.png", "GET"),
]  # fmt: skip
DOOR = [
    body("another host", 421, "unknown_host", "'evil.example'", "`allow_host`", Host="evil.example"),
    body("a host of 10,000 letters", 421, "unknown_host", "`allow_host`", Host="e" * 10_000),
    body("a page of another site", 403, "other_site", "use the page", Sec_Fetch_Site="cross-site"),
]
CASES = [*BODIES, *FIELDS, *IMAGES, *QUERIES, *PATHS, *DOOR]
