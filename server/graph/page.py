"""Connections: their arguments, cursors and page info."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import strawberry

from server.cursors import pack, unpack
from server.errors import Invalid, InvalidCursor
from server.history.keyset import Page, Slice
from server.ids import Prefix, is_id
from server.times import parse_time
from server.verbs.inputs import PAGE_DEFAULT, PAGE_MAX

First = Annotated[
    int | None,
    strawberry.argument(
        description="The number of items from the start, 1 to 100. Without `first` and `last`: 20."
    ),
]
After = Annotated[str | None, strawberry.argument(description="Only items after this cursor.")]
Last = Annotated[
    int | None, strawberry.argument(description="The number of items from the end, 1 to 100.")
]
Before = Annotated[str | None, strawberry.argument(description="Only items before this cursor.")]


@strawberry.type(description="The position of a page in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether there are items after the page.")
    has_previous_page: bool = strawberry.field(
        description="Whether there are items before the page."
    )
    start_cursor: str | None = strawberry.field(
        description="The cursor of the first item; null if the page is empty."
    )
    end_cursor: str | None = strawberry.field(
        description="The cursor of the last item; null if the page is empty."
    )


def page_info(page: Page[Any], cursors: list[str]) -> PageInfo:
    """The page info of a page whose items have these cursors."""
    return PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )


def parse_slice(
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
    parse_cursor: Callable[[str], Any | None],
    *,
    newest: bool = False,
) -> Slice:
    """The slice that the arguments of a connection select.

    `newest`: by default, the last items. Raises Invalid and InvalidCursor.
    """
    if first is not None and last is not None:
        raise Invalid.at("/first", "cannot be used together with last", code="invalid_limit")
    for name, value in (("first", first), ("last", last)):
        if value is not None and not 1 <= value <= PAGE_MAX:
            raise Invalid.at(f"/{name}", f"must be from 1 to {PAGE_MAX}", code="invalid_limit")
    backwards = last is not None or (newest and first is None and after is None)
    return Slice(
        first or last or PAGE_DEFAULT,
        backwards,
        _parse("after", after, parse_cursor),
        _parse("before", before, parse_cursor),
    )


def _parse(name: str, cursor: str | None, parse_cursor: Callable[[str], Any | None]) -> Any:
    if cursor is None:
        return None
    found = parse_cursor(cursor)
    if found is None:
        raise InvalidCursor(f"{name}: not a valid cursor of this list.")
    return found


def time_cursor(order: str, time: datetime, id: str) -> str:
    """A cursor of a list ordered by time; `order` names the list, since no other accepts it."""
    return pack(order, time.isoformat(), id)


def time_cursor_parser(order: str, prefix: Prefix) -> Callable[[str], tuple[datetime, str] | None]:
    """A parser of the cursors of this list."""

    def parse(cursor: str) -> tuple[datetime, str] | None:
        fields = unpack(cursor, 3)
        time = parse_time(fields[1]) if fields else None
        if fields is None or time is None or fields[0] != order or not is_id(prefix, fields[2]):
            return None
        return time, fields[2]

    return parse


def message_cursor(id: str) -> str:
    """The cursor of a message in its branch."""
    return pack("message", id)


def parse_message_cursor(cursor: str) -> str | None:
    """The message id in a cursor; None if it is not valid."""
    fields = unpack(cursor, 2)
    return (
        fields[1]
        if fields and fields[0] == "message" and is_id(Prefix.MESSAGE, fields[1])
        else None
    )
