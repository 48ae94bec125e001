"""API keys of the caller's own account."""

from typing import NamedTuple

from server.history.accounts import add_own_key, live_keys, revoke_own_key
from server.history.tables import ApiKey
from server.identity.callers import Caller, Callers
from server.identity.secrets import new_key
from server.logs import audit
from server.resources import Services
from server.verbs.inputs import NewKey


class CreatedKey(NamedTuple):
    """A key and its secret, which is shown once and not stored."""

    row: ApiKey
    secret: str


async def create(services: Services, caller: Caller, new: NewKey) -> CreatedKey:
    """Creates a key. Raises Conflict at the limit, and Invalid for its expiry."""
    key = new_key()
    row = await services.database.write(
        add_own_key,
        caller.account_id,
        caller.key_id,
        caller.session_sha256,
        new.name,
        new.expires_at,
        prefix=key.prefix,
        sha256=key.sha256,
    )
    audit("key_created", account=row.account_id, key=row.id, made_by=row.made_by)
    return CreatedKey(row, key.secret)


async def live(services: Services, caller: Caller) -> list[ApiKey]:
    """The keys of the account that are neither revoked nor expired, oldest first."""
    return await services.database.read(live_keys, caller.account_id)


async def revoke(services: Services, caller: Caller, key_id: str, callers: Callers) -> ApiKey:
    """Revokes a key and all keys created with it; idempotent. Raises NotFound."""
    revoked = await services.database.write(revoke_own_key, key_id, caller.account_id)
    forget(callers, revoked)
    return revoked[0]


def forget(callers: Callers, revoked: list[ApiKey]) -> None:
    """Makes a revocation known in this process, and logs it."""
    for key in revoked:
        callers.forget(key.sha256)
        audit("key_revoked", account=key.account_id, key=key.id)
