"""Anthropic's format without a server: parsing its events and building its requests."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import SettingsError
from server.providers.anthropic import Anthropic, messages_of, url_of
from server.providers.anthropic_events import AnswerParser, error_of
from server.providers.base import (
    Delta,
    Finish,
    ModelRequest,
    ProviderError,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Turn,
    Usage,
)
from server.providers.continuing import drop_repeated
from server.providers.lenient import ProtocolViolation
from server.providers.sse_parser import EventParser, EventTooLong
from server.settings import ProviderSettings, load_settings
from tests.scripted_models import call, text, thought
from tests.upstream import split
from tests.upstream_anthropic import STREAMS

pytestmark = pytest.mark.quick

CUTS = st.lists(st.integers(min_value=0), max_size=20)


def result(call_id: str, content: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"type": "tool_result", "call_id": call_id, "content": content, "is_error": is_error}


# Parsing events


Outcome = tuple[list[Delta], str]


def read(pieces: Iterable[bytes]) -> Outcome:
    """The deltas of a stream that arrives in these pieces, and how it ends."""
    parser, answer, deltas = EventParser(), AnswerParser(), list[Delta]()
    try:
        for chunk in itertools.chain(pieces, [None]):
            for data in parser.end() if chunk is None else parser.feed(chunk):
                if data:
                    deltas.extend(answer.feed(data))
                if answer.done:
                    break
            if answer.done:
                break
        deltas.extend(answer.end())
    except (ProviderError, ProtocolViolation, EventTooLong) as error:
        return deltas, f"{type(error).__name__}: {error}"
    return deltas, "ended"


SHORT = [
    model for model in STREAMS if model not in ("huge-line", "too-many-calls", "too-many-blocks")
]


@settings(deadline=None)
@given(st.sampled_from(SHORT), CUTS)
def test_any_split_of_the_bytes_gives_the_same_deltas(model: str, cuts: list[int]) -> None:
    data = "".join(STREAMS[model]).encode()

    assert read(split(data, cuts)) == read([data])


@pytest.mark.parametrize("model", SHORT)
def test_single_bytes_give_the_same_deltas(model: str) -> None:
    data = "".join(STREAMS[model]).encode()

    assert read(data[n : n + 1] for n in range(len(data))) == read([data])


@pytest.mark.parametrize("model", ["plain", "interleaved", "thinking"])
def test_a_stream_cut_before_its_stop_reason_is_a_failure(
    model: str,
) -> None:
    data = "".join(STREAMS[model]).encode()
    whole, _ = read([data])

    for position in range(len(data)):
        deltas, end = read([data[:position]])
        if end == "ended":
            assert deltas == whole
            assert b"stop_reason" in data[:position]
        else:
            assert deltas == whole[: len(deltas)]
            assert not any(isinstance(delta, Finish) for delta in deltas)


ODD = [
    None,
    True,
    17,
    -1,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "tool_use",
    "half \ud83c",
    "\udf0a",
    "\0",
    [],
    [1],
    [[]],
    {},
    {"a": "\ud83c"},
]
NESTED = [
    {"usage": {"input_tokens": odd, "output_tokens": odd}, "stop_reason": odd, "message": odd}
    for odd in ODD
]
JUNK = st.sampled_from([*ODD, *NESTED])
TYPES = [
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_start",
    "message_delta",
    "message",
    "error",
    "x",
]
KINDS = [
    "text",
    "thinking",
    "tool_use",
    "text_delta",
    "thinking_delta",
    "input_json_delta",
    "signature_delta",
    "x",
]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(KINDS), JUNK, JUNK), max_size=6))
def test_no_event_breaks_the_parser(events: list[tuple[str, str, Any, Any]]) -> None:
    """Any event is parsed, ignored, or raised as a provider error."""
    answer = AnswerParser()
    try:
        for kind, inner, one, two in events:
            block = {
                "type": inner,
                "text": one,
                "thinking": two,
                "partial_json": one,
                "id": two,
                "name": one,
                "input": two,
            }
            event = {
                "type": kind,
                "index": two,
                "delta": block,
                "content_block": block,
                "message": one,
                "usage": two,
                "content": [block],
            }
            for delta in answer.feed(dumps(event)):
                assert isinstance(delta, TextDelta | ReasoningDelta | ToolCall | Usage)
                assert all(
                    field.encode() is not None for field in delta if isinstance(field, str)
                ), "must be valid UTF-8"
    except (ProviderError, ProtocolViolation):
        pass


def dumps(value: Any) -> bytes:
    """JSON as Python writes it: lone surrogates are escaped, and NaN is allowed."""
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("type", "status", "words", "code", "retry_after_s"),
    [
        ("rate_limit_error", 429, "slow down", "provider_rate_limited", 7),
        ("rate_limit_error", None, "slow down", "provider_rate_limited", 7),
        ("overloaded_error", 529, "Overloaded", "provider_unavailable", 7),
        ("timeout_error", 504, "", "provider_timeout", 7),
        ("", 408, "", "provider_timeout", 7),
        ("", 504, "", "provider_timeout", 7),
        ("", 429, "", "provider_rate_limited", 7),
        ("", 503, "", "provider_unavailable", 7),
        ("", None, "", "provider_unavailable", 7),
        ("", 400, "", "invalid_request", None),
        ("", 400, "prompt is too long: 2 tokens > 1 maximum", "context_too_long", None),
        ("", 401, "prompt is too long for your key", "provider_refused", None),
        ("invalid_request_error", 404, "", "invalid_request", None),
        ("", 302, "", "provider_refused", None),
    ],
)
def test_an_error_has_a_code_and_states_whether_and_when_to_retry(
    type: str, status: int | None, words: str, code: str, retry_after_s: float | None
) -> None:
    error = error_of({"type": type, "message": words}, status, "7")

    assert (error.code, error.retryable, error.retry_after_s) == (
        code,
        retry_after_s is not None,
        retry_after_s,
    )
    assert words in error.message


@pytest.mark.parametrize("error", [None, "boom", 17, [], {}, {"type": 17, "message": {"a": 1}}])
def test_an_error_without_a_type_is_still_an_error(error: object) -> None:
    assert error_of(error).code == "provider_unavailable"


# Continuing


@pytest.mark.parametrize(
    ("model", "prefix", "continues"),
    [
        ("old", [text("so far")], True),
        ("old", [text("so "), text("far\n")], True),
        ("new", [text("so far")], False),
        ("old", [], False),
        ("old", [text(" \n")], False),
        ("old", [thought("hm"), text("so far")], False),
        ("old", [text("so far"), call("a", "b", "{}")], False),
    ],
)
async def test_models_with_prefill_continue_a_prefix_of_text_only(
    model: str, prefix: list[dict[str, Any]], continues: bool
) -> None:
    anthropic = Anthropic(
        ProviderSettings(kind="anthropic", models=["old", "new"], prefill=["old"]), None
    )

    assert anthropic.continues(request(model, prefix)) is continues

    await anthropic.close()


def request(model: str, prefix: list[dict[str, Any]]) -> ModelRequest:
    return ModelRequest(model, [Turn("user", [text("Q")])], None, 100, None, 0, prefix)


SPACE = st.text(st.sampled_from(" \n\t"), max_size=6)


def continuation(prefix: str, pieces: Iterable[str]) -> str:
    """The text that an answer adds when it continues after `prefix`."""
    new = ""
    for piece in pieces:
        more, prefix = drop_repeated(piece, prefix)
        new += more
    return new


@given(SPACE, st.text(st.sampled_from("ab \n\t"), max_size=12), CUTS)
def test_white_space_is_not_repeated_however_the_text_is_split(
    prefix: str, more: str, cuts: list[int]
) -> None:
    whole = continuation(prefix, [more])

    assert continuation(prefix, split(more, cuts)) == whole
    assert continuation(prefix, split(prefix + "a" + more, cuts)) == "a" + more
    assert more.endswith(whole)
    assert prefix.startswith(more.removesuffix(whole))


@pytest.mark.parametrize(
    ("prefix", "more", "new"),
    [
        ("", " x", " x"),
        (" ", " x", "x"),
        (" ", "x", "x"),
        ("\n\n", "\nx", "x"),
        ("\n", "\n\nx", "\nx"),
        (" ", "\n- x", "\n- x"),
        ("\n  ", "\n    x", "  x"),
        (" ", "", ""),
    ],
)
def test_only_repeated_white_space_is_left_out(prefix: str, more: str, new: str) -> None:
    assert continuation(prefix, [more]) == new


# Building requests


def test_tool_calls_and_results_become_blocks_of_their_messages() -> None:
    answer = [
        text("I look."),
        call("a", "tide", '{"port": "Dover"}'),
        call("b", "wind", "[1]"),
        call("c", "sea", "{"),
        result("a", "low"),
    ]
    answer += [result("b", "no", is_error=True), result("c", "")]
    turns = [
        Turn("assistant", [text("dropped")]),
        Turn("user", [text("Q")]),
        Turn("assistant", [*answer, text("So.")]),
        Turn("user", [text("R")]),
    ]

    def tool_use(id: str, name: str, **input: Any) -> dict[str, Any]:
        return {"type": "tool_use", "id": id, "name": name, "input": input}

    def tool_result(id: str, content: str, **more: Any) -> dict[str, Any]:
        return {"type": "tool_result", "tool_use_id": id, "content": content, **more}

    assert messages_of(turns) == [
        {"role": "user", "content": [text("Q")]},
        {
            "role": "assistant",
            "content": [
                text("I look."),
                tool_use("a", "tide", port="Dover"),
                tool_use("b", "wind"),
                tool_use("c", "sea"),
            ],
        },
        {
            "role": "user",
            "content": [
                tool_result("a", "low"),
                tool_result("b", "no", is_error=True),
                tool_result("c", ""),
            ],
        },
        {"role": "assistant", "content": [text("So.")]},
        {"role": "user", "content": [text("R")]},
    ]


PARTS = st.lists(
    st.one_of(
        st.text(st.sampled_from("ab \n")).map(text),
        st.just(thought("hm")),
        st.just(call("a", "tide", "{}")),
        st.just(result("a", "low")),
        st.just({"type": "file", "file_id": "f", "media_type": "text/plain", "name": "n"}),
    ),
    max_size=4,
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), PARTS), max_size=8))
def test_messages_alternate_start_with_the_user_and_have_no_empty_text(
    turns: list[tuple[str, list[dict[str, Any]]]],
) -> None:
    messages = messages_of(Turn(*turn) for turn in turns)

    assert all(
        message["role"] == ("user", "assistant")[n % 2] for n, message in enumerate(messages)
    )
    assert all(message["content"] for message in messages)
    blocks = [block for message in messages for block in message["content"]]
    assert all(block["text"].strip() for block in blocks if block["type"] == "text")
    assert {block["type"] for block in blocks} <= {"text", "tool_use", "tool_result"}


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
        ("http://h:1/anthropic", "http://h:1/anthropic/v1/messages"),
        ("http://h:1/anthropic/", "http://h:1/anthropic/v1/messages"),
        ("http://h:1/anthropic/v1", "http://h:1/anthropic/v1/messages"),
        ("https://h/api?version=2", "https://h/api/v1/messages?version=2"),
    ],
)
def test_base_urls_are_accepted_with_and_without_a_version(base: str, url: str) -> None:
    assert url_of(base, "messages") == url


def test_the_default_base_url_depends_on_the_kind_of_provider(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[providers.a]\nkind = "anthropic"\nmodels = ["x"]\nprefill = ["x"]\n[providers.b]\n'
    )

    providers = load_settings(config).providers

    assert (providers["a"].base_url, providers["b"].base_url) == (
        "https://api.anthropic.com",
        "https://api.openai.com/v1",
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('kind = "anthropic"\nmodels = ["x"]\nprefill = ["y"]', ["'y'", "models"]),
        ('kind = "anthropic"\nprefill = true', ["list"]),
    ],
)
def test_prefill_is_only_accepted_for_models_of_the_provider(
    lines: str, words: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[providers.a]\n{lines}\n")

    with pytest.raises(SettingsError, match=r"providers\.a\.prefill") as refused:
        load_settings(config)

    assert all(word in str(refused.value) for word in words)
