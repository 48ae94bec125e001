"""Connections: their arguments, cursors, edges and page info."""

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import strawberry

from server.cursors import pack, unpack
from server.errors import Invalid, InvalidCursor
from server.history.keyset import Page, Slice
from server.ids import Prefix, is_id
from server.verbs.inputs import PAGE_DEFAULT, validated_limit

T = TypeVar("T")

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


@strawberry.type(description="An item of a list.")
class Edge(Generic[T]):
    cursor: str = strawberry.field(description="The cursor, for `after` and `before`.")
    node: T = strawberry.field(description="The item.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    edges: list[Edge[T]] = strawberry.field(description="The items with their cursors.")
    nodes: list[T] = strawberry.field(description="The items alone.")
    page_info: PageInfo = strawberry.field(description="The position of the page.")


def connection(page: Page[Any], cursors: list[str], nodes: list[T]) -> Connection[T]:
    """The connection of a page whose items have these cursors and nodes."""
    return Connection(
        edges=[Edge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
        nodes=nodes,
        page_info=PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        ),
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
        if value is not None:
            validated_limit(value, f"/{name}")
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
