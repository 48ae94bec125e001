"""/graphql: operations over HTTP (https://graphql.github.io/graphql-over-http) and WebSocket."""

import re
from typing import Any

import orjson
from cross_web import AsyncHTTPRequestAdapter, HTTPException, StarletteRequestAdapter
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from server.bodies import read_bytes
from server.errors import MethodNotAllowed, Refused, Unreadable, UnsupportedType
from server.graph.context import Context, context_of
from server.graph.encoding import Asked
from server.graph.errors import refusal, shown
from server.graph.graphiql import is_for_people, page
from server.graph.operations import Operations
from server.graph.schema import Schema
from server.graph.socket import OPERATIONS_MAX, Socket
from server.graph.streams import Transport, stream, transport_of
from server.settings import Settings

JSON, RESPONSE = "application/json", "application/graphql-response+json"
ONE_ANSWER = {OperationType.QUERY, OperationType.MUTATION}
JSON_BODY = re.compile(r'application/json *(; *charset *= *"?utf-?8"? *)?', re.IGNORECASE)
TOO_COMPLEX = "document_too_complex"


class BoundedRequest(StarletteRequestAdapter):
    """A request whose body is read as far as this server takes it."""

    async def get_body(self) -> bytes:
        return await read_bytes(
            self._request, self._request.state.resources.settings.server.body_max_bytes
        )


class GraphView(GraphQL[Context, None]):
    """The ASGI application at /graphql."""

    request_adapter_class = BoundedRequest

    def __init__(self, settings: Settings) -> None:
        schema = Schema(settings.graphql)
        super().__init__(
            schema, graphql_ide=None, allow_queries_via_get=False, subscription_protocols=[]
        )
        self._operations = Operations(schema)
        self._ide = settings.graphql.ide

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await Socket(self._operations, OPERATIONS_MAX, scope, receive, send).serve()
            return
        request = Request(scope, receive)
        try:
            if self._ide and is_for_people(request):
                response = page()
            elif request.method != "POST":
                raise MethodNotAllowed(
                    "method_not_allowed", f"{request.method} is not allowed here."
                )
            elif transport := transport_of(request):
                response = await self._stream(request, transport)
            else:
                response = await self.run(request)
        except Refused as refused:
            response = _refused(refused, _answered_as(request))
        except HTTPException as fault:  # what Strawberry itself finds wrong with a request
            response = _refused(Unreadable("invalid_body", fault.reason), _answered_as(request))
        await response(scope, receive, send)

    async def _stream(self, request: Request, transport: Transport) -> Response:
        context = await context_of(request)
        data = await self.parse_http_body(self.request_adapter_class(request))
        return stream(
            self._operations,
            Asked(data.query or "", data.variables, data.operation_name),
            context,
            request,
            transport,
        )

    async def get_context(
        self,
        request: Request | WebSocket,
        response: Response | WebSocket,  # noqa: ARG002  Strawberry calls it so
    ) -> Context:
        connection: HTTPConnection = request
        return await context_of(connection)

    async def get_sub_response(self, request: Request | WebSocket) -> Response:
        """Carries what the caller wants to read from the request to the answer."""
        response = await super().get_sub_response(request)
        response.media_type = _answered_as(request)
        return response

    async def parse_http_body(self, request: AsyncHTTPRequestAdapter) -> GraphQLRequestData:
        """The operation that a request asks for; raises Unreadable, TooLarge and UnsupportedType."""
        if not JSON_BODY.fullmatch(request.content_type or ""):
            raise UnsupportedType(
                "unsupported_media_type", "The body has to be application/json, in UTF-8."
            )
        raw = await request.get_body()
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Unreadable("invalid_json", f"The body is not JSON: {error}.") from None
        if not isinstance(body, dict):
            raise Unreadable("invalid_body", "The body must be a JSON object.")
        query = _member(body, "query", str, "a string")
        if not query:
            raise Unreadable("invalid_body", "query: the document is missing.")
        return GraphQLRequestData(
            query=query,
            variables=_member(body, "variables", dict, "an object"),
            operation_name=_member(body, "operationName", str, "a string"),
            extensions=_member(body, "extensions", dict, "an object"),
            protocol="http",
        )

    async def execute_single(
        self,
        request: Request,  # noqa: ARG002  Strawberry calls it so
        request_adapter: AsyncHTTPRequestAdapter,  # noqa: ARG002
        sub_response: Response,  # noqa: ARG002
        context: Context,
        root_value: None,
        request_data: GraphQLRequestData,
    ) -> ExecutionResult:
        """Runs a query or a mutation; raises Unreadable for a subscription, which has more answers than one."""
        try:
            return await self.schema.execute(
                request_data.query,
                variable_values=request_data.variables,
                context_value=context,
                root_value=root_value,
                operation_name=request_data.operation_name,
                allowed_operation_types=ONE_ANSWER,
                operation_extensions=request_data.extensions,
            )
        except CannotGetOperationTypeError as error:
            raise Unreadable(
                "invalid_document", f"{error.as_http_error_reason().rstrip('.')}."
            ) from None
        except InvalidOperationTypeError:
            detail = (
                "A subscription has many answers: accept text/event-stream, or use a WebSocket."
            )
            raise Unreadable("stream_required", detail) from None

    async def process_result(
        self, request: Request, result: ExecutionResult
    ) -> GraphQLHTTPResponse:
        """The answer's body. What was refused before anything was done has errors and no data."""
        result.errors = [
            shown(error, request.state.request_id) for error in result.errors or ()
        ] or None  # also what a guard itself raised
        body = await super().process_result(request, result)
        if result.data is None and not any(error.path for error in result.errors or ()):
            del body["data"]
        return body

    def create_response(
        self, response_data: GraphQLHTTPResponse | list[GraphQLHTTPResponse], sub_response: Response
    ) -> Response:
        """The answer. As application/json a refused document is 200, as older clients expect, unless it was too complex."""
        assert isinstance(response_data, dict), "batches are refused"
        response = Response(orjson.dumps(response_data), 200, media_type=sub_response.media_type)
        errors: Any = response_data.get("errors") or []
        if "data" not in response_data and (
            sub_response.media_type == RESPONSE or errors[0]["extensions"]["code"] == TOO_COMPLEX
        ):
            response.status_code = 400
        return response

    def decode_json(self, data: str | bytes) -> object:
        return orjson.loads(data)

    def encode_json(self, data: object) -> str:
        return orjson.dumps(data).decode()


def _answered_as(request: HTTPConnection) -> str:
    """The media type of the answer: the newer one for who names it."""
    return RESPONSE if RESPONSE in request.headers.get("accept", "") else JSON


def _member(body: dict[str, Any], name: str, type: type, what: str) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, type):
        raise Unreadable("invalid_body", f"{name}: it must be {what}.")
    return value


def _refused(refused: Refused, media_type: str) -> Response:
    message, extensions = refusal(refused)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 405: {"Allow": "POST"}}.get(refused.status, {})
    return Response(
        orjson.dumps({"errors": [{"message": message, "extensions": extensions}]}),
        refused.status,
        headers,
        media_type,
    )
