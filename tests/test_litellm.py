"""LiteLLM's proxy between Tidemark and the scripted upstream: what it changes on the way."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from server.bench.processes import free_port
from server.providers.continuing import GO_ON
from tests.client import Client
from tests.in_process import InProcess
from tests.real_server import install, running
from tests.scripted_models import ask, call, continued, no_open_answers, text, thought
from tests.test_negotiation import SERVERS, refuses
from tests.upstream import ENDED, HELLO, OPENAI, STREAMS, Format, Upstream
from tests.waiting import condition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PACKAGE = "litellm[proxy]==1.108.7"
MASTER_KEY = "sk-test-0123456789abcdef0123"
GREETING = "Hello wörld 🌊"

KNOWN = "gpt-5"
"""A model whose parameters LiteLLM checks itself, before it asks the upstream."""

SCRIPTS = OPENAI.scripts | {name: refuses(limit, *HELLO, *ENDED) for name, limit in SERVERS.items()}
FORMAT = Format(OPENAI.path, STREAMS | {KNOWN: [*HELLO, *ENDED]}, SCRIPTS)
MODELS = [*FORMAT.streams, *FORMAT.scripts]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(FORMAT) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def proxy_url(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("litellm")
    programs = install(folder, PACKAGE, always_in_ci=True)
    to_upstream = {"api_base": f"{upstream.url}/v1", "api_key": "sk-upstream"}
    config: dict[str, Any] = {
        "model_list": [
            {"model_name": name, "litellm_params": to_upstream | {"model": f"openai/{name}"}}
            for name in MODELS
        ],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "litellm_settings": {"telemetry": False},
        "general_settings": {"master_key": MASTER_KEY},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [str(programs / "litellm"), "--config", "config.yaml", "--host", "127.0.0.1"]
    with running(
        [*command, "--port", str(port)],
        f"http://127.0.0.1:{port}/health/readiness",
        folder / "log",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
    ):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, proxy_url: str, valkey: str
) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("behind-litellm")
    (folder / "key").write_text(MASTER_KEY)
    up = {
        "base_url": proxy_url,
        "api_key_file": str(folder / "key"),
        "models": MODELS,
        "reasoning_effort": "low",
    }
    with InProcess(folder, valkey, {"providers": {"up": up}}) as installation:
        yield installation


@pytest.mark.parametrize(
    ("model", "content", "reason"),
    [
        ("plain", [text(GREETING)], "stop"),
        ("finish-own-chunk", [text(GREETING)], "length"),
        ("reasoning-content", [thought("hm so"), text(GREETING)], "stop"),
        ("think-tags", [thought("hm so\n"), text(GREETING)], "stop"),
        (
            "tool-calls",
            [
                text("look"),
                call("call_a", "tide", '{"port":"Dover"}'),
                call("call_b", "wind", "{}"),
            ],
            "tool_calls",
        ),
    ],
)
async def test_answers_arrive_unchanged(
    model: str, content: list[dict[str, Any]], reason: str, caller: Client
) -> None:
    _, snapshot = await ask(caller, model)

    assert (snapshot["status"], snapshot["error"]) == ("completed", None)
    assert (snapshot["content"], snapshot["finish_reason"]) == (content, reason)


async def test_the_usage_is_that_of_the_upstream(caller: Client) -> None:
    _, snapshot = await ask(caller, "usage-chunk")

    assert snapshot["usage"] == {"input_tokens": 11, "output_tokens": 3, "cached_input_tokens": 4}


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("401", "provider_refused", "Incorrect API key provided"),
        ("404", "provider_refused", "The model does not exist."),
        ("400", "provider_refused", "bad"),
        ("context-too-long", "context_too_long", "maximum context length"),
        ("429-always", "provider_rate_limited", "quota"),
        ("500-always", "provider_unavailable", "broken for good"),
        ("error-midstream", "provider_unavailable", "the model fell over"),
        ("error-200", "provider_unavailable", "no room"),
        ("empty", "empty_answer", ""),
    ],
)
async def test_errors_keep_their_meaning(model: str, code: str, words: str, caller: Client) -> None:
    _, snapshot = await ask(caller, model)

    assert (snapshot["status"], snapshot["error"]["code"]) == ("failed", code)
    assert words in snapshot["error"]["message"]


@pytest.mark.parametrize("model", ["wants_no_temperature", "wants_other_limit", "writes_little"])
async def test_a_parameter_that_the_upstream_refuses_is_left_out(
    model: str, caller: Client
) -> None:
    _, snapshot = await ask(caller, model, temperature=0.5)

    assert (snapshot["status"], snapshot["text"]) == ("completed", GREETING)


async def test_a_parameter_that_the_proxy_refuses_is_left_out(
    caller: Client, upstream: Upstream
) -> None:
    _, snapshot = await ask(caller, KNOWN, temperature=0.5)

    assert (snapshot["status"], snapshot["text"]) == ("completed", GREETING)
    assert [body.body.get("temperature") for body in upstream.sent_to(KNOWN)] == [None]


async def test_stopping_closes_the_connection_to_the_upstream(
    caller: Client, upstream: Upstream
) -> None:
    before = upstream.request_counts["endless"]
    sent = await caller.send("hello", model="up/endless")
    await condition(lambda: upstream.request_counts["endless"] > before, 10)

    assert (await caller.cancel(sent["generation_id"], wait_s=20))["status"] == "cancelled"

    await no_open_answers(upstream)


async def test_a_cut_answer_is_continued_by_request(caller: Client, upstream: Upstream) -> None:
    assert await continued(caller, "finish-own-chunk", "plain") == GREETING * 2

    messages = upstream.sent_to("plain")[-1].body["messages"]
    assert [message["content"] for message in messages[-2:]] == [GREETING, GO_ON]
