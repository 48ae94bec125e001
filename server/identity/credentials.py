"""Credentials: what a request shows to say who is asking, and the cookie that does so for browsers."""

from starlette.requests import HTTPConnection

from server.errors import Unauthenticated
from server.identity.callers import Caller, Callers
from server.settings import Settings

COOKIE = "tidemark_session"


def cookie_name(settings: Settings) -> str:
    """The session cookie's name; `__Host-` binds it to this very host where the site is served by https."""
    return f"__Host-{COOKIE}" if settings.server.public_url.startswith("https://") else COOKIE


async def caller_of(connection: HTTPConnection) -> Caller:
    """Whoever sent this request, by API key, else by cookie; raises Unauthenticated."""
    callers: Callers = connection.state.callers
    authorization = connection.headers.get("authorization")
    if authorization is not None:
        return await caller_by(callers, authorization)
    token = connection.cookies.get(cookie_name(connection.state.services.settings))
    if not token:
        raise Unauthenticated
    return await callers.by_session(token)


async def caller_by(callers: Callers, authorization: str) -> Caller:
    """Whoever `Bearer <key>` names; raises Unauthenticated."""
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated
    return await callers.by_key(secret.strip())
