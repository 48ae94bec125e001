"""openapi.json, generated from the operations and their types, and Swagger UI."""

import functools
import inspect
import json
import sys
from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from server import __version__
from server.api import present
from server.api.http import Json
from server.api.operations import OPERATIONS, Operation, Parameter
from server.serve.pages import html_page

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
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'none'"
)
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


async def document(request: Request) -> Response:
    """Returns openapi.json."""
    base_path = request.state.services.settings.server.base_path
    return Json(openapi() | ({"servers": [{"url": base_path}]} if base_path else {}))


async def docs(request: Request) -> Response:
    """Shows openapi.json in Swagger UI."""
    base_path = request.state.services.settings.server.base_path
    return html_page("docs.html", base_path, DOCS_POLICY)


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
    module = operation.handler.__module__.rsplit(".", 1)[1]
    described: dict[str, Any] = {
        "summary": inspect.cleandoc(operation.handler.__doc__ or "").splitlines()[0],
        "operationId": f"{module}_{operation.handler.__name__.strip('_')}",
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(openapi(), indent=2) + "\n")
