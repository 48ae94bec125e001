"""A page client: reads `GET /api/events`, keeps its state, and checks for gaps and repeats."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from tests.client import TERMINAL, Client, Event, content_of


@dataclass(frozen=True)
class PageEvent:
    """One event of a page's stream."""

    cursor: str
    type: str
    data: dict[str, Any]


async def page_events(
    client: Client,
    cursor: str | None = None,
    conversation_id: str | None = None,
    wait_s: float | None = None,
) -> AsyncGenerator[PageEvent, None]:
    """The events of one connection as they arrive."""
    headers = {"Last-Event-ID": cursor} if cursor else {}
    params: dict[str, Any] = {"conversation_id": conversation_id} if conversation_id else {}
    params |= {} if wait_s is None else {"wait_s": wait_s}
    async with client.http.stream("GET", "/api/events", params=params, headers=headers) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        buffer = ""
        async for chunk in response.aiter_text():
            buffer += chunk
            while "\n\n" in buffer:
                frame, buffer = buffer.split("\n\n", 1)
                if not frame.startswith(":"):
                    fields = dict(line.split(": ", 1) for line in frame.split("\n"))
                    assert set(fields) == {"id", "event", "data"}, frame
                    assert fields["id"].isascii()
                    yield PageEvent(fields["id"], fields["event"], json.loads(fields["data"]))


@dataclass
class Page:
    """The state of a page."""

    conversation_id: str | None = None
    cursor: str | None = None
    seen: list[str] = field(default_factory=list)
    conversations: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, list[Event]] = field(default_factory=dict)

    def take(self, event: PageEvent) -> None:
        """Apply one event; an answer's events must be consecutive and end once."""
        self.cursor = event.cursor
        self.seen.append(event.type)
        match event.type:
            case "resync":
                self.conversations = {}
            case "opened":
                self.messages = {message["id"]: message for message in event.data["messages"]}
                self.answers = {
                    each["id"]: [Event(each["seq"], "snapshot", each)]
                    for each in event.data["generations"]
                }
                if conversation := event.data["conversation"]:
                    self.conversations[conversation["id"]] = conversation
            case "conversation_changed":
                self.conversations[event.data["conversation"]["id"]] = event.data["conversation"]
            case "conversation_removed":
                self.conversations.pop(event.data["id"], None)
            case "message_changed":
                self.messages[event.data["message"]["id"]] = event.data["message"]
            case _:
                self._apply_to_answer(event)

    def _apply_to_answer(self, event: PageEvent) -> None:
        answer = self.answers.setdefault(event.data["generation_id"], [])
        seq = event.data["seq"]
        if answer:
            assert answer[-1].type not in TERMINAL, "no event may follow the end"
            jumps = event.type in ("restarted", "snapshot")
            assert seq > answer[-1].seq if jumps else seq == answer[-1].seq + 1, (answer[-1], event)
        else:
            assert event.type in ("queued", "snapshot")
        answer.append(Event(seq, event.type, event.data))

    async def read(self, client: Client, *, events: int | None = None, until: Any = None) -> None:
        """Read on from the cursor until `events` have arrived or `until(self)` is true."""
        if until is not None and until(self):
            return
        count = 0
        async with aclosing(page_events(client, self.cursor, self.conversation_id)) as stream:
            async for event in stream:
                self.take(event)
                count += 1
                if count == events or (until is not None and until(self)):
                    return

    def check_answers(self) -> None:
        """Check that every ended answer has the content its message has now."""
        for message in self.messages.values():
            events = self.answers.get(message["generation_id"] or "")
            if events and events[-1].type in TERMINAL:
                assert message["status"] == events[-1].type
                assert content_of(events) == message["content"]
