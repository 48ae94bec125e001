"""The inputs of mutations. An omitted field is left unchanged, null clears it.

Limits are those of the HTTP interface, in `server.verbs.inputs`.
"""

from datetime import datetime
from typing import Any

import strawberry
from strawberry.scalars import JSON

from server.graph.content import PartType

KEY = (
    "For 24 hours, a request with the same key returns the same generation, over HTTP too. "
    "The same key with a different input is an error."
)


@strawberry.input(description="A part of a question.")
class ContentPartInput:
    type: PartType = strawberry.field(description="The type of the part; only TEXT is accepted.")
    text: str | None = strawberry.field(default=strawberry.UNSET, description="The text.")


@strawberry.input(
    description="Options of an answer. An omitted one is taken from the conversation or the server."
)
class AnswerOptionsInput:
    model: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The model: its id, or its name if that is unique.",
    )
    system_prompt: str | None = strawberry.field(
        default=strawberry.UNSET, description="The system prompt."
    )
    max_output_tokens: int | None = strawberry.field(
        default=strawberry.UNSET, description="The maximum number of output tokens."
    )
    temperature: float | None = strawberry.field(
        default=strawberry.UNSET,
        description="The sampling temperature, 0 to 2. If omitted, the provider's default.",
    )
    metadata: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 16 pairs of strings."
    )
    idempotency_key: str | None = strawberry.field(default=strawberry.UNSET, description=KEY)


@strawberry.input(description="A question to send.")
class SendMessageInput(AnswerOptionsInput):
    text: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The question. Exactly one of `text` and `content` is required.",
    )
    content: list[ContentPartInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The question in parts."
    )
    conversation_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="If omitted, a new conversation is created with this `model` and "
        "`systemPrompt`.",
    )
    parent_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The answer it follows; by default the last one shown. Null starts a new "
        "branch.",
    )


@strawberry.input(description="A question to edit.")
class EditMessageInput(AnswerOptionsInput):
    id: strawberry.ID = strawberry.field(description="The question to replace with a sibling.")
    text: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The question. Exactly one of `text` and `content` is required.",
    )
    content: list[ContentPartInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The question in parts."
    )


@strawberry.input(description="An answer to regenerate.")
class RegenerateMessageInput(AnswerOptionsInput):
    id: strawberry.ID = strawberry.field(description="The answer to write a sibling of.")


@strawberry.input(description="An answer to continue.")
class ContinueMessageInput(AnswerOptionsInput):
    id: strawberry.ID = strawberry.field(
        description="The answer. If it failed or was cancelled, it is restarted."
    )


@strawberry.input(description="An empty conversation to create.")
class CreateConversationInput:
    title: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The title. If omitted, the first words of the conversation.",
    )
    model: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The model. If omitted, the default model.",
    )
    system_prompt: str | None = strawberry.field(
        default=strawberry.UNSET, description="The system prompt."
    )
    metadata: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 16 pairs of strings."
    )


@strawberry.input(description="Changes to a conversation. Omitted fields keep their values.")
class UpdateConversationInput:
    id: strawberry.ID = strawberry.field(description="The conversation.")
    title: str | None = strawberry.field(default=strawberry.UNSET, description="The title.")
    pinned: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it is pinned to the top of the list."
    )
    archived: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it is archived."
    )
    model: str | None = strawberry.field(
        default=strawberry.UNSET, description="The default model of the conversation."
    )
    system_prompt: str | None = strawberry.field(
        default=strawberry.UNSET, description="The system prompt; null removes it."
    )
    shown_message_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="A message of it: the branch through it, to its newest leaf, is shown.",
    )
    metadata: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="Up to 16 pairs of strings; replaces the existing ones.",
    )


@strawberry.input(description="The conversation to delete.")
class DeleteConversationInput:
    id: strawberry.ID = strawberry.field(description="The conversation.")


@strawberry.input(description="The conversation to restore.")
class RestoreConversationInput:
    id: strawberry.ID = strawberry.field(description="The conversation.")


@strawberry.input(description="The generation to cancel.")
class CancelGenerationInput:
    id: strawberry.ID = strawberry.field(description="The generation.")
    wait_s: float = strawberry.field(
        default=2.0, description="How many seconds to wait for it to end, 0 to 30."
    )


@strawberry.input(description="The API key to create.")
class CreateApiKeyInput:
    name: str = strawberry.field(description="A name that describes what the key is for.")
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When it expires; by default never, or with the session of a guest. "
        "No key can create one that outlives it.",
    )


@strawberry.input(description="The API key to revoke.")
class RevokeApiKeyInput:
    id: strawberry.ID = strawberry.field(description="The API key.")


def body_of(input: Any) -> dict[str, Any]:
    """The fields set in an input, as the body of the same HTTP request: without ids and keys."""
    values = {
        name: value
        for name, value in vars(input).items()
        if value is not strawberry.UNSET and name not in ("id", "idempotency_key")
    }
    if values.get("content") is not None:
        values["content"] = [
            {"type": part.type.value}
            | ({} if part.text is strawberry.UNSET else {"text": part.text})
            for part in values["content"]
        ]
    return values
