"""Callers: who makes a request, by API key or session cookie. Look-ups are cached for 2.5 s."""

from contextlib import suppress
from datetime import datetime
from math import inf
from time import monotonic
from typing import NamedTuple

from server.errors import Unauthenticated
from server.history.accounts import CredentialOwner, find_key, find_session, prolong_session
from server.history.database import Database, DatabaseAway
from server.history.tables import now
from server.identity.secrets import digest, is_key
from server.logs import audit

CACHED_S = 2.5
CACHED_MAX = 10_000
TOKEN_MAX_CHARS = 200
SHOWN_CHARS = 12
"""How many characters of a refused key are logged: those that lists show."""


class Caller(NamedTuple):
    """Who makes a request. Exactly one of `key_id` and `session_sha256` is set."""

    account_id: str
    user_id: str | None
    key_id: str | None
    session_sha256: str | None


class Callers:
    """Finds callers. A revoked credential is refused within seconds."""

    def __init__(self, database: Database, *, session_ttl_s: float) -> None:
        self._database, self._session_ttl_s = database, session_ttl_s
        self._cached_until: dict[str, tuple[float, Caller]] = {}

    async def by_key(self, secret: str) -> Caller:
        """The owner of an API key; raises Unauthenticated."""
        if not is_key(secret):
            raise Unauthenticated("This is not an API key of this server.")
        sha256 = digest(secret)
        if caller := self._cached(sha256):
            return caller
        found = await self._database.read(find_key, sha256)
        if found is None:
            audit("key_refused", prefix=secret[:SHOWN_CHARS])
            raise Unauthenticated("This API key is unknown, revoked or expired.")
        return self._cache(sha256, Caller(found.account_id, found.user_id, found.key_id, None))

    async def by_session(self, token: str) -> Caller:
        """The owner of a session cookie; raises Unauthenticated."""
        if len(token) > TOKEN_MAX_CHARS:
            raise Unauthenticated
        sha256 = digest(token)
        if caller := self._cached(sha256):
            return caller
        found: CredentialOwner | None = await self._database.read(find_session, sha256)
        if found is None:
            raise Unauthenticated("This session has expired; sign in again.")
        await self._prolong(sha256, found.expires_at)
        return self._cache(sha256, Caller(found.account_id, found.user_id, None, sha256))

    async def _prolong(self, sha256: str, expires_at: datetime | None) -> None:
        """Prolongs a session that is used in the second half of its life."""
        rest_s = (expires_at - now()).total_seconds() if expires_at else inf
        if rest_s < self._session_ttl_s / 2:
            with suppress(DatabaseAway):  # the next request tries again
                await self._database.write(prolong_session, sha256, self._session_ttl_s)

    def forget(self, sha256: str) -> None:
        """Drops a credential that was just revoked from the cache."""
        self._cached_until.pop(sha256, None)

    def _cached(self, sha256: str) -> Caller | None:
        until, caller = self._cached_until.get(sha256, (0.0, None))
        return caller if until > monotonic() else None

    def _cache(self, sha256: str, caller: Caller) -> Caller:
        if len(self._cached_until) >= CACHED_MAX:
            self._cached_until.clear()
        self._cached_until[sha256] = (monotonic() + CACHED_S, caller)
        return caller
