"""The service as an ASGI application: routes, errors, and start and end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from importlib import resources
from typing import Annotated

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from efnet import __version__
from efnet.prediction.predictor import Predictor
from efnet.service.answers import ConfidenceChoice, Format, MaskChoice, Wanted, format_of
from efnet.service.describe import describe_model
from efnet.service.documentation import documentation_page
from efnet.service.door import Door
from efnet.service.examples import EXAMPLES, SUFFIXES, ImageKind, example_image
from efnet.service.limits import Limits
from efnet.service.metrics import CONTENT_TYPE
from efnet.service.middleware import Guard, fault
from efnet.service.openapi import DESCRIPTION, ERRORS, REFUSED, describe_upload
from efnet.service.refusal import RefusedError
from efnet.service.schemas import ExampleInfo, Health, ModelInfo, Segmentation
from efnet.service.segmenter import Segmenter

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
        names: that the service goes by (`efnet.service.door.own_names`); None: any.

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
