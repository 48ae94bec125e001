"""A conversation as a file, streamed whatever its size: JSON with every branch, or the shown branch as Markdown."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.errors import Invalid
from server.history.database import Database
from server.history.export import branch_page, exported_conversation, page_above, whole_page
from server.history.generations import rfc3339
from server.history.messages import Said
from server.history.tables import Role
from server.identity.credentials import caller_of

STUCK_S = 20.0
"""A reader that takes nothing for so long is dropped."""

SPEAKERS = {Role.USER: "Question", Role.ASSISTANT: "Answer"}


class Download(Response):
    """A file that is made while it is sent. Where it cannot be finished the connection breaks off, so nobody takes half of it for all."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], name: str, media_type: str) -> None:
        super().__init__(
            media_type=media_type,
            headers={
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": "no-store",
            },
        )
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  it is how responses are called
        async with aclosing(self._chunks) as chunks:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async for chunk in chunks:
                async with asyncio.timeout(STUCK_S):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def export(request: Request) -> Response:
    """The whole conversation (`format=json`), or its shown branch (`format=markdown`)."""
    caller, database = await caller_of(request), request.state.resources.database
    format = request.query_params.get("format", "json")
    if format not in ("json", "markdown"):
        reason = "json or markdown is allowed"
        raise Invalid(
            "invalid_request",
            f"format: {reason}.",
            errors=[{"pointer": "format", "detail": reason}],
        )
    conversation = await database.read(
        exported_conversation, request.path_params["id"], caller.account_id
    )
    if format == "json":
        return Download(
            _json(database, conversation, caller.account_id),
            f"{conversation['id']}.json",
            "application/json",
        )
    return Download(
        _markdown(database, conversation, caller.account_id),
        f"{conversation['id']}.md",
        "text/markdown; charset=utf-8",
    )


async def _json(
    database: Database, conversation: dict[str, Any], account_id: str
) -> AsyncGenerator[bytes, None]:
    yield b'{"conversation":%s,"messages":[' % orjson.dumps(conversation)
    messages, key = await database.read(whole_page, conversation["id"], account_id, None)
    first = True
    while messages:
        yield (b"" if first else b",") + b",".join(orjson.dumps(message) for message in messages)
        first = False
        messages, key = await database.read(whole_page, conversation["id"], account_id, key)
    yield b"]}"


async def _markdown(
    database: Database, conversation: dict[str, Any], account_id: str
) -> AsyncGenerator[bytes, None]:
    yield f"# {conversation['title']}\n".encode()
    leaves, leaf = [], conversation["shown_message_id"]
    while (
        leaf is not None
    ):  # upwards, noting one message of each page; then down again, page by page
        leaves.append(leaf)
        leaf = await database.read(page_above, conversation["id"], account_id, leaf)
    for leaf_id in reversed(leaves):
        for said in await database.read(branch_page, conversation["id"], account_id, leaf_id):
            yield _section(said).encode()


def _section(said: Said) -> str:
    message, generation = said
    about = (
        f"{generation.model}, {rfc3339(message.created_at)}"
        if generation
        else rfc3339(message.created_at)
    )
    parts = [_as_markdown(part) for part in said.parts]
    return (
        f"\n## {SPEAKERS[message.role]}\n\n*{about}*\n\n"
        + "\n\n".join(part for part in parts if part)
        + "\n"
    )


def _as_markdown(part: dict[str, Any]) -> str:
    match part["type"]:
        case "text":
            return str(part["text"])
        case "tool_call":
            return f"```json\n{part['arguments']}\n```\n\n*(a call of `{part['name']}`)*"
        case "tool_result":
            return f"```\n{part['content']}\n```"
        case _:
            return ""  # reasoning is not part of what was answered
