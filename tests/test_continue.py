"""Continuing an answer: it goes on from its text, and a failure does not cost the text."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.client import Client
from tests.in_process import InProcess
from tests.scripted_models import GENERATION, ask
from tests.system import System
from tests.upstream import MODELS, Upstream
from tests.waiting import condition

GREETING = "Hello wörld 🌊"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, valkey: str
) -> Iterator[InProcess]:
    up = {
        "base_url": f"{upstream.url}/v1",
        "models": MODELS,
        "first_token_timeout_s": 2.5,
        "idle_timeout_s": 1.5,
    }
    settings = {"providers": {"up": up}, "generation": GENERATION}
    with InProcess(tmp_path_factory.mktemp("continue"), valkey, settings) as installation:
        yield installation


async def cut_answer(client: Client) -> dict[str, Any]:
    """The ids of an answer that ended at the length limit."""
    sent = await client.send("go on", model="up/finish-own-chunk")
    await client.read_through(sent["generation_id"])
    return sent


async def go_on(client: Client, message_id: str, model: str) -> str:
    """Requests a continuation; its generation."""
    response = await client.http.post(
        f"/api/messages/{message_id}/continue", json={"model": f"up/{model}"}
    )
    return str(response.json()["generation_id"])


def assistants(upstream: Upstream) -> list[str]:
    """The answers in the last request."""
    messages = upstream.requests[-1].body["messages"]
    return [message["content"] for message in messages if message["role"] == "assistant"]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("400", "provider_refused"),
        ("401", "provider_refused"),
        ("eof-at-once", "provider_protocol"),
        ("silent", "provider_timeout"),
        ("context-too-long", "context_too_long"),
        ("thought-cut", "provider_protocol"),
    ],
)
async def test_a_continuation_that_fails_with_nothing_new_leaves_the_answer_as_it_was(
    model: str, code: str, caller: Client, upstream: Upstream
) -> None:
    sent = await cut_answer(caller)
    before = await caller.message(sent["message_id"])

    refused = await go_on(caller, sent["message_id"], model)
    events = await caller.read_through(refused)

    assert (events[-1].type, events[-1].data["code"]) == ("failed", code)
    assert (await caller.snapshot(refused))["error"]["code"] == code
    assert await caller.message(sent["message_id"]) == before
    assert (before["status"], before["finish_reason"]) == ("completed", "length")

    await caller.read_through(await go_on(caller, sent["message_id"], "plain"))
    assert assistants(upstream) == [GREETING]
    assert (await caller.message(sent["message_id"]))["text"] == GREETING * 2


async def test_a_continuation_that_is_stopped_with_nothing_new_leaves_the_answer_as_it_was(
    caller: Client,
) -> None:
    sent = await cut_answer(caller)
    before = await caller.message(sent["message_id"])

    stopped = await go_on(caller, sent["message_id"], "slow-headers")
    await caller.cancel(stopped, wait_s=20)

    assert (await caller.snapshot(stopped))["status"] == "cancelled"
    assert await caller.message(sent["message_id"]) == before


async def test_a_continuation_that_fails_later_starts_over_from_the_answer_it_continued(
    caller: Client, upstream: Upstream
) -> None:
    sent = await cut_answer(caller)

    await caller.read_through(await go_on(caller, sent["message_id"], "eof-without-finish"))

    failed = await caller.message(sent["message_id"])
    assert (failed["status"], failed["text"]) == ("failed", GREETING * 2)
    await ask(caller, "plain", "and now", conversation_id=sent["conversation_id"])
    assert assistants(upstream) == [GREETING * 2]

    await caller.read_through(await go_on(caller, sent["message_id"], "plain"))
    assert assistants(upstream) == [GREETING]
    assert (await caller.message(sent["message_id"]))["text"] == GREETING * 2
    assert (await caller.message(sent["message_id"]))["status"] == "completed"


async def test_an_answer_that_was_restored_can_be_found_and_is_sent_to_the_model(
    caller: Client, upstream: Upstream
) -> None:
    sent = await cut_answer(caller)
    await caller.read_through(await go_on(caller, sent["message_id"], "401"))

    await ask(caller, "plain", "and now", conversation_id=sent["conversation_id"])

    assert assistants(upstream) == [GREETING]
    found = await caller.http.get(f"/api/conversations/{sent['conversation_id']}/messages")
    assert GREETING in [message["text"] for message in found.json()["data"]]


@pytest.mark.slow
async def test_a_continuation_without_a_worker_or_after_a_crash_can_be_stopped_without_loss(
    new_system: Callable[..., System], upstream: Upstream
) -> None:
    up = {"base_url": f"{upstream.url}/v1", "models": MODELS}
    system = await asyncio.to_thread(lambda: new_system(providers={"up": up}).start())
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        sent = await cut_answer(client)
        before = await client.message(sent["message_id"])

        system.worker.kill()
        queued = await go_on(client, sent["message_id"], "plain")
        assert (await client.cancel(queued, wait_s=20))["status"] == "cancelled"
        assert await client.message(sent["message_id"]) == before

        system.start_worker()
        requests = upstream.request_counts["slow-headers"]
        waiting = await go_on(client, sent["message_id"], "slow-headers")
        await condition(lambda: upstream.request_counts["slow-headers"] == requests + 1, 20)
        system.worker.kill()
        system.start_worker()
        await condition(lambda: upstream.request_counts["slow-headers"] == requests + 2, 20)
        assert (await client.cancel(waiting, wait_s=20))["text"] == GREETING
        assert await client.message(sent["message_id"]) == before
