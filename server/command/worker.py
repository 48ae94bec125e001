"""`tidemark worker`: one worker process, which serves HTTP if `worker.http_port` is set."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.edge import Edge
from server.api.health import check_operator, healthz
from server.command.process import given_name, raise_descriptor_limit, tune_gc
from server.command.waiting import stop_on_signals, wait_for_services
from server.serve.listening import listen
from server.settings import Settings
from server.worker import build_worker


def run_worker(settings: Settings) -> None:
    """Works until it is stopped, then drains. Raises StartError."""
    raise_descriptor_limit()
    tune_gc()
    uvloop.run(_run(settings, given_name()))


async def _run(settings: Settings, name: str) -> None:
    stop = stop_on_signals()
    if not await wait_for_services(settings, stop):
        return
    async with worker_http(settings), build_worker(settings, name) as worker:
        await worker.run(stop)


@asynccontextmanager
async def worker_http(settings: Settings) -> AsyncIterator[None]:
    """Serves /healthz and /metrics while the context is open. Raises StartError."""
    if not settings.worker.http_port:
        yield
        return

    async def metrics(request: Request) -> Response:
        check_operator(request, settings)
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    app = Starlette(routes=[Route("/healthz", healthz), Route("/metrics", metrics)])
    config = uvicorn.Config(
        Edge(app, settings, cookie=""),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    with listen(settings.server.host, settings.worker.http_port) as listening:
        serving = asyncio.create_task(server._serve([listening]))  # noqa: SLF001  `serve` would take over the worker's signals
        try:
            yield
        finally:
            server.should_exit = True
            await serving
