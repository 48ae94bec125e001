"""Credentials: the API key or session cookie of a request."""

from starlette.requests import HTTPConnection

from server.errors import Unauthenticated
from server.identity.callers import Caller, Callers
from server.settings import Settings

COOKIE = "tidemark_session"


def cookie_name(settings: Settings) -> str:
    """The name of the session cookie; over https, `__Host-` binds it to this host."""
    return f"__Host-{COOKIE}" if settings.server.public_url.startswith("https://") else COOKIE


async def caller_of(connection: HTTPConnection) -> Caller:
    """Who made this request, by API key, else by cookie; raises Unauthenticated."""
    callers: Callers = connection.state.callers
    authorization = connection.headers.get("authorization")
    if authorization is not None:
        return await caller_by(callers, authorization)
    token = connection.cookies.get(cookie_name(connection.state.services.settings))
    if not token:
        raise Unauthenticated
    return await callers.by_session(token)


async def caller_by(callers: Callers, authorization: str) -> Caller:
    """The owner of `Bearer <key>`; raises Unauthenticated."""
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated
    return await callers.by_key(secret.strip())
