"""Browser sessions: previewing a sign-in link, signing in with it or as a guest, signing out."""

from typing import Annotated, NamedTuple

from pydantic import Field

from server.errors import Forbidden, Unauthenticated
from server.history.accounts import (
    Identity,
    close_session,
    email_of,
    identity,
    open_guest_session,
)
from server.history.guest_merge import LinkPreview, preview_link, sign_in
from server.history.tables import BrowserSession
from server.identity.callers import Caller, Callers
from server.identity.secrets import digest, new_token
from server.logs import audit
from server.resources import Services
from server.settings import LOOPBACK_HOSTS, Settings
from server.verbs import keys
from server.verbs.inputs import Body

Token = Annotated[str, Field(min_length=1, max_length=200)]

_BAD_LINK = "This sign-in link has already been used or has expired. Ask for a new one."


class PreviewSession(Body):
    """The token of a sign-in link."""

    token: Token


class OpenSession(Body):
    """The token of a sign-in link, or nothing for a guest.

    With `bring_conversations`, the conversations of this browser's guest become the user's.
    """

    token: Token | None = None
    bring_conversations: bool = False


class OpenedSession(NamedTuple):
    """A new session and the token of its cookie."""

    caller: Caller
    token: str


async def preview(services: Services, link_token: str, session_token: str | None) -> LinkPreview:
    """What a sign-in link would do in this browser; does not use it. Raises Unauthenticated."""
    current = digest(session_token) if session_token else None
    found = await services.database.read(preview_link, digest(link_token), current)
    if found is None:
        audit("link_refused")
        raise Unauthenticated(_BAD_LINK)
    return found


async def open_with_link(
    services: Services, callers: Callers, request: OpenSession, session_token: str | None
) -> OpenedSession:
    """Signs a browser in with a link, once. Raises Unauthenticated."""
    assert request.token is not None, "a guest has no link"
    token, replaced = new_token(), digest(session_token) if session_token else None
    signed_in = await services.database.write(
        sign_in,
        digest(request.token),
        digest(token),
        replaced,
        bring_conversations=request.bring_conversations,
        ttl_s=services.settings.auth.session_ttl_s,
    )
    if signed_in is None:
        audit("link_refused")
        raise Unauthenticated(_BAD_LINK)
    if replaced is not None:
        callers.forget(replaced)
    session, guest_id, revoked = signed_in
    audit("signed_in", account=session.account_id, user=session.user_id)
    if guest_id is not None:
        audit("guest_merged", account=session.account_id, guest=guest_id)
    keys.forget(callers, revoked)
    return OpenedSession(_caller(session), token)


async def open_as_guest(services: Services) -> OpenedSession:
    """Signs a browser in as a new guest."""
    token, ttl_s = new_token(), services.settings.auth.session_ttl_s
    session = await services.database.write(open_guest_session, digest(token), ttl_s=ttl_s)
    audit("guest_created", account=session.account_id)
    return OpenedSession(_caller(session), token)


async def close(services: Services, callers: Callers, caller: Caller) -> None:
    """Signs a browser out. A guest's keys are revoked with its last session."""
    if caller.session_sha256 is None:
        return
    revoked = await services.database.write(close_session, caller.session_sha256)
    callers.forget(caller.session_sha256)
    audit("signed_out", account=caller.account_id, user=caller.user_id)
    keys.forget(callers, revoked)


async def viewer(services: Services, caller: Caller) -> Identity:
    """The account of the caller, and the user and the API key of the call, if it has them."""
    return await services.database.read(identity, caller.account_id, caller.user_id, caller.key_id)


async def email(services: Services, caller: Caller) -> str | None:
    """The address of the caller's user; None for a guest and for an account without a user."""
    return await services.database.read(email_of, caller.user_id)


def check_guests_allowed(settings: Settings, *, from_this_machine: bool) -> None:
    """Raises Forbidden unless guests are accepted.

    By default they are while the server listens on loopback, from this machine.
    """
    guests = settings.auth.guests
    if guests == "loopback":
        is_local = settings.server.host in LOOPBACK_HOSTS and not settings.server.public_url
        guests = is_local and from_this_machine
    if not guests:
        detail = "This server does not accept guests; sign in with a link."
        raise Forbidden("guests_not_allowed", detail)


def _caller(session: BrowserSession) -> Caller:
    return Caller(session.account_id, session.user_id, None, session.sha256)
