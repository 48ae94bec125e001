"""Change numbers: every change that a page shows takes the account's row and stamps what it touched with the next number."""

from sqlalchemy import update
from sqlmodel import Session, col

from server.history.tables import Account


def next_change(session: Session, account_id: str) -> int:
    """The number of this change. Holds the account's row until the end of the transaction, so changes of one account come one by one."""
    change = update(Account).where(col(Account.id) == account_id).values(change=col(Account.change) + 1).returning(col(Account.change))
    return session.execute(change).scalar_one()
