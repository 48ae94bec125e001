"""The built-in model costs what it sends, whatever a message asks it for."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from server.errors import SettingsError
from server.history.tables import Role
from server.providers.base import Delta, Finish, ModelRequest, TextDelta, Turn, Usage
from server.providers.demo import BURST, Demo
from server.providers.registry import Models
from server.settings import Settings, load_settings

pytestmark = pytest.mark.quick

MILLION = "/demo tokens=1000000 rate=0"


def request(text: str, *, tokens_max: int = 16_384, prefix: str = "") -> ModelRequest:
    return ModelRequest(
        model="demo",
        turns=[Turn(Role.USER, [{"type": "text", "text": text}])],
        system_prompt=None,
        max_output_tokens=tokens_max,
        temperature=None,
        position=0,
        prefix=[{"type": "text", "text": prefix}] if prefix else [],
    )


async def read(asked: ModelRequest) -> list[Delta]:
    return [delta async for delta in Demo().stream(asked)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


async def test_a_million_words_are_not_made_before_the_limit_cuts_them() -> None:
    tracemalloc.start()
    try:
        deltas = await read(request(MILLION, tokens_max=10))
        _now, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(text_of(deltas).split(" ")) == 10
    assert deltas[-1] == Finish("length")
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("prefix_tokens", [0, 5_000])
async def test_other_tasks_run_while_a_long_answer_is_made(prefix_tokens: int) -> None:
    prefix = text_of(await read(request(MILLION, tokens_max=prefix_tokens)))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await read(request(MILLION, tokens_max=5_000, prefix=prefix))
    beside.cancel()

    assert turns >= (prefix_tokens + 5_000) // BURST


async def test_an_answer_goes_on_anywhere_with_the_same_text() -> None:
    asked = "/demo tokens=40 rate=0\nwhere"
    whole = text_of(await read(request(asked)))
    assert len(whole.split(" ")) == 40

    for cut in range(0, len(whole), 7):
        rest = await read(request(asked, prefix=whole[:cut]))
        assert whole[:cut] + text_of(rest) == whole
        assert rest[-1] == Finish("stop")


async def test_an_answer_of_exactly_the_limit_is_not_cut() -> None:
    deltas = await read(request("/demo tokens=10 rate=0", tokens_max=10))

    assert deltas[-1] == Finish("stop")
    assert [each.counts["output_tokens"] for each in deltas if isinstance(each, Usage)] == [10]


UPSTREAM = '[providers.up]\nbase_url = "http://127.0.0.1:1/v1"\nmodels = ["m"]'
NO_PROVIDERS = "[providers]"


def settings_of(folder: Path, demo: str, host: str, providers: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(f'[server]\nhost = "{host}"\n[generation]\ndemo = {demo}\n{providers}\n')
    return load_settings(file)


@pytest.mark.parametrize(
    ("demo", "host", "providers", "offered"),
    [
        ('"loopback"', "127.0.0.1", UPSTREAM, ["demo", "up/m"]),
        ('"loopback"', "0.0.0.0", UPSTREAM, ["up/m"]),
        ('"loopback"', "0.0.0.0", NO_PROVIDERS, ["demo"]),
        ("true", "0.0.0.0", UPSTREAM, ["demo", "up/m"]),
        ("false", "127.0.0.1", UPSTREAM, ["up/m"]),
    ],
)
def test_where_the_demo_model_is_offered(
    tmp_path: Path, demo: str, host: str, providers: str, offered: list[str]
) -> None:
    settings = settings_of(tmp_path, demo, host, providers)

    assert [model.id for model in Models(settings).all] == offered


def test_an_installation_without_a_model_does_not_start(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "false", "127.0.0.1", NO_PROVIDERS)

    with pytest.raises(SettingsError, match="No model is available"):
        Models(settings)
