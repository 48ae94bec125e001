"""The caller, and what the server offers: accounts, users, keys, models."""

from datetime import datetime

import strawberry

from server.graph.context import Info
from server.history import tables
from server.providers.registry import Model as OfferedModel
from server.verbs import keys, sessions


@strawberry.type(
    description="An API key of an account. Its secret is shown once, when it is created."
)
class ApiKey:
    id: strawberry.ID = strawberry.field(description="The id of the key.")
    name: str = strawberry.field(description="The name that its creator gave it.")
    prefix: str = strawberry.field(description="The first characters of its secret.")
    created_at: datetime = strawberry.field(description="When it was created.")
    expires_at: datetime | None = strawberry.field(
        description="When it expires; null if it never does."
    )
    revoked_at: datetime | None = strawberry.field(
        description="When it was revoked; null unless it was."
    )

    @classmethod
    def of(cls, row: tables.ApiKey) -> "ApiKey":
        return cls(
            id=strawberry.ID(row.id),
            name=row.name,
            prefix=row.prefix,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )


@strawberry.type(description="The owner of conversations, keys and limits.")
class Account:
    id: strawberry.ID = strawberry.field(description="The id of the account.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @strawberry.field(description="Its valid keys, oldest first; at most 100.")
    async def api_keys(self, info: Info) -> list[ApiKey]:
        rows = await keys.live(info.context.services, info.context.caller)
        return [ApiKey.of(row) for row in rows]


@strawberry.type(description="A person who signs in.")
class User:
    id: strawberry.ID = strawberry.field(description="The id of the user.")
    email: str = strawberry.field(description="The email address.")
    created_at: datetime = strawberry.field(description="When the user was created.")


@strawberry.type(description="The caller.")
class Viewer:
    account: Account = strawberry.field(description="The account of the caller.")
    user: User | None = strawberry.field(
        description="The user of the account; null for a guest and for the local account."
    )
    api_key: ApiKey | None = strawberry.field(
        description="The API key of this call; null in a browser session."
    )


async def viewer_of(info: Info) -> Viewer:
    """The rows behind the caller."""
    account, user, key = await sessions.viewer(info.context.services, info.context.caller)
    shown_user = None
    if user is not None:
        shown_user = User(id=strawberry.ID(user.id), email=user.email, created_at=user.created_at)
    return Viewer(
        account=Account(id=strawberry.ID(account.id), created_at=account.created_at),
        user=shown_user,
        api_key=ApiKey.of(key) if key else None,
    )


@strawberry.type(description="A model that can be requested.")
class Model:
    id: strawberry.ID = strawberry.field(
        description="`<provider>/<name>`, or `demo`: the value of `model` everywhere."
    )
    provider: str = strawberry.field(description="The provider that offers it.")
    name: str = strawberry.field(description="The provider's name for it.")
    context_tokens: int = strawberry.field(
        description="The context window: the maximum number of input and output tokens."
    )
    default: bool = strawberry.field(description="Whether it is used when no model is specified.")

    @classmethod
    def of(cls, model: OfferedModel, *, default: bool) -> "Model":
        return cls(
            id=strawberry.ID(model.id),
            provider=model.provider,
            name=model.name,
            context_tokens=model.context_tokens,
            default=default,
        )


def models_offered(info: Info) -> list[Model]:
    """Every model of this installation."""
    offered = info.context.services.models
    return [Model.of(model, default=offered.is_default(model)) for model in offered.all]
