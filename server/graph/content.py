"""What an answer is made of: parts, usage and errors. One field name has one type in all of them."""

from enum import Enum
from typing import Any

import strawberry

from server.parts import Parts


@strawberry.enum(description="What a part is. Values may be added.")
class PartType(Enum):
    TEXT = strawberry.enum_value("text", description="Something said.")
    REASONING = strawberry.enum_value(
        "reasoning", description="What a model thought before it spoke."
    )
    TOOL_CALL = strawberry.enum_value(
        "tool_call", description="A tool that a model wants to be called."
    )
    TOOL_RESULT = strawberry.enum_value("tool_result", description="What a tool answered.")
    FILE = strawberry.enum_value("file", description="A file.")


@strawberry.interface(
    description="One part of a content, which is an ordered list of them. Kinds of parts may be added."
)
class ContentPart:
    type: PartType = strawberry.field(description="What kind of part this is.")


@strawberry.type(description="Something said.")
class TextPart(ContentPart):
    text: str = strawberry.field(description="The words.")


@strawberry.type(description="What a model thought before it spoke.")
class ReasoningPart(ContentPart):
    text: str = strawberry.field(description="The words.")


@strawberry.type(description="A tool that a model wants to be called.")
class ToolCallPart(ContentPart):
    call_id: strawberry.ID = strawberry.field(
        description="Names this call; its result carries the same."
    )
    name: str = strawberry.field(description="The tool's name.")
    arguments: str = strawberry.field(description="The arguments: JSON, as the model wrote it.")


@strawberry.type(description="What a tool answered.")
class ToolResultPart(ContentPart):
    call_id: strawberry.ID = strawberry.field(description="The call this answers.")
    content: str = strawberry.field(description="The answer.")
    is_error: bool = strawberry.field(description="Whether the tool failed.")


@strawberry.type(description="A file.")
class FilePart(ContentPart):
    file_id: strawberry.ID = strawberry.field(description="Names the file.")
    media_type: str = strawberry.field(description="What it is, e.g. `image/png`.")
    name: str = strawberry.field(description="What it is called.")


PART_TYPES = (TextPart, ReasoningPart, ToolCallPart, ToolResultPart, FilePart)


def content_parts(parts: Parts) -> list[ContentPart]:
    """The parts of a content; those of a kind that a newer server wrote are left out."""
    return [made for part in parts if (made := _part(part)) is not None]


def _part(part: dict[str, Any]) -> ContentPart | None:
    match part["type"]:
        case "text":
            return TextPart(type=PartType.TEXT, text=part["text"])
        case "reasoning":
            return ReasoningPart(type=PartType.REASONING, text=part["text"])
        case "tool_call":
            return ToolCallPart(
                type=PartType.TOOL_CALL,
                call_id=strawberry.ID(part["call_id"]),
                name=part["name"],
                arguments=part["arguments"],
            )
        case "tool_result":
            return ToolResultPart(
                type=PartType.TOOL_RESULT,
                call_id=strawberry.ID(part["call_id"]),
                content=part["content"],
                is_error=bool(part.get("is_error")),
            )
        case "file":
            return FilePart(
                type=PartType.FILE,
                file_id=strawberry.ID(part["file_id"]),
                media_type=part["media_type"],
                name=part["name"],
            )
    return None


@strawberry.type(description="What an answer used, summed over every attempt at it.")
class Usage:
    input_tokens: int = strawberry.field(description="Tokens the model read.")
    output_tokens: int = strawberry.field(description="Tokens the model wrote, reasoning included.")
    cached_input_tokens: int | None = strawberry.field(
        description="Of the tokens read, those its provider had kept; null where it does not say."
    )
    reasoning_tokens: int | None = strawberry.field(
        description="Of the tokens written, those of reasoning; null where its provider does not say."
    )
    estimated: bool = strawberry.field(
        description="Whether a part of this was not counted by the provider but taken from the text."
    )


def usage_of(usage: dict[str, Any] | None) -> Usage | None:
    """The usage of a row or an event."""
    if usage is None:
        return None
    return Usage(
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        cached_input_tokens=usage.get("cached_input_tokens"),
        reasoning_tokens=usage.get("reasoning_tokens"),
        estimated=bool(usage.get("estimated")),
    )


@strawberry.type(description="Why an answer could not be written.")
class GenerationError:
    code: str = strawberry.field(
        description="For programs, e.g. `provider_rate_limited`; docs/http.md lists them. Codes may be added."
    )
    message: str = strawberry.field(description="For people.")
    retryable: bool = strawberry.field(description="Whether asking again may succeed.")


def error_of(error: dict[str, Any] | None) -> GenerationError | None:
    """The error of a row or an event."""
    return (
        GenerationError(code=error["code"], message=error["message"], retryable=error["retryable"])
        if error
        else None
    )
