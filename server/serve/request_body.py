"""Reading the bodies of requests, within limits of size and time."""

import asyncio
from typing import Any, Final

import orjson
from starlette.requests import Request

from server.errors import RequestTimeout, TooLarge, Unreadable

BODY_WITHIN_S: Final = 20.0
"""How long a client may take to send a body."""


async def read_body_bytes(request: Request, max_bytes: int) -> bytes:
    """The body of a request; raises TooLarge as soon as that is known, and RequestTimeout."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
    except TimeoutError:
        detail = f"The body did not arrive within {BODY_WITHIN_S:g} seconds."
        raise RequestTimeout("body_timeout", detail) from None
    return b"".join(chunks)


async def read_json(request: Request, max_bytes: int, *, if_empty: bytes = b"") -> Any:
    """The body of a request as JSON; raises Unreadable, TooLarge and RequestTimeout."""
    try:
        return orjson.loads(await read_body_bytes(request, max_bytes) or if_empty)
    except orjson.JSONDecodeError as error:
        raise Unreadable("invalid_json", f"The body is not valid JSON: {error}.") from None


def _too_large(max_bytes: int) -> TooLarge:
    detail = f"The body exceeds the limit of {max_bytes} bytes."
    return TooLarge("body_too_large", detail, limit=max_bytes)
