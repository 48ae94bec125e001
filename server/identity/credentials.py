"""Credentials: the API key or session cookie of a request."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from server.errors import Unauthenticated
from server.identity.callers import Caller, Callers
from server.settings import Settings

COOKIE = "tidemark_session"
PREFIXES = ("", "__Host-", "__Secure-")


def cookie_name(settings: Settings, connection: HTTPConnection) -> str:
    """The name of the session cookie; over https, `__Host-` or `__Secure-` binds it to this host.

    Browsers send a cookie to all ports of a host: the port in the name keeps installations apart.
    """
    port = _port(connection.headers.get("host", ""))
    return _prefix(settings) + (f"{COOKIE}_{port}" if port else COOKIE)


def is_secure(settings: Settings) -> bool:
    """Whether browsers reach this server over https only."""
    return settings.server.public_url.startswith("https://")


def session_token(settings: Settings, connection: HTTPConnection) -> str | None:
    """The token in the session cookie. Cookies of earlier versions have no port in their names."""
    name = cookie_name(settings, connection)
    return connection.cookies.get(name) or connection.cookies.get(_prefix(settings) + COOKIE)


def has_session_cookie(connection: HTTPConnection) -> bool:
    """Whether there is a session cookie, of whatever installation on this host."""
    prefixed = tuple(f"{prefix}{COOKIE}" for prefix in PREFIXES)
    return any(name.startswith(prefixed) for name in connection.cookies)


def cookie_path(settings: Settings) -> str:
    """The path below which browsers send the session cookie."""
    return f"{settings.server.base_path}/"


def _prefix(settings: Settings) -> str:
    if not is_secure(settings):
        return ""
    return "__Secure-" if settings.server.base_path else "__Host-"  # the latter is for a whole host


def _port(host: str) -> int | None:
    try:
        return urlsplit(f"//{host}").port
    except ValueError:
        return None


async def caller_of(connection: HTTPConnection) -> Caller:
    """Who made this request, by API key, else by cookie; raises Unauthenticated."""
    callers: Callers = connection.state.callers
    authorization = connection.headers.get("authorization")
    if authorization is not None:
        return await caller_by(callers, authorization)
    token = session_token(connection.state.services.settings, connection)
    if not token:
        raise Unauthenticated
    return await callers.by_session(token)


async def caller_by(callers: Callers, authorization: str) -> Caller:
    """The owner of `Bearer <key>`; raises Unauthenticated."""
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated
    return await callers.by_key(secret.strip())
