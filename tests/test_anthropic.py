"""Anthropic's format end to end: responses, errors, requests, and continuation after a crash."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.providers.continuing import GO_ON
from tests.client import Client, Event, check_law, text_of
from tests.in_process import InProcess
from tests.scripted_models import (
    GENERATION,
    ask,
    call,
    check_answer,
    check_failure,
    continued,
    no_open_answers,
    text,
    thought,
)
from tests.system import System
from tests.upstream import Upstream
from tests.upstream_anthropic import ANTHROPIC, ERRORS, HALF, SCRIPTS, STREAMS, TEXT

KEY = "sk-ant-upstream-secret-0123456789"
GREETING = "Hello wörld 🌊"
MODELS = [*STREAMS, *SCRIPTS]

Make = Callable[..., System]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(ANTHROPIC) as upstream:
        yield upstream


def provider(upstream: Upstream, **settings: Any) -> dict[str, Any]:
    timeouts = {"connect_timeout_s": 2, "first_token_timeout_s": 2, "idle_timeout_s": 1.5}
    return {"kind": "anthropic", "base_url": upstream.url, "models": MODELS} | timeouts | settings


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, valkey: str
) -> Iterator[InProcess]:
    """An installation whose models are all scripted."""
    folder = tmp_path_factory.mktemp("anthropic")
    (folder / "key").write_text(f"{KEY}\n")
    up = provider(upstream, api_key_file=str(folder / "key"), prefill=["plain", "max-tokens"])
    gone = provider(upstream, base_url="http://127.0.0.1:9", models=["nobody"])
    settings = {"providers": {"up": up, "gone": gone}, "generation": GENERATION}
    with InProcess(folder, valkey, settings) as installation:
        yield installation


def quick(*models: str) -> list[Any]:
    return [pytest.param(model, marks=pytest.mark.quick) for model in models]


def slow(*models: str) -> list[Any]:
    """Mark models whose tests mostly wait."""
    return [pytest.param(model, marks=pytest.mark.slow) for model in models]


# Answers that end well


HELLO, WHOLE = [text("Hello")], [text(GREETING)]
BILLED = {"input_tokens": 11, "output_tokens": 3}
CACHED = {"input_tokens": 2111, "cached_input_tokens": 2000, "output_tokens": 503}

COMPLETED: dict[str, tuple[list[dict[str, Any]], str, dict[str, Any]]] = {
    "plain": (WHOLE, "stop", BILLED),
    "not-json": (WHOLE, "stop", BILLED),
    "not-an-object": (WHOLE, "stop", BILLED),
    "wrong-types": (WHOLE, "stop", BILLED),
    "wrong-index": (WHOLE, "stop", BILLED),
    "thinking": ([thought("hm so"), *HELLO], "stop", BILLED),
    "thinking-hidden": (HELLO, "stop", BILLED | {"reasoning_tokens": 2}),
    "thinking-redacted": ([thought("so"), *HELLO], "stop", BILLED),
    "tool-use": (
        [text("look"), call("toolu_a", "tide", '{"port":"Dover"}'), call("toolu_b", "wind", "{}")],
        "tool_calls",
        BILLED,
    ),
    "tool-use-at-once": (
        [call("call_0", "tide", '{"port":"Dover","näh":1}')],
        "tool_calls",
        BILLED,
    ),
    "tool-use-then-text": ([call("toolu_a", "tide", "{}"), text("so")], "tool_calls", BILLED),
    "tool-use-cut-short": ([call("toolu_a", "tide", '{"port":')], "length", BILLED),
    "interleaved": (
        [
            thought("hm so"),
            *HELLO,
            call("toolu_b", "wind", "{}"),
            call("toolu_a", "tide", '{"a":1}'),
        ],
        "tool_calls",
        BILLED,
    ),
    "cached": (HELLO, "stop", CACHED),
    "cached-later": (HELLO, "stop", CACHED),
    "usage-odd": (HELLO, "stop", BILLED),
    "usage-missing": (HELLO, "stop", {"input_tokens": 1, "output_tokens": 1, "estimated": True}),
    "stop-sequence": (HELLO, "stop", BILLED),
    "max-tokens": (HELLO, "length", BILLED),
    "window-exceeded": (HELLO, "length", BILLED),
    "refusal": ([text("I will")], "content_filter", BILLED),
    "pause-turn": (HELLO, "other", BILLED),
    "reason-unknown": (HELLO, "other", BILLED),
    "no-reason": (HELLO, "other", {"input_tokens": 11, "output_tokens": 1, "estimated": True}),
    "no-message-stop": (WHOLE, "stop", BILLED),
    "no-message-stop-no-blank": (WHOLE, "stop", BILLED),
    "pings": (WHOLE, "stop", BILLED),
    "data-only": (WHOLE, "stop", BILLED),
    "crlf": (WHOLE, "stop", BILLED),
    "text-in-start": (HELLO, "stop", BILLED),
    "no-start": (HELLO, "stop", {"input_tokens": 0, "output_tokens": 3}),
    "two-texts": (HELLO, "stop", BILLED),
    "unknown-event": (WHOLE, "stop", BILLED),
    "unknown-block": (HELLO, "stop", BILLED),
    "unknown-delta": (HELLO, "stop", BILLED),
    "nul": ([text("a\ufffdb"), call("toolu\ufffda", "t\ufffd", '"\ufffd"')], "tool_calls", BILLED),
    "surrogates": ([text("tide 🌊 and \ufffd alone")], "stop", BILLED),
    "byte-by-byte": (WHOLE, "stop", BILLED),
    "gzip": (WHOLE, "stop", BILLED),
    "whole-200": ([thought("hm"), text("all at once"), call("a", "b", "{}")], "tool_calls", BILLED),
    "reset-after-reason": (WHOLE, "stop", BILLED),
    "keeps-open-after-stop": (WHOLE, "stop", BILLED),
    "slow-first-token": (WHOLE, "stop", BILLED),
    "keeps-open-after-reason": (WHOLE, "stop", BILLED),
    "stall-with-pings": (WHOLE, "stop", BILLED),
    "hidden-thoughts-with-pings": (HELLO, "stop", BILLED),
    "429-then-ok": (WHOLE, "stop", BILLED),
    "529-then-ok": (WHOLE, "stop", BILLED),
}
"""For each model: the expected content, finish reason and usage."""

SLOW_TO_ANSWER = [
    "byte-by-byte",
    "slow-first-token",
    "keeps-open-after-reason",
    "stall-with-pings",
    "hidden-thoughts-with-pings",
]


@pytest.mark.parametrize(
    "model",
    [
        *quick(*(model for model in COMPLETED if model not in SLOW_TO_ANSWER)),
        *slow(*SLOW_TO_ANSWER),
    ],
)
async def test_valid_responses_complete_the_answer(
    model: str, caller: Client, upstream: Upstream
) -> None:
    content, reason, usage = COMPLETED[model]

    assert await check_answer(caller, upstream, model, content, reason) == usage


# Answers that fail


CODES = {
    "overloaded_error": "provider_unavailable",
    "api_error": "provider_unavailable",
    "timeout_error": "provider_timeout",
    "rate_limit_error": "provider_rate_limited",
    "invalid_request_error": "invalid_request",
    "authentication_error": "provider_refused",
    "permission_error": "provider_refused",
    "not_found_error": "provider_refused",
    "request_too_large": "context_too_long",
    "billing_error": "provider_refused",
    "nobody_knows_error": "provider_unavailable",
}
RETRIED_CODES = {"provider_unavailable", "provider_rate_limited"}

FAILED: dict[str, tuple[str, str, int]] = {
    **{f"{type}-midstream": (code, GREETING, 1) for type, code in CODES.items()},
    **{
        f"{type}-first": (code, "", 3 if code in RETRIED_CODES else 1)
        for type, code in CODES.items()
    },
    "request_too_large-first": ("context_too_long", "", 2),
    "error-too-long": ("context_too_long", "", 1),
    "nothing": ("empty_answer", "", 1),
    "eof-at-once": ("provider_protocol", "", 1),
    "eof-after-start": ("provider_protocol", "", 1),
    "eof-without-reason": ("provider_protocol", GREETING, 1),
    "eof-after-block": ("provider_protocol", GREETING, 1),
    "stop-at-once": ("provider_protocol", "", 1),
    "arguments-of-nothing": ("provider_protocol", GREETING, 1),
    "too-many-calls": ("provider_protocol", GREETING, 1),
    "too-many-blocks": ("provider_protocol", GREETING, 1),
    "huge-line": ("provider_protocol", GREETING, 1),
    "html-200": ("provider_protocol", "", 1),
    "html-502": ("provider_unavailable", "", 3),
    "json-200": ("invalid_request", "", 1),
    "json-200-proxy": ("provider_refused", "", 1),
    "reset-midstream": ("provider_unavailable", GREETING, 1),
    "400": ("invalid_request", "", 1),
    "400-too-long": ("context_too_long", "", 1),
    "400-no-room": ("context_too_long", "", 2),
    "401": ("provider_refused", "", 1),
    "402": ("provider_refused", "", 1),
    "403": ("provider_refused", "", 1),
    "404": ("provider_refused", "", 1),
    "409": ("provider_refused", "", 1),
    "413": ("context_too_long", "", 2),
    "413-unknown": ("context_too_long", "", 2),
    "429-always": ("provider_rate_limited", "", 3),
    "429-long": ("provider_rate_limited", "", 1),
    "500-always": ("provider_unavailable", "", 3),
    "504": ("provider_timeout", "", 1),
    "529-always": ("provider_unavailable", "", 3),
    "redirect": ("provider_refused", "", 1),
    "stall": ("provider_timeout", GREETING, 1),
    "silent": ("provider_timeout", "", 1),
    "slow-headers": ("provider_timeout", "", 1),
    "pings-endless": ("provider_timeout", "", 1),
    "gone/nobody": ("provider_unavailable", "", 0),
}
"""For each model: the error code, the text that is kept, and the number of requests."""

STALLING = ["stall", "silent", "slow-headers", "pings-endless", "gone/nobody"]
SLOW_TO_FAIL = [
    model for model, (_, _, requests) in FAILED.items() if requests == 3 or model in STALLING
]


@pytest.mark.parametrize(
    "model", [*(model for model in FAILED if model not in SLOW_TO_FAIL), *slow(*SLOW_TO_FAIL)]
)
async def test_a_failure_has_a_code_and_keeps_the_text_so_far(
    model: str, caller: Client, upstream: Upstream
) -> None:
    await check_failure(caller, upstream, model, FAILED[model])


@pytest.mark.quick
def test_every_script_is_covered() -> None:
    elsewhere = {"endless", "cut-off", "cut-off-prefill"}
    assert set(COMPLETED) | set(FAILED) - {"gone/nobody"} | elsewhere == set(MODELS)
    assert set(CODES) == set(ERRORS)


async def test_the_servers_error_message_is_passed_on(caller: Client) -> None:
    for model, words in (
        ("permission_error-midstream", "reported an error: not for you"),
        ("404", "returned 404: model: claude-0"),
        ("json-200", "no stream"),
    ):
        _, snapshot = await ask(caller, model)
        assert words in snapshot["error"]["message"]


async def test_the_api_key_is_in_no_error_and_no_log(
    new_system: Make, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    up = provider(upstream, api_key_file=str(tmp_path / "key"))
    system = await asyncio.to_thread(lambda: new_system(providers={"up": up}).start())
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        _, snapshot = await ask(client, "401")

    assert KEY not in str(snapshot)
    assert "invalid x-api-key: …" in snapshot["error"]["message"]
    for process in system.processes:
        assert KEY not in process.output()


async def test_stopping_an_answer_closes_the_connection_and_keeps_the_input_count(
    caller: Client, upstream: Upstream
) -> None:
    sent = await caller.send("hello", model="up/endless")
    await caller.read(sent["generation_id"], stop_after=4)

    snapshot = await caller.cancel(sent["generation_id"], wait_s=20)

    assert snapshot["status"] == "cancelled"
    assert snapshot["text"].startswith("on ")
    assert (snapshot["usage"]["input_tokens"], snapshot["usage"]["estimated"]) == (11, True)
    await no_open_answers(upstream)


# Requests


@pytest.mark.quick
async def test_the_request_has_the_options_of_the_message(
    caller: Client, upstream: Upstream
) -> None:
    await ask(
        caller, "plain", "höllo", system_prompt="Be brief.", temperature=0.5, max_output_tokens=77
    )

    request = upstream.requests[-1]
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    assert request.body == {
        "model": "plain",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [text("höllo")]}],
        "stream": True,
        "max_tokens": 77,
        "temperature": 0.5,
    }


@pytest.mark.quick
async def test_values_that_the_api_rejects_are_clamped_or_left_out(
    caller: Client, upstream: Upstream
) -> None:
    await ask(caller, "plain", "hello", system_prompt=" \n", temperature=1.5)

    body = upstream.requests[-1].body
    assert body["temperature"] == 1
    assert "system" not in body
    assert body["max_tokens"] == 16_384


@pytest.mark.quick
async def test_only_the_shown_branch_is_sent_and_consecutive_questions_are_merged(
    caller: Client, upstream: Upstream
) -> None:
    sent = await caller.send("first", model="up/thinking")
    await caller.read_through(sent["generation_id"])
    conversation = {"conversation_id": sent["conversation_id"]}
    for model in ("eof-without-reason", "401", "tool-use"):
        await ask(caller, model, model, **conversation)

    await ask(caller, "plain", "last", **conversation)

    assert upstream.requests[-1].body["messages"] == [
        {"role": "user", "content": [text("first")]},
        {"role": "assistant", "content": [text("Hello")]},
        {"role": "user", "content": [text("eof-without-reason"), text("401"), text("tool-use")]},
        {"role": "assistant", "content": [text("look")]},
        {"role": "user", "content": [text("last")]},
    ]


@pytest.mark.quick
async def test_a_model_with_prefill_continues_a_truncated_answer(
    caller: Client, upstream: Upstream
) -> None:
    whole = await continued(caller, "max-tokens", "plain")

    question, answer = upstream.requests[-1].body["messages"]
    assert (question["role"], answer) == ("user", {"role": "assistant", "content": [text("Hello")]})
    assert whole == "Hello" + GREETING


@pytest.mark.quick
async def test_any_other_model_gets_a_request_to_continue(
    caller: Client, upstream: Upstream
) -> None:
    whole = await continued(caller, "max-tokens", "crlf")

    _, answer, instruction = upstream.requests[-1].body["messages"]
    assert answer == {"role": "assistant", "content": [text("Hello")]}
    assert instruction == {"role": "user", "content": [text(GO_ON)]}
    assert whole == "Hello" + GREETING


# Continuing after a crash


@pytest.mark.slow
async def test_after_a_crash_an_answer_continues_with_prefill_and_restarts_without(
    new_system: Make, upstream: Upstream
) -> None:
    patient = {"first_token_timeout_s": 60, "idle_timeout_s": 60}
    up = provider(
        upstream, **patient, models=["cut-off", "cut-off-prefill"], prefill=["cut-off-prefill"]
    )
    system = await asyncio.to_thread(lambda: new_system(providers={"up": up}).start())
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        sent = {
            model: await client.send("the tide?", model=f"up/{model}")
            for model in ("cut-off", "cut-off-prefill")
        }
        seen: dict[str, list[Event]] = {model: [] for model in sent}
        async with asyncio.TaskGroup() as readers:
            for model, events in seen.items():
                readers.create_task(client.read_through(sent[model]["generation_id"], events))
            async with asyncio.timeout(20):
                while not all(text_of(events) == HALF for events in seen.values()):
                    await asyncio.sleep(0.01)
            system.worker.kill()
            system.start_worker()
        for model, events in seen.items():
            check_law(events, await client.snapshot(sent[model]["generation_id"]))

    assert text_of(seen["cut-off-prefill"]) == text_of(seen["cut-off"]) == TEXT
    assert {"resumed", "restarted"} & {event.type for event in seen["cut-off-prefill"]} == {
        "resumed"
    }
    assert {"resumed", "restarted"} & {event.type for event in seen["cut-off"]} == {"restarted"}
    again = upstream.sent_to("cut-off-prefill")[-1].body["messages"]
    assert again[-1] == {"role": "assistant", "content": [text(HALF.rstrip())]}
    assert (
        upstream.sent_to("cut-off")[-1].body["messages"]
        == upstream.sent_to("cut-off")[0].body["messages"]
    )
