"""What FastAPI cannot read off the routes: the upload, which is parsed by hand, and the errors."""

from __future__ import annotations

from typing import Any

from efnet.models.config import Modality
from efnet.service.schemas import ErrorAnswer
from efnet.service.uploads import FIELDS

DESCRIPTION = (
    "RGB-thermal semantic segmentation. Send a pair, get the class of every pixel. Every error is JSON "
    "with one sentence that says what is wrong and what helps."
)

_REASONS = {
    400: "A field or parameter is missing, unknown or given twice, or the form breaks off.",
    408: "The upload took too long.",
    413: "Too many bytes or too many pixels.",
    415: "Not a multipart form, or not an image format that is read.",
    422: "An image is damaged, does not fit its partner, or is not what its field is for.",
    503: "Too many requests under way, or the service is stopping; Retry-After says when to come back.",
    504: "No answer in time.",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Done.", "content": {"image/png": {}}},
    **{status: {"model": ErrorAnswer, "description": reason} for status, reason in _REASONS.items()},
}

_MEANINGS = {
    "rgb": "Colour image.",
    "thermal": "Thermal image: 8-bit, 16-bit, or three equal channels.",
    "rgbt": "One file of four channels, thermal last; instead of the other two.",
}

REFUSED: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "No such example, or no such image of it."}
}
"""Of the examples. It also takes the place of FastAPI's 422, which `efnet.service.app` answers as 400."""


def describe_upload(modality: Modality) -> dict[str, Any]:
    """The body of a request for a pair.

    Args:
        modality: of the network: the images that it cannot do without.
    """
    needed = ["rgb", "thermal"] if modality == "rgbt" else [modality]
    fields: dict[str, Any] = {
        field: {"type": "string", "format": "binary", "description": _MEANINGS[field]} for field in FIELDS
    }
    pair, one_file = (
        {
            "type": "object",
            "properties": {name: fields[name] for name in names},
            "required": required,
            "additionalProperties": False,
        }
        for names, required in ((("rgb", "thermal"), needed), (("rgbt",), ["rgbt"]))
    )
    schema = {"type": "object", "properties": fields, "oneOf": [pair, one_file]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
