"""What may be asked for, and within which limits: the bodies of requests, the same for every interface."""

from collections.abc import Callable, Iterable
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
from starlette.requests import Request

from server.errors import Invalid, TooLarge
from server.history.exchange import Options
from server.parts import Parts, joined_text

B = TypeVar("B", bound=BaseModel)

IDEMPOTENCY_KEY_MAX_CHARS = 255
FAULTS_MAX = 20
PAGE_DEFAULT, PAGE_MAX = 20, 100


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character cannot be stored")
    return text


Text = Annotated[str, AfterValidator(_storable)]
"""A string that both databases can keep."""

ModelName = Annotated[Text, Field(min_length=1, max_length=200)]
SystemPrompt = Annotated[Text, Field(max_length=100_000)]
Title = Annotated[Text, Field(min_length=1, max_length=200)]
MetadataKey = Annotated[Text, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[Text, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]


class Body(BaseModel):
    """A request's body: types are not converted, and unknown keys are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(BaseModel):
    """A part of a question."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    type: Literal["text"]
    text: Text


class AnswerOptions(Body):
    """How the answer is to be written. What is absent is the conversation's, else the server's."""

    model: ModelName | None = None
    system_prompt: SystemPrompt | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    metadata: Metadata = {}

    def options(self) -> Options:
        return Options(
            self.model, self.system_prompt, self.max_output_tokens, self.temperature, self.metadata
        )


class EditMessage(AnswerOptions):
    """A question: `text`, or `content`, exactly one."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["content"]}]}
    )

    text: Text | None = None
    content: Annotated[list[TextPart], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "EditMessage":
        if (self.text is None) == (self.content is None):
            raise ValueError("exactly one of text and content must be there")
        if not joined_text(self.parts()).strip():
            raise ValueError("the message is empty")
        return self

    def parts(self) -> Parts:
        """The content, however it was sent."""
        if self.content is not None:
            return [part.model_dump() for part in self.content]
        return [{"type": "text", "text": self.text}]


class SendMessage(EditMessage):
    """A question, and where it belongs."""

    conversation_id: Text | None = None
    parent_id: Text | None = None


class NewConversation(Body):
    """A conversation in which nothing was said yet."""

    title: Title | None = None
    model: ModelName | None = None
    system_prompt: SystemPrompt | None = None
    metadata: Metadata = {}


class ChangeConversation(Body):
    """What of a conversation is to change. Absent leaves; null clears `system_prompt`."""

    title: Title = ""
    pinned: bool = False
    archived: bool = False
    model: ModelName = ""
    system_prompt: SystemPrompt | None = None
    shown_message_id: Text = ""
    metadata: Metadata = {}

    def changes(self, model_of: Callable[[str | None], str]) -> dict[str, Any]:
        """What is named, as the columns are; `model_of` gives the full id of a model, or raises Invalid."""
        changes = self.model_dump(exclude_unset=True)
        if "metadata" in changes:
            changes["labels"] = changes.pop("metadata")
        if "model" in changes:
            changes["model"] = model_of(changes["model"])
        return changes


class NewKey(Body):
    """An API key."""

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    expires_at: AwareDatetime | None = None


async def read_bytes(request: Request, limit: int) -> bytes:
    """The body of a request; raises TooLarge as soon as it is known to be."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def checked(model: type[B], value: dict[str, Any]) -> B:
    """`value` as `model`; raises Invalid, which says what is wrong, fault by fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from None


def checked_value(type: Any, pointer: str, value: Any) -> Any:
    """A single value as `type`; raises Invalid, which points at it."""
    try:
        return TypeAdapter(type).validate_python(value, strict=True)
    except ValidationError as error:
        detail = _detail(error.errors(include_url=False)[0])
        raise Invalid(
            "invalid_request",
            f"{pointer}: {detail}.",
            errors=[{"pointer": f"/{pointer}", "detail": detail}],
        ) from None


def checked_key(key: str | None) -> str | None:
    """An Idempotency-Key, if there is one; raises Invalid."""
    if key is not None and not (
        0 < len(key) <= IDEMPOTENCY_KEY_MAX_CHARS and key.isascii() and key.isprintable()
    ):
        raise Invalid(
            "invalid_idempotency_key",
            f"An Idempotency-Key is 1 to {IDEMPOTENCY_KEY_MAX_CHARS} printable ASCII characters.",
        )
    return key


def _invalid(error: ValidationError) -> Invalid:
    faults = [
        {"pointer": _pointer(fault["loc"]), "detail": _detail(fault)}
        for fault in error.errors(include_url=False)[:FAULTS_MAX]
    ]
    first = faults[0]
    where = f"{first['pointer'].lstrip('/').replace('/', '.')}: " if first["pointer"] else ""
    return Invalid("invalid_request", f"{where}{first['detail']}.", errors=faults)


def _pointer(loc: Iterable[int | str]) -> str:
    return "".join(
        f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in loc if step != "[key]"
    )


def _detail(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return "there is no such key"
    message = fault["msg"].removeprefix("Value error, ")
    return str(message[0].lower() + message[1:])


def _too_large(limit: int) -> TooLarge:
    return TooLarge("body_too_large", f"The body is larger than {limit} bytes.", limit=limit)
