"""The nodes of the graph: conversations, messages, generations, and the connections between them."""

from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from server.errors import InvalidCursor, NotFound
from server.graph.content import (
    ContentPart,
    GenerationError,
    Usage,
    content_parts,
    error_of,
    usage_of,
)
from server.graph.context import Info
from server.graph.page import (
    After,
    Before,
    First,
    Last,
    PageInfo,
    asked_slice,
    message_cursor,
    message_place,
    moment_cursor,
    moment_place,
    page_info,
)
from server.graph.scalars import FinishReason, GenerationStatus, Role, finish_reason
from server.history import tables
from server.history.branches import BranchPart
from server.history.generations import Written, snapshot
from server.history.keyset import Page
from server.history.messages import Said
from server.history.several import Generations, Siblings
from server.ids import Prefix
from server.parts import joined_text

Leaf = Annotated[
    strawberry.ID | None,
    strawberry.argument(
        description="The message whose branch is read; the one that is shown when absent."
    ),
]


@strawberry.interface(
    description="Anything that has an id of its own, and can be read again by it."
)
class Node:
    id: strawberry.ID = strawberry.field(description="Names it, in every interface.")


@strawberry.type(description="A tree of messages, of which one branch is shown.")
class Conversation(Node):
    title: str = strawberry.field(description="What it is called.")
    system_prompt: str | None = strawberry.field(description="What its models are told first.")
    model: str = strawberry.field(
        description="The id of the model that answers where a message names none."
    )
    pinned: bool = strawberry.field(description="Whether it is kept at the top.")
    archived: bool = strawberry.field(description="Whether it is put away.")
    metadata: JSON = strawberry.field(description="Free pairs of strings, at most 16.")
    created_at: datetime = strawberry.field(description="When it began.")
    updated_at: datetime = strawberry.field(
        description="When something was last asked or said in it."
    )
    row: strawberry.Private[tables.Conversation]

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
            row=row,
        )

    @strawberry.field(
        description="The message that the shown branch ends with; null while nothing was said."
    )
    async def shown_message(self, info: Info) -> "Message | None":
        return await loaded_message(info, self.row.shown_message_id)

    @strawberry.field(
        description="The message that was written to last, on whichever branch; null while nothing was said."
    )
    async def last_message(self, info: Info) -> "Message | None":
        said = await info.context.loaders.last_message.load(self.row.id)
        return Message.of(said) if said else None

    @strawberry.field(
        description="The generations that are not over yet, in the order they were asked for."
    )
    async def active_generations(self, info: Info) -> "list[Generation]":
        return [
            Generation.of(row) for row in await info.context.loaders.active.load(self.row.id) or ()
        ]

    @strawberry.field(
        description="The messages of a branch, the oldest first. Without `first` and `after` it is the page with the newest ones."
    )
    async def messages(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        leaf: Leaf = None,
    ) -> "MessageConnection":
        part = asked_slice(first, after, last, before, message_place, newest=True)
        start = part.before or leaf
        if start is not None:
            await self._check_holds(info, start)
        page: Page[Said] | None = None
        if start is not None or self.row.shown_message_id is not None:
            page = await info.context.loaders.branch.load(
                BranchPart(start or self.row.shown_message_id or "", part)
            )
        return MessageConnection.of(page or Page([], has_previous=False, has_next=False))

    async def _check_holds(self, info: Info, message_id: str) -> None:
        """Raises NotFound where there is no such message, and InvalidCursor where it is in another conversation."""
        said = await info.context.loaders.message.load(message_id)
        if said is None:
            raise NotFound("message")
        if said.message.conversation_id != self.row.id:
            raise InvalidCursor("There is no such message in this conversation.")


@strawberry.type(description="A question, or an answer.")
class Message(Node):
    role: Role = strawberry.field(description="Who says it.")
    text: str = strawberry.field(description="The text parts of `content`, joined.")
    status: GenerationStatus = strawberry.field(
        description="Where the answer stands; a question is always COMPLETED."
    )
    model: str | None = strawberry.field(
        description="The id of the model that wrote it last; null for a question."
    )
    finish_reason: FinishReason | None = strawberry.field(
        description="Why the model ended; null until it has, and for a question."
    )
    usage: Usage | None = strawberry.field(
        description="What writing it used; null while nothing is known, and for a question."
    )
    error: GenerationError | None = strawberry.field(
        description="Why it could not be written; null unless that is so."
    )
    metadata: JSON = strawberry.field(description="Free pairs of strings, at most 16.")
    created_at: datetime = strawberry.field(description="When it was asked, or asked for.")
    said: strawberry.Private[Said]

    @classmethod
    def of(cls, said: Said) -> "Message":
        message, generation = said
        return cls(
            id=strawberry.ID(message.id),
            role=Role(message.role),
            text=joined_text(said.parts),
            status=GenerationStatus(said.status),
            model=generation.model if generation else None,
            finish_reason=finish_reason(generation.finish_reason) if generation else None,
            usage=usage_of(generation.usage) if generation else None,
            error=error_of(generation.error) if generation else None,
            metadata=JSON(message.labels),
            created_at=message.created_at,
            said=said,
        )

    @strawberry.field(
        description="Its parts. Of an answer that is being written: those that were last stored; its `generation` has all."
    )
    def content(self) -> list[ContentPart]:
        return content_parts(self.said.parts)

    @strawberry.field(
        description="The conversation it is in; null where that was deleted meanwhile."
    )
    async def conversation(self, info: Info) -> Conversation | None:
        return await loaded_conversation(info, self.said.message.conversation_id)

    @strawberry.field(
        description="What it follows: the question of an answer, the answer before a question; null at the beginning."
    )
    async def parent(self, info: Info) -> "Message | None":
        return await loaded_message(info, self.said.message.parent_id)

    @strawberry.field(
        description="All messages that follow the same one, this one included, in order; at most the first 100."
    )
    async def siblings(self, info: Info) -> "list[Message]":
        message = self.said.message
        found = await info.context.loaders.siblings.load(
            Siblings(message.conversation_id, message.parent_id)
        )
        return [Message.of(said) for said in found or ()]

    @strawberry.field(description="The generation that wrote it last; null for a question.")
    def generation(self) -> "Generation | None":
        return Generation.of(self.said.generation) if self.said.generation else None

    @strawberry.field(
        description="All generations that wrote it, the first one first: a continued answer has several."
    )
    async def generations(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> "GenerationConnection":
        part = asked_slice(
            first, after, last, before, moment_place("generation", Prefix.GENERATION)
        )
        page = await info.context.loaders.generations.load(Generations(self.said.message.id, part))
        return GenerationConnection.of(page or Page([], has_previous=False, has_next=False))


@strawberry.type(
    description="One writing of an answer: what was asked of which model, and what it came to."
)
class Generation(Node):
    status: GenerationStatus = strawberry.field(description="Where it stands.")
    attempt: int = strawberry.field(description="How many times a worker has taken it.")
    model: str = strawberry.field(description="The id of the model that writes it.")
    finish_reason: FinishReason | None = strawberry.field(
        description="Why the model ended; null until it has."
    )
    usage: Usage | None = strawberry.field(
        description="What it used, over all attempts; null while nothing is known."
    )
    error: GenerationError | None = strawberry.field(
        description="Why it failed; null unless it has."
    )
    messages_left_out: int = strawberry.field(
        description="How many of the oldest messages did not fit the model."
    )
    created_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When a worker first took it.")
    first_token_at: datetime | None = strawberry.field(
        description="When the model first said something."
    )
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    conversation_id: strawberry.Private[str]
    message_id: strawberry.Private[str]
    row: strawberry.Private[tables.Generation | None]
    written: strawberry.Private[Written | None]

    @classmethod
    def of(cls, row: tables.Generation) -> "Generation":
        """A row. What is written beyond it is read when it is asked for."""
        return cls._made(
            snapshot(row, Written([], 0)),
            row,
            Written(row.parts, row.seq) if row.status.terminal else None,
        )

    @classmethod
    def of_snapshot(cls, shown: dict[str, Any]) -> "Generation":
        """A generation as an event tells it."""
        return cls._made(shown, None, Written(shown["content"], shown["seq"]))

    @classmethod
    def _made(
        cls, shown: dict[str, Any], row: tables.Generation | None, written: Written | None
    ) -> "Generation":
        same = (
            "id",
            "attempt",
            "model",
            "created_at",
            "started_at",
            "first_token_at",
            "finished_at",
            "conversation_id",
            "message_id",
        )
        return cls(
            status=GenerationStatus(shown["status"]),
            finish_reason=finish_reason(shown["finish_reason"]),
            usage=usage_of(shown["usage"]),
            error=error_of(shown["error"]),
            messages_left_out=shown["context"]["messages_left_out"],
            row=row,
            written=written,
            **{name: shown[name] for name in same},
        )

    async def _written(self, info: Info) -> Written:
        if self.written is not None:
            return self.written
        assert self.row is not None, "one of the two is there"
        return await info.context.loaders.written.load(self.row)

    @strawberry.field(
        description="The number of the last event that `content` includes; the last one's when it is over."
    )
    async def seq(self, info: Info) -> int:
        return (await self._written(info)).seq

    @strawberry.field(description="What is written so far, as of event `seq`.")
    async def content(self, info: Info) -> list[ContentPart]:
        return content_parts((await self._written(info)).parts)

    @strawberry.field(description="The text parts of `content`, joined.")
    async def text(self, info: Info) -> str:
        return joined_text((await self._written(info)).parts)

    @strawberry.field(
        description="The answer it writes; null where its conversation was deleted meanwhile."
    )
    async def message(self, info: Info) -> Message | None:
        return await loaded_message(info, self.message_id)

    @strawberry.field(
        description="The conversation it is in; null where that was deleted meanwhile."
    )
    async def conversation(self, info: Info) -> Conversation | None:
        return await loaded_conversation(info, self.conversation_id)


async def loaded_conversation(info: Info, id: str) -> Conversation | None:
    """The conversation of an id that was read from a row."""
    row = await info.context.loaders.conversation.load(id)
    return Conversation.of(row) if row else None


async def loaded_message(info: Info, id: str | None) -> Message | None:
    """The message of an id that was read from a row, if that has one."""
    said = await info.context.loaders.message.load(id) if id is not None else None
    return Message.of(said) if said else None


@strawberry.type(description="A message on its branch.")
class MessageEdge:
    cursor: str = strawberry.field(description="Its place, for `after` and `before`.")
    node: Message = strawberry.field(description="The message.")


@strawberry.type(description="A page of messages.")
class MessageConnection:
    edges: list[MessageEdge] = strawberry.field(description="The messages with their cursors.")
    nodes: list[Message] = strawberry.field(description="The messages alone.")
    page_info: PageInfo = strawberry.field(description="Where the page stands.")

    @classmethod
    def of(cls, page: Page[Said]) -> "MessageConnection":
        edges = [
            MessageEdge(cursor=message_cursor(said.message.id), node=Message.of(said))
            for said in page.items
        ]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page_info(page, [edge.cursor for edge in edges]),
        )


@strawberry.type(description="A generation of an answer.")
class GenerationEdge:
    cursor: str = strawberry.field(description="Its place, for `after` and `before`.")
    node: Generation = strawberry.field(description="The generation.")


@strawberry.type(description="A page of generations.")
class GenerationConnection:
    edges: list[GenerationEdge] = strawberry.field(
        description="The generations with their cursors."
    )
    nodes: list[Generation] = strawberry.field(description="The generations alone.")
    page_info: PageInfo = strawberry.field(description="Where the page stands.")

    @classmethod
    def of(cls, page: Page[tables.Generation]) -> "GenerationConnection":
        edges = [
            GenerationEdge(
                cursor=moment_cursor("generation", row.created_at, row.id), node=Generation.of(row)
            )
            for row in page.items
        ]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page_info(page, [edge.cursor for edge in edges]),
        )
