"""The built-in model, which needs no network and no key, and is no language model.

Its text is a pure function of the message and of the answer's position among its siblings.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.parts import joined_text
from server.providers.base import (
    Adjustments,
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
SCRIPT_MAX_CHARS = 500
BURST = 200
"""How many tokens are generated before other answers of the process proceed."""

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
    """The settings in a message whose first line is `/demo key=value …`.

    Times are in milliseconds, rates in tokens per second, lengths in tokens.
    """

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

    def __init__(self) -> None:
        self.learned: dict[str, Adjustments] = {}

    def continues(self, request: ModelRequest) -> bool:
        try:
            return bool(read_script(_question(request))[0].continue_)
        except ProviderError:
            return False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        script, topic = read_script(_question(request))
        input_tokens = 0  # counted first: nothing is awaited between the last token and the end
        for turn in request.turns:
            input_tokens += len(joined_text(turn.parts).split())
            await asyncio.sleep(0)  # lets other answers proceed
        if not request.prefix:
            await asyncio.sleep(script.first_token_ms / 1000)
        output = _Output(script, request.max_output_tokens)
        async with aclosing(output.deltas(_deltas(script, topic, request))) as deltas:
            async for delta in deltas:
                yield delta
        counts = {"input_tokens": input_tokens, "output_tokens": output.tokens}
        if script.reasoning:
            counts["reasoning_tokens"] = script.reasoning
        yield Usage(counts)
        if output.cut:
            yield Finish("length")
        elif script.tool:
            call_id = f"call_{sha256(topic.encode()).hexdigest()[:12]}"
            yield ToolCall(call_id, "look_up_tide", '{"harbour":"Dover"}')
            yield Finish("tool_calls")
        else:
            yield Finish("stop")

    async def close(self) -> None:
        pass


class _Output:
    """Sends deltas at the rate of a script, up to a limit, and fails or stalls as it requires."""

    def __init__(self, script: DemoScript, tokens_max: int) -> None:
        self.tokens, self.cut = 0, False
        self._script, self._tokens_max = script, tokens_max

    async def deltas(self, deltas: Iterator[Delta | None]) -> AsyncGenerator[Delta, None]:
        """The deltas after the prefix; a None in the input is a token that the prefix has."""
        loop, rate = asyncio.get_running_loop(), self._script.rate
        start, position = loop.time(), 0
        for delta in deltas:
            if position % BURST == BURST - 1:
                await asyncio.sleep(0)  # lets other answers proceed
            if delta is None:
                position += 1
                continue
            if self.tokens == self._tokens_max:
                self.cut = True
                break
            await self._fail_or_stall(position)
            if rate:
                await asyncio.sleep(max(0.0, start + self.tokens / rate - loop.time()))
            self.tokens += 1
            position += 1
            yield delta
        await self._fail_or_stall(position)

    async def _fail_or_stall(self, position: int) -> None:
        fail_after, stall_after = self._script.fail_after, self._script.stall_after
        if fail_after is not None and position >= fail_after:
            detail = f"The demo model fails after {fail_after} tokens, as requested."
            raise ProviderError("provider_unavailable", detail, retryable=True)
        if stall_after is not None and position >= stall_after:
            await asyncio.Event().wait()


def _deltas(script: DemoScript, topic: str, request: ModelRequest) -> Iterator[Delta | None]:
    """All tokens of the answer; None for those that the prefix has."""
    reasoned = sum(len(part["text"]) for part in request.prefix if part["type"] == "reasoning")
    written = len(joined_text(request.prefix))
    for kind, tokens, sent_chars in (
        (ReasoningDelta, _reasoning(script), reasoned),
        (TextDelta, _answer(script, topic, request.position), written),
    ):
        left = sent_chars
        for token in tokens:
            yield kind(token[left:]) if left < len(token) else None
            left = max(0, left - len(token))


def read_script(message: str) -> tuple[DemoScript, str]:
    """The script in a message, and the rest of it; raises ProviderError for a bad key or value."""
    first, _, rest = message.partition("\n")
    words = first[:SCRIPT_MAX_CHARS].split()
    if not words or words[0] != COMMAND:
        return DemoScript(), message
    if len(first) > SCRIPT_MAX_CHARS:
        detail = f"{COMMAND}: the line exceeds the limit of {SCRIPT_MAX_CHARS} characters."
        raise ProviderError("invalid_request", detail)
    settings: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            raise ProviderError(
                "invalid_request", f"{COMMAND}: {word!r} must have the form key=value."
            )
        settings[key] = value
    try:
        return DemoScript.model_validate(settings), rest
    except ValidationError as error:
        first_error = error.errors()[0]
        known = ", ".join(field.alias or name for name, field in DemoScript.model_fields.items())
        reason = (
            f"unknown key: expected one of {known}"
            if first_error["type"] == "extra_forbidden"
            else first_error["msg"]
        )
        raise ProviderError(
            "invalid_request", f"{COMMAND}: {first_error['loc'][0]}: {reason}."
        ) from None


def _question(request: ModelRequest) -> str:
    return joined_text(request.turns[-1].parts)


def _tokens(text: str) -> list[str]:
    """Text cut before each space, so that every token but the first begins with one."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def _reasoning(script: DemoScript) -> Iterator[str]:
    return _spaced(_WORDS[n % len(_WORDS)] for n in range(script.reasoning))


def _spaced(words: Iterable[str]) -> Iterator[str]:
    """Words as tokens: all but the first begin with a space."""
    for n, word in enumerate(words):
        yield f" {word}" if n else word


def _answer(script: DemoScript, topic: str, position: int) -> Iterable[str]:
    rng = random.Random(f"{position}:{topic}")
    if script.tokens is not None:
        return _spaced(rng.choice(_WORDS) for _ in range(script.tokens))
    about = " ".join(topic[:1000].split())[:80] or "nothing in particular"
    one, two, three = rng.sample(_WORDS, 3)
    high, low = rng.randint(40, 70) / 10, rng.randint(5, 20) / 10
    return _tokens(
        f"I am **demo**, a built-in stand-in and *no language model*: I cannot know anything about “{about}”. "
        f"What I can show is how an answer arrives, and stays.\n\n"
        f"## What you are watching\n\n"
        f"1. Every token was written to a log before you saw it.\n"
        f"2. Reload this page, and the {one} goes on where it was.\n"
        f"3. Stop it, and the text so far is kept.\n\n"
        f"| harbour | high water | low water |\n| --- | ---: | ---: |\n"
        f"| {one} | {high:.1f} m | {low:.1f} m |\n| {two} | {high - 0.7:.1f} m | {low + 0.4:.1f} m |\n"
        f"| {three} | {high + 0.3:.1f} m | {low:.1f} m |\n\n"
        f'```python\ndef height(hours: float) -> float:\n    """Metres above chart datum, {one} gauge."""\n'
        f"    return {(high + low) / 2:.2f} + {(high - low) / 2:.2f} * cos(2 * pi * hours / 12.42)\n```\n\n"
        f"The mean of the day is $\\bar h = \\tfrac{{1}}{{T}} \\int_0^T h(t)\\,dt \\approx {(high + low) / 2:.2f}$ metres.\n\n"
        f"To let a real model answer, set `OPENAI_API_KEY` or `ANTHROPIC_API_KEY` and start again."
    )
