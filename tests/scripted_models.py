"""Requests to scripted models, and checks of their answers."""

from typing import Any

from tests.client import Client, Event, check_law, text_of
from tests.upstream import Upstream
from tests.waiting import condition

GENERATION = {"output_max_bytes": 200_000, "deadline_s": 6, "default_model": "up/plain"}
"""Limits that a test can reach."""


async def ask(
    client: Client, model: str, text: str = "hello", **body: Any
) -> tuple[list[Event], dict[str, Any]]:
    """Ask a model; return its answer's events and snapshot after checking that they agree."""
    sent = await client.send(text, model=f"up/{model}" if "/" not in model else model, **body)
    events = await client.read_through(sent["generation_id"])
    snapshot = await client.snapshot(sent["generation_id"])
    check_law(events, snapshot)
    assert not {"restarted", "resumed"} & {event.type for event in events}
    return events, snapshot


async def check_answer(
    client: Client, upstream: Upstream, model: str, content: list[dict[str, Any]], reason: str
) -> Any:
    """Check that an answer completes with this content, after a retry if scripted; return its
    usage.
    """
    upstream.request_counts[model] = 0

    events, snapshot = await ask(client, model)

    end = events[-1]
    assert (snapshot["status"], snapshot["error"]) == ("completed", None)
    assert snapshot["content"] == content
    assert (end.data["finish_reason"], snapshot["finish_reason"]) == (reason, reason)
    assert end.data["usage"] == snapshot["usage"]
    retried = model.endswith("-then-ok") or model == "429-date"
    assert upstream.request_counts[model] == (2 if retried else 1)
    return snapshot["usage"]


async def check_failure(
    client: Client, upstream: Upstream, model: str, expected: tuple[str, str, int]
) -> None:
    """Check that an answer fails with this code and keeps its text after this many requests."""
    code, kept_text, requests = expected
    before = upstream.request_counts[model]

    events, snapshot = await ask(client, model)

    assert (snapshot["status"], snapshot["error"]["code"]) == ("failed", code)
    assert {name: events[-1].data[name] for name in ("code", "message", "retryable")} == snapshot[
        "error"
    ]
    assert snapshot["text"] == text_of(events) == kept_text
    assert upstream.request_counts[model] - before == requests, (
        "a request is retried only before the first token"
    )
    assert bool(snapshot["usage"]) == bool(kept_text) or code == "empty_answer"
    assert "\0" not in snapshot["error"]["message"]


async def continued(client: Client, first: str, model: str) -> str:
    """The text of an answer that one model began and another one continued."""
    sent = await client.send("go on", model=f"up/{first}")
    await client.read_through(sent["generation_id"])
    more = await client.http.post(
        f"/api/messages/{sent['message_id']}/continue", json={"model": f"up/{model}"}
    )
    await client.read_through(more.json()["generation_id"])
    return str((await client.message(sent["message_id"]))["text"])


async def no_open_answers(upstream: Upstream) -> None:
    """Wait until the upstream has no open response."""
    await condition(lambda: not upstream.open_answers, 10)


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "text": text}


def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"type": "tool_call", "call_id": call_id, "name": name, "arguments": arguments}
