"""Connections: the arguments that name a page, its cursors, and what a page says of itself."""

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
        description="How many to read from the beginning, 1 to 100; 20 where neither is given."
    ),
]
After = Annotated[str | None, strawberry.argument(description="Only what follows this cursor.")]
Last = Annotated[
    int | None, strawberry.argument(description="How many to read from the end, 1 to 100.")
]
Before = Annotated[str | None, strawberry.argument(description="Only what precedes this cursor.")]


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether anything follows the page.")
    has_previous_page: bool = strawberry.field(description="Whether anything precedes the page.")
    start_cursor: str | None = strawberry.field(
        description="The cursor of the first one; null on an empty page."
    )
    end_cursor: str | None = strawberry.field(
        description="The cursor of the last one; null on an empty page."
    )


def page_info(page: Page[Any], cursors: list[str]) -> PageInfo:
    """What a page whose items have these cursors says of itself."""
    return PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )


def asked_slice(
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
    place: Callable[[str], Any | None],
    *,
    newest: bool = False,
) -> Slice:
    """What the arguments of a connection ask for; `place` reads a cursor. `newest`: it ends with the newest, where nothing else is asked.

    Raises Invalid and InvalidCursor.
    """
    if first is not None and last is not None:
        detail = "only one of first and last may be given"
        raise Invalid(
            "invalid_limit", f"first: {detail}.", errors=[{"pointer": "/first", "detail": detail}]
        )
    for name, value in (("first", first), ("last", last)):
        if value is not None and not 1 <= value <= PAGE_MAX:
            detail = f"a number from 1 to {PAGE_MAX} is allowed"
            raise Invalid(
                "invalid_limit",
                f"{name}: {detail}.",
                errors=[{"pointer": f"/{name}", "detail": detail}],
            )
    backwards = last is not None or (newest and first is None and after is None)
    return Slice(
        first or last or PAGE_DEFAULT,
        backwards,
        _place("after", after, place),
        _place("before", before, place),
    )


def _place(name: str, cursor: str | None, place: Callable[[str], Any | None]) -> Any:
    if cursor is None:
        return None
    found = place(cursor)
    if found is None:
        raise InvalidCursor(
            f"{name}: this is not a cursor that this server gave out for this list."
        )
    return found


def moment_cursor(order: str, moment: datetime, id: str) -> str:
    """The cursor of a place in a list that is in the order of a moment; `order` names the list, whose cursors fit no other."""
    return pack(order, moment.isoformat(), id)


def moment_place(order: str, prefix: Prefix) -> Callable[[str], tuple[datetime, str] | None]:
    """Reads such cursors."""

    def place(cursor: str) -> tuple[datetime, str] | None:
        fields = unpack(cursor, 3)
        moment = parse_time(fields[1]) if fields else None
        if fields is None or moment is None or fields[0] != order or not is_id(prefix, fields[2]):
            return None
        return moment, fields[2]

    return place


def message_cursor(id: str) -> str:
    """The cursor of a message on its branch."""
    return pack("message", id)


def message_place(cursor: str) -> str | None:
    """The message of such a cursor."""
    fields = unpack(cursor, 2)
    return (
        fields[1]
        if fields and fields[0] == "message" and is_id(Prefix.MESSAGE, fields[1])
        else None
    )
