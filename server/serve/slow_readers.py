"""Slow readers: a client that reads nothing for 20 s is dropped, and may resume later."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final, Protocol

from server.logs import log

READ_WITHIN_S: Final = 20.0
CHECK_EVERY_S: Final = 1.0


class Reader(Protocol):
    """A client that is sent something.

    `sending_since` is when the current send began, by the monotonic clock; None between sends.
    """

    sending_since: float | None

    def drop(self) -> None:
        """Ends its stream."""


_readers: set[Reader] = set()


@contextmanager
def dropped_when_slow(reader: Reader) -> Iterator[None]:
    """Watches the reader while the context is open."""
    _readers.add(reader)
    try:
        yield
    finally:
        _readers.discard(reader)


async def drop_slow_readers() -> None:
    """Drops readers that read nothing for 20 s, until cancelled."""
    while True:
        await asyncio.sleep(CHECK_EVERY_S)
        now = monotonic()
        for reader in list(_readers):
            if reader.sending_since is not None and now - reader.sending_since > READ_WITHIN_S:
                log.info("slow_reader_dropped", after_s=READ_WITHIN_S)
                reader.drop()
