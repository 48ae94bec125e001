"""The interface of a provider, which streams an answer to a request."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from server.errors import TidemarkError
from server.parts import Parts


class Turn(NamedTuple):
    """One message of a request to a model."""

    role: str  # "user" or "assistant"
    parts: Parts


class ModelRequest(NamedTuple):
    """A request to a model. `prefix` is the beginning of the answer, written by the model."""

    model: str  # the provider's name for it
    turns: list[Turn]  # ends with the question
    system_prompt: str | None
    max_output_tokens: int
    temperature: float | None
    position: int  # of the answer among its siblings, from 0
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
    """Tokens counted by the provider. The last one counts; a missing output count is estimated."""

    counts: dict[str, Any]


class LeftOut(NamedTuple):
    """The oldest turns that were not sent after all, because the server found them too long."""

    turns: int


class Finish(NamedTuple):
    """The model has finished: `stop length tool_calls content_filter other`.

    A stream that ends without it was cut off.
    """

    reason: str


Delta = TextDelta | ReasoningDelta | ToolCall | Usage | LeftOut | Finish


class ProviderError(TidemarkError):
    """The provider refused or failed; `code` is one of the codes of failed generations."""

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


def cut_off(*, begun: bool) -> ProviderError:
    """The error of a stream that ended before the answer did."""
    # Some servers check the prompt only after the response has begun, and log what is wrong.
    message = (
        "The model's stream ended without a finish reason."
        if begun
        else "The model's server ended the stream before the answer began. "
        "Its log may say why: the prompt may exceed its context."
    )
    return ProviderError("provider_protocol", message, retryable=True)


@dataclass(frozen=True)
class Adjustments:
    """How requests for one model differ from the usual ones."""

    without: frozenset[str] = frozenset()
    limit: str | None = None
    output_max_tokens: int | None = None
    system_as_user: bool = False
    no_prefill: bool = False

    def words(self) -> list[str]:
        """The differences, for operators."""
        without = ", ".join(sorted(self.without))
        differences = {
            f"without {without}": without,
            f"with {self.limit} as the limit": self.limit,
            f"at most {self.output_max_tokens} output tokens": self.output_max_tokens,
            "the system prompt in the first message": self.system_as_user,
            "no prefill": self.no_prefill,
        }
        return [words for words, differs in differences.items() if differs]


class Provider(Protocol):
    """Streams answers. Keeps its connections until it is closed."""

    models: list[str]
    """The names of its models, without the provider's name."""

    context_tokens: int
    """The limit of a request and its answer together."""

    learned: dict[str, Adjustments]
    """How requests for a model differ from the usual ones, since its server refused those."""

    def continues(self, request: ModelRequest) -> bool:
        """Whether `stream` continues `request.prefix`, so that an answer survives a crash."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        """The answer as it arrives. Raises ProviderError."""
        ...

    async def close(self) -> None: ...
