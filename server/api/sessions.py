"""The browser's session: opening one as a guest or with a sign-in link, looking at it, closing it."""

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from server.api.http import Json, read_body
from server.errors import Forbidden, Unauthenticated
from server.history.accounts import close_session, email_of, open_guest_session
from server.history.database import Database
from server.history.joining import sign_in
from server.identity.callers import Caller
from server.identity.credentials import caller_of, cookie_name
from server.identity.secrets import digest, new_token
from server.settings import LOOPBACK_HOSTS, Settings
from server.verbs.inputs import Body


class OpenSession(Body):
    """Nothing for a guest; the token of a sign-in link for a user."""

    token: Annotated[str, Field(min_length=1, max_length=200)] | None = None


async def open_(request: Request) -> Response:
    """Signs this browser in. One that is signed in already, and brings no link, stays who it is. A guest brings along what is there."""
    body, resources = await read_body(request, OpenSession), request.state.services
    if body.token is None and (signed_in := await _signed_in(request)) is not None:
        return Json(await _shown(resources.database, signed_in))
    token, ttl_s = new_token(), resources.settings.auth.session_ttl_s
    if body.token is not None:
        before = request.cookies.get(cookie_name(resources.settings))
        guest = digest(before) if before else None
        opened = await resources.database.write(
            sign_in, digest(body.token), digest(token), guest, ttl_s=ttl_s
        )
        if opened is None:
            raise Unauthenticated(
                "This sign-in link was used already, or is too old. Ask for a new one."
            )
        if guest is not None:
            request.state.callers.forget(guest)
    else:
        if not guests_allowed(resources.settings):
            raise Forbidden(
                "guests_not_allowed", "This server takes no guests; sign in with a link."
            )
        await request.state.guest_limit.take(request.client.host if request.client else "unknown")
        opened = await resources.database.write(open_guest_session, digest(token), ttl_s=ttl_s)
    caller = Caller(opened.account_id, opened.user_id, None, opened.sha256)
    response = Json(await _shown(resources.database, caller), 201)
    _set_cookie(response, resources.settings, token)
    return response


async def show(request: Request) -> Response:
    """Who is signed in here."""
    return Json(await _shown(request.state.services.database, await caller_of(request)))


async def close(request: Request) -> Response:
    """Signs this browser out."""
    caller, settings = await caller_of(request), request.state.services.settings
    response = Response(status_code=204)
    if caller.session_sha256 is not None:
        await request.state.services.database.write(close_session, caller.session_sha256)
        request.state.callers.forget(caller.session_sha256)
        secure = settings.server.public_url.startswith("https://")
        response.delete_cookie(
            cookie_name(settings), path="/", secure=secure, httponly=True, samesite="lax"
        )
    return response


def _set_cookie(response: Response, settings: Settings, token: str) -> None:
    secure = settings.server.public_url.startswith("https://")
    response.set_cookie(
        cookie_name(settings),
        token,
        max_age=int(settings.auth.session_ttl_s),
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


async def _signed_in(request: Request) -> Caller | None:
    try:
        return await caller_of(request)
    except Unauthenticated:
        return None


def guests_allowed(settings: Settings) -> bool:
    """Whether anybody may open an account by just coming here; by default only while nobody else can come here."""
    guests = settings.auth.guests
    return (
        settings.server.host in LOOPBACK_HOSTS and not settings.server.public_url
        if guests == "loopback"
        else bool(guests)
    )


async def _shown(database: Database, caller: Caller) -> dict[str, Any]:
    email = await database.read(email_of, caller.user_id)
    user = {"id": caller.user_id, "email": email} if caller.user_id else None
    return {
        "account": {"id": caller.account_id},
        "user": user,
        "guest": user is None and caller.key_id is None,
    }
