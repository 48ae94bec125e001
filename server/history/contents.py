"""Contents: the large columns of rows, which are read separately and only up to a limit.

Rows without them have a bounded size, so the size of a list of rows depends on its length only.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, bindparam, case, func, select, union_all
from sqlmodel import Session

from server.history.messages import chars, owned_by
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.history.tables import Status
from server.ids import Prefix, is_id
from server.parts import Parts


class StoredContent(NamedTuple):
    """The stored content of a question or an answer; `id` is that of its message or generation."""

    id: str
    parts: Parts
    seq: int
    status: Status


class Contents(NamedTuple):
    """Contents by id, their size in characters, and the ids that exceeded the limit."""

    found: dict[str, Any]
    chars: int
    left_out: list[str]


def _sized(rows: Any) -> tuple[Any, ColumnElement[bool]]:
    """Rows of `id` and `size`, and whether the rows before one have fewer than `:chars_max`."""
    each = rows.subquery()
    before = func.sum(each.c.size).over(order_by=each.c.id) - each.c.size
    sized = select(each.c.id, each.c.size, before.label("before")).subquery()
    return sized, sized.c.before < bindparam("chars_max")


def _stored() -> Any:
    questions = (
        select(M.c.id, chars(M.c.parts).label("size"))
        .join(C, C.c.id == M.c.conversation_id)
        .where(M.c.id.in_(bindparam("questions", expanding=True)), owned_by(_ACCOUNT))
    )
    answers = select(G.c.id, chars(G.c.parts)).where(
        G.c.id.in_(bindparam("answers", expanding=True)), G.c.account_id == _ACCOUNT
    )
    sized, fits = _sized(union_all(questions, answers))
    content = case((fits, func.coalesce(M.c.parts, G.c.parts)))
    return (
        select(sized.c.id, sized.c.size, fits, content, G.c.seq, G.c.status)
        .select_from(sized)
        .outerjoin(M, M.c.id == sized.c.id)
        .outerjoin(G, G.c.id == sized.c.id)
    )


def _prompts() -> Any:
    sized, fits = _sized(
        select(C.c.id, chars(C.c.system_prompt).label("size")).where(
            C.c.id.in_(bindparam("conversations", expanding=True)), owned_by(_ACCOUNT)
        )
    )
    return (
        select(sized.c.id, sized.c.size, fits, case((fits, C.c.system_prompt)))
        .select_from(sized)
        .join(C, C.c.id == sized.c.id)
    )


_ACCOUNT: Any = bindparam("account")
_STORED, _PROMPTS = _stored(), _prompts()
"""Built once: building one takes longer than running it."""


def stored_contents(
    session: Session, account_id: str, ids: Sequence[str], chars_max: int
) -> Contents:
    """The content of questions and generations of the account, as `StoredContent`.

    The first one is read whatever its size.
    """
    wanted = {
        "account": account_id,
        "questions": [id for id in ids if is_id(Prefix.MESSAGE, id)],
        "answers": [id for id in ids if is_id(Prefix.GENERATION, id)],
        "chars_max": chars_max,
    }
    return _contents(
        session.connection().execute(_STORED, wanted),
        lambda id, parts, seq, status: StoredContent(
            id, parts or [], seq or 0, status or Status.COMPLETED
        ),
    )


def system_prompts(
    session: Session, account_id: str, ids: Sequence[str], chars_max: int
) -> Contents:
    """The system prompts of conversations of the account; the first one whatever its size."""
    wanted = {"account": account_id, "conversations": list(ids), "chars_max": chars_max}
    return _contents(session.connection().execute(_PROMPTS, wanted), lambda _id, prompt: prompt)


def _contents(rows: Any, content_of: Any) -> Contents:
    found, size, left_out = {}, 0, []
    for id, length, fits, *columns in rows:
        if fits:
            found[id] = content_of(id, *columns)
            size += length
        else:
            left_out.append(id)
    return Contents(found, size, left_out)
