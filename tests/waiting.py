"""Waiting for a condition, with and without an event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

WAIT_S = 60.0
POLL_S = 0.01


def until(condition: Callable[[], Any], what: str = "", wait_s: float = WAIT_S) -> Any:
    """Wait until a condition is true and return its value; fail when it does not become true."""
    deadline = time.monotonic() + wait_s
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {wait_s:g} s in vain for {what or condition}")
        time.sleep(POLL_S)


async def condition(holds: Callable[[], Any], wait_s: float = 20) -> None:
    """Wait until a condition is true; raise TimeoutError when it does not become true."""
    async with asyncio.timeout(wait_s):
        while not holds():
            await asyncio.sleep(POLL_S)
