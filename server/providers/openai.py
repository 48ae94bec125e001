"""Servers with OpenAI's `/chat/completions`, streamed.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson

from server.parts import Parts, joined_text
from server.providers.base import Delta, ModelRequest
from server.providers.openai_chunks import AnswerParser, error_of
from server.providers.upstream import Upstream
from server.settings import ProviderSettings


class OpenAI:
    """One server."""

    def __init__(self, settings: ProviderSettings, api_key: str | None) -> None:
        self.models = settings.models
        self.context_tokens = settings.context_tokens
        self._url = completions_url(settings.base_url)
        key = (api_key or "").strip()
        self._upstream = Upstream(self._url, headers_of(key), key, settings, error_of)

    def continues(self, request: ModelRequest) -> bool:  # noqa: ARG002  the format cannot
        return False

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        return self._upstream.deltas(self._body(request), AnswerParser())

    async def close(self) -> None:
        await self._upstream.close()

    def _body(self, request: ModelRequest) -> bytes:
        messages: list[dict[str, Any]] = (
            [{"role": "system", "content": request.system_prompt}] if request.system_prompt else []
        )
        for turn in request.turns:
            messages += _messages(turn.role, turn.parts)
        messages += _messages(
            "assistant", [part for part in request.prefix if part["type"] == "text"]
        )
        # OpenAI's newer models refuse the name that all other servers use.
        limit = (
            "max_completion_tokens"
            if (urlsplit(self._url).hostname or "").endswith("openai.com")
            else "max_tokens"
        )
        body: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            limit: request.max_output_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        return orjson.dumps(body)


def headers_of(key: str) -> dict[str, str]:
    """The headers with the API key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def url_of(base_url: str, path: str) -> str:
    """The URL of `path`. /v1 is added to a base URL that has no path."""
    scheme, host, base, query, _ = urlsplit(base_url)
    return urlunsplit((scheme, host, f"{base.rstrip('/') or '/v1'}/{path}", query, ""))


def completions_url(base_url: str) -> str:
    """The URL of chat completions."""
    return url_of(base_url, "chat/completions")


def _messages(role: str, parts: Parts) -> list[dict[str, Any]]:
    calls = [
        {
            "id": part["call_id"],
            "type": "function",
            "function": {"name": part["name"], "arguments": part["arguments"]},
        }
        for part in parts
        if part["type"] == "tool_call"
    ]
    results = [
        {"role": "tool", "tool_call_id": part["call_id"], "content": part["content"]}
        for part in parts
        if part["type"] == "tool_result"
    ]
    text = joined_text(parts)
    message: dict[str, Any] = (
        {"role": role, "content": text or None, "tool_calls": calls}
        if calls
        else {"role": role, "content": text}
    )
    return ([message] if text or calls else []) + results
