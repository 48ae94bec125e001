"""/graphql: operations over HTTP and WebSocket."""

from typing import Any

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types.unset import UNSET

from server.errors import Refused, Unauthenticated
from server.graph.context import Context, context_of
from server.graph.schema import build_schema
from server.settings import Settings


class GraphView(GraphQL[Context, None]):
    """The ASGI application at /graphql."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            build_schema(),
            graphql_ide=None,
            allow_queries_via_get=False,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL],
            allowed_origins=settings.server.allowed_origins,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Refused as refused:
            if scope["type"] != "http":
                raise
            await _refusal(refused)(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002  Strawberry calls it so
        connection: HTTPConnection = request
        return await context_of(connection)

    async def on_ws_connect(self, context: Context) -> Any:
        """Lets in who brought credentials, with `connection_init` or before."""
        try:
            await context.sign_in(context.connection_params.get("authorization"))
        except Unauthenticated:
            raise ConnectionRejectionError from None
        return UNSET

    def decode_json(self, data: str | bytes) -> object:
        return orjson.loads(data)

    def encode_json(self, data: object) -> str:
        return orjson.dumps(data).decode()


def _refusal(refused: Refused) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}
    body = {"errors": [{"message": refused.detail, "extensions": {"code": refused.code, **refused.members}}]}
    return Response(orjson.dumps(body), refused.status, headers, "application/json")
