"""Slow readers use no memory, delay nobody, and receive everything when they reconnect."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import psutil
import pytest

from tests.client import TERMINAL, Client, Event
from tests.many_readers import FRAME, ManyReaders
from tests.outcome import outcome_of
from tests.readers import reading
from tests.system import System
from tests.waiting import condition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SLOW_READERS = 20
INTERVAL_S = 0.1
READ_BYTES = 80
RECEIVE_BUFFER_BYTES = 4096
GROWTH_MAX_BYTES = 48 * 1024 * 1024
KEPT_BYTES = 1 << 20


class SlowReader:
    """A reader that takes 80 bytes every 0.1 s until it is stopped."""

    def __init__(self, readers: ManyReaders, seen: list[Event], url: str) -> None:
        self._readers, self.seen = readers, seen
        self._connection = socket.socket()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        address = urlsplit(url)
        self._connection.connect((address.hostname, address.port))
        self._connection.sendall(readers.request(0))
        self._connection.setblocking(False)

    async def read(self, enough: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        taken = b""
        with self._connection:
            while not enough.is_set() and (
                data := await loop.sock_recv(self._connection, READ_BYTES)
            ):
                taken += data
                await asyncio.sleep(INTERVAL_S)
        self.seen += [
            self._readers.event(int(frame[1]), frame[2], frame[3])
            for frame in FRAME.finditer(taken)
        ]


@asynccontextmanager
async def memory_of(web: psutil.Process) -> AsyncIterator[list[int]]:
    """The memory of a process, sampled while the block runs."""
    sizes = [web.memory_info().rss]

    async def watch() -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            sizes.append(web.memory_info().rss)

    task = asyncio.create_task(watch())
    yield sizes
    task.cancel()


async def test_slow_readers_are_dropped_and_receive_everything_when_they_reconnect(
    new_system: Callable[..., System],
) -> None:
    limits = {"output_max_tokens": 1_000_000, "output_max_bytes": 16_000_000}
    system = await asyncio.to_thread(lambda: new_system(generation=limits).start())
    key, web = await asyncio.to_thread(system.new_key), psutil.Process(system.web.pid)
    async with Client(system.web.url, key) as client, AsyncExitStack() as stack:
        # One answer ends at once. The other stalls after 2 MiB, so that its feed stays open and has
        # dropped its beginning.
        short = await client.send("/demo tokens=20000 rate=0\nshort")
        long = await client.send("/demo tokens=500000 rate=0 stall_after=400000\nlong")
        live = await stack.enter_async_context(reading(client, long, 1))
        sizes = await stack.enter_async_context(memory_of(web))
        groups = [
            ManyReaders(each["events_url"], key, [system.web.url], SLOW_READERS)
            for each in (short, long)
        ]
        enough = asyncio.Event()
        slow_readers = [
            SlowReader(group, seen, system.web.url) for group in groups for seen in group.seen
        ]
        slow_reads = [asyncio.create_task(each.read(enough)) for each in slow_readers]

        await until_one_reader_is_left(client)
        # Unsent bytes are dropped with their connections.
        await condition(lambda: established(web) < SLOW_READERS)
        enough.set()
        await asyncio.gather(*slow_reads)
        assert all(is_incomplete(each.seen) for each in slow_readers)
        assert text_length(live[0]) > 2 * KEPT_BYTES
        reconnected = [asyncio.create_task(group.read()) for group in groups]
        await condition(
            lambda: all(text_length(events) == text_length(live[0]) for events in groups[1].seen),
            60,
        )
        growth_bytes = max(sizes) - sizes[0]
        await client.cancel(long["generation_id"])
        await asyncio.gather(*reconnected)
        await condition(lambda: live[0][-1].type == "cancelled")
        outcomes = [
            await outcome_of(system, client, short, groups[0].seen),
            await outcome_of(system, client, long, [*live, *groups[1].seen]),
        ]

    assert growth_bytes < GROWTH_MAX_BYTES
    for outcome, end in zip(outcomes, ("completed", "cancelled"), strict=True):
        outcome.check()
        assert outcome.types == {"queued", "started", "text_delta", end}


async def until_one_reader_is_left(client: Client) -> None:
    """Wait until the server has dropped all readers but one."""
    async with asyncio.timeout(60):
        while (await client.get("/status"))["web"]["open_streams"] > 1:
            await asyncio.sleep(INTERVAL_S)


def established(web: psutil.Process) -> int:
    return sum(each.status == psutil.CONN_ESTABLISHED for each in web.net_connections())


def is_incomplete(seen: list[Event]) -> bool:
    return bool(seen) and seen[-1].type not in TERMINAL


def text_length(seen: list[Event]) -> int:
    """The length of the text that a reader received."""
    return sum(len(event.data["text"]) for event in seen if event.type == "text_delta")
