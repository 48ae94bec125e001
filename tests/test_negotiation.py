"""Servers that want other parameters than usual, or less: the answer begins on another try."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.command.doctor import _adjusted
from server.generate.claim import _KeptTurn, _output_that_fits
from server.providers.adjustments import TRIES_MAX
from server.providers.anthropic import Anthropic
from server.providers.base import ModelRequest, Provider, ProviderError, TextDelta, Turn
from server.providers.continuing import GO_ON
from server.providers.openai import OpenAI
from server.providers.registry import Model
from server.settings import ProviderSettings
from tests import upstream_anthropic
from tests.client import Client
from tests.in_process import InProcess
from tests.upstream import (
    ENDED,
    HELLO,
    OPENAI,
    Format,
    Upstream,
    event,
    head,
    json_200,
    refusal_of,
    text_chunks,
)

pytestmark = pytest.mark.quick

ANSWERS: dict[type[Any], list[str]] = {
    OpenAI: [OPENAI.path, *HELLO, *ENDED],
    Anthropic: [
        upstream_anthropic.ANTHROPIC.path,
        *upstream_anthropic.HELLO,
        *upstream_anthropic.ENDED,
    ],
}
"""The path of each format, and the events of an answer in it."""

Refuse = Callable[[dict[str, Any]], str | None]
"""The words with which a server refuses a body, if it does."""


def refuses(limit: Refuse, *answer: str) -> Any:
    async def script(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        if words := limit(upstream.requests[-1].body):
            body = {"error": {"message": words, "type": "invalid_request_error"}}
            await refusal_of("400 Bad Request", body)(upstream, writer)
        else:
            await head(writer)
            writer.write("".join(answer).encode())

    return script


def refuses_with_200(limit: Refuse, *answer: str, whole: bool, typed: bool) -> Any:
    """Refuse in the body of a successful response: as one JSON object, or as the first event."""

    async def script(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        words = limit(upstream.requests[-1].body)
        if not words:
            await head(writer)
            writer.write("".join(answer).encode())
            return
        error = {"message": words} | ({"type": "invalid_request_error"} if typed else {})
        if whole:
            await json_200({"error": error})(upstream, writer)
        else:
            await head(writer)
            writer.write((": busy\n\n" + event({"error": error})).encode())

    return script


def wants_other_limit(body: dict[str, Any]) -> str | None:
    if "max_tokens" in body:
        return (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead."
        )
    return None


def wants_no_stream_options(body: dict[str, Any]) -> str | None:
    return "body.stream_options: Extra inputs are not permitted" if "stream_options" in body else ""


def wants_neither(body: dict[str, Any]) -> str | None:
    if "temperature" in body:
        return "Unsupported value: 'temperature' does not support 0.5 with this model."
    return wants_no_stream_options(body)


def wants_no_temperature(body: dict[str, Any]) -> str | None:
    return "temperature is deprecated for this model" if "temperature" in body else None


def knows_no_effort(body: dict[str, Any]) -> str | None:
    return "Unrecognized request argument: reasoning_effort" if "reasoning_effort" in body else None


def wants_one_thing_at_a_time(body: dict[str, Any]) -> str | None:
    return (
        wants_no_stream_options(body)
        or wants_no_temperature(body)
        or knows_no_effort(body)
        or wants_other_limit(body)
        or ("max_completion_tokens: at most 4096" if body["max_completion_tokens"] > 4096 else "")
        or takes_no_system_role(body)
        or ("must end with a user message" if body["messages"][-1]["role"] != "user" else None)
    )


def writes_little(body: dict[str, Any]) -> str | None:
    if body["max_tokens"] > 4096:
        return "max_tokens is too large: 16384. This model supports at most 4096 completion tokens."
    return None


def has_little_room(body: dict[str, Any]) -> str | None:
    if body["max_tokens"] > 2042:
        return (
            "This model's maximum context length is 2048 tokens. However, you requested "
            f"{body['max_tokens'] + 6} tokens (6 in the messages, {body['max_tokens']} in the "
            "completion)."
        )
    return None


def has_little_room_and_says_nothing(body: dict[str, Any]) -> str | None:
    return "exceeds the available context size" if body["max_tokens"] > 1500 else None


def has_a_range(body: dict[str, Any]) -> str | None:
    most = "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"
    return most if body["max_tokens"] > 8192 else None


def counts_new_tokens(body: dict[str, Any]) -> str | None:
    if body["max_tokens"] + 20 > 8193:
        return (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 20 "
            f"`inputs` tokens and {body['max_tokens']} `max_new_tokens`"
        )
    return None


def adds_up(body: dict[str, Any]) -> str | None:
    if body["max_tokens"] > 10_000:
        return (
            "input length and `max_tokens` exceed context limit: 190000 + "
            f"{body['max_tokens']} > 200000, context_length_exceeded"
        )
    return None


def has_a_long_prompt(_body: dict[str, Any]) -> str | None:
    return "prompt is too long: 210000 tokens > 200000 maximum context length"


def filters(body: dict[str, Any]) -> str | None:
    return "Your request was blocked by our content filtering system."


def takes_no_system_role(body: dict[str, Any]) -> str | None:
    if body["messages"][0]["role"] == "system":
        return "System role not supported"
    return None


def always_refuses(_body: dict[str, Any]) -> str | None:
    return "max_tokens and max_completion_tokens, stream_options, temperature, system: all wrong"


SERVERS: dict[str, Refuse] = {
    each.__name__: each
    for each in (
        wants_other_limit,
        wants_no_stream_options,
        wants_neither,
        wants_no_temperature,
        wants_one_thing_at_a_time,
        knows_no_effort,
        writes_little,
        has_a_range,
        counts_new_tokens,
        adds_up,
        has_a_long_prompt,
        filters,
        has_little_room,
        has_little_room_and_says_nothing,
        takes_no_system_role,
        always_refuses,
    )
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    scripts = {name: refuses(limit, *HELLO, *ENDED) for name, limit in SERVERS.items()}
    with Upstream(Format(OPENAI.path, {"plain": [*HELLO, *ENDED]}, scripts)) as upstream:
        yield upstream


@asynccontextmanager
async def opened(format: type[Any], upstream: Upstream, **settings: Any) -> AsyncIterator[Provider]:
    values = {"base_url": f"{upstream.url}/v1", "models": ["m"]} | settings
    provider = format(ProviderSettings(**values), "sk-secret")
    try:
        yield provider
    finally:
        await provider.close()


def request(model: str, **values: Any) -> ModelRequest:
    usual = ModelRequest(
        model=model,
        turns=[Turn("user", [{"type": "text", "text": "hi"}])],
        system_prompt="Be brief.",
        max_output_tokens=16_384,
        temperature=0.5,
        position=0,
        prefix=[],
    )
    return usual._replace(**values)


async def answer(provider: Provider, asked: ModelRequest) -> str:
    deltas = [delta async for delta in provider.stream(asked)]
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def bodies(upstream: Upstream, model: str) -> list[dict[str, Any]]:
    return [sent.body for sent in upstream.sent_to(model)]


@pytest.mark.parametrize(
    ("model", "tries", "remembered", "expected"),
    [
        ("wants_other_limit", 2, True, {"max_completion_tokens": 16_384}),
        ("wants_no_stream_options", 2, True, {"max_tokens": 16_384}),
        ("wants_neither", 3, True, {"max_tokens": 16_384}),
        ("writes_little", 2, True, {"max_tokens": 4096}),
        ("has_a_range", 2, True, {"max_tokens": 8192}),
        ("counts_new_tokens", 2, False, {"max_tokens": 8173}),
        ("adds_up", 2, False, {"max_tokens": 10_000}),
        ("has_little_room", 2, False, {"max_tokens": 2042}),
        ("has_little_room_and_says_nothing", 2, False, {"max_tokens": 1024}),
    ],
)
async def test_a_refused_request_is_repeated_as_the_server_wants_it(
    model: str, tries: int, remembered: bool, expected: dict[str, Any], upstream: Upstream
) -> None:
    async with opened(OpenAI, upstream) as provider:
        before = len(bodies(upstream, model))
        assert await answer(provider, request(model)) == "Hello wörld 🌊"
        sent = bodies(upstream, model)
        assert len(sent) - before == tries
        assert expected.items() <= sent[-1].items()

        await answer(provider, request(model))
        again = len(bodies(upstream, model)) - len(sent)
        assert again == (1 if remembered else tries)


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole-body", "first-event"])
@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
async def test_a_refusal_with_status_200_is_negotiated_like_others(
    kind: type[Any], whole: bool, typed: bool
) -> None:
    def limit(body: dict[str, Any]) -> str | None:
        refusal = wants_no_temperature(body)
        return refusal or ("max_tokens: must be at most 4096" if body["max_tokens"] > 4096 else "")

    path, *texts = ANSWERS[kind]
    script = {"m": refuses_with_200(limit, *texts, whole=whole, typed=typed)}
    with Upstream(Format(path, {}, script)) as upstream:
        async with opened(kind, upstream, kind=kind.__name__.lower()) as provider:
            assert await answer(provider, request("m")) == "Hello wörld 🌊"
            assert await answer(provider, request("m")) == "Hello wörld 🌊"

        assert len(bodies(upstream, "m")) == 4
        assert bodies(upstream, "m")[-1]["max_tokens"] == 4096


async def test_a_refusal_with_status_500_is_negotiated_if_it_names_a_parameter() -> None:
    words = "1 validation error: {'loc': ('body', 'temperature'), 'msg': 'Input should be 1'}"

    async def script(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        if "temperature" in upstream.requests[-1].body:
            body = {"error": {"message": words, "type": "internal_server_error"}}
            await refusal_of("500 Internal Server Error", body)(upstream, writer)
        else:
            await head(writer)
            writer.write("".join([*HELLO, *ENDED]).encode())

    with Upstream(Format(OPENAI.path, {}, {"m": script})) as upstream:
        async with opened(OpenAI, upstream) as provider:
            assert await answer(provider, request("m")) == "Hello wörld 🌊"


async def test_a_server_that_names_one_thing_at_a_time_gets_all_it_wants(
    upstream: Upstream,
) -> None:
    model = "wants_one_thing_at_a_time"
    async with opened(
        OpenAI, upstream, models=[model], prefill=[model], reasoning_effort="low"
    ) as provider:
        assert await answer(provider, request(model, prefix=CUT)) == "Hello wörld 🌊"
        assert provider.learned[model].words() == [
            "without reasoning_effort, stream_options, temperature",
            "with max_completion_tokens as the limit",
            "at most 4096 output tokens",
            "the system prompt in the first message",
            "no prefill",
        ]


async def test_an_effort_is_sent_until_it_is_refused(upstream: Upstream) -> None:
    async with opened(OpenAI, upstream, reasoning_effort="low") as provider:
        for model in ("plain", "knows_no_effort", "knows_no_effort"):
            assert await answer(provider, request(model))

    assert bodies(upstream, "plain")[-1]["reasoning_effort"] == "low"
    sent = ["reasoning_effort" in body for body in bodies(upstream, "knows_no_effort")]
    assert sent == [True, False, False]


async def test_a_server_without_system_role_gets_it_in_the_first_message(
    upstream: Upstream,
) -> None:
    async with opened(OpenAI, upstream) as provider:
        assert await answer(provider, request("takes_no_system_role"))

    [message] = bodies(upstream, "takes_no_system_role")[-1]["messages"]
    assert message == {"role": "user", "content": "Be brief.\n\nhi"}


@pytest.mark.parametrize("model", ["has_a_long_prompt", "filters"])
async def test_a_refusal_that_nothing_helps_against_is_not_repeated(
    model: str, upstream: Upstream
) -> None:
    async with opened(OpenAI, upstream) as provider:
        with pytest.raises(ProviderError):
            await answer(provider, request(model))

    assert len(bodies(upstream, model)) == 1


async def test_a_server_that_refuses_everything_is_not_asked_for_ever(upstream: Upstream) -> None:
    async with opened(OpenAI, upstream) as provider:
        with pytest.raises(ProviderError, match="all wrong"):
            await answer(provider, request("always_refuses"))

    assert len(bodies(upstream, "always_refuses")) <= TRIES_MAX


async def test_neighbours_of_one_role_are_one_message(upstream: Upstream) -> None:
    turns = [
        Turn(role, [{"type": "text", "text": text}])
        for role, text in (("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d"))
    ]
    async with opened(OpenAI, upstream) as provider:
        await answer(provider, request("plain", turns=turns))

    assert [(m["role"], m["content"]) for m in bodies(upstream, "plain")[-1]["messages"]] == [
        ("system", "Be brief."),
        ("user", "a\n\nb"),
        ("assistant", "c"),
        ("user", "d"),
    ]


async def test_anthropics_format_negotiates_too() -> None:
    answered = [*upstream_anthropic.HELLO, *upstream_anthropic.ENDED]

    def limit(body: dict[str, Any]) -> str | None:
        if body["max_tokens"] > 8192:
            return "max_tokens: 16384 > 8192, which is the maximum allowed number of output tokens"
        return None

    script = {"small": refuses(limit, *answered)}
    format = Format(upstream_anthropic.ANTHROPIC.path, {}, script)
    with Upstream(format) as upstream:
        async with opened(Anthropic, upstream, kind="anthropic") as provider:
            assert await answer(provider, request("small"))

        assert bodies(upstream, "small")[-1]["max_tokens"] <= 8192


CUT = [{"type": "text", "text": "Hello,\n\n"}]
LAST_MUST_BE_A_USERS = {
    "claude": "This model does not support assistant message prefill. "
    "The conversation must end with a user message.",
    "mistral": "Expected last role User or Tool (or Assistant with prefix True) for serving but "
    "got assistant",
    "vllm": "Cannot set `add_generation_prompt` to True when the last message is from the "
    "assistant. Consider using `continue_final_message` instead.",
    "llama.cpp": "Assistant response prefill is incompatible with enable_thinking.",
}


@pytest.mark.parametrize(
    ("prefill", "messages"),
    [
        (["plain"], [("assistant", "Hello,")]),
        ([], [("assistant", "Hello,"), ("user", GO_ON)]),
    ],
)
async def test_a_cut_answer_ends_the_request_only_where_that_is_known_to_work(
    prefill: list[str], messages: list[tuple[str, str]], upstream: Upstream
) -> None:
    values: dict[str, Any] = {
        "models": ["plain"],
        "prefill": prefill,
        "prefill_body": {"continue_final_message": True},
        "prefill_message": {"prefix": True},
    }
    async with opened(OpenAI, upstream, **values) as provider:
        asked = request("plain", prefix=CUT)
        assert await answer(provider, asked) == "Hello wörld 🌊"
        assert provider.continues(asked) == bool(prefill)

    sent = bodies(upstream, "plain")[-1]
    assert [(m["role"], m["content"]) for m in sent["messages"][2:]] == messages
    assert ("continue_final_message" in sent) == bool(prefill)
    assert ("prefix" in sent["messages"][-1]) == bool(prefill)


@pytest.mark.parametrize("words", LAST_MUST_BE_A_USERS.values(), ids=LAST_MUST_BE_A_USERS)
@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
async def test_a_model_that_refuses_a_last_message_of_its_own_is_asked_to_go_on(
    kind: type[Any], words: str
) -> None:
    def refuse_assistant(body: dict[str, Any]) -> str | None:
        return words if body["messages"][-1]["role"] == "assistant" else None

    path, *texts = ANSWERS[kind]
    with Upstream(Format(path, {}, {"m": refuses(refuse_assistant, *texts)})) as upstream:
        async with opened(kind, upstream, kind=kind.__name__.lower(), prefill=["m"]) as provider:
            asked = request("m", prefix=CUT)
            assert provider.continues(asked)
            assert await answer(provider, asked)
            assert not provider.continues(asked)
            assert await answer(provider, asked)

        sent = bodies(upstream, "m")
        assert [body["messages"][-1]["role"] for body in sent] == ["assistant", "user", "user"]
        assert GO_ON in str(sent[-1]["messages"][-1]["content"])


async def test_a_prefilled_answer_does_not_begin_inside_a_thought() -> None:
    def refuse_prefill(body: dict[str, Any]) -> str | None:
        return "no prefill" if body["messages"][-1]["role"] == "assistant" else None

    thinking = [*text_chunks("hm</think>", "more"), *ENDED]
    scripts = {"refusing": refuses(refuse_prefill, *thinking)}
    streams = {"prefilling": [*text_chunks("more"), *ENDED]}
    with Upstream(Format(OPENAI.path, streams, scripts)) as upstream:
        models = ["prefilling", "refusing"]
        values = {"models": models, "prefill": models, "thinking_tags": "open"}
        async with opened(OpenAI, upstream, **values) as provider:
            for model in models:
                assert await answer(provider, request(model, prefix=CUT)) == "more"


async def test_white_space_at_the_cut_is_not_repeated() -> None:
    texts = [*text_chunks("\n", "\nand", " more"), *ENDED]
    with Upstream(Format(OPENAI.path, {"m": texts}, {})) as upstream:
        async with opened(OpenAI, upstream, prefill=["m"]) as provider:
            assert await answer(provider, request("m", prefix=CUT)) == "and more"


async def test_what_was_learned_is_shown_to_operators(
    upstream: Upstream, tmp_path: Path, valkey: str
) -> None:
    up = {"base_url": f"{upstream.url}/v1", "models": ["wants_neither", "writes_little"]}
    with InProcess(tmp_path, valkey, {"providers": {"up": up}}) as installation:
        client = Client(installation.url, installation.new_key())
        for model in up["models"]:
            sent = await client.send("hello", model=f"up/{model}", temperature=0.5)
            await client.read_through(sent["generation_id"])
        expected = {
            "up/wants_neither": ["without stream_options, temperature"],
            "up/writes_little": ["at most 4096 output tokens"],
        }

        async def is_reported() -> bool:
            [worker] = (await client.http.get("/status")).json()["redis"]["workers"]
            return bool(worker["adjusted_models"] == expected)

        async with asyncio.timeout(10):
            while not await is_reported():
                await asyncio.sleep(0.1)
        found = {each.about: each.fact for each in await _adjusted(installation.settings)}
        await client.http.aclose()

    assert found == {
        f"model {id}": f"its server refused the usual requests; now {words}"
        for id, [words] in expected.items()
    }


async def test_headers_and_members_of_the_settings_are_sent(upstream: Upstream) -> None:
    settings = {
        "api_key_header": "api-key",
        "extra_headers": {"X-Team": "tides"},
        "extra_body": {"service_tier": "flex"},
    }
    async with opened(OpenAI, upstream, **settings) as provider:
        await answer(provider, request("plain"))

    sent = upstream.sent_to("plain")[-1]
    assert sent.headers["api-key"] == "sk-secret"
    assert sent.headers["x-team"] == "tides"
    assert "authorization" not in sent.headers
    assert sent.body["service_tier"] == "flex"


async def test_a_proxy_of_the_environment_is_used_and_no_proxy_honoured(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", upstream.url)
    async with opened(OpenAI, upstream, base_url="http://model.invalid/v1") as provider:
        assert await answer(provider, request("plain"))
    assert upstream.requests[-1].path == "http://model.invalid/v1/chat/completions"

    monkeypatch.setenv("no_proxy", "model.invalid")
    async with opened(OpenAI, upstream, base_url="http://model.invalid/v1") as provider:
        with pytest.raises(ProviderError) as raised:
            await answer(provider, request("plain"))
    assert raised.value.code == "provider_unavailable"


@pytest.mark.parametrize(
    ("context_tokens", "asked", "expected"),
    [(8192, 16_384, 8192 - 64 - 4), (128_000, 16_384, 16_384), (256, 50, 50), (256, 16_384, 188)],
)
def test_no_more_is_requested_than_fits(context_tokens: int, asked: int, expected: int) -> None:
    model = Model("p/m", "p", "m", context_tokens)
    kept = [_KeptTurn(Turn("user", [{"type": "text", "text": "hi"}]), None, 4)]

    assert _output_that_fits(model, 0, kept, asked) == expected
