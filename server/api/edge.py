"""The outermost middleware: request ids, hosts, origins, response headers and errors."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import Forbidden, Refused, Unreadable
from server.identity.credentials import has_session_cookie
from server.ids import Prefix, new_id
from server.logs import log
from server.metrics import REQUESTS_FAILED
from server.serve.refusals import REQUEST_ID_HEADER, log_refusal, problem
from server.settings import LOOPBACK_HOSTS, Settings

ANY_HOST_PATHS = frozenset({"/healthz", "/readyz", "/status", "/metrics"})
"""Probes and scrapers use the address of a process. `check_operator` guards the last two."""
PRIVATE_PATHS = ("/api/", "/graphql")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
}


class InternalError(Refused):
    status, title = 500, "Internal server error"


class Edge:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        public = urlsplit(settings.server.public_url)
        self._own_origin = f"{public.scheme}://{public.netloc}" if public.netloc else None
        self._hosts = (
            LOOPBACK_HOSTS
            | {host.lower() for host in settings.server.allowed_hosts}
            | ({public.hostname} if public.hostname else set())
        )
        self._origins = frozenset(settings.server.allowed_origins)
        self._base_path = settings.server.base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope = self._below_base(scope)
        request_id = new_id(Prefix.REQUEST)
        scope.setdefault("state", {})["request_id"] = request_id
        scope["state"]["send"] = send  # streams bypass the wrapper, which would cost every event
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] in ("websocket.accept", "websocket.close"):
                started = True
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                started = True
                _add_headers(message, scope, request_id)
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, send_with_headers)
        except Refused as refused:
            log_refusal(refused, request_id, scope["path"])
            if started:
                raise
            await problem(refused, request_id)(scope, receive, send_with_headers)
        except ClientDisconnect:
            return  # the client disconnected while its body was read
        except Exception:  # a bug, logged under the id in the response
            log.exception("internal_error", request=request_id, path=scope["path"])
            REQUESTS_FAILED.inc()
            if started:
                raise
            detail = f"Internal server error. The server logged it with request id {request_id}."
            error = InternalError("internal", detail)
            await problem(error, request_id)(scope, receive, send_with_headers)

    def _below_base(self, scope: Scope) -> Scope:
        """The request as it is without the path of public_url, which a proxy may have removed."""
        base, path = self._base_path, scope["path"]
        if base and (path == base or path.startswith(f"{base}/")):
            return {**scope, "path": path.removeprefix(base) or "/"}
        return scope

    def _check(self, scope: Scope) -> None:
        """Refuses requests for other hosts, and cross-site requests of browsers."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        any_host = "*" in self._hosts or scope["path"] in ANY_HOST_PATHS
        if not any_host and _hostname(host) not in self._hosts:
            detail = f"{host[:200]!r} is not an allowed host; see server.allowed_hosts."
            raise Unreadable("host_not_allowed", detail)
        # Browsers add other schemes, e.g. Basic, to cross-site requests by themselves.
        if headers.get("authorization", "").lower().startswith("bearer "):
            return
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            self._check_site(HTTPConnection(scope), f"{scope['scheme']}://{host}")
        elif scope["type"] == "websocket" and has_session_cookie(HTTPConnection(scope)):
            scheme = "https" if scope["scheme"] == "wss" else "http"
            self._check_origin(headers, f"{scheme}://{host}")

    def _check_site(self, connection: HTTPConnection, here: str) -> None:
        headers = connection.headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if origin is not None:
            allowed = self._is_ours(origin, here)
        elif site is not None:
            allowed = site == "same-origin"
        else:
            allowed = not has_session_cookie(connection)  # not a browser
        if not allowed:
            raise _cross_site(origin, here, "Cross-site requests must use an API key.")

    def _check_origin(self, headers: Headers, here: str) -> None:
        """Refuses cross-site handshakes: browsers allow them, and send the cookie."""
        origin = headers.get("origin")
        if origin is None or not self._is_ours(origin, here):
            detail = "Cross-site WebSocket handshakes with a session cookie are not allowed."
            raise _cross_site(origin, here, detail)

    def _is_ours(self, origin: str, here: str) -> bool:
        return origin in {here, self._own_origin} | self._origins


def _cross_site(origin: str | None, here: str, detail: str) -> Forbidden:
    if origin == here.replace("http://", "https://", 1):
        detail = (
            f"The page was opened at {origin}, but its request arrived over http: set "
            f"server.public_url to {origin!r}, or server.trusted_proxies to the address of the "
            "proxy, which has to send X-Forwarded-Proto."
        )
    return Forbidden("cross_site", detail)


def _add_headers(message: Message, scope: Scope, request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    headers[REQUEST_ID_HEADER] = request_id
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if message["type"] == "http.response.start" and _is_draining(scope):
        headers["Connection"] = "close"
    if scope["path"].startswith(PRIVATE_PATHS):
        headers.setdefault("Cache-Control", "no-store")


def _is_draining(scope: Scope) -> bool:
    """Whether this process stops soon: clients have to leave connections that will be closed."""
    return getattr(scope["app"].state, "draining", False)


def _hostname(host: str) -> str:
    """The name in a Host header, in lower case; empty if there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
