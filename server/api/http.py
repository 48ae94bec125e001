"""Requests and responses: bodies, parameters, cursors, JSON and streams."""

from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from server.cursors import parse_seq, unpack_time_cursor
from server.errors import Invalid, InvalidCursor
from server.identity.callers import Caller
from server.ids import Prefix
from server.serve.event_stream import NATIVE, EventStream
from server.serve.request_body import read_json
from server.verbs.inputs import (
    PAGE_DEFAULT,
    WAIT_DEFAULT_S,
    validated,
    validated_key,
    validated_limit,
    validated_wait_s,
)

B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")


class Json(Response):
    """A response in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def stream_response(
    request: Request,
    caller: Caller,
    batches: AsyncGenerator[T | None, None] | None,
    encode: Callable[[T], bytes],
) -> Response:
    """The event stream of batches; without any, 204, after which EventSource does not reconnect."""
    if batches is None:
        return Response(status_code=204)
    return EventStream(batches, encode, request=request, caller=caller, wrapping=NATIVE)


async def read_body(request: Request, model: type[B]) -> B:
    """The body as `model`; raises Unreadable, TooLarge or Invalid."""
    max_bytes = request.state.services.settings.server.body_max_bytes
    value = await read_json(request, max_bytes, if_empty=b"{}")
    if not isinstance(value, dict):
        invalid = {"pointer": "", "detail": "must be an object"}
        raise Invalid("invalid_body", "The body must be a JSON object.", errors=[invalid])
    return validated(model, value)


def after_seq(request: Request) -> int:
    """The last event a reader has seen: `Last-Event-ID`, else `?after=`, else 0.

    Raises InvalidCursor.
    """
    return parse_seq(request.headers.get("last-event-id") or request.query_params.get("after"))


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, if there is one; raises Invalid."""
    return validated_key(request.headers.get("idempotency-key"))


def page_limit(request: Request) -> int:
    """`?limit=`, 1 to 100, by default 20; raises Invalid."""
    text = request.query_params.get("limit", str(PAGE_DEFAULT))
    is_number = text.isascii() and text.isdigit() and len(text) < 5
    return validated_limit(int(text) if is_number else None, "limit")


def wait_s(request: Request) -> float:
    """`?wait_s=`, 0 to 30 seconds, by default 2; raises Invalid."""
    text: Any = request.query_params.get("wait_s", WAIT_DEFAULT_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = None
    return validated_wait_s(seconds, "wait_s")


def flag(request: Request, name: str) -> bool | None:
    """A query parameter that is `true`, `1`, `false` or `0`; raises Invalid."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if text not in ("true", "1", "false", "0"):
        raise Invalid.at(name, "must be true or false")
    return text in ("true", "1")


def parse_time_cursor(request: Request) -> tuple[datetime, str] | None:
    """The time and id in `?before=`, if there is one; raises InvalidCursor."""
    text = request.query_params.get("before")
    if not text:
        return None
    cursor = unpack_time_cursor(text, Prefix.CONVERSATION)
    if cursor is None:
        raise InvalidCursor("before: the cursor is not valid.")
    return cursor
