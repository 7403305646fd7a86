"""The JSON of the service, as types; `/openapi.json` is made from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Color = tuple[int, int, int]


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
    """What a class covers in one image."""

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
    """What the network takes."""

    images: list[list[str]] = Field(description="Each entry: the fields of a request that will do.")
    size: Size | None = Field(description="To which images are resized; null: as they come, from 32 pixels.")
    thermal_scale: Literal["auto"] | tuple[float, float]


class LimitInfo(BaseModel):
    """What the service takes on."""

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
    training: dict[str, Any] = Field(description="What the run said: data, recipe, how it was chosen.")
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


class Fault(BaseModel):
    """What is wrong."""

    code: str = Field(description="For programs.")
    message: str = Field(description="For people: one sentence and the remedy.")


class ErrorAnswer(BaseModel):
    """Every answer that is not a success."""

    error: Fault
