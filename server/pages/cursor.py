"""The cursor of a page: how far it is in the changes of its account, and in each answer that is being written."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from server.errors import InvalidCursor
from server.history.pages import Place

_ID = "[0-9A-HJKMNP-TV-Z]{26}"
_NUMBER = "(?:0|[1-9][0-9]{0,15})"
_CURSOR = re.compile(
    rf"(?P<change>{_NUMBER})(?:-(?P<key>0conv_{_ID}|[12]msg_{_ID}|3))?"
    rf"(?:\.(?P<conversation>conv_{_ID})(?P<marks>(?:~gen_{_ID}\.{_NUMBER}){{0,64}}))?",
    re.ASCII,
)


class Cursor(NamedTuple):
    """A place in the changes, and, where it is a conversation's, a mark in each answer of it that had not ended."""

    place: Place
    conversation_id: str | None
    marks: Mapping[str, int]

    def __str__(self) -> str:
        place = (
            f"{self.place.change}-{self.place.key}" if self.place.key else f"{self.place.change}"
        )
        if self.conversation_id is None:
            return place
        return f"{place}.{self.conversation_id}" + "".join(
            f"~{id}.{seq}" for id, seq in self.marks.items()
        )


def read_cursor(text: str) -> Cursor:
    """The cursor that was written so; raises InvalidCursor."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidCursor("This is not a cursor that this server gave out.")
    marks = dict(mark.split(".") for mark in (match["marks"] or "").split("~")[1:])
    return Cursor(
        Place(int(match["change"]), match["key"] or ""),
        match["conversation"],
        {id: int(seq) for id, seq in marks.items()},
    )
