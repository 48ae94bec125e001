"""The edge, which every request passes first: ids, hosts, origins, headers, refusals, faults."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.http import problem
from server.errors import Forbidden, Refused, Unreadable
from server.ids import Prefix, new_id
from server.logs import log
from server.metrics import REQUESTS_FAILED
from server.serve.refusals import log_refusal
from server.settings import LOOPBACK_HOSTS, Settings

ANY_HOST_PATHS = frozenset({"/healthz", "/readyz"})
PRIVATE_PATHS = ("/api/", "/graphql")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
}


class InternalFault(Refused):
    """A fault of ours."""

    status, title = 500, "Internal server error"


class Edge:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, settings: Settings, cookie: str) -> None:
        self._app, self._cookie = app, cookie
        public = urlsplit(settings.server.public_url)
        self._own_origin = f"{public.scheme}://{public.netloc}" if public.netloc else None
        self._hosts = (
            LOOPBACK_HOSTS
            | {host.lower() for host in settings.server.allowed_hosts}
            | ({public.hostname} if public.hostname else set())
        )
        self._origins = frozenset(settings.server.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
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
                headers = MutableHeaders(scope=message)
                headers["Tidemark-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(PRIVATE_PATHS):
                    headers.setdefault("Cache-Control", "no-store")
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
            return  # the client left while its body was read
        except Exception:  # a fault of ours, logged under the id in the response
            log.exception("fault", request=request_id, path=scope["path"])
            REQUESTS_FAILED.inc()
            if started:
                raise
            detail = f"The server failed; its log names request {request_id}."
            fault = InternalFault("internal", detail)
            await problem(fault, request_id)(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        """Refuses requests for other hosts, and those that another site makes a browser send."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        any_host = "*" in self._hosts or scope["path"] in ANY_HOST_PATHS
        if not any_host and _hostname(host) not in self._hosts:
            detail = (
                f"This server does not serve the host {host[:200]!r}; see server.allowed_hosts."
            )
            raise Unreadable("host_not_allowed", detail)
        # Browsers add other schemes by themselves, e.g. Basic, to what another site requests.
        if headers.get("authorization", "").lower().startswith("bearer "):
            return
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            self._check_site(headers, f"{scope['scheme']}://{host}", Request(scope).cookies)
        elif scope["type"] == "websocket" and self._cookie in HTTPConnection(scope).cookies:
            scheme = "https" if scope["scheme"] == "wss" else "http"
            self._check_origin(headers, f"{scheme}://{host}")

    def _check_site(self, headers: Headers, here: str, cookies: dict[str, str]) -> None:
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if origin is not None:
            allowed = self._is_ours(origin, here)
        elif site is not None:
            allowed = site == "same-origin"
        else:
            allowed = self._cookie not in cookies  # not a browser
        if not allowed:
            raise Forbidden("cross_site", "This request was made by another site.")

    def _check_origin(self, headers: Headers, here: str) -> None:
        """Refuses handshakes of other sites: browsers let any site open one, and add the cookie."""
        origin = headers.get("origin")
        if origin is None or not self._is_ours(origin, here):
            detail = "This handshake has a cookie but was not made by a page of this site."
            raise Forbidden("cross_site", detail)

    def _is_ours(self, origin: str, here: str) -> bool:
        return origin in {here, self._own_origin} | self._origins


def _hostname(host: str) -> str:
    """The name in a Host header, in lower case; empty if there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
