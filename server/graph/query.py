"""Queries. An object that does not exist, or is not the caller's, is null."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import strawberry

from server.errors import NotFound
from server.graph.context import Context, Info
from server.graph.page import (
    After,
    Before,
    First,
    Last,
    PageInfo,
    page_info,
    parse_slice,
    time_cursor,
    time_cursor_parser,
)
from server.graph.search import SearchHitConnection, Words, search_hits
from server.graph.types import Conversation, Generation, Message, Node
from server.graph.viewer import Model, Viewer, models_offered, viewer_of
from server.history import tables
from server.history.conversations import Listing
from server.history.generations import readable_generation
from server.history.keyset import Page
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


Filter = Annotated[
    ConversationFilter | None,
    strawberry.argument(description="Which conversations; all if omitted."),
]
OrderBy = Annotated[
    ConversationOrder | None,
    strawberry.argument(description="The order; if omitted, the one last written in comes first."),
]


@strawberry.type(description="A conversation in a list.")
class ConversationEdge:
    cursor: str = strawberry.field(description="The cursor, for `after` and `before`.")
    node: Conversation = strawberry.field(description="The conversation.")


@strawberry.type(description="A page of conversations.")
class ConversationConnection:
    edges: list[ConversationEdge] = strawberry.field(
        description="The conversations with their cursors."
    )
    nodes: list[Conversation] = strawberry.field(description="The conversations alone.")
    page_info: PageInfo = strawberry.field(description="The position of the page.")

    @classmethod
    def of(
        cls, page: Page[tables.Conversation], order: ConversationOrder
    ) -> "ConversationConnection":
        edges = [
            ConversationEdge(
                cursor=time_cursor(order.list_name, order.time_of(row), row.id),
                node=Conversation.of(row),
            )
            for row in page.items
        ]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page_info(page, [edge.cursor for edge in edges]),
        )


async def find_conversation(context: Context, id: str) -> Conversation | None:
    is_well_formed = is_id(Prefix.CONVERSATION, id)
    row = await context.loaders.conversation.load(id) if is_well_formed else None
    return Conversation.of(row) if row else None


async def find_message(context: Context, id: str) -> Message | None:
    row = await context.loaders.message.load(id) if is_id(Prefix.MESSAGE, id) else None
    return Message.of(row) if row else None


async def find_generation(context: Context, id: str) -> Generation | None:
    database, account_id = context.services.database, context.caller.account_id
    try:
        return Generation.of(await database.read(readable_generation, id, account_id))
    except NotFound:
        return None


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
        found: Node | None = await find(info.context, id) if find else None
        return found

    @strawberry.field(description="A conversation.")
    async def conversation(self, info: Info, id: AnId) -> Conversation | None:
        return await find_conversation(info.context, id)

    @strawberry.field(description="A message.")
    async def message(self, info: Info, id: AnId) -> Message | None:
        return await find_message(info.context, id)

    @strawberry.field(description="A generation.")
    async def generation(self, info: Info, id: AnId) -> Generation | None:
        return await find_generation(info.context, id)

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
    ) -> ConversationConnection:
        order = order_by or ConversationOrder()
        part = parse_slice(
            first, after, last, before, time_cursor_parser(order.list_name, Prefix.CONVERSATION)
        )
        listing = Listing(
            archived=filter.archived if filter else None,
            pinned=filter.pinned if filter else None,
            model=validated_value(ModelName, "filter/model", filter.model)
            if filter and filter.model is not None
            else None,
            by_creation=order.by_creation,
            descending=order.direction is OrderDirection.DESC,
        )
        context = info.context
        page = await conversations.page(context.services, context.caller, listing, part)
        return ConversationConnection.of(page, order)

    @strawberry.field(
        description="Searches the account's messages and the titles of its conversations."
    )
    async def search(
        self,
        info: Info,
        query: Words,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> SearchHitConnection:
        return await search_hits(info, query, first, after, last, before)

    @strawberry.field(description="The models that can be requested.")
    def models(self, info: Info) -> list[Model]:
        return models_offered(info)
