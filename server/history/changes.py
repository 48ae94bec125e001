"""Changes: every change that a page shows locks the account's row and gets its next change number.

Every row has the number of its last change. Changes of one account are committed one after another,
so a reader that has seen change n has seen all before it. A reader gets each changed row once, in
its latest state.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import BigInteger, bindparam, case, select, update
from sqlmodel import Session

from server.history.tables import ACCOUNTS as A

CHANGED = "changed"

OnChange = Callable[[dict[str, int]], None]
"""Called after a commit with the accounts that changed and the number of each one's last change."""

_AFTER = bindparam("after", type_=BigInteger)
_NEXT = (
    update(A)
    .where(A.c.id == bindparam("account"))
    .values(change=case((A.c.change > _AFTER, A.c.change), else_=_AFTER) + 1)
    .returning(A.c.change)
)


def next_change(session: Session, account_id: str, *, after: int = 0) -> int:
    """The number of this change. Locks the account's row until the transaction ends."""
    change: int = session.execute(_NEXT, {"account": account_id, "after": after}).scalar_one()
    session.info.setdefault(CHANGED, {})[account_id] = change
    return change


def account_changes(session: Session, account_ids: Sequence[str]) -> dict[str, int]:
    """The number of the last change of each of these accounts."""
    rows = session.execute(select(A.c.id, A.c.change).where(A.c.id.in_(account_ids)))
    return {row.id: row.change for row in rows}
