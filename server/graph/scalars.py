"""Scalars and enums of the schema, and the words they stand for."""

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
            'a moment is a string with its offset from UTC, e.g. "2026-11-20T12:00:00Z"'
        )
    return moment


def _show_time(value: datetime | str) -> str | None:
    return value if isinstance(value, str) else rfc3339(value)


DATE_TIME = strawberry.scalar(
    name="DateTime",
    description="A moment as RFC 3339 writes it, in UTC: `2026-11-20T12:00:00.123456Z`. Any offset is accepted.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    serialize=_show_time,
    parse_value=_parse_time,
)

CONFIG = StrawberryConfig(scalar_map={datetime: DATE_TIME})


@strawberry.enum(description="Who says something.")
class Role(Enum):
    USER = strawberry.enum_value("user", description="A question.")
    ASSISTANT = strawberry.enum_value("assistant", description="An answer.")


@strawberry.enum(description="Where an answer stands. Values may be added.")
class GenerationStatus(Enum):
    QUEUED = strawberry.enum_value("queued", description="It waits for a worker.")
    RUNNING = strawberry.enum_value("running", description="It is being written.")
    COMPLETED = strawberry.enum_value("completed", description="It has come to its end.")
    CANCELLED = strawberry.enum_value(
        "cancelled", description="It was stopped; what was said is kept."
    )
    FAILED = strawberry.enum_value(
        "failed", description="It could not be written; `error` says why."
    )


@strawberry.enum(description="Why a model ended. Values may be added.")
class FinishReason(Enum):
    STOP = strawberry.enum_value("stop", description="It had said everything.")
    LENGTH = strawberry.enum_value(
        "length", description="It reached a limit; the answer can be continued."
    )
    TOOL_CALLS = strawberry.enum_value("tool_calls", description="It wants a tool's result.")
    CONTENT_FILTER = strawberry.enum_value(
        "content_filter", description="Its provider would not let it go on."
    )
    OTHER = strawberry.enum_value("other", description="Something else.")


def finish_reason(word: str | None) -> FinishReason | None:
    """The reason of a row or an event."""
    if word is None:
        return None
    try:
        return FinishReason(word)
    except ValueError:
        return FinishReason.OTHER
