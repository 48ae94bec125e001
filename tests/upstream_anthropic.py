"""The scripted upstream's responses in Anthropic's Messages format, one quirk per model name."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from tests.upstream import (
    Answer,
    Format,
    Upstream,
    byte_by_byte,
    endless,
    first,
    gzipped,
    head,
    html_200,
    html_502,
    json_200,
    reset_midstream,
    silence,
    slow_headers,
    slowly,
    then_silence,
)

TEXT = "The tide comes in,\n\n  and the tide\tgoes out.  \n\nTwice a day 🌊, \n and so on."
HALF = TEXT[: TEXT.index("Twice")]
"""It ends with white space, which the API does not accept at the end of a prefix."""


def event(type: str, **fields: Any) -> str:
    return f"event: {type}\ndata: {json.dumps({'type': type} | fields)}\n\n"


def start(**usage: Any) -> str:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "usage": usage,
    }
    return event("message_start", message=message)


def begin(index: int, type: str, **fields: Any) -> str:
    return event("content_block_start", index=index, content_block={"type": type} | fields)


def add(index: int, type: str, **fields: Any) -> str:
    return event("content_block_delta", index=index, delta={"type": type} | fields)


def end(index: int) -> str:
    return event("content_block_stop", index=index)


def text_deltas(*words: str, index: int = 0) -> list[str]:
    return [add(index, "text_delta", text=word) for word in words]


def text(index: int, *words: str) -> list[str]:
    return [begin(index, "text", text=""), *text_deltas(*words, index=index), end(index)]


def thought(index: int, *words: str) -> list[str]:
    thoughts = [add(index, "thinking_delta", thinking=word) for word in words]
    signed = add(index, "signature_delta", signature="EqQBCgIYAhIM")
    return [begin(index, "thinking", thinking="", signature=""), *thoughts, signed, end(index)]


def call(index: int, id: str, name: str, *pieces: str, **fields: Any) -> list[str]:
    deltas = [add(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return [
        begin(index, "tool_use", id=id, name=name, **({"input": {}} | fields)),
        *deltas,
        end(index),
    ]


def stop(reason: str | None = "end_turn", **usage: Any) -> list[str]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        event("message_delta", delta=delta, usage={"output_tokens": 3} | usage),
        event("message_stop"),
    ]


def error(type: str, message: str) -> str:
    return event("error", error={"type": type, "message": message})


START = start(input_tokens=11, output_tokens=1)
PING = event("ping")
HELLO = [START, begin(0, "text", text=""), PING, *text_deltas("Hel", "lo ", "wörld 🌊")]
ENDED = [end(0), *stop()]
PLAIN = [*HELLO, *ENDED]
CACHED = {"input_tokens": 11, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 2000}
LATER = begin(0, "server_tool_use", id="srvtoolu_1", name="web_search", input={})

ERRORS = {
    "overloaded_error": "Overloaded",
    "api_error": "Internal server error",
    "timeout_error": "Request timed out",
    "rate_limit_error": "slow \0 down",
    "invalid_request_error": "messages: something is wrong",
    "authentication_error": "invalid x-api-key",
    "permission_error": "not for you",
    "not_found_error": "model: claude-0",
    "request_too_large": "Request exceeds the maximum size",
    "billing_error": "no credit",
    "nobody_knows_error": "hm",
}
TOO_LONG = "prompt is too long: 208310 tokens > 200000 maximum"
NO_ROOM = (
    "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease "
    "input length or `max_tokens` and try again"
)

STREAMS: dict[str, Iterable[str]] = {
    "plain": PLAIN,
    "thinking": [START, *thought(0, "hm ", "so"), *text(1, "Hello"), *stop()],
    "thinking-hidden": [
        START,
        *thought(0),
        *text(1, "Hello"),
        *stop(output_tokens_details={"thinking_tokens": 2}),
    ],
    "thinking-redacted": [
        START,
        begin(0, "redacted_thinking", data="EmwKAhgB"),
        end(0),
        *thought(1, "so"),
        *text(2, "Hello"),
        *stop(),
    ],
    "tool-use": [
        START,
        *text(0, "look"),
        *call(1, "toolu_a", "tide", "", '{"port":', '"Dover"}'),
        *call(2, "toolu_b", "wind"),
        *stop("tool_use"),
    ],
    "tool-use-at-once": [
        START,
        *call(0, "", "tide", input={"port": "Dover", "näh": 1}),
        *stop("tool_use"),
    ],
    "tool-use-then-text": [
        START,
        *call(0, "toolu_a", "tide", "{}"),
        *text(1, "so"),
        *stop("tool_use"),
    ],
    "tool-use-cut-short": [
        START,
        *call(0, "toolu_a", "tide", '{"port":')[:-1],
        *stop("max_tokens"),
    ],
    "interleaved": [
        START,
        begin(0, "thinking", thinking=""),
        begin(1, "tool_use", id="toolu_a", name="tide", input={}),
        begin(2, "text", text=""),
        add(1, "input_json_delta", partial_json='{"a"'),
        add(0, "thinking_delta", thinking="hm so"),
        *text_deltas("Hel", index=2),
        begin(3, "tool_use", id="toolu_b", name="wind", input={}),
        add(3, "input_json_delta", partial_json="{"),
        add(1, "input_json_delta", partial_json=":1}"),
        *text_deltas("lo", index=2),
        end(0),
        end(2),
        add(3, "input_json_delta", partial_json="}"),
        end(3),
        end(1),
        *stop("tool_use"),
    ],
    "cached": [start(**CACHED, output_tokens=1), *text(0, "Hello"), *stop(output_tokens=503)],
    "cached-later": [start(output_tokens=0), *text(0, "Hello"), *stop(**CACHED, output_tokens=503)],
    "usage-odd": [
        start(input_tokens=11.0, output_tokens=None),
        *text(0, "Hello"),
        *stop(input_tokens=None, output_tokens=3.0),
    ],
    "usage-missing": [
        event("message_start", message={}),
        *text(0, "Hello"),
        event("message_delta", delta={"stop_reason": "end_turn"}),
    ],
    "stop-sequence": [START, *text(0, "Hello"), *stop("stop_sequence")],
    "max-tokens": [START, *text(0, "Hello"), *stop("max_tokens")],
    "window-exceeded": [START, *text(0, "Hello"), *stop("model_context_window_exceeded")],
    "refusal": [START, *text(0, "I will"), *stop("refusal")],
    "pause-turn": [START, *text(0, "Hello"), *stop("pause_turn")],
    "reason-unknown": [START, *text(0, "Hello"), *stop("tired")],
    "nothing": [START, *stop()],
    "no-reason": [START, *text(0, "Hello"), event("message_stop")],
    "no-message-stop": PLAIN[:-1],
    "no-message-stop-no-blank": [*PLAIN[:-2], PLAIN[-2].rstrip("\n")],
    "pings": [text for pair in PLAIN for text in (PING, pair, ": comment\n\n", "data:\n\n")],
    "data-only": [text.split("\n", 1)[1] for text in PLAIN],
    "crlf": [text.replace("\n", "\r\n") for text in PLAIN],
    "text-in-start": [START, begin(0, "text", text="Hel"), *text_deltas("lo"), *ENDED],
    "no-start": [*text_deltas("Hello"), *stop()],
    "two-texts": [START, *text(0, "Hel"), *text(1, "", "lo"), *stop()],
    "unknown-event": [
        START,
        event("weather", wind={"force": 9}),
        *PLAIN[1:],
        event("epilogue", text="x"),
    ],
    "unknown-block": [
        START,
        LATER,
        add(0, "input_json_delta", partial_json='{"q":1}'),
        *text_deltas("not this"),
        end(0),
        begin(1, "web_search_tool_result", tool_use_id="srvtoolu_1", content=[]),
        end(1),
        *text(2, "Hello"),
        *stop(),
    ],
    "unknown-delta": [
        START,
        begin(0, "text", text=""),
        add(0, "citations_delta", citation={"url": "x"}),
        *text_deltas("Hello"),
        *ENDED,
    ],
    "nul": [START, *text(0, "a\0b"), *call(1, "toolu\0a", "t\0", '"\0"'), *stop("tool_use")],
    "surrogates": [START, *text(0, "tide \ud83c", "\udf0a and \udc00 alone"), *stop()],
    "eof-at-once": [],
    "eof-after-start": [START],
    "eof-without-reason": HELLO,
    "eof-after-block": [*HELLO, end(0)],
    "stop-at-once": [START, event("message_stop")],
    "not-json": [*HELLO, "data: {oh no\n\n", *ENDED],
    "not-an-object": [*HELLO, "data: 17\n\n", *ENDED],
    "wrong-types": [*HELLO, add(0, "text_delta", text=17), *ENDED],
    # The type is wrong on purpose.
    "wrong-index": [*HELLO, add("a", "text_delta", text="x"), *ENDED],  # type: ignore[arg-type]
    "arguments-of-nothing": [*HELLO, add(1, "input_json_delta", partial_json="{}"), *ENDED],
    "too-many-calls": [
        *HELLO,
        *(event for n in range(200) for event in call(n + 1, f"toolu_{n}", "tide")),
        *stop("tool_use"),
    ],
    "too-many-blocks": [*HELLO, *(begin(n + 1, "mystery") for n in range(200)), *ENDED],
    "huge-line": [*HELLO, "data: " + "x" * 10_000_000],
    **{f"{type}-midstream": [*HELLO, error(type, message)] for type, message in ERRORS.items()},
    **{f"{type}-first": [START, PING, error(type, message)] for type, message in ERRORS.items()},
    "error-too-long": [error("invalid_request_error", TOO_LONG)],
}
"""The responses of models that answer 200 with a plain sequence of events."""


def refusal(status: str, type: str, message: str, *headers: str) -> Answer:
    async def answer(_upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        await head(writer, status, "request-id: req_1", *headers, type="application/json")
        writer.write(
            json.dumps(
                {
                    "type": "error",
                    "error": {"type": type, "message": message},
                    "request_id": "req_1",
                }
            ).encode()
        )

    return answer


async def unauthorized(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
    """Echo the API key of the request in the error."""
    sent = upstream.requests[-1].headers.get("x-api-key")
    await refusal("401 Unauthorized", "authentication_error", f"invalid x-api-key: {sent}")(
        upstream, writer
    )


async def cut_off(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
    """Send the first half of the text and stall; on the next request send the rest.

    The rest starts after the prefix in the request, or at the beginning without one.
    """
    last = upstream.requests[-1].body["messages"][-1]
    so_far = last["content"][-1]["text"] if last["role"] == "assistant" else ""
    assert TEXT.startswith(so_far)
    await head(writer)
    if upstream.request_counts[upstream.model] == 1:
        writer.write(
            "".join([START, begin(0, "text", text=""), *text_deltas(HALF[:20], HALF[20:])]).encode()
        )
        await writer.drain()
        await silence()
    rest = TEXT[len(so_far) :]
    writer.write("".join([START, *text(0, *rest), *stop()]).encode())


OVERLOADED = refusal("529 Site is overloaded", "overloaded_error", "Overloaded")
AT_ONCE = {
    "type": "message",
    "content": [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "all at once"},
        {"type": "tool_use", "id": "a", "name": "b"},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 11, "output_tokens": 3},
}

SCRIPTS: dict[str, Answer] = {
    "byte-by-byte": byte_by_byte(*PLAIN),
    "gzip": gzipped(*PLAIN),
    "html-200": html_200,
    "html-502": html_502,
    "json-200": json_200(
        {"type": "error", "error": {"type": "invalid_request_error", "message": "no stream today"}}
    ),
    "json-200-proxy": json_200(
        {"error": {"message": "who are you?", "type": "authentication_error"}}
    ),
    "whole-200": json_200(AT_ONCE),
    "stall": then_silence(*HELLO),
    "stall-with-pings": slowly(*HELLO, *[PING] * 12, *ENDED),
    "hidden-thoughts-with-pings": slowly(
        START, begin(0, "thinking", thinking=""), *[PING] * 14, end(0), *text(1, "Hello"), *stop()
    ),
    "silent": then_silence(),
    "slow-headers": slow_headers,
    "slow-first-token": slowly(*[START, *[PING] * 5, *PLAIN[1:]]),
    "endless": endless(text_deltas("on ")[0], START),
    "pings-endless": endless(PING, START, begin(0, "text", text="")),
    "keeps-open-after-stop": then_silence(*PLAIN),
    "keeps-open-after-reason": then_silence(*PLAIN[:-1]),
    "reset-midstream": reset_midstream(*HELLO),
    "reset-after-reason": reset_midstream(*PLAIN[:-1]),
    "400": refusal("400 Bad Request", "invalid_request_error", "messages: bad \0 request"),
    "400-too-long": refusal("400 Bad Request", "invalid_request_error", TOO_LONG),
    "400-no-room": refusal("400 Bad Request", "invalid_request_error", NO_ROOM),
    "401": unauthorized,
    "402": refusal("402 Payment Required", "billing_error", "no credit"),
    "403": refusal("403 Forbidden", "permission_error", "not for you"),
    "404": refusal("404 Not Found", "not_found_error", "model: claude-0"),
    "409": refusal("409 Conflict", "conflict_error", "not like this"),
    "413": refusal(
        "413 Content Too Large", "request_too_large", "Request exceeds the maximum size"
    ),
    "413-unknown": refusal("413 Content Too Large", "proxy_error", "no"),
    "429-always": refusal(
        "429 Too Many Requests", "rate_limit_error", "slow down", "Retry-After: 0"
    ),
    "429-long": refusal(
        "429 Too Many Requests", "rate_limit_error", "slow down", "Retry-After: 3600"
    ),
    "429-then-ok": first(
        refusal("429 Too Many Requests", "rate_limit_error", "slow down", "Retry-After: 1"), *PLAIN
    ),
    "500-always": refusal("500 Internal Server Error", "api_error", "Internal server error"),
    "504": refusal("504 Gateway Timeout", "timeout_error", "Request timed out"),
    "529-always": OVERLOADED,
    "529-then-ok": first(OVERLOADED, *PLAIN),
    "redirect": refusal(
        "307 Temporary Redirect", "elsewhere", "over there", "Location: /v1/messages"
    ),
    "cut-off": cut_off,
    "cut-off-prefill": cut_off,
}

ANTHROPIC = Format("/messages", STREAMS, SCRIPTS)
