"""/graphql: operations over HTTP (https://graphql.github.io/graphql-over-http) and WebSocket."""

import re
from typing import Final

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.errors import MethodNotAllowed, Refused, Unreadable, UnsupportedType
from server.graph.context import context_of
from server.graph.encoding import OperationRequest
from server.graph.errors import PATH, TOO_COMPLEX, refusal
from server.graph.operations import OperationRefused, Operations
from server.graph.schema import Schema
from server.graph.socket import OPERATIONS_MAX, Socket
from server.graph.streams import stream, transport_of
from server.serve.pages import html_page
from server.serve.refusals import headers_of, log_refusal
from server.serve.request_body import read_json
from server.settings import Settings

JSON, RESPONSE = "application/json", "application/graphql-response+json"
JSON_BODY: Final = re.compile(r'application/json *(; *charset *= *"?utf-?8"? *)?', re.IGNORECASE)
IDE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'none'"
)
"""GraphiQL creates inline styles, and its fonts are embedded in its style sheet."""


class GraphView:
    """The ASGI application at /graphql."""

    def __init__(self, settings: Settings) -> None:
        self._operations = Operations(Schema(settings.graphql))
        self._ide = settings.graphql.ide
        self._body_max_bytes = settings.server.body_max_bytes
        self._base_path = settings.server.base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await Socket(self._operations, OPERATIONS_MAX, scope, receive, send).serve()
            return
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except Refused as refused:
            log_refusal(refused, request.state.request_id, PATH)
            response = _refused(refused, _media_type(request))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if self._ide and _is_page_request(request):
            return html_page("graphiql.html", self._base_path, IDE_POLICY)
        if request.method != "POST":
            detail = f"{request.method} is not allowed here; use POST."
            raise MethodNotAllowed("method_not_allowed", detail)
        context = await context_of(request)
        operation = await self._read(request)
        if transport := transport_of(request):
            return stream(self._operations, operation, context, request, transport)
        media_type = _media_type(request)
        try:
            return Response(
                await self._operations.result(operation, context), media_type=media_type
            )
        except OperationRefused as refused:
            # As application/json a refused document is 200, as older clients expect, unless it
            # was too complex.
            is_error = media_type == RESPONSE or refused.codes[0] == TOO_COMPLEX
            body = b'{"errors":%s}' % refused.errors
            return Response(body, 400 if is_error else 200, media_type=media_type)

    async def _read(self, request: Request) -> OperationRequest:
        """The operation in a request; raises Unreadable, TooLarge and UnsupportedType."""
        if not JSON_BODY.fullmatch(request.headers.get("content-type", "")):
            detail = "The body must be application/json, in UTF-8."
            raise UnsupportedType("unsupported_media_type", detail)
        body = await read_json(request, self._body_max_bytes)
        if not isinstance(body, dict):
            raise Unreadable("invalid_body", "The body must be a JSON object.")
        operation = OperationRequest.parse(body)
        if not operation.query:
            raise Unreadable("invalid_body", "query: the document is missing.")
        return operation


def _media_type(request: HTTPConnection) -> str:
    """The media type of the response: the newer one for clients that name it."""
    return RESPONSE if RESPONSE in request.headers.get("accept", "") else JSON


def _is_page_request(request: Request) -> bool:
    """Whether a browser requests an HTML page."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def _refused(refused: Refused, media_type: str) -> Response:
    message, extensions = refusal(refused)
    headers = headers_of(refused) | ({"Allow": "POST"} if refused.status == 405 else {})
    body = orjson.dumps({"errors": [{"message": message, "extensions": extensions}]})
    return Response(body, refused.status, headers, media_type)
