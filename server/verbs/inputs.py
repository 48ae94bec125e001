"""The inputs of callers and their limits, the same for every interface."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from server.errors import Invalid
from server.parts import Parts, joined_text

B = TypeVar("B", bound=BaseModel)

IDEMPOTENCY_KEY_MAX_CHARS = 255
ERRORS_MAX = 20
PAGE_DEFAULT, PAGE_MAX = 20, 100
WAIT_DEFAULT_S, WAIT_MAX_S = 2.0, 30.0


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character cannot be stored")
    return text


Text = Annotated[str, AfterValidator(_storable)]
"""A string that both databases can store."""

ModelName = Annotated[Text, Field(min_length=1, max_length=200)]
SystemPrompt = Annotated[Text, Field(max_length=100_000)]
Title = Annotated[Text, Field(min_length=1, max_length=200)]
MetadataKey = Annotated[Text, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[Text, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]


class Body(BaseModel):
    """The body of a request. Types are not converted; unknown keys are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(Body):
    """A text part of a question."""

    type: Literal["text"]
    text: Text


class AnswerOptions(Body):
    """Options of an answer. Those that are omitted are the conversation's or the server's."""

    model: ModelName | None = None
    system_prompt: SystemPrompt | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    metadata: Metadata = {}


class EditMessage(AnswerOptions):
    """A question: either `text` or `content`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["content"]}]}
    )

    text: Text | None = None
    content: Annotated[list[TextPart], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _has_text(self) -> "EditMessage":
        if (self.text is None) == (self.content is None):
            raise ValueError("exactly one of text and content is required")
        if not joined_text(self.parts()).strip():
            raise ValueError("the message is empty")
        return self

    def parts(self) -> Parts:
        """The content as parts, from `content` or `text`."""
        if self.content is not None:
            return [part.model_dump() for part in self.content]
        return [{"type": "text", "text": self.text}]


class SendMessage(EditMessage):
    """A question, its conversation, and the answer that it follows."""

    conversation_id: Text | None = None
    parent_id: Text | None = None


class NewConversation(Body):
    """A conversation without messages."""

    title: Title | None = None
    model: ModelName | None = None
    system_prompt: SystemPrompt | None = None
    metadata: Metadata = {}


class ChangeConversation(Body):
    """Changes to a conversation. Omitted fields are unchanged; null clears `system_prompt`."""

    title: Title = ""
    pinned: bool = False
    archived: bool = False
    model: ModelName = ""
    system_prompt: SystemPrompt | None = None
    shown_message_id: Text = ""
    metadata: Metadata = {}


class NewKey(Body):
    """An API key."""

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    expires_at: AwareDatetime | None = None


def validated(model: type[B], value: dict[str, Any]) -> B:
    """`value` as `model`; raises Invalid, which names every invalid value."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from None


def validated_value(type: Any, pointer: str, value: Any) -> Any:
    """A single value as `type`; raises Invalid, which points at it."""
    try:
        return TypeAdapter(type).validate_python(value, strict=True)
    except ValidationError as error:
        detail = _detail(error.errors(include_url=False)[0])
        raise Invalid.at(f"/{pointer}", detail) from None


def validated_key(key: str | None) -> str | None:
    """An Idempotency-Key, if there is one; raises Invalid."""
    if key is None:
        return None
    if not (0 < len(key) <= IDEMPOTENCY_KEY_MAX_CHARS and key.isascii() and key.isprintable()):
        raise Invalid(
            "invalid_idempotency_key",
            "An Idempotency-Key must have 1 to "
            f"{IDEMPOTENCY_KEY_MAX_CHARS} printable ASCII characters.",
        )
    return key


def validated_limit(limit: int | None, pointer: str) -> int:
    """The length of a page; raises Invalid."""
    if limit is None or not 1 <= limit <= PAGE_MAX:
        raise Invalid.at(pointer, f"must be from 1 to {PAGE_MAX}", code="invalid_limit")
    return limit


def validated_wait_s(wait_s: float | None, pointer: str) -> float:
    """A time to wait for the end of an answer; raises Invalid."""
    if wait_s is None or not 0 <= wait_s <= WAIT_MAX_S:
        raise Invalid.at(pointer, f"must be a number of seconds from 0 to {WAIT_MAX_S:g}")
    return wait_s


def _invalid(error: ValidationError) -> Invalid:
    errors = [
        {"pointer": _pointer(each["loc"]), "detail": _detail(each)}
        for each in error.errors(include_url=False)[:ERRORS_MAX]
    ]
    first = errors[0]
    where = first["pointer"].lstrip("/").replace("/", ".")
    detail = f"{where}: {first['detail']}." if where else f"{first['detail']}."
    return Invalid("invalid_request", detail, errors=errors)


def _pointer(loc: Iterable[int | str]) -> str:
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in loc if step != "[key]")
    return "".join(f"/{step}" for step in steps)


def _detail(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return "is required"
    message = re.sub(r"^\w+ should ", "must ", message)
    message = re.sub(r" after validation, not \d+$", "", message)
    return str(message[0].lower() + message[1:])
