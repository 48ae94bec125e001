"""OpenAI's format end to end: whatever a provider does, the answer ends and keeps its text."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.providers.continuing import GO_ON
from server.providers.openai import completions_url
from server.providers.sse_parser import EVENT_MAX_BYTES, EventParser, EventTooLong
from tests.client import Client
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
)
from tests.system import System
from tests.upstream import MODELS, SCRIPTS, STREAMS, Upstream, split

KEY = "sk-upstream-secret-0123456789"
GREETING = "Hello wörld 🌊"
ESTIMATED = "estimated"

Make = Callable[..., System]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


def provider(upstream: Upstream, **settings: Any) -> dict[str, Any]:
    timeouts = {"connect_timeout_s": 2, "first_token_timeout_s": 2.5, "idle_timeout_s": 1.5}
    return {"base_url": f"{upstream.url}/v1", "models": MODELS} | timeouts | settings


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, valkey: str
) -> Iterator[InProcess]:
    """An installation whose models are all scripted."""
    folder = tmp_path_factory.mktemp("providers")
    (folder / "key").write_text(f"{KEY}\n")
    key = {"api_key_file": str(folder / "key")}
    up = provider(upstream, **key)
    small = provider(upstream, **key, context_tokens=512, models=["plain"])
    gone = provider(upstream, base_url="http://127.0.0.1:9/v1", models=["nobody"])
    settings = {"providers": {"up": up, "small": small, "gone": gone}, "generation": GENERATION}
    with InProcess(folder, valkey, settings) as installation:
        yield installation


# Answers that end well


HELLO = [text(GREETING)]
THOUGHT = [{"type": "reasoning", "text": "hm so"}, text(GREETING)]
BILLED = {"input_tokens": 11, "output_tokens": 3}

COMPLETED: dict[str, tuple[list[dict[str, Any]], str, Any]] = {
    "plain": (HELLO, "stop", ESTIMATED),
    "role-only": (HELLO, "stop", ESTIMATED),
    "content-null": (HELLO, "stop", ESTIMATED),
    "usage-chunk": (HELLO, "stop", BILLED | {"cached_input_tokens": 4}),
    "usage-every-chunk": ([text("abc")], "stop", {"input_tokens": 11, "output_tokens": 2}),
    "usage-null": ([text("x")], "stop", ESTIMATED),
    "usage-floats": (HELLO, "stop", {"input_tokens": 11, "output_tokens": 0}),
    "few-messages": (HELLO, "stop", ESTIMATED),
    "finish-own-chunk": (HELLO, "length", ESTIMATED),
    "finish-with-text": ([text("all")], "stop", ESTIMATED),
    "content-filter": (HELLO, "content_filter", ESTIMATED),
    "finish-unknown": (HELLO, "other", ESTIMATED),
    "reasoning-content": (THOUGHT, "stop", ESTIMATED),
    "reasoning": (THOUGHT, "stop", ESTIMATED),
    "think-tags": (
        [{"type": "reasoning", "text": "hm so\n"}, text(GREETING)],
        "stop",
        ESTIMATED,
    ),
    "think-tags-later": ([text("Hello <think>x</think>")], "stop", ESTIMATED),
    "think-tags-unclosed": ([{"type": "reasoning", "text": "hm so"}], "stop", ESTIMATED),
    "tool-calls": (
        [text("look"), call("call_a", "tide", '{"port":"Dover"}'), call("call_b", "wind", "{}")],
        "tool_calls",
        ESTIMATED,
    ),
    "tool-calls-no-id": ([call("call_0", "tide", '{"a":1}')], "tool_calls", None),
    "tool-calls-id-again": ([call("call_a", "tide", '{"a":1}')], "tool_calls", None),
    "tool-calls-no-index": (
        [call("call_a", "tide", "{}"), call("call_b", "wind", "[]")],
        "tool_calls",
        None,
    ),
    "tool-calls-finish-stop": ([call("call_a", "tide", "{}")], "tool_calls", None),
    "refusal": ([text("I will not.")], "stop", ESTIMATED),
    "comments": (HELLO, "stop", ESTIMATED),
    "no-space": (HELLO, "stop", ESTIMATED),
    "crlf": (HELLO, "stop", ESTIMATED),
    "cr": (HELLO, "stop", ESTIMATED),
    "bom": (HELLO, "stop", ESTIMATED),
    "no-done": (HELLO, "stop", ESTIMATED),
    "no-done-no-blank": (HELLO, "stop", ESTIMATED),
    "done-no-finish": (HELLO, "other", ESTIMATED),
    "done-in-other-words": (HELLO, "stop", ESTIMATED),
    "junk-after-finish": (HELLO, "stop", ESTIMATED),
    "error-after-finish": (HELLO, "stop", ESTIMATED),
    "huge-line-after-finish": (HELLO, "stop", ESTIMATED),
    "finish-too-early": (HELLO, "stop", ESTIMATED),
    "not-json": (HELLO, "stop", ESTIMATED),
    "not-an-object": (HELLO, "stop", ESTIMATED),
    "wrong-types": (HELLO, "stop", ESTIMATED),
    "tool-calls-one-index": (
        [call("call_a", "tide", "{}"), call("call_b", "wind", '{"a":1}')],
        "tool_calls",
        None,
    ),
    "tool-calls-new-ids": ([call("call_a", "tide", '{"a":1}')], "tool_calls", None),
    "list-content": ([text("Hello list")], "stop", ESTIMATED),
    "nul": (
        [text("a\ufffdb"), call("call\ufffda", "t\ufffd", '"\ufffd"')],
        "tool_calls",
        ESTIMATED,
    ),
    "surrogates": ([text("tide 🌊 and \ufffd alone")], "stop", ESTIMATED),
    "byte-by-byte": (HELLO, "stop", ESTIMATED),
    "mid-character": ([text("🌊 tide 🌊")], "stop", ESTIMATED),
    "gzip": (HELLO, "stop", ESTIMATED),
    "stall-with-comments": (HELLO, "stop", ESTIMATED),
    "keeps-open-after-done": (HELLO, "stop", ESTIMATED),
    "keeps-open-after-finish": (HELLO, "stop", ESTIMATED),
    "keeps-open-between-finishes": (HELLO, "stop", ESTIMATED),
    "closing-tag-first": (HELLO, "stop", ESTIMATED),
    "whole-200": ([text("all at once")], "stop", BILLED),
    "429-then-ok": (HELLO, "stop", ESTIMATED),
    "429-date": (HELLO, "stop", ESTIMATED),
    "500-then-ok": (HELLO, "stop", ESTIMATED),
}
"""For each model: the expected content, finish reason and usage."""


@pytest.mark.quick
@pytest.mark.parametrize("model", COMPLETED)
async def test_valid_responses_complete_the_answer(
    model: str, caller: Client, upstream: Upstream
) -> None:
    content, reason, usage = COMPLETED[model]

    used = await check_answer(caller, upstream, model, content, reason)

    if usage == ESTIMATED:
        assert used["estimated"] is True
    elif usage is not None:
        assert used == usage


@pytest.mark.quick
async def test_a_pause_after_a_finish_reason_with_text_is_waited_for(
    caller: Client, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers send a finish reason with every piece."""
    monkeypatch.setattr("server.providers.upstream.AFTER_FINISH_S", 0.1)

    await check_answer(caller, upstream, "finish-with-every-piece", HELLO, "stop")


# Answers that fail


FAILED: dict[str, tuple[str, str, int]] = {
    "error-midstream": ("provider_unavailable", GREETING, 1),
    "error-between-finishes": ("provider_unavailable", GREETING, 1),
    "error-text": ("provider_unavailable", GREETING, 1),
    "error-200": ("provider_unavailable", "", 3),
    "error-200-rate": ("provider_rate_limited", "", 3),
    "error-200-context": ("context_too_long", "", 2),
    "json-200": ("provider_unavailable", "", 3),
    "html-200": ("provider_protocol", "", 1),
    "html-502": ("provider_unavailable", "", 3),
    "500-always": ("provider_unavailable", "", 3),
    "503-text": ("provider_unavailable", "", 3),
    "429-always": ("provider_rate_limited", "", 3),
    "429-quota": ("provider_rate_limited", "", 1),
    "401": ("provider_refused", "", 1),
    "404": ("provider_refused", "", 1),
    "400": ("provider_refused", "", 1),
    "redirect": ("provider_refused", "", 1),
    "context-too-long": ("context_too_long", "", 2),
    "context-too-long-words": ("context_too_long", "", 2),
    "eof-without-finish": ("provider_protocol", GREETING, 1),
    "empty": ("empty_answer", "", 1),
    "blank": ("empty_answer", "\n \n", 1),
    "error-200-detail": ("provider_refused", "", 1),
    "eof-at-once": ("provider_protocol", "", 1),
    "cut-after-junk": ("provider_protocol", GREETING, 1),
    "much-junk": ("provider_protocol", GREETING, 1),
    "422-validator": ("provider_refused", "", 1),
    "400-nested": ("provider_refused", "", 1),
    "huge-line": ("provider_protocol", GREETING, 1),
    "reset-midstream": ("provider_unavailable", GREETING, 1),
    "stall": ("provider_timeout", GREETING, 1),
    "silent": ("provider_timeout", "", 1),
    "slow-headers": ("provider_timeout", "", 1),
    "empty-endless": ("provider_timeout", "", 1),
}
"""For each model: the error code, the text that is kept, and the number of requests."""


@pytest.mark.parametrize("model", FAILED)
async def test_a_failure_has_a_code_and_keeps_the_text_so_far(
    model: str, caller: Client, upstream: Upstream
) -> None:
    await check_failure(caller, upstream, model, FAILED[model])


@pytest.mark.quick
def test_every_script_is_covered() -> None:
    assert set(COMPLETED) | set(FAILED) | {
        "endless",
        "thought-cut",
        "finish-with-every-piece",
        "huge-events",
        "alternating",
    } == set(STREAMS) | set(SCRIPTS)


async def test_the_error_message_of_the_server_is_passed_on(caller: Client) -> None:
    for model, words in (
        ("error-midstream", "the model fell over"),
        ("json-200", "no room"),
        ("404", "The model does not exist."),
        ("422-validator", "body.top_q: Extra inputs are not permitted"),
        ("400-nested", "nested words"),
        ("eof-at-once", "the prompt may exceed its context"),
    ):
        _, snapshot = await ask(caller, model)
        assert words in snapshot["error"]["message"]


async def test_retry_after_is_honoured(caller: Client, upstream: Upstream) -> None:
    upstream.request_counts["429-then-ok"] = 0
    began = time.monotonic()

    _, snapshot = await ask(caller, "429-then-ok")

    assert snapshot["status"] == "completed"
    assert time.monotonic() - began >= 1


@pytest.mark.quick
async def test_an_unreachable_server_is_unavailable(caller: Client) -> None:
    _, snapshot = await ask(caller, "gone/nobody")

    assert (snapshot["error"]["code"], snapshot["error"]["retryable"]) == (
        "provider_unavailable",
        True,
    )


async def test_an_endless_answer_fails_at_its_deadline_and_the_connection_is_closed(
    caller: Client, upstream: Upstream
) -> None:
    _, snapshot = await ask(caller, "endless")

    assert (snapshot["status"], snapshot["error"]["code"]) == ("failed", "deadline_exceeded")
    assert snapshot["text"].startswith("on on ")
    assert snapshot["usage"]["estimated"] is True
    await no_open_answers(upstream)


async def test_an_answer_beyond_the_byte_limit_is_truncated(
    caller: Client, upstream: Upstream
) -> None:
    _, snapshot = await ask(caller, "huge-events")

    assert (snapshot["status"], snapshot["finish_reason"]) == ("completed", "length")
    assert 200_000 < len(snapshot["text"]) < 300_000
    await no_open_answers(upstream)


@pytest.mark.quick
async def test_an_answer_of_too_many_parts_ends_at_the_limit(
    caller: Client, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.generate.owned_log.PARTS_MAX", 30)

    _, snapshot = await ask(caller, "alternating")

    assert (snapshot["status"], snapshot["finish_reason"]) == ("completed", "length")
    assert len(snapshot["content"]) == 30
    await no_open_answers(upstream)


@pytest.mark.parametrize("model", ["endless", "stall", "silent", "slow-headers"])
async def test_stopping_closes_the_connection(
    model: str, caller: Client, upstream: Upstream
) -> None:
    before = upstream.request_counts[model]
    sent = await caller.send("hello", model=f"up/{model}")
    async with asyncio.timeout(10):
        while upstream.request_counts[model] == before:
            await asyncio.sleep(0.01)
    assert upstream.open_answers

    assert (await caller.cancel(sent["generation_id"], wait_s=20))["status"] == "cancelled"

    await no_open_answers(upstream)


# Requests


def turns(upstream: Upstream) -> list[tuple[str, str]]:
    return [
        (message["role"], message["content"]) for message in upstream.requests[-1].body["messages"]
    ]


@pytest.mark.quick
async def test_the_request_has_the_options_of_the_message(
    caller: Client, upstream: Upstream
) -> None:
    await ask(
        caller, "plain", "höllo", system_prompt="Be brief.", temperature=0.5, max_output_tokens=77
    )

    request = upstream.requests[-1]
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.body == {
        "model": "plain",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "höllo"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 77,
        "temperature": 0.5,
    }


@pytest.mark.quick
async def test_the_shown_branch_is_sent_with_partial_and_without_failed_answers(
    caller: Client, upstream: Upstream
) -> None:
    first = await caller.send("first", model="up/plain", system_prompt="S")
    await caller.read_through(first["generation_id"])
    conversation = {"conversation_id": first["conversation_id"]}
    edited = (
        await caller.http.post(
            f"/api/messages/{first['question_id']}/edit", json={"text": "edited"}
        )
    ).json()
    await caller.read_through(edited["generation_id"])
    stopped = await caller.send("stopped", model="up/stall", **conversation)
    await caller.read(stopped["generation_id"], stop_after=4)
    partial = (await caller.cancel(stopped["generation_id"], wait_s=20))["text"]
    for model in ("eof-without-finish", "401", "tool-calls", "tool-calls-no-id"):
        await ask(caller, model, model, **conversation)

    await ask(caller, "plain", "last", **conversation)

    assert partial
    assert turns(upstream) == [
        ("system", "S"),
        ("user", "edited"),
        ("assistant", GREETING),
        ("user", "stopped"),
        ("assistant", partial),
        ("user", "eof-without-finish\n\n401\n\ntool-calls"),
        ("assistant", "look"),
        ("user", "tool-calls-no-id\n\nlast"),
    ]
    assert all(
        set(message) == {"role", "content"} for message in upstream.requests[-1].body["messages"]
    )


@pytest.mark.quick
async def test_reasoning_is_not_sent_back(caller: Client, upstream: Upstream) -> None:
    sent = await caller.send("think", model="up/reasoning")
    await caller.read_through(sent["generation_id"])

    await ask(caller, "plain", "and now", conversation_id=sent["conversation_id"])

    assert turns(upstream) == [("user", "think"), ("assistant", GREETING), ("user", "and now")]


@pytest.mark.quick
async def test_a_truncated_answer_is_continued_from_its_text(
    caller: Client, upstream: Upstream
) -> None:
    whole = await continued(caller, "finish-own-chunk", "plain")

    assert turns(upstream) == [("user", "go on"), ("assistant", GREETING), ("user", GO_ON)]
    assert whole == GREETING * 2


@pytest.mark.quick
async def test_the_oldest_turns_are_left_out_and_counted_in_the_snapshot(
    caller: Client, upstream: Upstream
) -> None:
    long = "word " * 80
    sent = await caller.send(f"0 {long}", model="small/plain", max_output_tokens=50)
    await caller.read_through(sent["generation_id"])
    options: dict[str, Any] = {"conversation_id": sent["conversation_id"], "max_output_tokens": 50}
    for n in range(1, 6):
        _, snapshot = await ask(caller, "small/plain", f"{n} {long}", **options)

    roles = [role for role, _ in turns(upstream)]
    assert roles[0] == "user"
    assert roles[-1] == "user"
    assert turns(upstream)[-1][1].startswith("5 ")
    assert snapshot["context"] == {"messages_left_out": 11 - len(roles)}
    assert 0 < snapshot["context"]["messages_left_out"] < 11


@pytest.mark.quick
async def test_what_the_server_finds_too_long_is_left_out_and_counted(
    caller: Client, upstream: Upstream
) -> None:
    sent = await caller.send("0", model="up/plain")
    await caller.read_through(sent["generation_id"])
    options = {"conversation_id": sent["conversation_id"]}
    for n in range(1, 4):
        await ask(caller, "plain", str(n), **options)

    _, snapshot = await ask(caller, "few-messages", "4", **options)

    assert turns(upstream) == [("user", "3"), ("assistant", GREETING), ("user", "4")]
    assert snapshot["status"] == "completed"
    assert snapshot["context"] == {"messages_left_out": 6}


@pytest.mark.slow
async def test_the_key_is_in_no_log(new_system: Make, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    up = provider(upstream, api_key_file=str(tmp_path / "key"))
    system = await asyncio.to_thread(lambda: new_system(providers={"up": up}).start())
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        for model in ("401", "500-always", "reset-midstream"):
            _, snapshot = await ask(client, model)
            assert KEY not in str(snapshot)

    for process in system.processes:
        assert KEY not in process.output()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("https://h/openai/v1", "https://h/openai/v1/chat/completions"),
        ("https://h/api/", "https://h/api/chat/completions"),
        ("https://h/api?version=2", "https://h/api/chat/completions?version=2"),
    ],
)
def test_base_urls_are_accepted_with_and_without_a_version(base: str, url: str) -> None:
    assert completions_url(base) == url


async def test_models_are_reachable_with_every_spelling_of_the_base_url(
    tmp_path: Path, valkey: str, upstream: Upstream
) -> None:
    paths = {"bare": "", "slash": "/", "whole": "/v1", "both": "/v1/", "other": "/openai/v1"}
    providers = {
        name: provider(upstream, base_url=f"{upstream.url}{path}", models=["plain"])
        for name, path in paths.items()
    }
    with InProcess(tmp_path, valkey, {"providers": providers}) as installation:
        client = Client(installation.url, installation.new_key())
        for name in paths:
            _, snapshot = await ask(client, f"{name}/plain")
            assert snapshot["text"] == GREETING
            path = "/openai/v1/chat/completions" if name == "other" else "/v1/chat/completions"
            assert (
                upstream.requests[-1].path,
                upstream.requests[-1].headers.get("authorization"),
            ) == (path, None)
        await client.http.aclose()


# Parsing the event stream


def parsed(pieces: list[bytes]) -> list[bytes]:
    parser = EventParser()
    return [data for piece in pieces for data in parser.feed(piece)] + parser.end()


LINES = st.sampled_from(
    [
        "data: ä🌊",
        "data:x",
        "data:",
        "data",
        "data:  two",
        ": comment",
        "event: ping",
        "id: 1",
        "",
        "",
        "\ufeffdata: b",
        "datax: n",
    ]
)


@pytest.mark.quick
@settings(deadline=None)
@given(
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=30),
    st.lists(st.integers(min_value=0), max_size=20),
)
def test_any_split_of_the_bytes_gives_the_same_events(
    lines: list[tuple[str, str]], cuts: list[int]
) -> None:
    data = "".join(line + end for line, end in lines).encode()

    whole = parsed([data])

    assert parsed(split(data, cuts)) == whole
    assert parsed([bytes([byte]) for byte in data]) == whole


@pytest.mark.quick
@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_every_event_is_parsed_exactly(texts: list[str], end: str) -> None:
    data = "".join(f"data: {text}{end}{end}" for text in texts).encode()

    assert parsed([data]) == [text.encode() for text in texts]


@pytest.mark.quick
@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=10))
def test_no_bytes_break_the_parser(data: bytes, cuts: list[int]) -> None:
    assert parsed(split(data, cuts)) == parsed([data])


@pytest.mark.quick
@pytest.mark.parametrize(
    "line",
    [
        b"x" * 65_536,
        b"data: " + b"x" * 65_530,
        b"data:" + b"x" * 1000 + b"\n",
        b": " + b"x" * 65_536,
    ],
)
def test_an_unterminated_line_or_event_is_refused_at_its_size_limit(line: bytes) -> None:
    parser = EventParser()

    def feed_too_much() -> None:
        for _ in range(EVENT_MAX_BYTES // 1000 + 2):
            parser.feed(line)

    with pytest.raises(EventTooLong):
        feed_too_much()
