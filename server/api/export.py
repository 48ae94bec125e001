"""A conversation as a file: JSON with every branch, or the shown branch as Markdown."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.api.present import conversation_json, message_json
from server.errors import Invalid
from server.history.conversations import ConversationRow
from server.history.messages import MessageRow
from server.history.tables import Role
from server.identity.callers import Caller
from server.identity.credentials import caller_of
from server.resources import Services
from server.times import rfc3339
from server.verbs import conversations
from server.verbs import export as verbs

SEND_WITHIN_S = 20.0
"""A client that reads nothing for this long is disconnected."""

_HEADINGS = {Role.USER: "Question", Role.ASSISTANT: "Answer"}


class Download(Response):
    """A file that is generated while it is sent.

    If it cannot be completed, the connection is aborted, so that no client takes a part for the
    whole file. Generation stops when the client disconnects.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], name: str, media_type: str) -> None:
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        }
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_until_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        async with aclosing(self._chunks) as chunks:
            await send({"type": "http.response.start", **start})
            async for chunk in chunks:
                async with asyncio.timeout(SEND_WITHIN_S):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def export(request: Request) -> Response:
    """Exports a conversation: every branch (`format=json`), or the shown one (`markdown`)."""
    caller, services = await caller_of(request), request.state.services
    format = request.query_params.get("format", "json")
    if format not in ("json", "markdown"):
        raise Invalid.at("format", "must be json or markdown")
    row = await conversations.get(services, caller, request.path_params["id"])
    id = row.conversation.id
    if format == "json":
        return Download(_json(services, caller, row), f"{id}.json", "application/json")
    chunks = _markdown(services, caller, row)
    return Download(chunks, f"{id}.md", "text/markdown; charset=utf-8")


async def _json(
    services: Services, caller: Caller, row: ConversationRow
) -> AsyncGenerator[bytes, None]:
    yield b'{"conversation":%s,"messages":[' % orjson.dumps(conversation_json(row))
    separator = b""
    async with aclosing(verbs.all_branches(services, caller, row)) as pages:
        async for page in pages:
            for message in page.rows:
                siblings = page.siblings[message.message.id]
                yield separator + orjson.dumps(message_json(message, siblings))
                separator = b","
    yield b"]}"


async def _markdown(
    services: Services, caller: Caller, row: ConversationRow
) -> AsyncGenerator[bytes, None]:
    yield f"# {row.conversation.title}\n".encode()
    async with aclosing(verbs.shown_branch(services, caller, row)) as pages:
        async for page in pages:
            for message in page:
                yield _section(message).encode()


def _section(row: MessageRow) -> str:
    message, generation = row
    time = rfc3339(message.created_at)
    about = f"{generation.model}, {time}" if generation else time
    parts = [text for part in row.parts if (text := _part(part))]
    return f"\n## {_HEADINGS[message.role]}\n\n*{about}*\n\n" + "\n\n".join(parts) + "\n"


def _part(part: dict[str, Any]) -> str:
    match part["type"]:
        case "text":
            return str(part["text"])
        case "tool_call":
            return f"```json\n{part['arguments']}\n```\n\n*(a call of `{part['name']}`)*"
        case "tool_result":
            return f"```\n{part['content']}\n```"
        case _:
            return ""  # reasoning is not part of the answer
