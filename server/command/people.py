"""`tidemark key` and `tidemark user`: API keys, users and sign-in links."""

import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlmodel import Session

from server.errors import SettingsError, StartError
from server.history import accounts
from server.history.database import DatabaseAway, open_database
from server.history.schema import schema_is_current
from server.history.tables import ApiKey, now
from server.identity.secrets import digest, new_key, new_token
from server.serve.listening import shown_address
from server.settings import Settings
from server.times import rfc3339

P = ParamSpec("P")
T = TypeVar("T")

LINK_TTL_S = 3600
LOCAL_ACCOUNT = "local"
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def create_key(settings: Settings, name: str, email: str | None, expires: str | None) -> str:
    """Creates an API key for the account of `email`, or the local one. Returns its secret."""
    expires_at = now() + _duration(expires) if expires is not None else None
    email = _email(email) if email is not None else None
    key = new_key()

    def create(session: Session) -> None:
        account_id = (
            accounts.get_or_create_account(session, LOCAL_ACCOUNT).id
            if email is None
            else accounts.user_of(session, email).account_id
        )
        accounts.add_key(
            session, account_id, name, prefix=key.prefix, sha256=key.sha256, expires_at=expires_at
        )

    _write(settings, create)
    return key.secret


def list_keys(settings: Settings) -> list[list[str]]:
    """One row per key: id, prefix, name, account, state."""
    rows = _write(settings, accounts.list_keys)
    return [
        [key.id, f"{key.prefix}…", key.name, account.name or account.id, _state(key)]
        for key, account in rows
    ]


def revoke_key(settings: Settings, key_id: str) -> None:
    _write(settings, accounts.revoke_key, key_id)


def create_user(settings: Settings, email: str, *, admin: bool = False) -> None:
    """Creates a user. `admin` has no effect yet; a warning on standard error says so."""
    if _write(settings, accounts.new_user, _email(email)) is None:
        raise StartError(f"The user {email} already exists.")
    if admin:
        sys.stderr.write("tidemark: --admin has no effect: users have no roles yet.\n")


def list_users(settings: Settings) -> list[list[str]]:
    """One row per user: id, email address, time of creation."""
    rows = _write(settings, accounts.list_users)
    return [[user.id, user.email, rfc3339(user.created_at) or ""] for user in rows]


def link(settings: Settings, email: str) -> str:
    """A URL that signs in one browser, once, within an hour."""
    token, address = new_token(), _email(email)

    def add(session: Session) -> None:
        accounts.add_link(
            session, accounts.user_of(session, address).id, digest(token), ttl_s=LINK_TTL_S
        )

    _write(settings, add)
    server = settings.server
    base = server.public_url.rstrip("/") or shown_address(server.host, server.port)
    return f"{base}/#token={token}"


def _write(
    settings: Settings,
    fn: Callable[Concatenate[Session, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Runs `fn` as one transaction on an existing database. Raises StartError."""
    url = settings.database_url
    if url.startswith("sqlite") and not (file := Path(url.removeprefix("sqlite:///"))).is_file():
        raise StartError(
            f"{file.parent} does not contain a database. Run `tidemark up` or `tidemark migrate`."
        )

    async def run() -> T:
        async with open_database(url) as database:
            if not await database.read(schema_is_current):
                raise StartError("The database schema is outdated. Run `tidemark migrate`.")
            return await database.write(fn, *args, **kwargs)

    try:
        return asyncio.run(run())
    except DatabaseAway as error:
        raise StartError(f"Cannot reach the database: {error.reason}.") from None


def _duration(text: str) -> timedelta:
    number, unit = text[:-1], text[-1:]
    if (
        unit not in _UNITS
        or not (number.isascii() and number.isdigit())
        or not 0 < int(number) < 10_000
    ):
        raise SettingsError(
            f"{text!r} is not a valid value for --expires: "
            "expected a number from 1 to 9999 and m, h, d or w, e.g. 90d."
        )
    return timedelta(**{_UNITS[unit]: int(number)})


def _email(text: str) -> str:
    name, at, host = text.strip().lower().partition("@")
    if (
        not (name and at and host)
        or "@" in host
        or any(character.isspace() for character in text.strip())
    ):
        raise SettingsError(
            f"{text!r} is not a valid email address: expected one like ada@example.org."
        )
    return f"{name}@{host}"


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return f"revoked {rfc3339(key.revoked_at)}"
    if key.expires_at:
        return f"{'expired' if key.expires_at < now() else 'expires'} {rfc3339(key.expires_at)}"
    return "valid"
