"""Servers with Anthropic's Messages API, streamed.

https://platform.claude.com/docs/en/api/messages
"""

from collections.abc import AsyncGenerator, Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson

from server.parts import joined_text
from server.providers.adjustments import Negotiation
from server.providers.anthropic_events import AnswerParser, error_of
from server.providers.base import Adjustments, Delta, ModelRequest, Turn
from server.providers.continuing import can_prefill, prefix_turns
from server.providers.upstream import Upstream, headers_with
from server.settings import ProviderSettings

VERSION = "2023-06-01"
TEMPERATURE_MAX = 1.0


class Anthropic:
    """One server."""

    def __init__(self, settings: ProviderSettings, api_key: str | None) -> None:
        self.models = settings.models
        self.context_tokens = settings.context_tokens
        self._prefill, self._prefill_body = frozenset(settings.prefill), settings.prefill_body
        key = (api_key or "").strip()
        self._upstream = Upstream(
            url_of(settings.base_url, "messages"),
            headers_with(settings, headers_of, key),
            key,
            settings,
            error_of,
        )
        self._extra = settings.extra_body
        self.learned: dict[str, Adjustments] = {}

    def continues(self, request: ModelRequest) -> bool:
        learned = self.learned.get(request.model, Adjustments())
        return can_prefill(request, self._prefill, learned)

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        negotiation = Negotiation(self.learned, request)
        return self._upstream.deltas(
            lambda: negotiation.body(self._body(negotiation.request, negotiation.adjustments)),
            lambda: AnswerParser(joined_text(request.prefix)),
            negotiation,
        )

    async def close(self) -> None:
        await self._upstream.close()

    def _body(self, request: ModelRequest, learned: Adjustments) -> dict[str, Any]:
        prefilled = can_prefill(request, self._prefill, learned)
        prefix = prefix_turns(request, prefilled=prefilled)
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.max_output_tokens,
            "messages": messages_of([*request.turns, *prefix]),
            "stream": True,
        }
        if request.system_prompt and request.system_prompt.strip():
            body["system"] = request.system_prompt
        if request.temperature is not None:
            body["temperature"] = min(request.temperature, TEMPERATURE_MAX)
        return body | self._extra | (self._prefill_body if prefilled else {})


def headers_of(key: str) -> dict[str, str]:
    """The headers with the API key and the version of the API."""
    return {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})


def url_of(base_url: str, path: str) -> str:
    """The URL of `path`, always under /v1, which the base URL may include."""
    scheme, host, base, query, _ = urlsplit(base_url)
    return urlunsplit(
        (scheme, host, f"{base.rstrip('/').removesuffix('/v1')}/v1/{path}", query, "")
    )


def messages_of(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """The turns as alternating messages of user and assistant, the first one a user's."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        for part in turn.parts:
            role, block = _block(turn.role, part)
            if block is None:
                continue
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"].append(block)
            elif messages or role == "user":
                messages.append({"role": role, "content": [block]})
    return messages


def _block(role: str, part: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """A part as a block, and the role of its message; None for reasoning, files and blank text."""
    match part["type"]:
        case "text" if part["text"].strip():
            return role, {"type": "text", "text": part["text"]}
        case "tool_call":
            return "assistant", {
                "type": "tool_use",
                "id": part["call_id"],
                "name": part["name"],
                "input": _object(part["arguments"]),
            }
        case "tool_result":
            block = {
                "type": "tool_result",
                "tool_use_id": part["call_id"],
                "content": part["content"],
            }
            return "user", block | ({"is_error": True} if part.get("is_error") else {})
    return role, None


def _object(arguments: str) -> dict[str, Any]:
    """The arguments as an object; empty if the model wrote something else."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
