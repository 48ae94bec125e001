"""The cursor of a change feed: positions in the account's changes and in active answers."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from server.cursors import SEQ_PATTERN
from server.errors import InvalidCursor
from server.history.feed import FeedPosition

ANSWERS_MAX = 64
"""The maximum number of answers in a cursor. With more, it names no conversation, and a reader that
resumes with it gets the current state of the conversation."""

_ID = "[0-9A-HJKMNP-TV-Z]{26}"
_CURSOR = re.compile(
    rf"(?P<change>{SEQ_PATTERN})(?:-(?P<key>0conv_{_ID}|[12]msg_{_ID}|3))?"
    rf"(?:\.(?P<conversation>conv_{_ID})"
    rf"(?P<seqs>(?:~gen_{_ID}\.(?:{SEQ_PATTERN})){{0,{ANSWERS_MAX}}}))?",
    re.ASCII,
)


class Cursor(NamedTuple):
    """A feed position and, for a conversation, the last event seen of each active answer."""

    position: FeedPosition
    conversation_id: str | None
    after_seqs: Mapping[str, int]

    def __str__(self) -> str:
        position = (
            f"{self.position.change}-{self.position.key}"
            if self.position.key
            else self.position.change
        )
        if self.conversation_id is None or len(self.after_seqs) > ANSWERS_MAX:
            return str(position)
        seqs = "".join(f"~{id}.{seq}" for id, seq in self.after_seqs.items())
        return f"{position}.{self.conversation_id}{seqs}"


def parse_cursor(text: str) -> Cursor:
    """Parses a cursor; raises InvalidCursor."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidCursor("The cursor is not valid.")
    seqs = dict(answer.split(".") for answer in (match["seqs"] or "").split("~")[1:])
    position = FeedPosition(int(match["change"]), match["key"] or "")
    return Cursor(position, match["conversation"], {id: int(seq) for id, seq in seqs.items()})
