"""Change numbers: every change that a page shows takes the account's row and stamps what it touched with the next number."""

from collections.abc import Callable

from sqlalchemy import bindparam, update
from sqlmodel import Session

from server.history.tables import ACCOUNTS as A

CHANGED = "changed"

Tell = Callable[[dict[str, int]], None]
"""Is told, after a commit, which accounts have changed, and the number of each one's last change."""

_NEXT = (
    update(A)
    .where(A.c.id == bindparam("account"))
    .values(change=A.c.change + 1)
    .returning(A.c.change)
)


def next_change(session: Session, account_id: str) -> int:
    """The number of this change. Holds the account's row until the end of the transaction, so changes of one account come one by one."""
    change: int = session.execute(_NEXT, {"account": account_id}).scalar_one()
    session.info.setdefault(CHANGED, {})[account_id] = change
    return change
