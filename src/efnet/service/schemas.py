"""The JSON of the service as types, and the page that documents them.

FastAPI makes `/openapi.json` from the types, and `documentation_page` makes `/docs` from that: no scripts,
nothing loaded from elsewhere.
"""

from __future__ import annotations

import re
from html import escape
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, Field

from efnet.reporting.html import table

Color = tuple[int, int, int]
Format = Literal["json", "png", "overlay"]
MaskChoice = Literal["png", "runs", "both", "none"]
ConfidenceChoice = Literal["none", "png", "deflate"]


class Wanted(BaseModel, extra="forbid"):
    """The parameters of `POST /v1/segment`. Unknown ones are refused: a misspelt one would do nothing."""

    format: Format | None = Field(default=None, description="Wins over the Accept header.")
    mask: MaskChoice = Field(default="png", description="Form of the mask in the JSON.")
    confidence: ConfidenceChoice = Field(
        default="none", description="Whether the JSON holds each pixel's probability."
    )
    probabilities: bool = Field(default=False, description="Summarise probabilities by class.")
    views: bool = Field(default=False, description="Send the images back as they were read.")
    opacity: float = Field(default=0.5, ge=0, le=1, description="Of the classes in an overlay.")

    @property
    def needs_probabilities(self) -> bool:
        """Whether the answer needs the network's probabilities."""
        return self.format == "json" and (self.probabilities or self.confidence != "none")


class Size(BaseModel):
    """Rows and columns."""

    height: int
    width: int


class ClassInfo(BaseModel):
    """A class that the model knows."""

    index: int = Field(description="Value of its pixels in a mask.")
    name: str
    color: Color = Field(description="RGB, 0..255.")


class ClassShare(ClassInfo):
    """The share of a class in one image."""

    pixels: int
    share: float = Field(description="Fraction of the image's pixels.")
    mean_probability: float | None = Field(
        default=None, description="Mean of its probability over all pixels; only with probabilities=true."
    )
    mean_confidence: float | None = Field(
        default=None,
        description="Mean of its probability over the pixels that it won, null if none; only with "
        "probabilities=true.",
    )


class Encoded(BaseModel):
    """Binary data in JSON."""

    encoding: Literal["png", "jpeg", "deflate"] = Field(
        description="png and jpeg: an image file; deflate: zlib stream of uint8, row by row."
    )
    data: str = Field(description="base64.")


class Runs(BaseModel):
    """A mask as runs of equal pixels, row by row: `numpy.repeat(values, lengths).reshape(height, width)`."""

    values: list[int]
    lengths: list[int]


class Views(BaseModel):
    """The images as the service read them, for display."""

    rgb: Encoded | None
    thermal: Encoded | None = Field(description="Grey, scaled as for the network.")


class Timing(BaseModel):
    """Where the time went, in milliseconds."""

    upload_ms: float
    decode_ms: float
    queue_ms: float
    network_ms: float = Field(description="Of the whole batch.")
    encode_ms: float
    total_ms: float


class Segmentation(BaseModel):
    """The answer to `POST /v1/segment`."""

    model: str
    size: Size
    classes: list[ClassShare]
    mask: Encoded | None = Field(description="Palette PNG whose pixel values are class indices.")
    runs: Runs | None
    confidence: Encoded | None = Field(description="Probability of each pixel's class, 0..255 for 0..1.")
    views: Views | None
    batch: int = Field(description="Pairs that went through the network together.")
    timing: Timing


class InputInfo(BaseModel):
    """The input of the network."""

    images: list[list[str]] = Field(description="Each entry: the fields of a request that will do.")
    size: Size | None = Field(description="To which images are resized; null: as they come, from 32 pixels.")
    thermal_scale: str | tuple[float, float]


class LimitInfo(BaseModel):
    """The limits of the service."""

    max_bytes: int
    max_pixels: int
    timeout_seconds: float
    max_concurrent: int
    batch_size: int


class ModelInfo(BaseModel):
    """The answer to `GET /v1/model`."""

    name: str
    architecture: str
    efnet_version: str
    modality: Literal["rgbt", "rgb", "thermal"]
    parameters: int
    device: str
    precision: str
    config: dict[str, Any]
    classes: list[ClassInfo]
    input: InputInfo
    training: dict[str, Any] = Field(description="From the run: data, recipe, choice of the checkpoint.")
    limits: LimitInfo


class Health(BaseModel):
    """The answer to `GET /healthz`."""

    status: Literal["starting", "ready", "stopping"]


class ExampleInfo(BaseModel):
    """A generated pair to try; paths are relative to the service's root."""

    name: str
    title: str
    rgb: str
    thermal: str
    thumbnail: str


DESCRIPTION = (
    "RGB-thermal semantic segmentation. Send a pair, get the class of every pixel. Every error is JSON "
    "with one sentence: the fault and the remedy."
)


def documentation_page(schema: dict[str, Any]) -> str:
    """Return the schema of `FastAPI.openapi` as HTML: operations with parameters, body and answers; types."""
    head = resources.files("efnet.service").joinpath("page", "api.html").read_text(encoding="utf-8")
    parts = [head, f"<h1>API</h1><p>{escape(schema['info']['description'])}</p>"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(method.upper(), path, operation))
    parts.append("<h2>Types</h2>")
    for name, kind in sorted(schema["components"]["schemas"].items()):
        if name not in ("HTTPValidationError", "ValidationError"):
            name, meaning = escape(name), _prose(kind.get("description", ""))
            fields = _table("field", kind.get("properties", {}))
            parts.append(f'<section id="{name}"><h3>{name}</h3><p>{meaning}</p>{fields}</section>')
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = {item["name"]: item for item in operation.get("parameters", ())}
    form: dict[str, Any] = {}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        form |= content["schema"].get("properties", {})
    answers = {
        status: answer
        for status, answer in operation["responses"].items()
        if "HTTPValidationError" not in str(answer)
    }
    return (
        f"<section><h2><code>{method} {escape(path)}</code></h2>"
        f"<p>{_prose(operation.get('description', ''))}</p>"
        f"{_table('name', parameters, 'Parameters')}{_table('name', form, 'Form fields')}"
        f"{_table('status', answers, 'Answers')}</section>"
    )


def _table(first: str, entries: dict[str, dict[str, Any]], title: str = "") -> str:
    """Return a table of names with their types and descriptions; empty without entries."""
    if not entries:
        return ""
    head = "".join(f'<th scope="col">{column}</th>' for column in (first, "type", "meaning"))
    rows = (
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{_kind(entry)}</td>'
        f"<td>{_prose(entry.get('description', ''))}</td></tr>"
        for name, entry in entries.items()
    )
    return table(head, rows, title)


def _prose(text: str) -> str:
    """Return text as HTML, with its `code` marked."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _kind(schema: dict[str, Any]) -> str:
    """Return the type of a field, parameter or answer in words, as HTML; named types are links."""
    if "schema" in schema:
        return _kind(schema["schema"])
    if "content" in schema:
        kinds = schema["content"].items()
        return " or ".join(_kind(kind) if kind.get("schema") else escape(media) for media, kind in kinds)
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"<code>{escape(str(v))}</code>" for v in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "any")
    if kind == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_kind(inner)}"
    if schema.get("format") == "binary":
        return "file"
    return escape(str(kind))
