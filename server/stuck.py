"""Readers that take nothing: who does not read for 20 s is dropped, and may come back with its mark."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from server.logs import log

STUCK_S = 20.0
CHECK_EVERY_S = 1.0


class Reader(Protocol):
    """Whom something is sent to. `sending_since` is when the send that is under way began, by the monotonic clock."""

    sending_since: float | None

    def drop(self) -> None:
        """Ends it."""


_readers: set[Reader] = set()


@contextmanager
def guarded(reader: Reader) -> Iterator[None]:
    """While this is open, the reader is dropped once it is stuck."""
    _readers.add(reader)
    try:
        yield
    finally:
        _readers.discard(reader)


async def drop_stuck_readers() -> None:
    """Drops readers that took nothing for 20 s, until cancelled."""
    while True:
        await asyncio.sleep(CHECK_EVERY_S)
        now = monotonic()
        for reader in list(_readers):
            if reader.sending_since is not None and now - reader.sending_since > STUCK_S:
                log.info("reader_dropped", stuck_s=STUCK_S)
                reader.drop()
