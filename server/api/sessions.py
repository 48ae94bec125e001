"""Browser sessions: opening one as a guest or with a sign-in link, showing and closing it."""

from starlette.requests import Request
from starlette.responses import Response

from server.api.http import Json, read_body
from server.api.present import Session, SessionPreview
from server.errors import Unauthenticated
from server.identity.callers import Caller
from server.identity.credentials import (
    caller_of,
    cookie_name,
    cookie_path,
    is_secure,
    session_token,
)
from server.identity.loopback import from_this_machine
from server.verbs import sessions
from server.verbs.sessions import OpenedSession, OpenSession, PreviewSession

COOKIE_KEPT_S = 400 * 86_400
"""As long as browsers keep a cookie: the server decides when its session ends."""


async def open_(request: Request) -> Response:
    """Signs this browser in, with a link or as a guest.

    Without a link, an existing session is kept.
    """
    body, services = await read_body(request, OpenSession), request.state.services
    if body.token is None and (caller := await _signed_in(request)) is not None:
        return await _shown(request, caller)
    if body.token is not None:
        opened = await sessions.open_with_link(
            services, request.state.callers, body, _session_token(request)
        )
    else:
        opened = await _open_as_guest(request)
    response = Json(await _session_json(request, opened.caller), 201)
    _set_cookie(response, request, opened.token)
    return response


async def preview(request: Request) -> Response:
    """Shows what a sign-in link would do in this browser, without using it."""
    body, services = await read_body(request, PreviewSession), request.state.services
    found = await sessions.preview(services, body.token, _session_token(request))
    shown: SessionPreview = {
        "email": found.email,
        "guest_conversations": found.guest_conversations,
    }
    return Json(shown)


async def show(request: Request) -> Response:
    """Shows who is signed in, and prolongs the cookie."""
    return await _shown(request, await caller_of(request))


async def close(request: Request) -> Response:
    """Signs this browser out."""
    caller, services = await caller_of(request), request.state.services
    response = Response(status_code=204)
    await sessions.close(services, request.state.callers, caller)
    if caller.session_sha256 is not None:
        secure = is_secure(services.settings)
        name = cookie_name(services.settings, request)
        path = cookie_path(services.settings)
        response.delete_cookie(name, path=path, secure=secure, httponly=True, samesite="lax")
    return response


async def _shown(request: Request, caller: Caller) -> Response:
    response = Json(await _session_json(request, caller))
    if caller.session_sha256 is not None and (token := _session_token(request)):
        _set_cookie(response, request, token)
    return response


async def _open_as_guest(request: Request) -> OpenedSession:
    services = request.state.services
    is_local = from_this_machine(request)
    sessions.check_guests_allowed(services.settings, from_this_machine=is_local)
    await request.state.guest_limit.take(request.client.host if request.client else "unknown")
    return await sessions.open_as_guest(services)


def _session_token(request: Request) -> str | None:
    return session_token(request.state.services.settings, request)


def _set_cookie(response: Response, request: Request, token: str) -> None:
    settings = request.state.services.settings
    response.set_cookie(
        cookie_name(settings, request),
        token,
        max_age=COOKIE_KEPT_S,
        path=cookie_path(settings),
        secure=is_secure(settings),
        httponly=True,
        samesite="lax",
    )


async def _signed_in(request: Request) -> Caller | None:
    """Who makes the request, if anybody; a key that is not valid raises Unauthenticated."""
    try:
        return await caller_of(request)
    except Unauthenticated:
        if "authorization" in request.headers:
            raise
        return None


async def _session_json(request: Request, caller: Caller) -> Session:
    email = await sessions.email(request.state.services, caller)
    is_user = caller.user_id is not None
    return {
        "account": {"id": caller.account_id},
        "user": {"id": caller.user_id, "email": email} if caller.user_id else None,
        "guest": not is_user and caller.key_id is None,
    }
