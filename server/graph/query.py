"""Queries. What is not there, or not the caller's, is null."""

from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import strawberry
from sqlmodel import Session

from server.errors import NotFound
from server.generate.reading import written_so_far
from server.graph.context import Context, Info
from server.graph.types import Conversation, Generation, Node
from server.history.accounts import email_of
from server.history.conversations import readable_conversation
from server.history.generations import readable_generation
from server.ids import Prefix

P = ParamSpec("P")
T = TypeVar("T")

AnId = Annotated[strawberry.ID, strawberry.argument(description="Its id.")]


@strawberry.type(description="Who owns conversations, keys and limits.")
class Account:
    id: strawberry.ID = strawberry.field(description="Names the account.")


@strawberry.type(description="A person who signs in.")
class User:
    id: strawberry.ID = strawberry.field(description="Names the user.")
    email: str = strawberry.field(description="Their address.")


@strawberry.type(description="Who asks.")
class Viewer:
    account: Account = strawberry.field(description="The account that everything here belongs to.")
    user: User | None = strawberry.field(description="The person; null for a guest, and for keys of an account without a user.")


async def readable(
    context: Context, fn: Callable[Concatenate[Session, str, str, P], T], id: str, *args: P.args, **kwargs: P.kwargs
) -> T | None:
    """What `fn` finds for the caller under this id; None where that is nothing."""
    try:
        return await context.resources.database.read(fn, id, context.caller.account_id, *args, **kwargs)
    except NotFound:
        return None


async def find_conversation(context: Context, id: str) -> Conversation | None:
    row = await readable(context, readable_conversation, id)
    return Conversation.of(row) if row else None


async def find_generation(context: Context, id: str) -> Generation | None:
    row = await readable(context, readable_generation, id)
    if row is None:
        return None
    resources = context.resources
    return Generation.of(row, await written_so_far(resources.redis, resources.settings.redis.key_prefix, row))


FINDERS: dict[str, Any] = {Prefix.CONVERSATION: find_conversation, Prefix.GENERATION: find_generation}


@strawberry.type(description="What can be read.")
class Query:
    @strawberry.field(description="Who asks.")
    async def viewer(self, info: Info) -> Viewer:
        caller = info.context.caller
        email = await info.context.resources.database.read(email_of, caller.user_id)
        user = User(id=strawberry.ID(caller.user_id), email=email) if caller.user_id and email else None
        return Viewer(account=Account(id=strawberry.ID(caller.account_id)), user=user)

    @strawberry.field(description="Anything that has an id of its own.")
    async def node(self, info: Info, id: AnId) -> Node | None:
        find = FINDERS.get(id.partition("_")[0])
        return await find(info.context, id) if find else None

    @strawberry.field(description="A conversation.")
    async def conversation(self, info: Info, id: AnId) -> Conversation | None:
        return await find_conversation(info.context, id)

    @strawberry.field(description="A generation.")
    async def generation(self, info: Info, id: AnId) -> Generation | None:
        return await find_generation(info.context, id)
