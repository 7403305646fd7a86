"""Refused requests: the exception, the JSON that a client receives, and FastAPI's own errors in its form."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml
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


_REFUSALS: dict[int, dict[str, str]] = yaml.safe_load(
    resources.files("efnet.service").joinpath("refusals.yaml").read_text(encoding="utf-8")
)
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
