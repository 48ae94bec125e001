"""openapi.json, made from the list of operations and the shapes of bodies, and a page to read it."""

import functools
import html
import inspect
from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from server import __version__
from server.api import present
from server.api.http import Json
from server.api.operations import OPERATIONS, Operation, Parameter

REFERENCE = "#/components/schemas/{model}"
EVENT = {
    "type": "object",
    "description": "Each event. `data` is one JSON object.",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
REFUSALS = {
    400: "The request could not be read.",
    401: "Not authenticated.",
    403: "The request was made by another site, or is not allowed here.",
    404: "Not found, or not the caller's.",
    408: "The body did not arrive in time.",
    409: "The request conflicts with the current state.",
    413: "The body is too large.",
    422: "The request is readable but invalid.",
    429: "A limit is reached.",
    503: "The server cannot serve the request now.",
}


async def document(_request: Request) -> Response:
    """openapi.json."""
    return Json(openapi())


async def docs(_request: Request) -> Response:
    """The interface as a page."""
    return HTMLResponse(
        _page(openapi()),
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        },
    )


@functools.cache
def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    types = {operation.body for operation in OPERATIONS if operation.body}
    types |= {each for operation in OPERATIONS for each in operation.answers.values() if each}
    in_order = sorted(types | {present.Problem}, key=str)
    schemas, definitions = TypeAdapter.json_schemas(
        [(type, "validation", TypeAdapter(type)) for type in in_order], ref_template=REFERENCE
    )
    references: dict[Any, Any] = {type: dict(schema) for (type, _mode), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, references
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemark",
            "version": __version__,
            "summary": "A chat backend whose streamed answers cannot be lost.",
        },
        "security": [{"key": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "bearerFormat": "tmk_…"},
                "session": {"type": "apiKey", "in": "cookie", "name": "tidemark_session"},
            },
        },
    }


def _operation(operation: Operation, references: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": inspect.cleandoc(operation.handler.__doc__ or "").splitlines()[0],
        "operationId": f"{operation.handler.__module__.rsplit('.', 1)[1]}_{operation.handler.__name__.strip('_')}",
        "parameters": [_parameter(each) for each in operation.parameters],
        "responses": {},
    }
    if operation.public:
        described["security"] = []
    if "{id}" in operation.path:
        described["parameters"].append(
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        )
    if operation.body is not None:
        described["requestBody"] = {
            "content": {"application/json": {"schema": references[operation.body]}}
        }
    for status, shape in operation.answers.items():
        content = {"application/json": {"schema": references[shape]}} if shape else {}
        described["responses"][str(status)] = {
            "description": "Success." if status < 400 else "Not ready.",
            **({"content": content} if content else {}),
        }
    if operation.other_type is not None:
        described["responses"]["200"]["content"][operation.other_type] = {
            "schema": {"type": "string"}
        }
    if operation.streams:
        described["responses"]["200"] = {
            "description": "The event stream, for `Accept: text/event-stream`.",
            "content": {"text/event-stream": {"schema": EVENT}},
        }
    for status in operation.refusals:
        problem = {"application/problem+json": {"schema": references[present.Problem]}}
        described["responses"][str(status)] = {
            "description": REFUSALS[status],
            "content": problem,
        }
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _page(document: dict[str, Any]) -> str:
    """The document as one page of HTML, without scripts."""
    sections = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            rows = "".join(
                f"<tr><td><code>{html.escape(each['name'])}</code> <small>{each['in']}</small><td>{html.escape(each.get('description', ''))}"
                for each in operation["parameters"]
            )
            body = (
                operation.get("requestBody", {})
                .get("content", {})
                .get("application/json", {})
                .get("schema", {})
            )
            answers = "".join(
                f"<tr><td>{status}<td>{html.escape(answer['description'])} {_links(answer.get('content', {}))}"
                for status, answer in operation["responses"].items()
            )
            sections.append(
                f"<section id='{operation['operationId']}'><h2><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2>"
                f"<p>{html.escape(operation['summary'])}</p>{f'<p>Body: {_link(body)}</p>' if body else ''}<table>{rows}{answers}</table></section>"
            )
    for name, schema in sorted(document["components"]["schemas"].items()):
        rows = "".join(
            f"<tr><td><code>{html.escape(key)}</code>{'' if key in schema.get('required', []) else ' <small>optional</small>'}<td>{_type(value)}"
            for key, value in schema.get("properties", {}).items()
        )
        sections.append(
            f"<section id='{name}'><h2>{name}</h2><p>{html.escape(schema.get('description', ''))}</p><table>{rows}</table></section>"
        )
    return _SHELL.replace("SECTIONS", "".join(sections)).replace(
        "VERSION", document["info"]["version"]
    )


def _links(content: dict[str, Any]) -> str:
    return " ".join(_link(media["schema"]) for media in content.values())


def _link(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    return f"<a href='#{name}'>{name}</a>" if name else ""


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _link(schema)
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{html.escape(str(each))}</code>" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    limits = ", ".join(
        f"{key} {schema[key]}"
        for key in ("minimum", "maximum", "minLength", "maxLength")
        if key in schema
    )
    return f"{schema.get('type', schema.get('const', 'any'))}{f' <small>{limits}</small>' if limits else ''}"


_SHELL = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Tidemark HTTP interface</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
h2{font-size:1.05rem;margin:2.5rem 0 .3rem}code{font-family:ui-monospace,monospace}table{border-collapse:collapse;width:100%}
td{border-top:1px solid #8884;padding:.3rem .6rem .3rem 0;vertical-align:top}td:first-child{width:16rem}small{opacity:.7}</style>
<h1>Tidemark HTTP interface <small>VERSION</small></h1><p>Send an API key as <code>Authorization: Bearer tmk_…</code>, or the session cookie.
Refusals are <a href="#Problem">problems</a>. The machine-readable form is <a href="/api/openapi.json">openapi.json</a>.</p>SECTIONS</html>"""
