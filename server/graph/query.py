"""Queries. An object that does not exist, or is not the caller's, is null."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import strawberry

from server.cursors import time_cursor, unpack_time_cursor
from server.graph.context import Info
from server.graph.page import (
    After,
    Before,
    Connection,
    First,
    Last,
    connection,
    parse_slice,
)
from server.graph.search import SearchHit, Words, search_hits
from server.graph.types import (
    Conversation,
    Generation,
    Message,
    Node,
    loaded_conversation,
    loaded_message,
)
from server.graph.viewer import Model, Viewer, models_offered, viewer_of
from server.history import tables
from server.history.conversations import Listing
from server.ids import Prefix, is_id
from server.verbs import conversations
from server.verbs.inputs import ModelName, validated_value

AnId = Annotated[strawberry.ID, strawberry.argument(description="The id.")]


@strawberry.input(description="Which conversations to list. Omitted and null fields do not filter.")
class ConversationFilter:
    archived: bool | None = strawberry.field(default=None, description="Whether they are archived.")
    pinned: bool | None = strawberry.field(default=None, description="Whether they are pinned.")
    model: str | None = strawberry.field(default=None, description="The id of their model.")


@strawberry.enum(description="What conversations are ordered by.")
class ConversationOrderField(Enum):
    UPDATED_AT = strawberry.enum_value(
        "updated", description="When a message was last sent or an answer last ended in them."
    )
    CREATED_AT = strawberry.enum_value("created", description="When they were created.")


@strawberry.enum(description="The direction of an order.")
class OrderDirection(Enum):
    ASC = strawberry.enum_value("asc", description="Oldest first.")
    DESC = strawberry.enum_value("desc", description="Newest first.")


@strawberry.input(description="The order of conversations.")
class ConversationOrder:
    field: ConversationOrderField = strawberry.field(
        default=ConversationOrderField.UPDATED_AT, description="The field to order by."
    )
    direction: OrderDirection = strawberry.field(
        default=OrderDirection.DESC, description="The direction."
    )

    @property
    def by_creation(self) -> bool:
        return self.field is ConversationOrderField.CREATED_AT

    @property
    def list_name(self) -> str:
        """The name of this order in its cursors."""
        return "created" if self.by_creation else "updated"

    def time_of(self, row: tables.Conversation) -> datetime:
        """The time that a conversation is ordered by."""
        return row.created_at if self.by_creation else row.updated_at

    def parse_cursor(self, cursor: str) -> tuple[datetime, str] | None:
        """The time and id in a cursor of this order; None if it is not valid."""
        return unpack_time_cursor(cursor, Prefix.CONVERSATION, self.list_name)


Filter = Annotated[
    ConversationFilter | None,
    strawberry.argument(description="Which conversations; all if omitted."),
]
OrderBy = Annotated[
    ConversationOrder | None,
    strawberry.argument(description="The order; by default the most recently updated first."),
]


async def find_conversation(info: Info, id: str) -> Conversation | None:
    return await loaded_conversation(info, id) if is_id(Prefix.CONVERSATION, id) else None


async def find_message(info: Info, id: str) -> Message | None:
    return await loaded_message(info, id) if is_id(Prefix.MESSAGE, id) else None


async def find_generation(info: Info, id: str) -> Generation | None:
    is_well_formed = is_id(Prefix.GENERATION, id)
    row = await info.context.loaders.generation.load(id) if is_well_formed else None
    return Generation.of(row) if row else None


FINDERS: dict[str, Any] = {
    Prefix.CONVERSATION: find_conversation,
    Prefix.MESSAGE: find_message,
    Prefix.GENERATION: find_generation,
}
"""How each type of node is found by its id."""


@strawberry.type(description="Reads. An object that does not exist, or is not yours, is null.")
class Query:
    @strawberry.field(description="The caller.")
    async def viewer(self, info: Info) -> Viewer:
        return await viewer_of(info)

    @strawberry.field(description="Any object by its id.")
    async def node(self, info: Info, id: AnId) -> Node | None:
        find = FINDERS.get(id.partition("_")[0])
        found: Node | None = await find(info, id) if find else None
        return found

    @strawberry.field(description="A conversation.")
    async def conversation(self, info: Info, id: AnId) -> Conversation | None:
        return await find_conversation(info, id)

    @strawberry.field(description="A message.")
    async def message(self, info: Info, id: AnId) -> Message | None:
        return await find_message(info, id)

    @strawberry.field(description="A generation.")
    async def generation(self, info: Info, id: AnId) -> Generation | None:
        return await find_generation(info, id)

    @strawberry.field(description="The conversations of the account.")
    async def conversations(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Filter = None,
        order_by: OrderBy = None,
    ) -> Connection[Conversation]:
        order = order_by or ConversationOrder()
        part = parse_slice(first, after, last, before, order.parse_cursor)
        listing = Listing(
            archived=filter.archived if filter else None,
            pinned=filter.pinned if filter else None,
            model=validated_value(ModelName, "filter/model", filter.model)
            if filter and filter.model is not None
            else None,
            by_creation=order.by_creation,
            descending=order.direction is OrderDirection.DESC,
        )
        context, loaders = info.context, info.context.loaders
        loaders.charge_rows(part.limit)
        page = await conversations.page(context.services, context.caller, listing, part)
        loaders.conversation.prime_many({row.id: row for row in page.items})
        return connection(
            page,
            [time_cursor(order.time_of(row), row.id, order.list_name) for row in page.items],
            [Conversation.of(row) for row in page.items],
        )

    @strawberry.field(
        description="Searches the account's messages and the titles of its conversations. Returns "
        "matching titles first, then the newest 2,000 matching messages by rank."
    )
    async def search(
        self,
        info: Info,
        query: Words,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[SearchHit]:
        return await search_hits(info, query, first, after, last, before)

    @strawberry.field(description="The models that can be requested.")
    def models(self, info: Info) -> list[Model]:
        return models_offered(info)
