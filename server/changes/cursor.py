"""The cursor of a change feed: a place in the account's changes and in each active answer."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from server.cursors import SEQ_PATTERN
from server.errors import InvalidCursor
from server.history.feed import Place

ANSWERS_MAX = 64
"""How many answers a cursor has room for. With more of them it names no conversation, so that a
reader who resumes with it gets the conversation as it is then."""

_ID = "[0-9A-HJKMNP-TV-Z]{26}"
_CURSOR = re.compile(
    rf"(?P<change>{SEQ_PATTERN})(?:-(?P<key>0conv_{_ID}|[12]msg_{_ID}|3))?"
    rf"(?:\.(?P<conversation>conv_{_ID})"
    rf"(?P<seqs>(?:~gen_{_ID}\.(?:{SEQ_PATTERN})){{0,{ANSWERS_MAX}}}))?",
    re.ASCII,
)


class Cursor(NamedTuple):
    """A place in the changes and, for a conversation, the last event seen of each active answer."""

    place: Place
    conversation_id: str | None
    after_seqs: Mapping[str, int]

    def __str__(self) -> str:
        place = f"{self.place.change}-{self.place.key}" if self.place.key else self.place.change
        if self.conversation_id is None or len(self.after_seqs) > ANSWERS_MAX:
            return str(place)
        seqs = "".join(f"~{id}.{seq}" for id, seq in self.after_seqs.items())
        return f"{place}.{self.conversation_id}{seqs}"


def parse_cursor(text: str) -> Cursor:
    """The cursor that is written so; raises InvalidCursor."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidCursor("This is not a cursor that this server gave out.")
    seqs = dict(answer.split(".") for answer in (match["seqs"] or "").split("~")[1:])
    place = Place(int(match["change"]), match["key"] or "")
    return Cursor(place, match["conversation"], {id: int(seq) for id, seq in seqs.items()})
