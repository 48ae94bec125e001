"""Accounts, users, keys and browser sessions: who there is, and how they prove it. Secrets are kept as SHA-256 only."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, or_, update
from sqlmodel import Session, col, select

from server.errors import Conflict, Invalid, NotFound
from server.history.changes import next_change
from server.history.tables import Account, ApiKey, BrowserSession, SignInLink, User, now
from server.ids import Prefix, is_id, new_id

KEYS_MAX = 100


class Found(NamedTuple):
    """Whom a credential belongs to, and until when."""

    account_id: str
    user_id: str | None
    key_id: str | None
    expires_at: datetime | None


def new_account(session: Session, name: str = "") -> Account:
    """A new account, of nobody yet."""
    account = Account(id=new_id(Prefix.ACCOUNT), name=name)
    session.add(account)
    session.flush()
    return account


def named_account(session: Session, name: str) -> Account:
    """The account of this name, made where there is none; for those that this program itself needs."""
    return session.exec(select(Account).where(Account.name == name)).first() or new_account(
        session, name
    )


def new_user(session: Session, email: str) -> User | None:
    """A new user with an account of their own; None when the address is taken."""
    if session.exec(select(User).where(User.email == email)).first():
        return None
    user = User(id=new_id(Prefix.USER), account_id=new_account(session, email).id, email=email)
    session.add(user)
    return user


def list_users(session: Session) -> list[User]:
    return list(session.exec(select(User).order_by(User.email)))


def user_of(session: Session, email: str) -> User:
    """The user of an address; raises NotFound."""
    found = session.exec(select(User).where(User.email == email)).first()
    if found is None:
        raise NotFound(f"user {email}")
    return found


def add_key(
    session: Session,
    account_id: str,
    name: str,
    *,
    prefix: str,
    sha256: str,
    expires_at: datetime | None = None,
) -> ApiKey:
    key = ApiKey(
        id=new_id(Prefix.KEY),
        account_id=account_id,
        name=name,
        prefix=prefix,
        sha256=sha256,
        expires_at=expires_at,
    )
    session.add(key)
    return key


def add_own_key(
    session: Session,
    account_id: str,
    maker_id: str | None,
    name: str,
    expires_at: datetime | None,
    *,
    prefix: str,
    sha256: str,
) -> ApiKey:
    """A key that a caller makes for its own account, `maker_id` being the key it calls with. Raises Conflict and Invalid."""
    next_change(session, account_id)  # holds the account's row, so that the limit is exact
    maker = session.get(ApiKey, maker_id) if maker_id else None
    until = maker.expires_at if maker else None
    if expires_at is not None and expires_at <= now():
        raise _invalid_expiry("it must be in the future")
    if until is not None and (expires_at is None or expires_at > until):
        raise _invalid_expiry("a key that expires makes no key that outlives it")
    if len(live_keys(session, account_id)) >= KEYS_MAX:
        raise Conflict(
            "too_many_api_keys",
            f"An account has at most {KEYS_MAX} API keys; revoke one first.",
            limit=KEYS_MAX,
        )
    return add_key(session, account_id, name, prefix=prefix, sha256=sha256, expires_at=expires_at)


def live_keys(session: Session, account_id: str) -> list[ApiKey]:
    """The keys of an account that open the door, the oldest first."""
    of_account = select(ApiKey).where(ApiKey.account_id == account_id, *_live())
    return list(session.exec(of_account.order_by(col(ApiKey.created_at), col(ApiKey.id))))


def revoke_own_key(session: Session, key_id: str, account_id: str) -> ApiKey:
    """Ends a key of this account, for good; again is harmless. Raises NotFound."""
    key = session.get(ApiKey, key_id) if is_id(Prefix.KEY, key_id) else None
    if key is None or key.account_id != account_id:
        raise NotFound("key")
    key.revoked_at = key.revoked_at or now()
    return key


def list_keys(session: Session) -> list[tuple[ApiKey, Account]]:
    rows = session.exec(
        select(ApiKey, Account)
        .join(Account, col(Account.id) == col(ApiKey.account_id))
        .order_by(col(ApiKey.created_at))
    )
    return [(key, account) for key, account in rows]


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """Ends a key, for good; again is harmless. Raises NotFound."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"key {key_id}")
    key.revoked_at = key.revoked_at or now()
    return key


def find_key(session: Session, sha256: str) -> Found | None:
    """Whom a key belongs to, if it is neither revoked nor expired."""
    key = session.exec(select(ApiKey).where(ApiKey.sha256 == sha256, *_live())).first()
    if key is None:
        return None
    user = session.exec(select(User).where(User.account_id == key.account_id)).first()
    return Found(key.account_id, user.id if user else None, key.id, key.expires_at)


def open_session(
    session: Session, sha256: str, *, account_id: str, user_id: str | None, ttl_s: float
) -> BrowserSession:
    """Signs a browser in; sessions of the account that are over are forgotten."""
    session.execute(
        delete(BrowserSession).where(
            col(BrowserSession.account_id) == account_id, col(BrowserSession.expires_at) < now()
        )
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
    return open_session(
        session, sha256, account_id=new_account(session).id, user_id=None, ttl_s=ttl_s
    )


def find_session(session: Session, sha256: str) -> Found | None:
    """Whom a browser session belongs to, if it is not over."""
    found = session.exec(
        select(BrowserSession).where(
            BrowserSession.sha256 == sha256, col(BrowserSession.expires_at) > now()
        )
    ).first()
    return Found(found.account_id, found.user_id, None, found.expires_at) if found else None


def close_session(session: Session, sha256: str) -> None:
    session.execute(delete(BrowserSession).where(col(BrowserSession.sha256) == sha256))


def add_link(session: Session, user_id: str, sha256: str, *, ttl_s: float) -> None:
    session.add(
        SignInLink(sha256=sha256, user_id=user_id, expires_at=now() + timedelta(seconds=ttl_s))
    )


def use_link(
    session: Session, link_sha256: str, session_sha256: str, *, ttl_s: float
) -> BrowserSession | None:
    """Signs a browser in with a link, once; None when the link is unknown, used or too old."""
    used = session.execute(
        update(SignInLink)
        .where(
            col(SignInLink.sha256) == link_sha256,
            col(SignInLink.used_at).is_(None),
            col(SignInLink.expires_at) > now(),
        )
        .values(used_at=now())
        .returning(col(SignInLink.user_id))
    ).scalar_one_or_none()
    if used is None:
        return None
    user = session.get_one(User, used)
    return open_session(
        session, session_sha256, account_id=user.account_id, user_id=user.id, ttl_s=ttl_s
    )


def email_of(session: Session, user_id: str | None) -> str | None:
    user = session.get(User, user_id) if user_id else None
    return user.email if user else None


def still_valid(session: Session, key_ids: list[str], session_sha256s: list[str]) -> set[str]:
    """Those of these keys and sessions that still open the door."""
    keys = select(ApiKey.id).where(col(ApiKey.id).in_(key_ids), *_live())
    sessions = select(BrowserSession.sha256).where(
        col(BrowserSession.sha256).in_(session_sha256s), col(BrowserSession.expires_at) > now()
    )
    return set(session.exec(keys)) | set(session.exec(sessions))


class Identity(NamedTuple):
    """Who asks: an account, the user it belongs to, and the key of this call."""

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


def _live() -> tuple[ColumnElement[bool], ...]:
    """What makes a key open the door now."""
    return col(ApiKey.revoked_at).is_(None), or_(
        col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > now()
    )


def _invalid_expiry(reason: str) -> Invalid:
    return Invalid(
        "invalid_request",
        f"expires_at: {reason}.",
        errors=[{"pointer": "/expires_at", "detail": reason}],
    )
