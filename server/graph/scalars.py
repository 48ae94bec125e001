"""Scalars and enums of the schema."""

from datetime import datetime
from enum import Enum

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig

from server.times import parse_time, rfc3339


def _parse_time(value: object) -> datetime:
    moment = parse_time(value) if isinstance(value, str) else None
    if moment is None:
        raise GraphQLError(
            'DateTime must be a string with a UTC offset, e.g. "2026-11-20T12:00:00Z".'
        )
    return moment


def _show_time(value: datetime | str) -> str | None:
    return value if isinstance(value, str) else rfc3339(value)


DATE_TIME = strawberry.scalar(
    name="DateTime",
    description="An RFC 3339 timestamp in UTC, e.g. `2026-11-20T12:00:00.123456Z`. "
    "Inputs may have any offset.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    serialize=_show_time,
    parse_value=_parse_time,
)

CONFIG = StrawberryConfig(scalar_map={datetime: DATE_TIME})


@strawberry.enum(description="The author of a message.")
class Role(Enum):
    USER = strawberry.enum_value("user", description="A question.")
    ASSISTANT = strawberry.enum_value("assistant", description="An answer.")


@strawberry.enum(description="The status of an answer. Values may be added.")
class GenerationStatus(Enum):
    QUEUED = strawberry.enum_value("queued", description="Waiting for a worker.")
    RUNNING = strawberry.enum_value("running", description="Being written.")
    COMPLETED = strawberry.enum_value("completed", description="Complete.")
    CANCELLED = strawberry.enum_value(
        "cancelled", description="Stopped; the content so far is kept."
    )
    FAILED = strawberry.enum_value("failed", description="Failed; see `error`.")


@strawberry.enum(description="Why the model stopped. Values may be added.")
class FinishReason(Enum):
    STOP = strawberry.enum_value("stop", description="The answer is complete.")
    LENGTH = strawberry.enum_value(
        "length", description="A length limit was reached; the answer can be continued."
    )
    TOOL_CALLS = strawberry.enum_value(
        "tool_calls", description="The model requests the result of a tool call."
    )
    CONTENT_FILTER = strawberry.enum_value(
        "content_filter", description="The provider's content filter stopped it."
    )
    OTHER = strawberry.enum_value("other", description="Any other reason.")


def finish_reason(word: str | None) -> FinishReason | None:
    """The reason of a row or an event."""
    if word is None:
        return None
    try:
        return FinishReason(word)
    except ValueError:
        return FinishReason.OTHER
