"""The service as an ASGI application: its routes, the model's description, and generated pairs to try."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Annotated, Literal

import numpy as np
from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException

from efnet import __version__
from efnet.data.pairs import Condition
from efnet.inference.postprocess import thermal_pixels
from efnet.inference.predictor import Predictor
from efnet.reporting.html import image_bytes
from efnet.scenes import render
from efnet.service import schemas
from efnet.service.answers import format_of
from efnet.service.errors import EXAMPLE_RESPONSES, SEGMENT_RESPONSES, add_error_handlers
from efnet.service.middleware import ServiceMiddleware
from efnet.service.schemas import DESCRIPTION, Wanted
from efnet.service.segmenter import Limits, Segmenter
from efnet.service.uploads import NEEDED, describe_upload


def describe_model(predictor: Predictor, limits: Limits) -> schemas.ModelInfo:
    """Return the network, its input, and the limits of the service."""
    model, size = predictor.model, predictor.size
    return schemas.ModelInfo(
        name=model.name,
        architecture=model.architecture,
        efnet_version=__version__,
        modality=predictor.modality,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=str(predictor.device),
        precision=predictor.precision,
        config=model.config.to_dict(),
        classes=[
            schemas.ClassInfo(index=k, name=name, color=predictor.classes.palette[k])
            for k, name in enumerate(predictor.classes.names)
        ],
        input=schemas.InputInfo(
            images=[NEEDED[predictor.modality], ["rgbt"]],
            size=None if size is None else schemas.Size(height=size[0], width=size[1]),
            thermal_scale=predictor.thermal_scale,
        ),
        training=model.training_summary,
        limits=schemas.LimitInfo(timeout_seconds=limits.timeout, **dataclasses.asdict(limits)),
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

    def describe(self, name: str) -> schemas.ExampleInfo:
        """Return its entry in `GET /v1/examples`."""
        files = {kind: f"v1/examples/{name}/{kind}.{suffix}" for kind, suffix in SUFFIXES.items()}
        return schemas.ExampleInfo(name=name, title=self.title, **files)


EXAMPLES = {
    "day": Example("A street by day", 20, "day"),
    "night": Example("The same street by night", 20, "night"),
    "dark": Example("People in the dark", 28, "night"),
}


@lru_cache(maxsize=3 * len(EXAMPLES))
def example_image(name: str, kind: ImageKind) -> bytes:
    """Return one image of an example: PNG, the thumbnail JPEG. An unknown name raises a `KeyError`."""
    example = EXAMPLES[name]
    sample = render(example.seed, SIZE, example.condition)
    heat = thermal_pixels(sample.thermal)
    if kind == "thumbnail":
        half = SIZE[1] // 2
        both = Image.fromarray(np.concatenate([sample.rgb[:, :half], heat[:, half:]], axis=1))
        return image_bytes(both.resize(THUMBNAIL[::-1], Image.Resampling.LANCZOS), "JPEG", quality=85)
    return image_bytes(Image.fromarray(sample.rgb if kind == "rgb" else heat[..., 0]), "PNG")


PAGE_FILES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "service.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "files.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Files of the page besides index.html, with their media types."""

ExampleName = Annotated[str, Path(json_schema_extra={"enum": [*EXAMPLES]})]
ExampleSuffix = Annotated[str, Path(json_schema_extra={"enum": sorted({*SUFFIXES.values()})})]
"""Listed in the schema; other values are answered with 404."""


def create_app(
    predictor: Predictor, limits: Limits | None = None, names: frozenset[str] | None = None
) -> FastAPI:
    """Create the service for one network, which from now on only one thread may use.

    `names` are accepted in `Host` (`efnet.service.middleware.own_names`); None accepts any.
    `app.state.segmenter` is the `Segmenter` of the result.
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
    app.add_middleware(ServiceMiddleware, metrics=segmenter.metrics, names=names)
    _add_interface(app, segmenter)
    _add_examples(app, segmenter)
    _add_pages(app)
    add_error_handlers(app)
    return app


def _add_interface(app: FastAPI, segmenter: Segmenter) -> None:
    upload = describe_upload(segmenter.predictor.modality)

    @app.post(
        "/v1/segment", response_model=schemas.Segmentation, responses=SEGMENT_RESPONSES, openapi_extra=upload
    )
    async def segment(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        """Segment one pair: images `rgb` and `thermal`, or one four-channel image `rgbt`."""
        if wanted.format is None:
            wanted.format = format_of(request.headers.get("accept", ""))

        async def left() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        answer = await segmenter.segment(request.headers, request.stream(), wanted, left)
        spans = answer.timing.model_dump().items()
        timing = ", ".join(f"{name.removesuffix('_ms')};dur={value}" for name, value in spans)
        return Response(answer.content, media_type=answer.media_type, headers={"Server-Timing": timing})

    @app.get("/v1/model")
    async def model() -> schemas.ModelInfo:
        """Describe the network, its input, and the limits of this service."""
        return describe_model(segmenter.predictor, segmenter.limits)

    @app.get("/healthz", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
    async def health() -> Response:
        """200 when requests are answered; 503 while the network warms up and while the service stops."""
        status = segmenter.status
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(segmenter.metrics.render(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _add_examples(app: FastAPI, segmenter: Segmenter) -> None:
    @app.get("/v1/examples")
    async def examples() -> list[schemas.ExampleInfo]:
        """Generated pairs to try."""
        return [example.describe(name) for name, example in EXAMPLES.items()]

    @app.get("/v1/examples/{name}/{image}.{suffix}", response_class=Response, responses=EXAMPLE_RESPONSES)
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
        return Response(schemas.documentation_page(app.openapi()), media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        headers = {"Content-Type": PAGE_FILES[name], "Cache-Control": "no-cache"}
        return Response(files[name], headers=headers)
