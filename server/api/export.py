"""A conversation as a file: JSON with every branch, or the shown branch as Markdown."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from server.api.present import conversation_json, message_json
from server.errors import Invalid
from server.history.conversations import ConversationRow
from server.history.messages import MessageRow
from server.history.tables import Role
from server.identity.callers import Caller
from server.identity.credentials import caller_of
from server.resources import Services
from server.serve.event_stream import Download
from server.times import rfc3339
from server.verbs import conversations
from server.verbs import export as verbs

_HEADINGS = {Role.USER: "Question", Role.ASSISTANT: "Answer"}


async def export(request: Request) -> Response:
    """Exports a conversation: every branch (`format=json`), or the shown one (`markdown`)."""
    caller, services = await caller_of(request), request.state.services
    format = request.query_params.get("format", "json")
    if format not in ("json", "markdown"):
        raise Invalid.at("format", "must be json or markdown")
    row = await conversations.get(services, caller, request.path_params["id"])
    id = row.conversation.id
    if format == "json":
        chunks, name, media_type = _json(services, caller, row), f"{id}.json", "application/json"
    else:
        chunks, name = _markdown(services, caller, row), f"{id}.md"
        media_type = "text/markdown; charset=utf-8"
    return Download(chunks, request=request, caller=caller, name=name, media_type=media_type)


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
