"""The nodes of the graph: conversations, messages, generations, and their connections."""

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from server.cursors import time_cursor, unpack_time_cursor
from server.errors import NotFound
from server.graph.content import (
    ContentPart,
    GenerationError,
    Usage,
    content_parts,
    error_of,
    usage_of,
)
from server.graph.context import Info
from server.graph.loaders import Loaders
from server.graph.page import (
    After,
    Before,
    Connection,
    First,
    Last,
    connection,
    message_cursor,
    parse_message_cursor,
    parse_slice,
)
from server.graph.scalars import FinishReason, GenerationStatus, Role, finish_reason
from server.graph.selection import selects_content
from server.history import tables
from server.history.contents import StoredContent
from server.history.generations import GenerationsPart, Written
from server.history.keyset import Page
from server.history.messages import MessageRow
from server.history.tree import BranchPart, SiblingKey
from server.ids import Prefix
from server.lifecycle.row_events import Snapshot
from server.parts import Parts, joined_text
from server.times import parse_time
from server.verbs.conversations import check_contains

Leaf = Annotated[
    strawberry.ID | None,
    strawberry.argument(
        description="The message that ends the branch. If omitted, the shown branch is read."
    ),
]


@strawberry.interface(description="An object that can be read again by its id.")
class Node:
    id: strawberry.ID = strawberry.field(description="The id, the same in every interface.")


async def _system_prompt(root: "Conversation", info: Info) -> str | None:
    [prompt] = await info.context.loaders.system_prompt.load((str(root.id),))
    return prompt


@strawberry.type(description="A tree of messages, one branch of which is shown.")
class Conversation(Node):
    title: str = strawberry.field(description="The title.")
    system_prompt: str | None = strawberry.field(
        resolver=_system_prompt, description="The system prompt for its models."
    )
    model: str = strawberry.field(description="The id of the model for messages that specify none.")
    pinned: bool = strawberry.field(description="Whether it is pinned to the top of the list.")
    archived: bool = strawberry.field(description="Whether it is archived.")
    metadata: JSON = strawberry.field(description="Up to 16 pairs of strings.")
    created_at: datetime = strawberry.field(description="When it was created.")
    updated_at: datetime = strawberry.field(
        description="When a message was last sent or an answer last ended in it."
    )
    row: strawberry.Private[tables.Conversation]

    @classmethod
    def of(cls, row: tables.Conversation) -> "Conversation":
        return cls(
            id=strawberry.ID(row.id),
            title=row.title,
            model=row.model,
            pinned=row.pinned,
            archived=row.archived,
            metadata=JSON(row.labels),
            created_at=row.created_at,
            updated_at=row.updated_at,
            row=row,
        )

    @strawberry.field(
        description="The message that ends the shown branch; null while there are no messages."
    )
    async def shown_message(self, info: Info) -> "Message | None":
        return await loaded_message(info, self.row.shown_message_id)

    @strawberry.field(
        description="The message written last, on any branch; null while there are no messages."
    )
    async def last_message(self, info: Info) -> "Message | None":
        return await present_message(
            info, await info.context.loaders.last_message.load(self.row.id)
        )

    @strawberry.field(
        description="The generations that have not ended, in the order of their requests."
    )
    async def active_generations(self, info: Info) -> "list[Generation]":
        rows = await info.context.loaders.active.load(self.row.id)
        return [Generation.of(row) for row in rows or ()]

    @strawberry.field(
        description="The messages of a branch, oldest first. Without `first` and `after`, the "
        "page with the newest ones. A page with large contents may be shorter than requested."
    )
    async def messages(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        leaf: Leaf = None,
    ) -> "Connection[Message]":
        part = parse_slice(first, after, last, before, parse_message_cursor, newest=True)
        loaders = info.context.loaders
        start = part.before or leaf
        if start is not None:
            row = await loaders.message.load(start)
            if row is None:
                raise NotFound("message")
            check_contains(self.row.id, row)
        end = start or self.row.shown_message_id
        page: Page[MessageRow] | None = None
        if end is not None:
            is_content_read = selects_content(info)
            branch = loaders.branch_with_content if is_content_read else loaders.branch
            page = await branch.load(BranchPart(end, part))
        page = page or Page([], has_previous=False, has_next=False)
        cursors = [message_cursor(row.message.id) for row in page.items]
        return connection(page, cursors, await present_messages(info, page.items))


class _LazyText:
    """Awaitable: the text of a message, whose content is read when it is selected."""

    def __init__(self, loaders: Loaders, row: MessageRow) -> None:
        self._loaders, self._row = loaders, row

    def __await__(self) -> Generator[Any, Any, str]:
        return self._read().__await__()

    async def _read(self) -> str:
        return joined_text(await self._loaders.parts(self._row))


@strawberry.type(description="A question or an answer.")
class Message(Node):
    role: Role = strawberry.field(description="Who wrote it.")
    text: str = strawberry.field(description="The text parts of `content`, joined.")
    status: GenerationStatus = strawberry.field(
        description="The state of an answer; a question is always COMPLETED."
    )
    model: str | None = strawberry.field(
        description="The id of the model that wrote it last; null for a question."
    )
    finish_reason: FinishReason | None = strawberry.field(
        description="Why the model stopped; null until it has, and for a question."
    )
    usage: Usage | None = strawberry.field(
        description="The tokens used for it; null while unknown, and for a question."
    )
    error: GenerationError | None = strawberry.field(
        description="Why it failed; null unless it did."
    )
    metadata: JSON = strawberry.field(description="Up to 16 pairs of strings.")
    position: int = strawberry.field(description="Its position among its siblings, from 0.")
    created_at: datetime = strawberry.field(description="When it was sent or requested.")
    row: strawberry.Private[MessageRow]
    parts: strawberry.Private[Parts | None]

    @classmethod
    def of(cls, row: MessageRow, content: "Parts | Loaders") -> "Message":
        """A row with its content, or with loaders that read it when it is selected."""
        message, generation = row
        # A page has hundreds of texts, so this field has no resolver.
        text: Any = joined_text(content) if isinstance(content, list) else _LazyText(content, row)
        return cls(
            id=strawberry.ID(message.id),
            role=Role(message.role),
            text=text,
            status=GenerationStatus(row.status),
            model=generation.model if generation else None,
            finish_reason=finish_reason(generation.finish_reason) if generation else None,
            usage=usage_of(generation.usage) if generation else None,
            error=error_of(generation.error) if generation else None,
            metadata=JSON(message.labels),
            position=message.position,
            created_at=message.created_at,
            row=row,
            parts=content if isinstance(content, list) else None,
        )

    @strawberry.field(
        graphql_type=list[ContentPart],
        description="Its parts. While an answer is being generated these are the last ones "
        "stored; `generation` has all of them.",
    )
    def content(self, info: Info) -> Any:
        return self._content(info) if self.parts is None else content_parts(self.parts)

    async def _content(self, info: Info) -> list[ContentPart]:
        return content_parts(await info.context.loaders.parts(self.row))

    @strawberry.field(description="Its conversation; null if that was deleted in the meantime.")
    async def conversation(self, info: Info) -> Conversation | None:
        return await loaded_conversation(info, self.row.message.conversation_id)

    @strawberry.field(
        description="The message it follows: the question of an answer, or the answer before a "
        "question; null for the first one."
    )
    async def parent(self, info: Info) -> "Message | None":
        return await loaded_message(info, self.row.message.parent_id)

    @strawberry.field(
        description="The messages with the same parent, this one included, in order; at most the "
        "100 around this one."
    )
    async def siblings(self, info: Info) -> "list[Message]":
        loaders = info.context.loaders
        ids = await loaders.sibling_ids.load(self.row.message.id)
        rows = await loaders.message.load_many(ids or ())
        return await present_messages(info, [row for row in rows if row is not None])

    @strawberry.field(description="How many messages have the same parent, this one included.")
    async def sibling_count(self, info: Info) -> int:
        message = self.row.message
        key = SiblingKey(message.conversation_id, message.parent_id)
        return await info.context.loaders.sibling_total.load(key) or 1

    @strawberry.field(description="The generation that wrote it last; null for a question.")
    def generation(self) -> "Generation | None":
        return Generation.of(self.row.generation) if self.row.generation else None

    @strawberry.field(
        description="All generations that wrote it, oldest first; a continued answer has several."
    )
    async def generations(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> "Connection[Generation]":
        part = parse_slice(first, after, last, before, _parse_generation_cursor)
        key = GenerationsPart(self.row.message.id, part)
        page = await info.context.loaders.generations.load(key)
        page = page or Page([], has_previous=False, has_next=False)
        cursors = [time_cursor(row.created_at, row.id, "generation") for row in page.items]
        return connection(page, cursors, [Generation.of(row) for row in page.items])


def _parse_generation_cursor(cursor: str) -> tuple[datetime, str] | None:
    return unpack_time_cursor(cursor, Prefix.GENERATION, "generation")


@strawberry.type(description="One run of a model that writes an answer.")
class Generation(Node):
    status: GenerationStatus = strawberry.field(description="Its state.")
    attempt: int = strawberry.field(description="How many times a worker has claimed it.")
    model: str = strawberry.field(description="The id of its model.")
    finish_reason: FinishReason | None = strawberry.field(
        description="Why the model stopped; null until it has."
    )
    usage: Usage | None = strawberry.field(
        description="The tokens used, over all attempts; null while unknown."
    )
    error: GenerationError | None = strawberry.field(
        description="Why it failed; null unless it did."
    )
    messages_left_out: int = strawberry.field(
        description="How many of the oldest messages did not fit the model's context."
    )
    created_at: datetime = strawberry.field(description="When it was requested.")
    started_at: datetime | None = strawberry.field(description="When a worker first claimed it.")
    first_token_at: datetime | None = strawberry.field(
        description="When the model sent its first token."
    )
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    conversation_id: strawberry.Private[str]
    message_id: strawberry.Private[str]
    ended_at_seq: strawberry.Private[int | None]
    written: strawberry.Private[Written | None]

    @classmethod
    def of(cls, row: tables.Generation, written: Written | None = None) -> "Generation":
        """A row. Without `written`, its content is read when it is selected."""
        return cls(
            id=strawberry.ID(row.id),
            status=GenerationStatus(row.status),
            attempt=row.attempt,
            model=row.model,
            finish_reason=finish_reason(row.finish_reason),
            usage=usage_of(row.usage),
            error=error_of(row.error),
            messages_left_out=row.messages_left_out,
            created_at=row.created_at,
            started_at=row.started_at,
            first_token_at=row.first_token_at,
            finished_at=row.finished_at,
            conversation_id=row.conversation_id,
            message_id=row.message_id,
            ended_at_seq=row.seq if row.status.terminal else None,
            written=written,
        )

    @classmethod
    def of_snapshot(cls, data: Snapshot) -> "Generation":
        """A generation as of a snapshot event of its log."""
        created_at = parse_time(data["created_at"])
        assert created_at is not None, "the log's times are RFC 3339"
        return cls(
            id=strawberry.ID(data["id"]),
            status=GenerationStatus(data["status"]),
            attempt=data["attempt"],
            model=data["model"],
            finish_reason=finish_reason(data["finish_reason"]),
            usage=usage_of(data["usage"]),
            error=error_of(dict(data["error"]) if data["error"] else None),
            messages_left_out=data["context"]["messages_left_out"],
            created_at=created_at,
            started_at=parse_time(data["started_at"] or ""),
            first_token_at=parse_time(data["first_token_at"] or ""),
            finished_at=parse_time(data["finished_at"] or ""),
            conversation_id=data["conversation_id"],
            message_id=data["message_id"],
            ended_at_seq=None,
            written=Written([dict(part) for part in data["content"]], data["seq"]),
        )

    async def _written(self, info: Info) -> Written:
        if self.written is not None:
            return self.written
        live = await info.context.loaders.live.load(str(self.id))
        if live is None:
            return Written([], self.ended_at_seq or 0)
        if self.ended_at_seq is None and live.status.terminal:
            # It ended after its status was read: its reader has yet to see the terminal event.
            return live.written._replace(seq=live.written.seq - 1)
        return live.written

    @strawberry.field(
        description="The number of the last event that `content` includes; once it has ended, "
        "that of the terminal event."
    )
    async def seq(self, info: Info) -> int:
        return self.ended_at_seq or (await self._written(info)).seq

    @strawberry.field(description="What has been written so far, as of event `seq`.")
    async def content(self, info: Info) -> list[ContentPart]:
        return content_parts((await self._written(info)).parts)

    @strawberry.field(description="The text parts of `content`, joined.")
    async def text(self, info: Info) -> str:
        return joined_text((await self._written(info)).parts)

    @strawberry.field(
        description="The answer it writes; null if its conversation was deleted in the meantime."
    )
    async def message(self, info: Info) -> Message | None:
        return await loaded_message(info, self.message_id)

    @strawberry.field(description="Its conversation; null if that was deleted in the meantime.")
    async def conversation(self, info: Info) -> Conversation | None:
        return await loaded_conversation(info, self.conversation_id)


async def loaded_conversation(info: Info, id: str) -> Conversation | None:
    """The conversation with this id; None if it was deleted."""
    row = await info.context.loaders.conversation.load(id)
    return Conversation.of(row) if row else None


async def loaded_message(info: Info, id: str | None) -> Message | None:
    """The message with this id; None without an id or a message."""
    row = await info.context.loaders.message.load(id) if id is not None else None
    return await present_message(info, row)


async def present_message(info: Info, row: MessageRow | None) -> Message | None:
    """Presents a row without its content, which is read if it is selected."""
    return (await present_messages(info, [row]))[0] if row is not None else None


async def present_messages(info: Info, rows: Sequence[MessageRow]) -> list[Message]:
    """Presents rows without their content, which is read if it is selected."""
    loaders = info.context.loaders
    if not selects_content(info):
        return [Message.of(row, loaders) for row in rows]
    bare = tuple(row.content_id for row in rows if not row.has_content)
    stored = dict(zip(bare, await loaders.content.load(bare), strict=True)) if bare else {}
    return [Message.of(row, _parts_of(row, stored)) for row in rows]


def _parts_of(row: MessageRow, stored: Mapping[str, StoredContent | None]) -> Parts:
    if row.has_content:
        return row.parts
    content = stored[row.content_id]
    return content.parts if content else []
