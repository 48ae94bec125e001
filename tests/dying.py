"""`python -m tests.dying worker …`: a normal Tidemark process that kills itself at a given step.

FAULT selects the step: `die before|after <n> <step>`, `stall <seconds> <n> <step>` (the event loop
stalls before the step), `mark <step> …`, or `none`. A step is one of:

- a function that runs as one transaction (`claim`, `settle`): before it starts, or
after it commits
- a script of the log (`open`, `append`, `close`): before it is sent, or after its reply is received
and before it is used
- `last_append`: the first append after the model has finished
- `pop`: after a job is taken from the queue

n counts from 1. With `mark`, the named transactions run a recognisable statement before they
commit, so that a proxy can detect them. If FAULT_START is set, the process imports everything and
then waits until that file exists.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlmodel import Session

from server import faults
from server.__main__ import main
from server.command import web, worker
from server.generate import answering
from server.history.database import PostgresDatabase, SqliteDatabase

CHECKPOINT_EVERY_S = 0.2


def mark_of(step: str) -> str:
    """The text that a marked transaction sends before it commits."""
    return f"about to commit {step}"


class Fault(NamedTuple):
    """What happens at which step."""

    action: str
    when: str
    nth: int
    step: str

    @classmethod
    def of_environment(cls) -> "Fault":
        match os.environ["FAULT"].split():
            case ["die", when, nth, step]:
                return cls("die", when, int(nth), step)
            case ["stall", seconds, nth, step]:
                return cls("stall", seconds, int(nth), step)
            case _:
                return cls("none", "", 0, "")


class Steps:
    """Count the steps of this process and die at the chosen one."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self._counted = fault, Counter[tuple[str, str]]()
        self.model_done = False

    def reached(self, step: str, when: str) -> None:
        self._counted[step, when] += 1
        nth = self._counted[step, when]
        if when == "before" and self.fault == Fault("stall", self.fault.when, nth, step):
            time.sleep(float(self.fault.when))
        if Fault("die", when, nth, step) == self.fault:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Hook into every step."""
        action, *names = os.environ["FAULT"].split()
        marked = frozenset(names if action == "mark" else ())
        for database in (SqliteDatabase, PostgresDatabase):
            self._watch_transactions(database, marked)
        faults.register(self.at_point)
        answering.CHECKPOINT_EVERY_S = CHECKPOINT_EVERY_S

    def _watch_transactions(self, database: Any, names: frozenset[str]) -> None:
        write = database.write

        async def writing(self_: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            def marked(session: Session, *args: Any, **kwargs: Any) -> Any:
                result = fn(session, *args, **kwargs)
                session.execute(text("SELECT :mark"), {"mark": mark_of(step)})
                return result

            step = fn.__name__
            self.reached(step, "before")
            result = await write(self_, marked if step in names else fn, *args, **kwargs)
            self.reached(step, "after")
            return result

        database.write = writing

    def at_point(self, point: str) -> None:
        """Handle a named point: `<when> <step>`, or that the model has finished."""
        when, step = point.split()
        if step == "done":
            self.model_done = True
            return
        if self.model_done and step == "append":
            self.reached("last_append", when)
        self.reached(step, when)


def wait_for_start() -> None:
    """Wait until the file named by FAULT_START exists."""
    start = os.environ.get("FAULT_START")
    while start and not Path(start).exists():
        time.sleep(0.01)


if __name__ == "__main__":
    Steps(Fault.of_environment()).watch()
    wait_for_start()
    main()
