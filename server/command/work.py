"""`tidemark worker`: one worker process."""

import asyncio
import signal

import uvloop

from server.command.child import given_name
from server.command.memory import calm_collector
from server.command.waiting import wait_for_services
from server.command.worker_http import worker_http
from server.settings import Settings
from server.worker import build_worker


def run_worker(settings: Settings) -> None:
    """Works until told to stop, then drains. Raises StartError."""
    calm_collector()
    uvloop.run(_run(settings, given_name()))


async def _run(settings: Settings, name: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await wait_for_services(settings)
    async with worker_http(settings), build_worker(settings, name) as worker:
        await worker.run(stop)
