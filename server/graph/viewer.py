"""Who asks, and what the server offers: accounts, users, keys, models."""

from datetime import datetime

import strawberry

from server.graph.context import Info
from server.history import tables
from server.history.accounts import identity, live_keys
from server.providers.registry import Model as OfferedModel


@strawberry.type(
    description="A key that opens an account to programs. Its secret is shown once, when it is made."
)
class ApiKey:
    id: strawberry.ID = strawberry.field(description="Names the key.")
    name: str = strawberry.field(description="What it is for, as its maker called it.")
    prefix: str = strawberry.field(description="How its secret begins.")
    created_at: datetime = strawberry.field(description="When it was made.")
    expires_at: datetime | None = strawberry.field(
        description="When it ends by itself; null for never."
    )
    revoked_at: datetime | None = strawberry.field(
        description="When it was ended; null while it was not."
    )

    @classmethod
    def of(cls, row: tables.ApiKey) -> "ApiKey":
        names = ("name", "prefix", "created_at", "expires_at", "revoked_at")
        return cls(id=strawberry.ID(row.id), **{name: getattr(row, name) for name in names})


@strawberry.type(description="Who owns conversations, keys and limits.")
class Account:
    id: strawberry.ID = strawberry.field(description="Names the account.")
    created_at: datetime = strawberry.field(description="Since when it exists.")

    @strawberry.field(
        description="Its keys that can be used, the oldest first; there are at most 100."
    )
    async def api_keys(self, info: Info) -> list[ApiKey]:
        rows = await info.context.resources.database.read(live_keys, info.context.account_id)
        return [ApiKey.of(row) for row in rows]


@strawberry.type(description="A person who signs in.")
class User:
    id: strawberry.ID = strawberry.field(description="Names the user.")
    email: str = strawberry.field(description="Their address.")
    created_at: datetime = strawberry.field(description="Since when they are known.")


@strawberry.type(description="Who asks.")
class Viewer:
    account: Account = strawberry.field(description="The account that everything here belongs to.")
    user: User | None = strawberry.field(
        description="The person it belongs to; null for a guest, and for an account of this machine."
    )
    api_key: ApiKey | None = strawberry.field(
        description="The key of this call; null in a browser's session."
    )


async def viewer_of(info: Info) -> Viewer:
    """Who asks."""
    caller = info.context.caller
    account, user, key = await info.context.resources.database.read(
        identity, caller.account_id, caller.user_id, caller.key_id
    )
    return Viewer(
        account=Account(id=strawberry.ID(account.id), created_at=account.created_at),
        user=User(id=strawberry.ID(user.id), email=user.email, created_at=user.created_at)
        if user
        else None,
        api_key=ApiKey.of(key) if key else None,
    )


@strawberry.type(description="A model that can be asked for.")
class Model:
    id: strawberry.ID = strawberry.field(
        description="`<provider>/<name>`, or `demo`; what `model` is everywhere."
    )
    provider: str = strawberry.field(description="Who offers it.")
    name: str = strawberry.field(description="What its provider calls it.")
    context_tokens: int = strawberry.field(
        description="How many tokens a request and its answer may come to."
    )
    default: bool = strawberry.field(description="Whether it answers where no model is named.")


def models_offered(info: Info) -> list[Model]:
    """Every model of this installation."""
    offered = info.context.resources.models
    return [_model(model, offered.default) for model in offered.all]


def _model(model: OfferedModel, default: OfferedModel) -> Model:
    return Model(
        id=strawberry.ID(model.id),
        provider=model.provider,
        name=model.name,
        context_tokens=model.context_tokens,
        default=model == default,
    )
