"""Everything an answer leaves behind (row, snapshot, log, readers), and that it is consistent."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from server.history.tables import Generation
from server.stream.events import decode_event
from server.stream.log import log_keys
from tests.client import TERMINAL, Client, Event, check_agreement, check_law, content_of
from tests.fault_table import note
from tests.system import System
from tests.waiting import condition


@dataclass(frozen=True)
class Outcome:
    """A settled answer; `log` is empty when Redis no longer has it."""

    seen: list[list[Event]]
    late: list[Event]
    snapshot: dict[str, Any]
    row: Generation
    log: list[Event]
    state: dict[str, str]

    def check(self) -> None:
        """Check all readers, including a late one, and that row, snapshot and log agree."""
        for events in [*self.seen, self.late]:
            check_law(events, self.snapshot)
        check_agreement([*self.seen, self.late, self.log])
        stored = (self.row.status, self.row.seq, self.row.parts, self.row.attempt)
        assert stored == tuple(
            self.snapshot[name] for name in ("status", "seq", "content", "attempt")
        )
        assert self.row.status in TERMINAL
        assert self.row.sealed
        if self.log:
            assert (self.state["closed"], self.state["seq"]) == ("1", str(self.row.seq))
            assert [event.type for event in self.log if event.type in TERMINAL] == [
                self.log[-1].type
            ]
            assert self.log[-1] == self.late[-1]
            assert content_of(self.log) == self.row.parts
        else:
            assert not self.state

    @property
    def types(self) -> set[str]:
        """The types of all events that the readers saw."""
        return {event.type for events in self.seen for event in events}

    def note(self, case: str, database: str = "SQLite") -> None:
        """Add a row to the fault table."""
        note(case, self.seen, database=database, crashes=self.row.crashes)


async def outcome_of(
    system: System, client: Client, sent: dict[str, Any], seen: list[list[Event]]
) -> Outcome:
    """Wait until an answer has ended and its log is closed, then read everything about it."""
    id = sent["generation_id"]
    late = await client.read_through(id)
    await condition(lambda: system.row(id).sealed)
    log, state = await asyncio.to_thread(log_of, system, id)
    return Outcome(seen, late, await client.snapshot(id), system.row(id), log, state)


def log_of(system: System, generation_id: str) -> tuple[list[Event], dict[str, str]]:
    """The events and the state of a log as they are in Redis now."""
    keys = log_keys(system.settings.redis.key_prefix, generation_id)
    with system.redis() as redis:
        entries = redis.xrange(keys.events)
        state = {name.decode(): value.decode() for name, value in redis.hgetall(keys.state).items()}
    events = [decode_event(fields[b"e"]) for _id, fields in entries]
    return [Event(event.seq, str(event.type), json.loads(event.data)) for event in events], state
