"""Ids: a type prefix and a time-ordered body, the same in every interface."""

import re
from enum import StrEnum

from ulid import ULID


class Prefix(StrEnum):
    """The type of an object."""

    ACCOUNT = "acct"
    USER = "user"
    KEY = "key"
    CONVERSATION = "conv"
    MESSAGE = "msg"
    GENERATION = "gen"
    WORKER = "wrk"
    REQUEST = "req"


_BODY = "[0-9A-HJKMNP-TV-Z]{26}"
_PATTERNS = {prefix: re.compile(f"{prefix}_{_BODY}", re.ASCII) for prefix in Prefix}


def new_id(prefix: Prefix) -> str:
    """A new id, e.g. `gen_01K9…`: later ids sort later, to the millisecond."""
    return f"{prefix}_{ULID()}"


def made_at_ms(id: str) -> int:
    """When an id was made, in milliseconds since 1970."""
    return int(ULID.from_str(id.rpartition("_")[2]).milliseconds)


def is_id(prefix: Prefix, text: str) -> bool:
    """Whether `text` is well-formed. Other ids cannot exist, so they are not looked up."""
    return _PATTERNS[prefix].fullmatch(text) is not None
