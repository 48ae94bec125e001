"""Chores: deleting expired rows."""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import CursorResult, delete, exists, or_, select, tuple_, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, SQLModel, col

from server.history.tables import ApiKey, BrowserSession, Idempotency, SignInLink, User, now
from server.history.turns import KEY_KEPT
from server.history.workers import forget_earlier_version

EXPIRED_KEPT: Final = timedelta(days=1)
BATCH: Final = 1_000
"""How many rows of a table one transaction deletes: on SQLite, other writers wait for it."""


def delete_expired(session: Session) -> bool:
    """Deletes a batch of old rows. Returns whether there may be more.

    Idempotency-Keys are kept for 24 hours, sessions and links for a day after they expired. API keys of
    guests are revoked once the guest's session has expired.
    """
    revoked = _revoke_keys_of_guests(session)
    keys_before, expired_before = now() - KEY_KEPT, now() - EXPIRED_KEPT
    expired: list[tuple[type[SQLModel], Any]] = [
        (
            Idempotency,
            select(
                col(Idempotency.account_id), col(Idempotency.operation), col(Idempotency.key)
            ).where(col(Idempotency.created_at) < keys_before),
        ),
        (
            BrowserSession,
            select(col(BrowserSession.sha256)).where(
                col(BrowserSession.expires_at) < expired_before
            ),
        ),
        (
            SignInLink,
            select(col(SignInLink.sha256)).where(col(SignInLink.expires_at) < expired_before),
        ),
    ]
    forget_earlier_version(session)
    deleted = [_delete_batch(session, table, keys) for table, keys in expired]
    return BATCH in (revoked, *deleted)


def _revoke_keys_of_guests(session: Session) -> int:
    """Revokes keys that outlive the session of their guest: nobody could revoke them any more.

    Keys are created with the expiry of that session; older ones were not.
    """
    live = aliased(BrowserSession)
    of_account = col(BrowserSession.account_id) == col(ApiKey.account_id)
    left_behind = (
        select(col(ApiKey.id))
        .join(BrowserSession, of_account)
        .where(
            col(ApiKey.revoked_at).is_(None),
            or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > now()),
            col(BrowserSession.user_id).is_(None),
            col(BrowserSession.expires_at) < now(),
            ~exists().where(col(User.account_id) == col(ApiKey.account_id)),
            ~exists().where(
                col(live.account_id) == col(ApiKey.account_id), col(live.expires_at) > now()
            ),
        )
        .limit(BATCH)
    )
    result: CursorResult[tuple[()]] = session.execute(  # type: ignore[assignment]
        update(ApiKey).where(col(ApiKey.id).in_(left_behind)).values(revoked_at=now())
    )
    return result.rowcount


def _delete_batch(session: Session, table: type[SQLModel], keys: Any) -> int:
    key = tuple_(*keys.selected_columns)
    result: CursorResult[tuple[()]] = session.execute(  # type: ignore[assignment]
        delete(table).where(key.in_(keys.limit(BATCH)))
    )
    return result.rowcount
