"""Reading requests and answering them: bodies, parameters, cursors, JSON, problems, streams."""

from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from server.api.present import Problem
from server.cursors import parse_seq, time_place
from server.errors import Invalid, InvalidCursor, Refused
from server.identity.callers import Caller
from server.ids import Prefix
from server.serve.event_stream import EventStream
from server.serve.refusals import refusal_headers
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


def problem(refused: Refused, request_id: str) -> Response:
    """A refusal as `application/problem+json` (RFC 9457)."""
    document: Problem = {
        "type": f"urn:tidemark:problem:{refused.code}",
        "title": refused.title,
        "status": refused.status,
        "detail": refused.detail,
        "code": refused.code,
        "request_id": request_id,
    }
    body = orjson.dumps({**document, **refused.members})
    return Response(body, refused.status, refusal_headers(refused), "application/problem+json")


def stream_response(
    request: Request,
    caller: Caller,
    batches: AsyncGenerator[T | None, None] | None,
    encode: Callable[[T], bytes],
    headers: dict[str, str] | None = None,
) -> Response:
    """The event stream of some batches; 204 where there are none, which ends an EventSource."""
    if batches is None:
        return Response(status_code=204)
    return EventStream(batches, encode, request=request, caller=caller, headers=headers)


async def read_body(request: Request, model: type[B]) -> B:
    """The body as `model`; raises Unreadable, TooLarge or Invalid."""
    max_bytes = request.state.services.settings.server.body_max_bytes
    value = await read_json(request, max_bytes, if_empty=b"{}")
    if not isinstance(value, dict):
        fault = {"pointer": "", "detail": "must be an object"}
        raise Invalid("invalid_body", "The body must be a JSON object.", errors=[fault])
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
    """The place that `?before=` names, if it is given; raises InvalidCursor."""
    text = request.query_params.get("before")
    if not text:
        return None
    place = time_place(text, Prefix.CONVERSATION)
    if place is None:
        raise InvalidCursor("before: this is not a cursor that this server gave out.")
    return place
