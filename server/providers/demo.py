"""The built-in model: no network, no key, and no language model. Its text is a pure function of the message and the answer's place."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.parts import joined_text
from server.providers.base import (
    Delta,
    Finish,
    ModelRequest,
    ProviderError,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Usage,
)

COMMAND = "/demo"
BURST = 200  # tokens between two chances for others, when unpaced

_WORDS = [
    "tide",
    "water",
    "mark",
    "shore",
    "wave",
    "harbour",
    "moon",
    "sand",
    "current",
    "drift",
    "anchor",
    "sail",
    "north",
    "light",
    "signal",
    "river",
    "stone",
    "bridge",
    "bell",
    "morning",
    "rope",
    "wind",
    "calm",
    "depth",
    "chart",
    "compass",
    "island",
    "shell",
    "gull",
    "pier",
    "salt",
    "channel",
    "basin",
    "lock",
    "gate",
    "keel",
    "oar",
    "buoy",
    "reef",
]


class DemoScript(BaseModel):
    """What a message whose first line is `/demo key=value …` sets. Times in ms, rates in tokens per second, lengths in tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    rate: float = Field(default=60, ge=0, le=1_000_000)
    first_token_ms: float = Field(default=0, ge=0, le=3_600_000)
    reasoning: int = Field(default=0, ge=0, le=100_000)
    tool: int = Field(default=0, ge=0, le=1)
    fail_after: int | None = Field(default=None, ge=0)
    stall_after: int | None = Field(default=None, ge=0)
    continue_: int = Field(default=1, ge=0, le=1, alias="continue")


class Demo:
    """The model `demo`."""

    models = ["demo"]
    context_tokens = 1_000_000

    def continues(self, request: ModelRequest) -> bool:
        try:
            return bool(read_script(_question(request))[0].continue_)
        except ProviderError:
            return False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        script, topic = read_script(_question(request))
        reasoning, answer = _reasoning(script), _answer(script, topic, request.place)
        said = sum(len(part["text"]) for part in request.prefix if part["type"] == "reasoning")
        tokens: list[Delta] = [ReasoningDelta(token) for token in _from_character(reasoning, said)]
        tokens += [
            TextDelta(token) for token in _from_character(answer, len(joined_text(request.prefix)))
        ]
        limit = request.max_output_tokens
        before = len(reasoning) + len(answer) - len(tokens)
        await asyncio.sleep(script.first_token_ms / 1000 if not before else 0)
        async for delta in _paced(tokens[:limit], script, before):
            yield delta
        counts = {
            "input_tokens": sum(len(joined_text(turn.parts).split()) for turn in request.turns),
            "output_tokens": min(limit, len(tokens)),
        }
        if script.reasoning:
            counts["reasoning_tokens"] = script.reasoning
        yield Usage(counts)
        if len(tokens) > limit:
            yield Finish("length")
        elif script.tool:
            yield ToolCall(
                f"call_{sha256(topic.encode()).hexdigest()[:12]}",
                "look_up_tide",
                '{"harbour":"Dover"}',
            )
            yield Finish("tool_calls")
        else:
            yield Finish("stop")

    async def close(self) -> None:
        pass


def read_script(message: str) -> tuple[DemoScript, str]:
    """What a message sets, and the rest of it. Raises ProviderError for a key or value that is not known."""
    first, _, rest = message.partition("\n")
    words = first.split()
    if not words or words[0] != COMMAND:
        return DemoScript(), message
    settings: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            raise ProviderError(
                "invalid_request", f"{COMMAND}: {word!r} is not of the form key=value."
            )
        settings[key] = value
    try:
        return DemoScript.model_validate(settings), rest
    except ValidationError as error:
        fault = error.errors()[0]
        known = ", ".join(field.alias or name for name, field in DemoScript.model_fields.items())
        reason = (
            f"there is no such key; there are {known}"
            if fault["type"] == "extra_forbidden"
            else fault["msg"]
        )
        raise ProviderError("invalid_request", f"{COMMAND}: {fault['loc'][0]}: {reason}.") from None


async def _paced(tokens: list[Delta], script: DemoScript, before: int) -> AsyncIterator[Delta]:
    """The tokens at the script's rate, or as fast as they are taken; fails or falls silent where the script says so."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for n, token in enumerate([*tokens, None]):
        if script.fail_after is not None and before + n >= script.fail_after:
            raise ProviderError(
                "provider_unavailable",
                f"The demo model fails after {script.fail_after} tokens, as it was told to.",
                retryable=True,
            )
        if script.stall_after is not None and before + n >= script.stall_after:
            await asyncio.Event().wait()
        if token is None:
            return
        if script.rate:
            await asyncio.sleep(max(0.0, start + n / script.rate - loop.time()))
        elif n % BURST == BURST - 1:
            await asyncio.sleep(0)
        yield token


def _question(request: ModelRequest) -> str:
    return joined_text(request.turns[-1].parts)


def _from_character(tokens: list[str], said: int) -> list[str]:
    """The tokens that remain once `said` characters are out."""
    for n, token in enumerate(tokens):
        if said <= 0:
            return tokens[n:]
        if len(token) > said:
            return [token[said:], *tokens[n + 1 :]]
        said -= len(token)
    return []


def _tokens(text: str) -> list[str]:
    """Text cut before each space, so that every token but the first begins with one."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def _reasoning(script: DemoScript) -> list[str]:
    return (
        _tokens(" ".join(_WORDS[n % len(_WORDS)] for n in range(script.reasoning)))
        if script.reasoning
        else []
    )


def _answer(script: DemoScript, topic: str, place: int) -> list[str]:
    dice = random.Random(f"{place}:{topic}")
    if script.tokens is not None:
        return (
            _tokens(" ".join(dice.choice(_WORDS) for _ in range(script.tokens)))
            if script.tokens
            else []
        )
    about = " ".join(topic.split())[:80] or "nothing in particular"
    one, two, three = dice.sample(_WORDS, 3)
    high, low = dice.randint(40, 70) / 10, dice.randint(5, 20) / 10
    return _tokens(
        f"I am **demo**, a built-in stand-in and *no language model*: I cannot know anything about “{about}”. "
        f"What I can show is how an answer arrives, and stays.\n\n"
        f"## What you are watching\n\n"
        f"1. Every token was written to a log before you saw it.\n"
        f"2. Reload this page, and the {one} goes on where it was.\n"
        f"3. Stop it, and what was said is kept.\n\n"
        f"| harbour | high water | low water |\n| --- | ---: | ---: |\n"
        f"| {one} | {high:.1f} m | {low:.1f} m |\n| {two} | {high - 0.7:.1f} m | {low + 0.4:.1f} m |\n"
        f"| {three} | {high + 0.3:.1f} m | {low:.1f} m |\n\n"
        f'```python\ndef height(hours: float) -> float:\n    """Metres above chart datum, {one} gauge."""\n'
        f"    return {(high + low) / 2:.2f} + {(high - low) / 2:.2f} * cos(2 * pi * hours / 12.42)\n```\n\n"
        f"The mean of the day is $\\bar h = \\tfrac{{1}}{{T}} \\int_0^T h(t)\\,dt \\approx {(high + low) / 2:.2f}$ metres.\n\n"
        f"To let a real model answer, set `OPENAI_API_KEY` or `ANTHROPIC_API_KEY` and start again."
    )
