"""Keyset pagination: a page starts at a key, so every page costs the same and none shifts."""

from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, tuple_
from sqlmodel import Session

T = TypeVar("T")


class Slice(NamedTuple):
    """A slice of a list between two keys: its first `limit` items, or its last (`backwards`)."""

    limit: int
    backwards: bool = False
    after: Any = None
    before: Any = None


class Page(NamedTuple, Generic[T]):
    """Items in the order of the list, and whether there are more before and after them."""

    items: list[T]
    has_previous: bool
    has_next: bool


def keyset_page(
    session: Session, query: Select[Any], key: tuple[Any, Any], part: Slice, *, descending: bool
) -> Page[Any]:
    """The rows of `query` in the order of `key`, which is unique."""
    columns = tuple_(*key)

    def later(at: Any) -> Any:
        return columns < at if descending else columns > at

    def earlier(at: Any) -> Any:
        return columns > at if descending else columns < at

    def has(condition: ColumnElement[bool]) -> bool:
        return session.execute(query.where(condition).limit(1)).first() is not None

    selected = query
    if part.after is not None:
        selected = selected.where(later(part.after))
    if part.before is not None:
        selected = selected.where(earlier(part.before))
    read_down = descending != part.backwards
    rows = list(
        session.execute(
            selected.order_by(
                *(column.desc() if read_down else column.asc() for column in key)
            ).limit(part.limit + 1)
        )
    )
    more = len(rows) > part.limit
    rows = rows[: part.limit]
    if part.backwards:
        rows.reverse()
    has_earlier = part.after is not None and has(~later(part.after))
    has_later = part.before is not None and has(~earlier(part.before))
    return Page(
        rows, (more and part.backwards) or has_earlier, (more and not part.backwards) or has_later
    )
