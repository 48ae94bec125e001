"""Accounts, users, API keys and browser sessions. Of a secret, only the SHA-256 is stored."""

from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import ColumnElement, bindparam, delete, exists, or_, update
from sqlmodel import Session, col, select

from server.errors import Conflict, Invalid, NotFound, Unauthenticated
from server.history.changes import next_change
from server.history.tables import Account, ApiKey, BrowserSession, SignInLink, User, now
from server.ids import Prefix, is_id, new_id

KEYS_MAX = 100


class CredentialOwner(NamedTuple):
    """The account and user of a credential, and when it expires."""

    account_id: str
    user_id: str | None
    key_id: str | None
    expires_at: datetime | None


def new_account(session: Session, name: str = "") -> Account:
    """A new account without a user."""
    account = Account(id=new_id(Prefix.ACCOUNT), name=name)
    session.add(account)
    session.flush()
    return account


def get_or_create_account(session: Session, name: str) -> Account:
    """The account with this name; for accounts that the program itself needs."""
    found = session.exec(select(Account).where(Account.name == name)).first()
    return found or new_account(session, name)


def new_user(session: Session, email: str) -> User | None:
    """A new user with an account; None when the address is taken."""
    if session.exec(select(User).where(User.email == email)).first():
        return None
    account_id = new_account(session, email).id
    user = User(id=new_id(Prefix.USER), account_id=account_id, email=email)
    session.add(user)
    return user


def list_users(session: Session) -> list[User]:
    return list(session.exec(select(User).order_by(User.email)))


def user_of(session: Session, email: str) -> User:
    """The user with this address; raises NotFound."""
    found = session.exec(select(User).where(User.email == email)).first()
    if found is None:
        raise NotFound(f"user {email}")
    return found


def email_of(session: Session, user_id: str | None) -> str | None:
    user = session.get(User, user_id) if user_id else None
    return user.email if user else None


def add_key(
    session: Session,
    account_id: str,
    name: str,
    *,
    prefix: str,
    sha256: str,
    expires_at: datetime | None = None,
    made_by: str | None = None,
) -> ApiKey:
    """A new key; `made_by` is the key that authenticated its creation."""
    key = ApiKey(
        id=new_id(Prefix.KEY),
        account_id=account_id,
        name=name,
        prefix=prefix,
        sha256=sha256,
        expires_at=expires_at,
        made_by=made_by,
    )
    session.add(key)
    return key


def add_own_key(
    session: Session,
    account_id: str,
    made_by: str | None,
    session_sha256: str | None,
    name: str,
    expires_at: datetime | None,
    *,
    prefix: str,
    sha256: str,
) -> ApiKey:
    """A key that a caller creates for its own account, by a key or a session.

    The key of a guest ends with the guest's session. Raises Conflict, Invalid and Unauthenticated.
    """
    # Locks the account's row: the limit is exact, and a key that is being revoked creates no other.
    next_change(session, account_id)
    until = credential_expiry(session, made_by, session_sha256)
    if expires_at is not None and expires_at <= now():
        raise Invalid.at("/expires_at", "must be in the future")
    if made_by is None:
        expires_at = expires_at or until
    if until is not None and (expires_at is None or expires_at > until):
        creator = "key that creates it" if made_by else "guest's session"
        raise Invalid.at("/expires_at", f"must not be later than the expiry of the {creator}")
    if len(live_keys(session, account_id)) >= KEYS_MAX:
        detail = f"An account has at most {KEYS_MAX} API keys; revoke one first."
        raise Conflict("too_many_api_keys", detail, limit=KEYS_MAX)
    return add_key(
        session,
        account_id,
        name,
        prefix=prefix,
        sha256=sha256,
        expires_at=expires_at,
        made_by=made_by,
    )


_KEY_EXPIRY = sa.select(col(ApiKey.expires_at)).where(
    col(ApiKey.id) == bindparam("id"), col(ApiKey.revoked_at).is_(None)
)
_SESSION_EXPIRY = sa.select(
    col(BrowserSession.expires_at),
    or_(
        col(BrowserSession.user_id).isnot(None),
        exists().where(col(User.account_id) == col(BrowserSession.account_id)),
    ).label("is_of_user"),
).where(col(BrowserSession.sha256) == bindparam("sha256"))


def credential_expiry(
    session: Session, key_id: str | None, session_sha256: str | None
) -> datetime | None:
    """When what the credential makes must expire, if ever: a guest's session leaves nothing behind.

    Raises Unauthenticated unless it is valid. Callers are cached for seconds: check it once the
    account's row is locked, so that one that has ended changes nothing.
    """
    at = now()
    if key_id is not None:
        key = session.execute(_KEY_EXPIRY, {"id": key_id}).one_or_none()
        if key is None or (key.expires_at is not None and key.expires_at <= at):
            raise Unauthenticated("This API key is revoked or expired.")
        return key.expires_at  # type: ignore[no-any-return]
    opened = session.execute(_SESSION_EXPIRY, {"sha256": session_sha256}).one_or_none()
    if opened is None or opened.expires_at <= at:
        raise Unauthenticated("This session has ended; sign in again.")
    return None if opened.is_of_user else opened.expires_at


def live_keys(session: Session, account_id: str) -> list[ApiKey]:
    """The valid keys of an account, oldest first."""
    of_account = select(ApiKey).where(ApiKey.account_id == account_id, *_live())
    return list(session.exec(of_account.order_by(col(ApiKey.created_at), col(ApiKey.id))))


def list_keys(session: Session) -> list[tuple[ApiKey, Account]]:
    query = select(ApiKey, Account).join(Account, col(Account.id) == col(ApiKey.account_id))
    return [(key, account) for key, account in session.exec(query.order_by(col(ApiKey.created_at)))]


def revoke_own_key(session: Session, key_id: str, account_id: str) -> list[ApiKey]:
    """Revokes a key of this account, see `revoke_key`."""
    key = session.get(ApiKey, key_id) if is_id(Prefix.KEY, key_id) else None
    if key is None or key.account_id != account_id:
        raise NotFound("key")
    return revoke_key(session, key_id)


def revoke_key(session: Session, key_id: str) -> list[ApiKey]:
    """Revokes a key and all keys created with it; returns them, that key first. Raises NotFound.

    Idempotent. Otherwise, whoever stole a key could keep access with another one.
    """
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"key {key_id}")
    next_change(session, key.account_id)  # waits for keys that are being created
    revoked, makers = [key], [key.id]
    while makers:
        made = select(ApiKey).where(col(ApiKey.made_by).in_(makers))
        makers = []
        for each in session.exec(made):
            revoked.append(each)
            makers.append(each.id)
    for each in revoked:
        each.revoked_at = each.revoked_at or now()
    return revoked


def find_key(session: Session, sha256: str) -> CredentialOwner | None:
    """The owner of a key that is neither revoked nor expired."""
    key = session.exec(select(ApiKey).where(ApiKey.sha256 == sha256, *_live())).first()
    if key is None:
        return None
    user = session.exec(select(User).where(User.account_id == key.account_id)).first()
    return CredentialOwner(key.account_id, user.id if user else None, key.id, key.expires_at)


def open_session(
    session: Session, sha256: str, *, account_id: str, user_id: str | None, ttl_s: float
) -> BrowserSession:
    """Signs a browser in; deletes expired sessions of the account."""
    of_account = col(BrowserSession.account_id) == account_id
    session.execute(
        delete(BrowserSession).where(of_account, col(BrowserSession.expires_at) < now())
    )
    opened = BrowserSession(
        sha256=sha256,
        account_id=account_id,
        user_id=user_id,
        expires_at=now() + timedelta(seconds=ttl_s),
    )
    session.add(opened)
    return opened


def open_guest_session(session: Session, sha256: str, *, ttl_s: float) -> BrowserSession:
    """Signs a browser in as a guest: an account without a user."""
    account_id = new_account(session).id
    return open_session(session, sha256, account_id=account_id, user_id=None, ttl_s=ttl_s)


def find_session(session: Session, sha256: str) -> CredentialOwner | None:
    """The owner of a browser session that has not expired."""
    of_session = BrowserSession.sha256 == sha256, col(BrowserSession.expires_at) > now()
    found = session.exec(select(BrowserSession).where(*of_session)).first()
    return (
        CredentialOwner(found.account_id, found.user_id, None, found.expires_at) if found else None
    )


def prolong_session(session: Session, sha256: str, ttl_s: float) -> None:
    """Lets a session that has not expired last for `ttl_s` from now on."""
    of_session = col(BrowserSession.sha256) == sha256, col(BrowserSession.expires_at) > now()
    session.execute(
        update(BrowserSession)
        .where(*of_session)
        .values(expires_at=now() + timedelta(seconds=ttl_s))
    )


def close_session(session: Session, sha256: str) -> list[ApiKey]:
    """Signs a browser out, and returns the keys that this revokes.

    A guest's keys are revoked with its last session, because nobody could revoke them later.
    """
    found = session.get(BrowserSession, sha256)
    if found is None:
        return []
    next_change(session, found.account_id)  # waits for keys that are being created
    session.delete(found)
    session.flush()
    account_id = found.account_id
    others = select(BrowserSession).where(BrowserSession.account_id == account_id)
    if session.exec(others).first() or _is_of_user(session, found):
        return []
    return revoke_keys_of(session, account_id)


def revoke_keys_of(session: Session, account_id: str) -> list[ApiKey]:
    """Revokes the valid keys of an account, and returns them."""
    keys = live_keys(session, account_id)
    for key in keys:
        key.revoked_at = now()
    return keys


def add_link(session: Session, user_id: str, sha256: str, *, ttl_s: float) -> None:
    expires_at = now() + timedelta(seconds=ttl_s)
    session.add(SignInLink(sha256=sha256, user_id=user_id, expires_at=expires_at))


def link_user(session: Session, link_sha256: str) -> User | None:
    """The user that a link would sign in; None when it is unknown, used or expired."""
    link = session.get(SignInLink, link_sha256)
    if link is None or link.used_at is not None or link.expires_at <= now():
        return None
    return session.get_one(User, link.user_id)


def use_link(
    session: Session, link_sha256: str, session_sha256: str, *, ttl_s: float
) -> BrowserSession | None:
    """Signs a browser in with a link, once; None when it is unknown, used or expired."""
    user_id = session.execute(
        update(SignInLink)
        .where(
            col(SignInLink.sha256) == link_sha256,
            col(SignInLink.used_at).is_(None),
            col(SignInLink.expires_at) > now(),
        )
        .values(used_at=now())
        .returning(col(SignInLink.user_id))
    ).scalar_one_or_none()
    if user_id is None:
        return None
    user = session.get_one(User, user_id)
    return open_session(
        session, session_sha256, account_id=user.account_id, user_id=user.id, ttl_s=ttl_s
    )


def still_valid(session: Session, key_ids: list[str], session_sha256s: list[str]) -> set[str]:
    """Those of these keys and sessions that are valid."""
    keys = select(ApiKey.id).where(col(ApiKey.id).in_(key_ids), *_live())
    sessions = select(BrowserSession.sha256).where(
        col(BrowserSession.sha256).in_(session_sha256s), col(BrowserSession.expires_at) > now()
    )
    return set(session.exec(keys)) | set(session.exec(sessions))


class Identity(NamedTuple):
    """The rows behind a caller: its account, user, and API key."""

    account: Account
    user: User | None
    key: ApiKey | None


def identity(
    session: Session, account_id: str, user_id: str | None, key_id: str | None
) -> Identity:
    """The rows behind a caller."""
    return Identity(
        session.get_one(Account, account_id),
        session.get(User, user_id) if user_id else None,
        session.get(ApiKey, key_id) if key_id else None,
    )


def _is_of_user(session: Session, opened: BrowserSession) -> bool:
    """Whether a session is of an account that has a user, and not a guest's."""
    if opened.user_id is not None:
        return True
    users = select(User).where(User.account_id == opened.account_id)
    return session.exec(users).first() is not None


def _live() -> tuple[ColumnElement[bool], ...]:
    """Matches valid keys."""
    not_expired = or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > now())
    return col(ApiKey.revoked_at).is_(None), not_expired
