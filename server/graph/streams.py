"""Operations whose results are streamed over HTTP: as SSE (distinct connections) or multipart.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md
https://www.apollographql.com/docs/graphos/routing/operations/subscriptions/multipart-protocol
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from server.graph.context import Context
from server.graph.encoding import OperationRequest
from server.graph.operations import OperationRefused, Operations, StreamInterrupted
from server.serve.event_stream import EventStream, Wrapping


class Transport(NamedTuple):
    """How results, a refusal and the end of the stream are framed."""

    wrapping: Wrapping
    frames: Callable[[list[bytes]], bytes]
    refused: Callable[[bytes], bytes]
    end: bytes


def sse_frames(payloads: list[bytes]) -> bytes:
    """Results as server-sent events."""
    return b"".join([b"event: next\ndata: %s\n\n" % payload for payload in payloads])


def multipart_frames(payloads: list[bytes]) -> bytes:
    """Results as parts. Each ends with its boundary, so that clients process it at once."""
    return b"".join([_part(b'{"payload":%s}' % payload) for payload in payloads])


def _part(body: bytes) -> bytes:
    return b"\r\nContent-Type: application/json\r\n\r\n%s\r\n--graphql" % body


SSE: Final = Transport(
    Wrapping("text/event-stream", b": open\n\n", b": hb\n\n"),
    sse_frames,
    lambda errors: sse_frames([b'{"errors":%s}' % errors]),
    b"event: complete\ndata:\n\n",
)
MULTIPART: Final = Transport(
    Wrapping("multipart/mixed;boundary=graphql;subscriptionSpec=1.0", b"--graphql", _part(b"{}")),
    multipart_frames,
    lambda errors: _part(b'{"payload":null,"errors":%s}' % errors),
    b"--\r\n",
)


def transport_of(request: Request) -> Transport | None:
    """The streaming transport that a request accepts, if any."""
    for accepted in request.headers.get("accept", "").lower().split(","):
        media_type, *parameters = (word.strip() for word in accepted.split(";"))
        if media_type == "text/event-stream":
            return SSE
        if media_type == "multipart/mixed" and any(
            each.replace('"', "") == "subscriptionspec=1.0" for each in parameters
        ):
            return MULTIPART
    return None


def stream(
    operations: Operations,
    operation: OperationRequest,
    context: Context,
    request: Request,
    transport: Transport,
) -> Response:
    """Streams the results of an operation.

    If the stream ends without `transport.end`, the client should resume it.
    """
    frames = _frames(operations, operation, context, transport)
    return EventStream(
        frames, bytes, request=request, caller=context.caller, wrapping=transport.wrapping
    )


async def _frames(
    operations: Operations, operation: OperationRequest, context: Context, transport: Transport
) -> AsyncGenerator[bytes | None, None]:
    try:
        async with aclosing(operations.results(operation, context, transport.frames)) as results:
            async for frames in results:
                yield frames
    except OperationRefused as refused:
        yield transport.refused(refused.errors)
    except StreamInterrupted:
        return
    yield transport.end
