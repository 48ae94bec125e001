"""Cursors that cannot be replayed: the reader gets a snapshot instead of a gap."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from server.stream.log import LogKeys, log_keys
from tests.client import Client, check_agreement, check_law
from tests.fault_table import note
from tests.system import System
from tests.waiting import condition

pytestmark = pytest.mark.slow

KEPT = 10
FAULTS: dict[str, Callable[[Any, LogKeys], Any]] = {
    "its beginning is trimmed": lambda redis, keys: redis.xtrim(
        keys.events, maxlen=KEPT, approximate=False
    ),
    "only its state is left": lambda redis, keys: redis.delete(keys.events),
    "only its events are left": lambda redis, keys: redis.delete(keys.state),
    "it has expired": lambda redis, keys: [
        redis.pexpire(key, 1) for key in (keys.state, keys.events)
    ],
}


async def test_an_answer_that_cannot_be_replayed_is_streamed_as_a_snapshot(
    new_system: Callable[..., System],
) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(generation={"retention_s": 30}).start(webs=2)
    )
    key = await asyncio.to_thread(system.new_key)
    async with (
        Client(system.of("web")[0].url, key) as client,
        Client(system.of("web")[1].url, key) as other,
    ):
        sent = [await client.send(f"/demo tokens=60 rate=200\n{fault}") for fault in FAULTS]
        seen = [await client.read(each["generation_id"]) for each in sent]
        with system.redis() as redis:
            for each, damage in zip(sent, FAULTS.values(), strict=True):
                keys = log_keys(system.settings.redis.key_prefix, each["generation_id"])
                id = each["generation_id"]
                await condition(lambda id=id: system.row(id).sealed)  # type: ignore[misc]
                assert 0 < redis.pttl(keys.events) <= 30_000
                damage(redis, keys)
            await condition(lambda: not redis.exists(keys.state, keys.events))

        for fault, each, events in zip(FAULTS, sent, seen, strict=True):
            snapshot, last = await client.snapshot(each["generation_id"]), events[-1].seq
            cursors = [0, 1, 2, last // 2, last - 1]
            late = [
                await reader.read(each["generation_id"], after=cursor)
                for reader in (client, other)
                for cursor in cursors
            ]
            for cursor, again in zip(cursors * 2, late, strict=True):
                check_law(events[:cursor] + again, snapshot)
            if fault != "only its events are left":
                assert [
                    [event.type for event in again if event.type != "queued"] for again in late[1:4]
                ] == [["snapshot", "completed"]] * 3
            check_agreement([events, *late])
            for reader in (client, other):
                assert (
                    await reader.http.get(each["events_url"], params={"after": last})
                ).status_code == 204
                for beyond in (last + 1, 10**15):
                    responses = [
                        await reader.http.get(each["events_url"], params={"after": beyond}),
                        await reader.http.get(
                            each["events_url"], headers={"Last-Event-ID": str(beyond)}
                        ),
                    ]
                    assert [
                        (response.status_code, response.json()["code"]) for response in responses
                    ] == [(400, "invalid_cursor")] * 2
            note(f"late reader of a log: {fault}", late, database=system.database)
