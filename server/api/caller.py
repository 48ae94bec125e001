"""Whose request this is, and the cookie that says so."""

from starlette.requests import HTTPConnection
from starlette.responses import Response

from server.errors import Unauthenticated
from server.identity.callers import Caller
from server.settings import Settings

COOKIE = "tidemark_session"


def cookie_name(settings: Settings) -> str:
    """The session cookie's name; `__Host-` binds it to this very host where the site is served by https."""
    return f"__Host-{COOKIE}" if settings.server.public_url.startswith("https://") else COOKIE


async def caller_of(connection: HTTPConnection) -> Caller:
    """Whoever sent this request, by API key, else by cookie; raises Unauthenticated."""
    callers, settings = connection.state.callers, connection.state.resources.settings
    authorization = connection.headers.get("authorization")
    if authorization is not None:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated
        found: Caller = await callers.by_key(secret.strip())
        return found
    token = connection.cookies.get(cookie_name(settings))
    if not token:
        raise Unauthenticated
    caller: Caller = await callers.by_session(token)
    return caller


def set_session_cookie(response: Response, settings: Settings, token: str) -> None:
    """Signs the browser in."""
    secure = settings.server.public_url.startswith("https://")
    response.set_cookie(
        cookie_name(settings), token, max_age=int(settings.auth.session_ttl_s), path="/", secure=secure, httponly=True, samesite="lax"
    )
