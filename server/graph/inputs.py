"""What mutations take. Absent leaves, null clears; limits are those of the HTTP interface, in `server.serve.request_body`."""

from datetime import datetime
from typing import Any

import strawberry
from strawberry.scalars import JSON

from server.graph.content import PartType

KEY = "The same key gives the same generation for 24 hours, over HTTP too; with another input it is refused."


@strawberry.input(description="A part of a question.")
class ContentPartInput:
    type: PartType = strawberry.field(
        description="What kind of part this is; only TEXT can be asked."
    )
    text: str | None = strawberry.field(default=strawberry.UNSET, description="The words.")


@strawberry.input(
    description="How an answer is to be written. What is absent is the conversation's, else the server's."
)
class AnswerOptionsInput:
    model: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Which model: its id, or its name where only one has it.",
    )
    system_prompt: str | None = strawberry.field(
        default=strawberry.UNSET, description="What the model is told first."
    )
    max_output_tokens: int | None = strawberry.field(
        default=strawberry.UNSET, description="How many tokens it may say."
    )
    temperature: float | None = strawberry.field(
        default=strawberry.UNSET, description="From 0 to 2; the provider's own when absent."
    )
    metadata: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="At most 16 pairs of strings."
    )
    idempotency_key: str | None = strawberry.field(default=strawberry.UNSET, description=KEY)


@strawberry.input(description="A question, and where it belongs.")
class SendMessageInput(AnswerOptionsInput):
    text: str | None = strawberry.field(
        default=strawberry.UNSET, description="The question. Exactly one of `text` and `content`."
    )
    content: list[ContentPartInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The question in parts."
    )
    conversation_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="Where it is asked. Absent: a new conversation, whose own `model` and `systemPrompt` become.",
    )
    parent_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The answer it follows. Absent: the one that is shown last; null: none, a new beginning.",
    )


@strawberry.input(description="A question in other words.")
class EditMessageInput(AnswerOptionsInput):
    id: strawberry.ID = strawberry.field(description="The question that is asked anew.")
    text: str | None = strawberry.field(
        default=strawberry.UNSET, description="The question. Exactly one of `text` and `content`."
    )
    content: list[ContentPartInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The question in parts."
    )


@strawberry.input(description="Another answer to the same question.")
class RegenerateMessageInput(AnswerOptionsInput):
    id: strawberry.ID = strawberry.field(description="The answer that gets a sibling.")


@strawberry.input(description="More of an answer.")
class ContinueMessageInput(AnswerOptionsInput):
    id: strawberry.ID = strawberry.field(description="The answer that goes on, or starts over.")


@strawberry.input(description="A conversation in which nothing was said yet.")
class CreateConversationInput:
    title: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="What it is called; absent: it is named after its first words.",
    )
    model: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The model that answers in it; the default when absent.",
    )
    system_prompt: str | None = strawberry.field(
        default=strawberry.UNSET, description="What its models are told first."
    )
    metadata: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="At most 16 pairs of strings."
    )


@strawberry.input(
    description="What of a conversation is to change. Absent leaves; null clears the system prompt."
)
class UpdateConversationInput:
    id: strawberry.ID = strawberry.field(description="The conversation.")
    title: str | None = strawberry.field(default=strawberry.UNSET, description="What it is called.")
    pinned: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it is kept at the top."
    )
    archived: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it is put away."
    )
    model: str | None = strawberry.field(
        default=strawberry.UNSET, description="The model that answers in it."
    )
    system_prompt: str | None = strawberry.field(
        default=strawberry.UNSET, description="What its models are told first; null for nothing."
    )
    shown_message_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="A message of it: the branch through it is shown, to its newest leaf.",
    )
    metadata: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="At most 16 pairs of strings; replaces all."
    )


@strawberry.input(description="The conversation to delete.")
class DeleteConversationInput:
    id: strawberry.ID = strawberry.field(description="The conversation.")


@strawberry.input(description="The conversation to restore.")
class RestoreConversationInput:
    id: strawberry.ID = strawberry.field(description="The conversation.")


@strawberry.input(description="The generation to stop.")
class CancelGenerationInput:
    id: strawberry.ID = strawberry.field(description="The generation.")
    wait_s: float = strawberry.field(
        default=2.0, description="How long to wait for its end, in seconds, 0 to 30."
    )


@strawberry.input(description="The key to make.")
class CreateApiKeyInput:
    name: str = strawberry.field(description="What it is for.")
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When it ends by itself; never when absent. A key that expires makes none that outlives it.",
    )


@strawberry.input(description="The key to revoke.")
class RevokeApiKeyInput:
    id: strawberry.ID = strawberry.field(description="The key.")


def given(input: Any) -> dict[str, Any]:
    """What was given of an input, as the body of the same call over HTTP; `id` and the idempotency key are no part of one."""
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
