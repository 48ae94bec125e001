"""What a provider is: something that streams an answer to a request, and says whether it can go on from a prefix."""

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple, Protocol

from server.errors import TidemarkError
from server.parts import Parts


class Turn(NamedTuple):
    """One message of what is sent to a model."""

    role: str  # "user" or "assistant"
    parts: Parts


class ModelRequest(NamedTuple):
    """What a model is asked. `prefix` is what it has already said of this very answer."""

    model: str  # the name the provider knows it by
    turns: list[Turn]  # ends with the question
    system_prompt: str | None
    max_output_tokens: int
    temperature: float | None
    place: int  # of the answer among its siblings, from 0
    prefix: Parts


class TextDelta(NamedTuple):
    text: str


class ReasoningDelta(NamedTuple):
    text: str


class ToolCall(NamedTuple):
    call_id: str
    name: str
    arguments: str  # JSON, as the model wrote it


class Usage(NamedTuple):
    """Tokens counted by the provider; may come more than once, the last one counts. Where it names no output, that is estimated."""

    counts: dict[str, Any]


class Finish(NamedTuple):
    """The model has ended: `stop length tool_calls content_filter other`. A stream that ends without one was cut off."""

    reason: str


Delta = TextDelta | ReasoningDelta | ToolCall | Usage | Finish


class ProviderError(TidemarkError):
    """The provider would not or could not answer; `code` is one of the contract's codes of failed generations."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.retryable, self.retry_after_s = (
            code,
            message,
            retryable,
            retry_after_s,
        )


class Provider(Protocol):
    """Streams answers. Holds whatever connections it needs until it is closed."""

    models: list[str]
    """The names of the models it offers, without its own."""

    context_tokens: int
    """How much a request and its answer may come to."""

    def continues(self, request: ModelRequest) -> bool:
        """Whether `stream` takes `request.prefix` up where it ends, so that an answer can go on after a crash."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        """The answer as it comes. Raises ProviderError."""
        ...

    async def close(self) -> None: ...
