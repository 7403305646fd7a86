"""What FastAPI cannot read off the routes: the upload, which is parsed by hand, and the errors.

The page at `/docs`, made from the OpenAPI schema: no scripts, nothing loaded from elsewhere.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from efnet.models.config import Modality
from efnet.service.schemas import ErrorAnswer
from efnet.service.uploads import FIELDS

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>efnet: API</title>
<link rel="icon" href="page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page/page.css">
</head>
<body class="reading">
<header class="top">
<a class="brand" href="./"><img src="page/icon.svg" alt="" width="28" height="28">efnet</a>
<nav><a href="./">Page</a> <a href="openapi.json">openapi.json</a></nav></header>
<main>
"""


def documentation_page(schema: dict[str, Any]) -> str:
    """HTML of an OpenAPI schema: every operation with its parameters, body and answers, every type.

    Args:
        schema: what `FastAPI.openapi` returns.
    """
    parts = [_HEAD, f"<h1>API</h1><p>{escape(schema['info']['description'])}</p>"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(method.upper(), path, operation))
    parts.append("<h2>Types</h2>")
    for name, kind in sorted(schema["components"]["schemas"].items()):
        if name not in ("HTTPValidationError", "ValidationError"):
            parts.append(_type(name, kind))
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<section><h2><code>{method} {escape(path)}</code></h2>"]
    parts.append(f"<p>{_prose(operation.get('description', ''))}</p>")
    parameters = [
        (item["name"], _kind(item["schema"]), item.get("description", ""))
        for item in operation.get("parameters", ())
    ]
    parts.append(_table("Parameters", ("name", "type", "meaning"), parameters))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        fields = content["schema"].get("properties", {}).items()
        rows = [(name, _kind(field), field.get("description", "")) for name, field in fields]
        parts.append(_table("Form fields", ("name", "type", "meaning"), rows))
    answers = [
        (status, _answer_kind(answer), answer.get("description", ""))
        for status, answer in operation["responses"].items()
        if "HTTPValidationError" not in str(answer)
    ]
    parts.append(_table("Answers", ("status", "type", "meaning"), answers))
    return "\n".join([*parts, "</section>"])


def _type(name: str, kind: dict[str, Any]) -> str:
    rows = [
        (key, _kind(value), value.get("description", "")) for key, value in kind.get("properties", {}).items()
    ]
    meaning = _prose(kind.get("description", ""))
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{meaning}</p>'
        f"{_table('', ('field', 'type', 'meaning'), rows)}</section>"
    )


def _table(title: str, columns: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> str:
    """Rows of (plain text, HTML, plain text)."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{kind}</td><td>{_prose(meaning)}</td></tr>'
        for name, kind, meaning in rows
    )
    caption = f"<caption>{title}</caption>" if title else ""
    rows_below = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{caption}{rows_below}</table></div>'


def _prose(text: str) -> str:
    """Text with its `code` marked, as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _answer_kind(answer: dict[str, Any]) -> str:
    kinds = [
        _kind(content["schema"]) if content.get("schema") else escape(media)
        for media, content in answer.get("content", {}).items()
    ]
    return " or ".join(kinds)


def _kind(schema: dict[str, Any]) -> str:
    """A type in words, as HTML; named ones are links."""
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
