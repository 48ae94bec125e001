"""Background loops: what runs as long as its process, and is started again when it fails."""

import asyncio
from collections.abc import Awaitable, Callable

from server.logs import log

PAUSE_S = 1.0


async def keep(run: Callable[[], Awaitable[None]]) -> None:
    """Runs `run` until cancelled. A fault ends neither the process nor the loops beside it: it is recorded, and the loop starts anew."""
    while True:
        try:
            await run()
        except (
            Exception
        ):  # whatever it was, the other answers and readers of this process do not deserve it
            log.exception("loop_failed", loop=getattr(run, "__qualname__", str(run)))
        await asyncio.sleep(PAUSE_S)
