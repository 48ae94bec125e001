"""The script of an answer: the first line of its message, `/script key=value …`."""

from dataclasses import dataclass, fields
from typing import Final, Self

TOKENS_MAX: Final = 1_000_000
RATE_MAX_PER_S: Final = 10_000.0
FIRST_TOKEN_MS_MAX: Final = 600_000
_PREFIX: Final = "/script"


class ScriptError(ValueError):
    """The message is not a valid script."""


@dataclass(frozen=True, slots=True)
class Script:
    """`tokens` words at `rate` per second (0: in as few writes as possible).

    The first is sent after `first_token_ms`. After `stall_after` tokens (-1: never), nothing more
    is sent and the answer does not end.
    """

    tokens: int = 20
    rate: float = 0.0
    first_token_ms: int = 0
    stall_after: int = -1

    def __str__(self) -> str:
        return " ".join(
            [_PREFIX, *(f"{field.name}={getattr(self, field.name)}" for field in fields(self))]
        )

    @classmethod
    def parse(cls, message: str) -> Self:
        """Parses the first line of a message. Raises ScriptError."""
        words = message.partition("\n")[0].split()
        if not words or words[0] != _PREFIX:
            raise ScriptError(f"The message must begin with {_PREFIX} key=value …")
        known = {field.name: field.type for field in fields(cls)}
        values: dict[str, int | float] = {}
        for word in words[1:]:
            key, _, value = word.partition("=")
            if key not in known:
                raise ScriptError(f"Unknown key {key!r}: expected one of {', '.join(known)}.")
            try:
                values[key] = float(value) if key == "rate" else int(value)
            except ValueError:
                raise ScriptError(f"{key}={value!r} is not a number.") from None
        script = cls(**values)  # type: ignore[arg-type]  # parsed as the field's type above
        if not 1 <= script.tokens <= TOKENS_MAX:
            raise ScriptError(f"tokens={script.tokens} is not from 1 to {TOKENS_MAX}.")
        if not 0 <= script.rate <= RATE_MAX_PER_S:
            raise ScriptError(f"rate={script.rate} is not from 0 to {RATE_MAX_PER_S}.")
        if not 0 <= script.first_token_ms <= FIRST_TOKEN_MS_MAX:
            raise ScriptError(
                f"first_token_ms={script.first_token_ms} is not from 0 to {FIRST_TOKEN_MS_MAX}."
            )
        return script
