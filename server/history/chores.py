"""Chores: forgetting what has served its time."""

from datetime import timedelta

from sqlalchemy import delete
from sqlmodel import Session, col

from server.history.exchange import KEY_KEPT
from server.history.tables import BrowserSession, Idempotency, SignInLink, now

OVER_KEPT = timedelta(days=1)


def delete_expired(session: Session) -> None:
    """Deletes Idempotency-Keys after their 24 hours, and sessions and sign-in links a day after they ended."""
    session.execute(delete(Idempotency).where(col(Idempotency.created_at) < now() - KEY_KEPT))
    session.execute(
        delete(BrowserSession).where(col(BrowserSession.expires_at) < now() - OVER_KEPT)
    )
    session.execute(delete(SignInLink).where(col(SignInLink.expires_at) < now() - OVER_KEPT))
