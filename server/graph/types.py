"""The nodes of the graph: conversations, messages, generations."""

from datetime import datetime
from typing import Any

import strawberry
from strawberry.scalars import JSON

from server.graph.content import ContentPart, GenerationError, Usage, content_parts, error_of, usage_of
from server.graph.scalars import FinishReason, GenerationStatus, finish_reason
from server.history import tables
from server.history.generations import Written, snapshot
from server.parts import Parts


@strawberry.interface(description="Anything that has an id of its own, and can be read again by it.")
class Node:
    id: strawberry.ID = strawberry.field(description="Names it, in every interface.")


@strawberry.type(description="A tree of messages, of which one branch is shown.")
class Conversation(Node):
    title: str = strawberry.field(description="What it is called.")
    system_prompt: str | None = strawberry.field(description="What its models are told first.")
    model: str = strawberry.field(description="The id of the model that answers where a message names none.")
    pinned: bool = strawberry.field(description="Whether it is kept at the top.")
    archived: bool = strawberry.field(description="Whether it is put away.")
    metadata: JSON = strawberry.field(description="Free pairs of strings, at most 16.")
    created_at: datetime = strawberry.field(description="When it began.")
    updated_at: datetime = strawberry.field(description="When something was last said or asked in it.")

    @classmethod
    def of(cls, row: tables.Conversation) -> "Conversation":
        return cls(
            id=strawberry.ID(row.id),
            title=row.title,
            system_prompt=row.system_prompt,
            model=row.model,
            pinned=row.pinned,
            archived=row.archived,
            metadata=JSON(row.labels),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


@strawberry.type(description="One writing of an answer: what was asked of which model, and what it came to.")
class Generation(Node):
    status: GenerationStatus = strawberry.field(description="Where it stands.")
    attempt: int = strawberry.field(description="How many workers have taken it.")
    seq: int = strawberry.field(description="The number of the last event that `content` includes.")
    text: str = strawberry.field(description="The text parts of `content`, joined.")
    model: str = strawberry.field(description="The id of the model that writes it.")
    finish_reason: FinishReason | None = strawberry.field(description="Why the model ended; null until it has.")
    usage: Usage | None = strawberry.field(description="What it used; null while nothing is known.")
    error: GenerationError | None = strawberry.field(description="Why it failed; null unless it has.")
    messages_left_out: int = strawberry.field(description="How many of the oldest messages did not fit the model.")
    created_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When a worker first took it.")
    first_token_at: datetime | None = strawberry.field(description="When the model first said something.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    parts: strawberry.Private[Parts]

    @strawberry.field(description="What is written so far, as of event `seq`.")
    def content(self) -> list[ContentPart]:
        return content_parts(self.parts)

    @classmethod
    def of(cls, row: tables.Generation, written: Written | None = None) -> "Generation":
        """A row, with what is known to be written beyond it."""
        return cls.of_snapshot(snapshot(row, written))

    @classmethod
    def of_snapshot(cls, shown: dict[str, Any]) -> "Generation":
        """A generation as the contract shows it, from a row or an event."""
        return cls(
            id=strawberry.ID(shown["id"]),
            status=GenerationStatus(shown["status"]),
            attempt=shown["attempt"],
            seq=shown["seq"],
            text=shown["text"],
            model=shown["model"],
            finish_reason=finish_reason(shown["finish_reason"]),
            usage=usage_of(shown["usage"]),
            error=error_of(shown["error"]),
            messages_left_out=shown["context"]["messages_left_out"],
            created_at=shown["created_at"],
            started_at=shown["started_at"],
            first_token_at=shown["first_token_at"],
            finished_at=shown["finished_at"],
            parts=shown["content"],
        )
