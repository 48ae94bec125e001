"""Callers: whose request this is, by API key or session cookie. A look-up is kept for 2.5 s."""

from time import monotonic
from typing import NamedTuple

from server.errors import Unauthenticated
from server.history.accounts import Found, find_key, find_session
from server.history.database import Database
from server.identity.secrets import digest, is_key

KEPT_S = 2.5
KEPT_MAX = 10_000
TOKEN_MAX_CHARS = 200


class Caller(NamedTuple):
    """Who asks. Exactly one of `key_id` and `session_sha256` is there."""

    account_id: str
    user_id: str | None
    key_id: str | None
    session_sha256: str | None


class Callers:
    """Finds callers, and forgets within seconds what was revoked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[str, tuple[float, Caller]] = {}

    async def by_key(self, secret: str) -> Caller:
        """Whoever this API key belongs to; raises Unauthenticated."""
        if not is_key(secret):
            raise Unauthenticated("This is not an API key of this server.")
        sha256 = digest(secret)
        if caller := self._look(sha256):
            return caller
        found = await self._database.read(find_key, sha256)
        if found is None:
            raise Unauthenticated("This API key is unknown, revoked or expired.")
        return self._keep(sha256, Caller(found.account_id, found.user_id, found.key_id, None))

    async def by_session(self, token: str) -> Caller:
        """Whoever this session cookie belongs to; raises Unauthenticated."""
        if len(token) > TOKEN_MAX_CHARS:
            raise Unauthenticated
        sha256 = digest(token)
        if caller := self._look(sha256):
            return caller
        found: Found | None = await self._database.read(find_session, sha256)
        if found is None:
            raise Unauthenticated("This session is over; sign in again.")
        return self._keep(sha256, Caller(found.account_id, found.user_id, None, sha256))

    def forget(self, sha256: str) -> None:
        """Drops what is kept of a credential that was just revoked."""
        self._kept.pop(sha256, None)

    def _look(self, sha256: str) -> Caller | None:
        until, caller = self._kept.get(sha256, (0.0, None))
        return caller if until > monotonic() else None

    def _keep(self, sha256: str, caller: Caller) -> Caller:
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[sha256] = (monotonic() + KEPT_S, caller)
        return caller
