"""Streams end when their credentials or conversation are revoked through another process."""

import asyncio
from collections.abc import Callable

import pytest

from tests.client import TERMINAL, Client, Event, check_law
from tests.databases import both_databases
from tests.readers import some_tokens
from tests.system import System
from tests.test_identity import (
    COOKIE,
    REVOKED_WITHIN_S,
    SAME_ORIGIN,
    STALLED,
    guest_of,
    is_refused,
    revoke,
    wait_until,
)

pytestmark = [pytest.mark.slow, both_databases]

SESSION_TTL_S = 8


async def test_a_revocation_on_one_process_ends_streams_on_the_other(
    new_system: Callable[..., System],
) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(auth={"session_ttl_s": SESSION_TTL_S}).start(webs=2)
    )
    holding, other = (web.url for web in system.of("web"))
    kept_key, revoked_key = [await asyncio.to_thread(system.new_key) for _ in range(2)]
    kept, revoked, leaving, expiring = (
        Client(holding, kept_key),
        Client(holding, revoked_key),
        Client(holding),
        Client(holding),
    )
    async with (
        kept,
        revoked,
        leaving,
        expiring,
        Client(other, kept_key) as elsewhere,
        Client(other) as anonymous,
    ):
        for guest in (leaving, expiring):
            guest.http.headers.update(SAME_ORIGIN | {"Cookie": f"{COOKIE}={await guest_of(guest)}"})
        sent, deleted = await kept.send(STALLED), await kept.send(STALLED)
        followed = [
            (kept, sent),
            (kept, deleted),
            (revoked, sent),
            *[(guest, await guest.send(STALLED)) for guest in (leaving, expiring)],
        ]
        seen: list[list[Event]] = [[] for _ in followed]
        async with asyncio.TaskGroup() as tasks:
            streams = [
                tasks.create_task(follow(*each, events))
                for each, events in zip(followed, seen, strict=True)
            ]
            await some_tokens(seen, 2)

            await asyncio.to_thread(revoke, system, revoked_key)
            signed_out = await anonymous.http.delete("/api/session", headers=leaving.http.headers)
            removed = await elsewhere.http.delete(
                f"/api/conversations/{deleted['conversation_id']}"
            )

            assert (signed_out.status_code, removed.status_code) == (204, 204)
            await asyncio.wait(streams[1:], timeout=REVOKED_WITHIN_S)
            assert [stream.done() for stream in streams] == [False, True, True, True, True]
            assert seen[1][-1].type == "cancelled"
            assert not any(event.type in TERMINAL for events in seen[2:] for event in events)
            for each in (revoked, leaving, expiring):
                for url in (holding, other):
                    each.http.base_url = url  # type: ignore[assignment]  # a string is accepted
                    await wait_until(lambda each=each: is_refused(each))  # type: ignore[misc]
            for each in (kept, elsewhere):
                assert (await each.http.get(deleted["events_url"])).status_code == 404
            snapshot = await elsewhere.cancel(sent["generation_id"])
    check_law(seen[0], snapshot)
    assert system.row(deleted["generation_id"]).status == "cancelled"


async def follow(client: Client, sent: dict[str, str], seen: list[Event]) -> None:
    """Read one connection to its end."""
    async for event in client.stream(sent["generation_id"]):
        seen.append(event)  # noqa: PERF401  read by the test meanwhile
