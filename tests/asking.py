"""Asking scripted models: an answer's events and snapshot, which agree, and parts to compare them with."""

from typing import Any

from tests.client import Client, Event, check_law


async def ask(
    client: Client, model: str, text: str = "hello", **body: Any
) -> tuple[list[Event], dict[str, Any]]:
    """An answer's events and its snapshot, which agree."""
    sent = await client.send(text, model=f"up/{model}" if "/" not in model else model, **body)
    events = await client.read_through(sent["generation_id"])
    snapshot = await client.snapshot(sent["generation_id"])
    check_law(events, snapshot)
    assert not {"restarted", "resumed"} & {event.type for event in events}
    return events, snapshot


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "text": text}


def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"type": "tool_call", "call_id": call_id, "name": name, "arguments": arguments}
