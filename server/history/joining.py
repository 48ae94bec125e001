"""Signing in by a link where somebody was a guest: what the guest wrote becomes the user's."""

from sqlalchemy import delete, exists, update
from sqlmodel import Session, col, select

from server.history.accounts import use_link
from server.history.changes import next_change
from server.history.search import index_again
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import IDEMPOTENCIES as I
from server.history.tables import MESSAGES as M
from server.history.tables import ApiKey, BrowserSession, User, now


def sign_in(
    session: Session,
    link_sha256: str,
    session_sha256: str,
    guest_sha256: str | None,
    *,
    ttl_s: float,
) -> BrowserSession | None:
    """Signs a browser in with a link, once. Where its session so far (`guest_sha256`) is a guest's, the guest's conversations come along.

    None when the link is unknown, used or too old; then nothing has changed.
    """
    opened = use_link(session, link_sha256, session_sha256, ttl_s=ttl_s)
    if (
        opened is not None
        and guest_sha256 is not None
        and (guest_id := _guest(session, guest_sha256)) is not None
    ):
        _bring(session, guest_id, opened.account_id)
    return opened


def _guest(session: Session, sha256: str) -> str | None:
    """The account of a session that is a guest's and not over."""
    found = session.exec(
        select(BrowserSession).where(
            BrowserSession.sha256 == sha256, col(BrowserSession.expires_at) > now()
        )
    ).first()
    if (
        found is None
        or found.user_id is not None
        or session.exec(select(User).where(User.account_id == found.account_id)).first()
    ):
        return None
    return found.account_id


def _bring(session: Session, guest_id: str, account_id: str) -> None:
    """Moves what a guest wrote. The guest's sessions and keys end: whoever else holds one does not come into the user's account with it."""
    next_change(session, guest_id)  # first of all: from here on nothing is asked as the guest
    change = next_change(session, account_id)
    moved = select(C.c.id).where(C.c.account_id == guest_id)
    session.execute(update(M).where(M.c.conversation_id.in_(moved)).values(change=change))
    session.execute(
        update(C).where(C.c.account_id == guest_id).values(account_id=account_id, change=change)
    )
    session.execute(update(G).where(G.c.account_id == guest_id).values(account_id=account_id))
    index_again(session, guest_id, account_id)
    here = I.alias()
    taken = exists().where(
        here.c.account_id == account_id, here.c.operation == I.c.operation, here.c.key == I.c.key
    )
    session.execute(
        update(I).where(I.c.account_id == guest_id, ~taken).values(account_id=account_id)
    )
    session.execute(delete(BrowserSession).where(col(BrowserSession.account_id) == guest_id))
    keys = update(ApiKey).where(
        col(ApiKey.account_id) == guest_id, col(ApiKey.revoked_at).is_(None)
    )
    session.execute(keys.values(revoked_at=now()))
