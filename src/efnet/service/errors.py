"""Refused requests: the exception, the JSON that a client receives, and FastAPI's own errors in its form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from efnet.service.schemas import Wanted


class Fault(BaseModel):
    """A fault of a request."""

    code: str = Field(description="For programs.")
    message: str = Field(description="For people: one sentence and the remedy.")


class ErrorAnswer(BaseModel):
    """Every answer that is not a success."""

    error: Fault


_REFUSALS: dict[int, dict[str, str]] = {
    400: {
        "too_many_images": "rgbt already holds both images; send it alone, or rgb and thermal.",
        "missing_image": "The image {missing} is missing; this model needs {needed} (or rgbt, one "
        "four-channel file).",
        "unknown_field": "The form has a field {name!r}; send images as rgb and thermal, or one four-channel "
        "file as rgbt.",
        "repeated_field": "{name} was sent twice; send one pair in a request.",
        "damaged_form": "The multipart form is damaged or breaks off; send the request again, whole.",
        "upload_ended": "The upload broke off; send the request again, whole.",
        "wrong_parameter": "{name}: {reason}; see /docs.",
    },
    403: {"other_site": "A page of another site sent this; use the page of the service itself."},
    408: {"slow_upload": "The upload took more than {limit:g} s; send smaller images."},
    413: {
        "too_many_bytes": "The request is larger than the {max_bytes} bytes that this service takes; send "
        "smaller or compressed images.",
        "too_many_pixels": "{field} is {detail}more than the {max_pixels} pixels that this service takes; "
        "send it smaller.",
    },
    415: {
        "not_a_form": "The body is not a multipart form; send the images as multipart/form-data "
        "(curl -F rgb=@street.png -F thermal=@street_th.png).",
        "unknown_format": "{field} is not an image format that this service reads; send PNG, JPEG, TIFF, "
        "BMP, WebP or PGM/PPM.",
    },
    421: {
        "unknown_host": "This service does not go by the name {name!r}; ask it by its address, or start it "
        "with this name in `allow_host`."
    },
    422: {
        "empty_image": "{field} is empty (0 bytes); send the image file itself.",
        "several_frames": "{field} has {detail} frames; send the one you mean as PNG.",
        "damaged_image": "{field} cannot be read ({detail}); send it again, or save it as PNG.",
        "wide_channels": "thermal has several channels of 16 bits; send an image of one channel.",
        "not_four_channels": "rgbt has {kind}, not four channels of 8 bits; send the images as rgb "
        "and thermal.",
        "unfit_image": "{reason}.",
    },
    499: {"client_gone": "The connection was closed before the answer."},
    500: {
        "failed": "The service failed on this request; its log has the reason: ask whoever runs it.",
        "model_failed": "{reason}.",
    },
    503: {
        "stopping": "The service is stopping; send the request again soon.",
        "busy": "{count} requests are in progress, the most that are accepted; try again in a second.",
        "out_of_memory": "The image does not fit the device's memory; send it smaller.",
    },
    504: {"timeout": "No answer within {limit:g} s; send smaller images or try again later."},
}
"""Messages by status and code: the fault, and the remedy."""

_RETRY_AFTER = {"stopping": 5, "busy": 1, "out_of_memory": 5, "timeout": 5}
"""Seconds after which another try makes sense."""


class RefusedError(Exception):
    """Becomes a response with this status and the code and message of a `Fault`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the HTTP response, with further headers if given."""
        seconds = _RETRY_AFTER.get(self.code)
        retry = {} if seconds is None else {"Retry-After": str(seconds)}
        answer = ErrorAnswer(error=Fault(code=self.code, message=self.message))
        return JSONResponse(answer.model_dump(), self.status, {**retry, **(headers or {})})


def refusal(code: str, **values: object) -> RefusedError:
    """Return the error of a code, its message filled in with `values`."""
    status = next(status for status, messages in _REFUSALS.items() if code in messages)
    return RefusedError(status, code, _REFUSALS[status][code].format(**values))


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of a route as `ErrorAnswer`."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name, reason = str(first["loc"][-1])[:40], first["msg"]
        if first["type"] == "extra_forbidden":
            reason = f"not a parameter; there are {', '.join(Wanted.model_fields)}"
        return refusal("wrong_parameter", name=name, reason=reason).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        route = f"{request.method[:20]} {request.scope['path'][:100]}"
        message = f"{route} is not served ({error.detail}); see /docs."
        return RefusedError(error.status_code, "not_served", message).response(error.headers)


_REASONS = {
    400: "A field or parameter is missing, unknown or given twice, or the form breaks off.",
    408: "The upload took too long.",
    413: "Too many bytes or too many pixels.",
    415: "Not a multipart form, or not an image format that is read.",
    422: "An image is damaged, does not fit its partner, or is not what its field is for.",
    503: "Too many requests in progress, or the service is stopping; Retry-After says when to come back.",
    504: "No answer in time.",
}

SEGMENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Done.", "content": {"image/png": {}}},
    **{status: {"model": ErrorAnswer, "description": reason} for status, reason in _REASONS.items()},
}
"""Documents the responses of `POST /v1/segment`."""

EXAMPLE_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "No such example, or no such image of it."}
}
"""Documents the errors of examples. It replaces FastAPI's 422, which is answered as 400 here."""
