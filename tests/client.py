"""A client of the HTTP interface, and the rules that every reader's events must obey."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Self

import httpx

TERMINAL = ("completed", "cancelled", "failed")
COME_BACK_S = 0.05


@dataclass(frozen=True)
class Event:
    """One event as a reader received it; `at` is monotonic and does not count for equality."""

    seq: int
    type: str
    data: dict[str, Any]
    at: float = field(default=0.0, compare=False, repr=False)


class Client:
    """One caller of one web process."""

    def __init__(self, url: str, key: str | None = None, **options: Any) -> None:
        self.key = key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=30, limits=limits, trust_env=False, **options
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.http.aclose()

    async def send(self, text: str, *, key: str | None = None, **body: Any) -> dict[str, Any]:
        """Send a message; the body of the 202 response."""
        response = await self.http.post(
            "/api/messages",
            json={"text": text, **body},
            headers={"Idempotency-Key": key} if key else {},
        )
        assert response.status_code == 202, response.text
        return dict(response.json())

    async def get(self, path: str, **params: Any) -> Any:
        response = await self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def snapshot(self, generation_id: str) -> dict[str, Any]:
        return dict(await self.get(f"/api/generations/{generation_id}"))

    async def message(self, message_id: str) -> dict[str, Any]:
        return dict(await self.get(f"/api/messages/{message_id}"))

    async def cancel(self, generation_id: str, **params: Any) -> dict[str, Any]:
        response = await self.http.post(f"/api/generations/{generation_id}/cancel", params=params)
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def stream(
        self, generation_id: str, after: int | None = None, **params: Any
    ) -> AsyncGenerator[Event, None]:
        """The events of one connection as they arrive."""
        headers = {"Last-Event-ID": str(after)} if after is not None else {}
        async with self.http.stream(
            "GET", f"/api/generations/{generation_id}/events", params=params, headers=headers
        ) as response:
            if response.status_code == 204:
                return
            assert response.status_code == 200, (await response.aread()).decode()
            async for event in parse(response):
                yield event

    async def read(
        self,
        generation_id: str,
        after: int | None = None,
        *,
        stop_after: int | None = None,
        **params: Any,
    ) -> list[Event]:
        """The events of one connection to its end, or the first `stop_after` of them."""
        events: list[Event] = []
        async with aclosing(self.stream(generation_id, after, **params)) as stream:
            async for event in stream:
                events.append(event)
                if len(events) == stop_after:
                    break
        return events

    async def read_through(
        self, generation_id: str, events: list[Event] | None = None, urls: list[str] | None = None
    ) -> list[Event]:
        """Everything a reader receives that resumes whenever its connection ends early."""
        events = [] if events is None else events
        turn = 0
        while not events or events[-1].type not in TERMINAL:
            if urls:
                self.http.base_url = httpx.URL(urls[turn % len(urls)])
            turn += 1
            try:
                async for event in self.stream(generation_id, events[-1].seq if events else None):
                    events.append(event)
            except (httpx.TransportError, AssertionError) as error:
                if isinstance(error, AssertionError) and "50" not in str(error):
                    raise
            await asyncio.sleep(COME_BACK_S)
        return events


async def parse(response: httpx.Response) -> AsyncIterator[Event]:
    """The events of a response; each frame must have an id, a type and one line of data."""
    buffer = ""
    async for chunk in response.aiter_text():
        buffer += chunk
        while "\n\n" in buffer:
            frame, buffer = buffer.split("\n\n", 1)
            if frame.startswith(":"):
                continue
            fields = dict(line.split(": ", 1) for line in frame.split("\n"))
            assert set(fields) == {"id", "event", "data"}, frame
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]), monotonic())


def content_of(events: list[Event]) -> list[dict[str, Any]]:
    """The parts that these events add up to."""
    parts: list[dict[str, Any]] = []
    for event in events:
        match event.type:
            case "restarted":
                parts = []
            case "snapshot":
                parts = [dict(part) for part in event.data["content"]]
            case "text_delta" | "reasoning_delta":
                if event.data["part"] == len(parts):
                    parts.append({"type": event.type.removesuffix("_delta"), "text": ""})
                parts[event.data["part"]]["text"] += event.data["text"]
            case "tool_call" | "tool_result":
                assert event.data["part"] == len(parts)
                parts.append(
                    {"type": event.type} | {k: v for k, v in event.data.items() if k != "part"}
                )
    return parts


def text_of(events: list[Event]) -> str:
    """The text that these events add up to."""
    return "".join(part["text"] for part in content_of(events) if part["type"] == "text")


def check_law(events: list[Event], snapshot: dict[str, Any]) -> None:
    """Check one reader of a settled answer: no gap, no repeat, one end, and the stored content."""
    for before, after in itertools.pairwise(events):
        if after.type in ("restarted", "snapshot"):
            assert after.seq > before.seq, (before, after)
        else:
            assert after.seq == before.seq + 1, (before, after)
    ends = [event for event in events if event.type in TERMINAL]
    assert ends == events[-1:], [event.type for event in events[-3:]]
    assert events[-1].type == snapshot["status"]
    assert events[-1].seq == snapshot["seq"]
    assert content_of(events) == snapshot["content"]


def check_agreement(readers: list[list[Event]]) -> None:
    """Check that a sequence number has the same event for every reader."""
    seen: dict[int, Event] = {}
    for events in readers:
        for event in events:
            if event.type != "snapshot":
                assert seen.setdefault(event.seq, event) == event
