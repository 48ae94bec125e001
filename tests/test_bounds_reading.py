"""An export stops when its client disconnects; every cursor given out is accepted."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.types import Receive, Send

from server.changes.cursor import ANSWERS_MAX, Cursor, parse_cursor
from server.history.feed import FeedPosition
from server.identity.callers import Caller
from server.identity.presence import Presence
from server.ids import Prefix, new_id
from server.serve.event_stream import Download

pytestmark = pytest.mark.quick


async def download(chunks: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
    """Send a file as the application does."""
    state = {"presence": Presence(cast("Any", None), 1), "send": send, "request_id": ""}
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": state}
    response = Download(
        chunks,
        request=Request(scope),
        caller=Caller("account", None, "key", None),
        name="x.json",
        media_type="application/json",
    )
    await response(scope, receive, send)


async def test_an_export_stops_when_its_client_disconnects() -> None:
    pages, closed, gone = 0, False, asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal pages, closed
        try:
            while True:
                pages += 1
                yield b"page"
                await asyncio.sleep(0)
        finally:
            closed = True

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        if pages == 3:
            gone.set()

    async with asyncio.timeout(30):
        await download(chunks(), receive, send)

    assert closed
    assert pages < 50


async def test_an_export_is_complete_for_a_client_that_stays_connected() -> None:
    sent: list[Any] = []

    async def chunks() -> AsyncGenerator[bytes, None]:
        for n in range(3):
            yield b"%d" % n

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await download(chunks(), receive, send)

    assert b"".join(message.get("body", b"") for message in sent) == b"012"
    assert sent[-1]["more_body"] is False


@pytest.mark.parametrize("answers", [0, 1, ANSWERS_MAX, ANSWERS_MAX + 1, 1_000])
def test_every_cursor_given_out_is_accepted(answers: int) -> None:
    seqs = {new_id(Prefix.GENERATION): n for n in range(answers)}
    cursor = Cursor(FeedPosition(7, "3"), new_id(Prefix.CONVERSATION), seqs)

    parsed = parse_cursor(str(cursor))

    if answers <= ANSWERS_MAX:
        assert parsed == cursor
    else:  # too long: the page starts over with the current state
        assert parsed == Cursor(FeedPosition(7, "3"), None, {})
