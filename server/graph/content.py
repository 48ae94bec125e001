"""Content parts, usage and errors. A field name has the same type in all of them."""

from enum import Enum
from typing import Any

import strawberry

from server.parts import Parts


@strawberry.enum(description="The type of a content part. Values may be added.")
class PartType(Enum):
    TEXT = strawberry.enum_value("text", description="Text.")
    REASONING = strawberry.enum_value(
        "reasoning", description="Reasoning of the model before its answer."
    )
    TOOL_CALL = strawberry.enum_value(
        "tool_call", description="A tool call requested by the model."
    )
    TOOL_RESULT = strawberry.enum_value("tool_result", description="The result of a tool call.")
    FILE = strawberry.enum_value("file", description="A file.")


@strawberry.interface(
    description="A content part. Content is an ordered list of parts; types of parts may be added."
)
class ContentPart:
    type: PartType = strawberry.field(description="The type of the part.")


@strawberry.type(description="Text.")
class TextPart(ContentPart):
    text: str = strawberry.field(description="The text.")


@strawberry.type(description="Reasoning of the model before its answer.")
class ReasoningPart(ContentPart):
    text: str = strawberry.field(description="The text.")


@strawberry.type(description="A tool call requested by the model.")
class ToolCallPart(ContentPart):
    call_id: strawberry.ID = strawberry.field(
        description="The id of the call; its result has the same."
    )
    name: str = strawberry.field(description="The tool's name.")
    arguments: str = strawberry.field(
        description="The arguments as JSON, exactly as the model wrote them."
    )


@strawberry.type(description="The result of a tool call.")
class ToolResultPart(ContentPart):
    call_id: strawberry.ID = strawberry.field(description="The id of the call.")
    content: str = strawberry.field(description="The result.")
    is_error: bool = strawberry.field(description="Whether the tool failed.")


@strawberry.type(description="A file.")
class FilePart(ContentPart):
    file_id: strawberry.ID = strawberry.field(description="The id of the file.")
    media_type: str = strawberry.field(description="The media type, e.g. `image/png`.")
    name: str = strawberry.field(description="The file name.")


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


@strawberry.type(description="Token usage, summed over all attempts.")
class Usage:
    input_tokens: int = strawberry.field(description="Input tokens.")
    output_tokens: int = strawberry.field(description="Output tokens, including reasoning.")
    cached_input_tokens: int | None = strawberry.field(
        description="Input tokens read from the provider's cache; null if not reported."
    )
    reasoning_tokens: int | None = strawberry.field(
        description="Output tokens used for reasoning; null if not reported."
    )
    estimated: bool = strawberry.field(
        description="Whether some counts are estimated from the text, not reported by the provider."
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


@strawberry.type(description="Why a generation failed.")
class GenerationError:
    code: str = strawberry.field(
        description="A code, e.g. `provider_rate_limited`; see docs/http.md. Codes may be added."
    )
    message: str = strawberry.field(description="A message for people.")
    retryable: bool = strawberry.field(description="Whether a retry may succeed.")


def error_of(error: dict[str, Any] | None) -> GenerationError | None:
    """The error of a row or an event."""
    return (
        GenerationError(code=error["code"], message=error["message"], retryable=error["retryable"])
        if error
        else None
    )
