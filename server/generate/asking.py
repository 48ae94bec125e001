"""Asking for an answer: what is asked is committed, then sent to the workers."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlmodel import Session

from server.generate.queue import Queue
from server.history.asking import Turn
from server.history.database import Database
from server.history.exchange import Asked, Asker

P = ParamSpec("P")
A = TypeVar("A", Asked, Turn)


async def ask(
    database: Database,
    queue: Queue,
    fn: Callable[Concatenate[Session, Asker, P], A],
    asker: Asker,
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> A:
    """Commits what `fn` asks, and has it written; what was asked before with the same key is only answered. Raises Refused."""
    asked = await database.write(fn, asker, *args, **kwargs)
    if not asked.replayed:
        await queue.put(asked.generation.id)
    return asked
