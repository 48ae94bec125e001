"""Servers with OpenAI's `/chat/completions`, streamed.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from server.parts import Parts, joined_text
from server.providers.adjustments import LIMITS, Negotiation
from server.providers.base import Adjustments, Delta, ModelRequest
from server.providers.continuing import can_prefill, prefix_turns
from server.providers.openai_chunks import AnswerParser, error_of
from server.providers.thoughts import Thoughts
from server.providers.upstream import Upstream, headers_with
from server.settings import ProviderSettings


class OpenAI:
    """One server."""

    def __init__(self, settings: ProviderSettings, api_key: str | None) -> None:
        self.models = settings.models
        self.context_tokens = settings.context_tokens
        self._url = completions_url(settings.base_url)
        key = (api_key or "").strip()
        self._upstream = Upstream(
            self._url, headers_with(settings, headers_of, key), key, settings, error_of
        )
        # OpenAI's newer models refuse the name that most other servers use.
        host = f".{urlsplit(self._url).hostname}"
        is_openai = host.endswith((".openai.com", ".azure.com"))
        self._limit = "max_completion_tokens" if is_openai else "max_tokens"
        self._extra, self._tags = settings.extra_body, settings.thinking_tags
        self._effort = settings.reasoning_effort
        self._prefill, self._prefill_body = frozenset(settings.prefill), settings.prefill_body
        self._prefill_message = settings.prefill_message
        self.learned: dict[str, Adjustments] = {}

    def continues(self, request: ModelRequest) -> bool:
        learned = self.learned.get(request.model, Adjustments())
        return can_prefill(request, self._prefill, learned)

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        negotiation = Negotiation(self.learned, request)
        prefix = joined_text(request.prefix)
        return self._upstream.deltas(
            lambda: negotiation.body(self._body(negotiation.request, negotiation.adjustments)),
            lambda: AnswerParser(self._new_thoughts(request, negotiation.adjustments), prefix),
            negotiation,
        )

    def _new_thoughts(self, request: ModelRequest, learned: Adjustments) -> Thoughts | None:
        if self._tags == "off":
            return None
        # A template opens a thought only where an answer begins.
        prefilled = can_prefill(request, self._prefill, learned)
        return Thoughts(opened=self._tags == "open" and not prefilled)

    async def close(self) -> None:
        await self._upstream.close()

    def _body(self, request: ModelRequest, learned: Adjustments) -> dict[str, Any]:
        prefilled = can_prefill(request, self._prefill, learned)
        turns = [*request.turns, *prefix_turns(request, prefilled=prefilled)]
        messages = [message for turn in turns for message in _messages(turn.role, turn.parts)]
        if request.system_prompt:
            role = "user" if learned.system_as_user else "system"
            messages.insert(0, {"role": role, "content": request.system_prompt})
        messages = _merged(messages)
        if prefilled:
            messages[-1] |= self._prefill_message
        body: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            self._limit: request.max_output_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if self._effort:
            body["reasoning_effort"] = self._effort
        if not self._extra.keys().isdisjoint(LIMITS):
            del body[self._limit]
        return body | self._extra | (self._prefill_body if prefilled else {})


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


def _merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with neighbours of one role joined: templates want roles to alternate."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        last = merged[-1] if merged else {}
        if last.keys() == message.keys() == {"role", "content"} and last["role"] == message["role"]:
            merged[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
        else:
            merged.append(message)
    return merged


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
