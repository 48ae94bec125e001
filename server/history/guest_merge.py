"""Signing in with a link in a guest's browser: what the guest wrote can become the user's."""

from typing import NamedTuple

from sqlalchemy import delete, exists, func, select, update
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from server.history.accounts import close_session, link_user, revoke_keys_of, use_link
from server.history.changes import next_change
from server.history.search import index_moved
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import IDEMPOTENCIES as I
from server.history.tables import ApiKey, BrowserSession, User, now


class LinkPreview(NamedTuple):
    """The user of a sign-in link, and how many conversations the browser's guest has."""

    email: str
    guest_conversations: int


def preview_link(
    session: Session, link_sha256: str, session_sha256: str | None
) -> LinkPreview | None:
    """What a link would do; does not use it. None when it is unknown, used or expired."""
    user = link_user(session, link_sha256)
    if user is None:
        return None
    guest_id = _guest(session, session_sha256) if session_sha256 is not None else None
    count = 0
    if guest_id is not None:
        of_guest = C.c.account_id == guest_id, C.c.deleted_at.is_(None)
        count = session.execute(select(func.count()).select_from(C).where(*of_guest)).scalar_one()
    return LinkPreview(user.email, count)


class SignedIn(NamedTuple):
    """A new browser session, and the guest account whose conversations it took over, if any.

    `revoked_keys` are those of the guest.
    """

    session: BrowserSession
    merged_guest_id: str | None
    revoked_keys: list[ApiKey]


def sign_in(
    session: Session,
    link_sha256: str,
    session_sha256: str,
    replaced_sha256: str | None,
    *,
    bring_conversations: bool,
    ttl_s: float,
) -> SignedIn | None:
    """Signs a browser in with a link, once; a guest's session that it replaces ends.

    With `bring_conversations` the guest's conversations become the user's. None when the link is
    unknown, used or expired; then nothing has changed.
    """
    opened = use_link(session, link_sha256, session_sha256, ttl_s=ttl_s)
    if opened is None:
        return None
    guest_id = _guest(session, replaced_sha256) if replaced_sha256 is not None else None
    if guest_id is None or replaced_sha256 is None:
        return SignedIn(opened, None, [])
    if not bring_conversations:
        return SignedIn(opened, None, close_session(session, replaced_sha256))
    return SignedIn(opened, guest_id, _merge(session, guest_id, opened.account_id))


def _guest(session: Session, sha256: str) -> str | None:
    """The account of a session that is a guest's and has not expired."""
    of_session = BrowserSession.sha256 == sha256, col(BrowserSession.expires_at) > now()
    found = session.exec(select_rows(BrowserSession).where(*of_session)).first()
    if found is None or found.user_id is not None:
        return None
    is_users = session.exec(select_rows(User).where(User.account_id == found.account_id)).first()
    return None if is_users else found.account_id


def _merge(session: Session, guest_id: str, account_id: str) -> list[ApiKey]:
    """Moves a guest's conversations to an account, and returns the keys that this revokes.

    The guest's sessions and keys end: they must not give access to the user's account.
    """
    # First: another process may have cached a credential of the guest. What it writes waits for this
    # lock, and then finds that the credential has ended.
    guest_change = next_change(session, guest_id)
    # Messages keep their numbers, so that a large history is not written again.
    change = next_change(session, account_id, after=guest_change)
    moved = select(C.c.id).where(C.c.account_id == guest_id)
    session.execute(update(G).where(G.c.conversation_id.in_(moved)).values(account_id=account_id))
    session.execute(
        update(C)
        .where(C.c.account_id == guest_id)
        .values(account_id=account_id, change=change, index_due=True)
    )
    index_moved(
        session, account_id
    )  # most guests have little; a chore of the workers does the rest
    own = I.alias()
    taken = exists().where(
        own.c.account_id == account_id, own.c.operation == I.c.operation, own.c.key == I.c.key
    )
    session.execute(
        update(I).where(I.c.account_id == guest_id, ~taken).values(account_id=account_id)
    )
    session.execute(delete(BrowserSession).where(col(BrowserSession.account_id) == guest_id))
    return revoke_keys_of(session, guest_id)
