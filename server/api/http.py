"""Reading requests and answering them: bodies, cursors, pages, JSON and problems."""

import re
from datetime import datetime
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from server.bodies import PAGE_DEFAULT, PAGE_MAX, checked, checked_key, read_bytes
from server.cursors import moment_of, pack, unpack
from server.errors import Invalid, InvalidCursor, Refused, Unreadable
from server.ids import Prefix, is_id

B = TypeVar("B", bound=BaseModel)

_CURSOR = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def problem(refused: Refused, request_id: str) -> Response:
    """A refusal as `application/problem+json` (RFC 9457)."""
    document = {
        "type": f"urn:tidemark:problem:{refused.code}",
        "title": refused.title,
        "status": refused.status,
        "detail": refused.detail,
        "code": refused.code,
        "request_id": request_id,
        **refused.members,
    }
    headers = (
        {"Retry-After": str(refused.members["retry_after_s"])}
        if "retry_after_s" in refused.members
        else {}
    )
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(document), refused.status, headers, "application/problem+json")


async def read_body(request: Request, model: type[B]) -> B:
    """The body as `model`; raises Unreadable, TooLarge or Invalid."""
    raw = await read_bytes(request, request.state.resources.settings.server.body_max_bytes)
    try:
        value = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError as error:
        raise Unreadable("invalid_json", f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise Invalid(
            "invalid_body",
            "The body must be a JSON object.",
            errors=[{"pointer": "", "detail": "must be an object"}],
        )
    return checked(model, value)


def event_cursor(request: Request) -> int:
    """The mark of a reader: `Last-Event-ID`, else `?after=`, else 0; raises InvalidCursor."""
    text = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    if not _CURSOR.fullmatch(text):
        raise InvalidCursor(
            "The cursor must be a whole number of at most 16 digits: the id of the last event that was seen."
        )
    return int(text)


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, if there is one; raises Invalid."""
    return checked_key(request.headers.get("idempotency-key"))


def page_limit(request: Request) -> int:
    """`?limit=`, 1 to 100, 20 when absent; raises Invalid."""
    text = request.query_params.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= PAGE_MAX):
        raise Invalid(
            "invalid_limit",
            f"limit: a number from 1 to {PAGE_MAX} is allowed.",
            errors=[{"pointer": "limit", "detail": "out of range"}],
        )
    return int(text)


def time_cursor(moment: datetime, id: str) -> str:
    """An opaque page cursor of a place in a list ordered by time and id."""
    return pack(moment.isoformat(), id)


def read_time_cursor(request: Request) -> tuple[datetime, str] | None:
    """The place `?before=` names, if there is one; raises InvalidCursor."""
    text = request.query_params.get("before")
    if not text:
        return None
    fields = unpack(text, 2)
    moment = moment_of(fields[0]) if fields else None
    if fields is None or moment is None or not is_id(Prefix.CONVERSATION, fields[1]):
        raise InvalidCursor("before: this is not a cursor that this server gave out.")
    return moment, fields[1]


def flag(request: Request, name: str) -> bool | None:
    """A query parameter that is `true`, `1`, `false` or `0`; raises Invalid."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if text not in ("true", "1", "false", "0"):
        raise Invalid(
            "invalid_request",
            f"{name}: true or false is allowed.",
            errors=[{"pointer": name, "detail": "true or false is allowed"}],
        )
    return text in ("true", "1")
