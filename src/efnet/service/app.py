"""The service as an ASGI application: routes, errors, and start and end.

What `GET /v1/model` says.

Generated pairs to try the page with; rendered when first asked for, kept in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Annotated, Literal

import numpy as np
from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from PIL import Image
from starlette.exceptions import HTTPException

from efnet import __version__
from efnet.data.pairs import Condition
from efnet.inference.postprocess import thermal_pixels
from efnet.inference.predictor import Predictor
from efnet.scenes import render
from efnet.service.answers import ConfidenceChoice, Format, MaskChoice, Wanted, format_of
from efnet.service.errors import RefusedError
from efnet.service.host_check import Door, Guard, fault
from efnet.service.limits import Limits
from efnet.service.openapi import DESCRIPTION, ERRORS, REFUSED, describe_upload, documentation_page
from efnet.service.prometheus import CONTENT_TYPE
from efnet.service.schemas import (
    ClassInfo,
    ExampleInfo,
    Health,
    InputInfo,
    LimitInfo,
    ModelInfo,
    Segmentation,
    Size,
)
from efnet.service.segmenter import Segmenter

_IMAGES = {
    "rgbt": [["rgb", "thermal"], ["rgbt"]],
    "rgb": [["rgb"], ["rgbt"]],
    "thermal": [["thermal"], ["rgbt"]],
}


def describe_model(predictor: Predictor, limits: Limits) -> ModelInfo:
    """Everything a client may want to know before it sends something."""
    model, size = predictor.model, predictor.size
    return ModelInfo(
        name=model.name,
        architecture=model.architecture,
        efnet_version=__version__,
        modality=predictor.modality,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=str(predictor.device),
        precision=predictor.precision,
        config=model.config.to_dict(),
        classes=[
            ClassInfo(index=k, name=name, color=color)
            for k, (name, color) in enumerate(
                zip(predictor.classes.names, predictor.classes.palette, strict=True)
            )
        ],
        input=InputInfo(
            images=_IMAGES[predictor.modality],
            size=None if size is None else Size(height=size[0], width=size[1]),
            thermal_scale=predictor.thermal_scale,
        ),
        training=model.training_summary,
        limits=LimitInfo(
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
            timeout_seconds=limits.timeout,
            max_concurrent=limits.max_concurrent,
            batch_size=limits.batch_size,
        ),
    )


ImageKind = Literal["rgb", "thermal", "thumbnail"]

SUFFIXES: dict[ImageKind, str] = {"rgb": "png", "thermal": "png", "thumbnail": "jpg"}
SIZE = (480, 640)
THUMBNAIL = (144, 192)
"""Left half colour, right half thermal."""


@dataclass(frozen=True)
class Example:
    """A scene of `efnet.scenes`."""

    title: str
    seed: int
    condition: Condition

    def describe(self, name: str) -> ExampleInfo:
        """As `GET /v1/examples` lists it."""
        files = {kind: f"v1/examples/{name}/{kind}.{suffix}" for kind, suffix in SUFFIXES.items()}
        return ExampleInfo(name=name, title=self.title, **files)


EXAMPLES = {
    "day": Example("A street by day", 20, "day"),
    "night": Example("The same street by night", 20, "night"),
    "dark": Example("People in the dark", 28, "night"),
}


@lru_cache(maxsize=3 * len(EXAMPLES))
def example_image(name: str, kind: ImageKind) -> bytes:
    """One image of an example: PNG, the thumbnail JPEG.

    Raises:
        KeyError: there is no example of that name.
    """
    example = EXAMPLES[name]
    sample = render(example.seed, SIZE, example.condition)
    heat = thermal_pixels(sample.thermal)
    buffer = io.BytesIO()
    if kind == "thumbnail":
        half = SIZE[1] // 2
        both = Image.fromarray(np.concatenate([sample.rgb[:, :half], heat[:, half:]], axis=1))
        both.resize(THUMBNAIL[::-1], Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    else:
        Image.fromarray(sample.rgb if kind == "rgb" else heat[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


PAGE_FILES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "service.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "files.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""What the page is made of, besides index.html."""

ExampleName = Annotated[str, Path(json_schema_extra={"enum": [*EXAMPLES]})]
ExampleSuffix = Annotated[str, Path(json_schema_extra={"enum": sorted({*SUFFIXES.values()})})]
"""What the schema lists and the service answers with 404 where it is another."""


def create_app(
    predictor: Predictor, limits: Limits | None = None, names: frozenset[str] | None = None
) -> FastAPI:
    """Make the service for one network.

    Args:
        predictor: the network; used in one thread alone from now on.
        limits: `Limits()` if None.
        names: that the service goes by (`efnet.service.host_check.own_names`); None: any.

    Returns:
        the application; `app.state.segmenter` is its `Segmenter`.
    """
    segmenter = Segmenter(predictor, limits or Limits())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        segmenter.start()
        yield
        await segmenter.finish()

    app = FastAPI(
        title="efnet",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the host that the request named
        lifespan=lifespan,
    )
    app.state.segmenter = segmenter
    if names is not None:
        app.add_middleware(Door, names=names)
    app.add_middleware(Guard, metrics=segmenter.metrics)
    _add_interface(app, segmenter)
    _add_examples(app, segmenter)
    _add_pages(app)
    _add_errors(app)
    return app


def _add_interface(app: FastAPI, segmenter: Segmenter) -> None:
    upload = describe_upload(segmenter.predictor.modality)

    @app.post("/v1/segment", response_model=Segmentation, responses=ERRORS, openapi_extra=upload)
    async def segment(
        request: Request,
        format: Annotated[Format | None, Query(description="Wins over the Accept header.")] = None,
        mask: Annotated[MaskChoice, Query(description="What of the mask the JSON holds.")] = "png",
        confidence: Annotated[
            ConfidenceChoice, Query(description="Whether the JSON holds each pixel's probability.")
        ] = "none",
        probabilities: Annotated[bool, Query(description="Summarise probabilities by class.")] = False,
        views: Annotated[bool, Query(description="Send the images back as they were read.")] = False,
        opacity: Annotated[float, Query(ge=0, le=1, description="Of the classes in an overlay.")] = 0.5,
    ) -> Response:
        """Segment one pair: images `rgb` and `thermal`, or one four-channel image `rgbt`."""
        _refuse_unknown(request)
        chosen = format or format_of(request.headers.get("accept", ""))
        wanted = Wanted(chosen, mask, confidence, probabilities, views, opacity)

        async def left() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        answer = await segmenter.segment(request.headers, request.stream(), wanted, left)
        spans = answer.timing.model_dump().items()
        timing = ", ".join(f"{name.removesuffix('_ms')};dur={value}" for name, value in spans)
        return Response(answer.content, media_type=answer.media_type, headers={"Server-Timing": timing})

    @app.get("/v1/model")
    async def model() -> ModelInfo:
        """What the network is, what it takes, and what this service takes on."""
        return describe_model(segmenter.predictor, segmenter.limits)

    @app.get("/healthz", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """200 when requests are answered; 503 while the network warms up and when the service ends."""
        status = segmenter.status
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(segmenter.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _refuse_unknown(request: Request) -> None:
    """Refuse parameters that are none: what a slip of the pen asked for would be left out without a word."""
    known = [field.name for field in dataclasses.fields(Wanted)]
    for name in request.query_params:
        if name not in known:
            raise RefusedError(
                400,
                "wrong_parameter",
                f"{name[:40]!r} is no parameter; there are {', '.join(known)}; see /docs.",
            )


def _add_examples(app: FastAPI, segmenter: Segmenter) -> None:
    @app.get("/v1/examples")
    async def examples() -> list[ExampleInfo]:
        """Generated pairs to try."""
        return [example.describe(name) for name, example in EXAMPLES.items()]

    @app.get("/v1/examples/{name}/{image}.{suffix}", response_class=Response, responses=REFUSED)
    async def example(name: ExampleName, image: ImageKind, suffix: ExampleSuffix) -> Response:
        """One image of a generated pair."""
        if name not in EXAMPLES or suffix != SUFFIXES[image]:
            raise HTTPException(404)
        content = await segmenter.in_thread(example_image, name, image)
        media_type = "image/png" if suffix == "png" else "image/jpeg"
        return Response(content, media_type=media_type, headers={"Cache-Control": "max-age=3600"})


def _add_pages(app: FastAPI) -> None:
    folder = resources.files("efnet.service").joinpath("page")
    files = {name: folder.joinpath(name).read_bytes() for name in PAGE_FILES}
    index = folder.joinpath("index.html").read_bytes()

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(index, media_type="text/html")

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return Response(documentation_page(app.openapi()), media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        headers = {"Content-Type": PAGE_FILES[name], "Cache-Control": "no-cache"}
        return Response(files[name], headers=headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, refusal: RefusedError) -> Response:
        headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        return fault(refusal.status, refusal.code, refusal.message, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return fault(400, "wrong_parameter", f"{first['loc'][-1]}: {first['msg']}; see /docs.")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        what = f"{request.method[:20]} {request.scope['path'][:100]}"
        message = f"{what} is not served ({error.detail}); see /docs."
        return fault(error.status_code, "not_served", message, dict(error.headers or {}))
