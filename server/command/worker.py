"""`tidemark worker`: one worker process, which serves HTTP if `worker.http_port` is set."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import uvicorn
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.edge import Edge
from server.api.health import check_operator, healthz
from server.command.process import given_name, raise_descriptor_limit, tune_gc
from server.command.supervisor import Child, Run, Supervisor
from server.command.waiting import stop_on_signals, wait_for_services
from server.history.database import DatabaseAway, open_database
from server.history.workers import release_dead
from server.ids import Prefix, new_id
from server.lifecycle.queue import Queue, open_redis
from server.logs import log
from server.serve.listening import listen
from server.settings import Settings
from server.worker import build_worker

SETTLE_WITHIN_S = 6.0
"""How long a worker may take to end after it has drained."""


def run_workers(settings: Settings, processes: int) -> int:
    """Keeps worker processes running until stopped. Returns the exit code."""
    raise_descriptor_limit()
    children = [worker_child(settings) for _ in range(processes)]
    return Supervisor(children, end_within_s=settings.worker.drain_s + SETTLE_WITHIN_S).run()


def worker_child(settings: Settings) -> Child:
    """A worker whose answers are free at once when it has died."""

    def new_run() -> Run:
        name = new_id(Prefix.WORKER)
        return Run(partial(run_worker, settings, name), partial(_release, settings, name))

    return Child("worker", new_run)


def run_worker(settings: Settings, name: str = "") -> None:
    """Works until it is stopped, then drains. Raises StartError."""
    raise_descriptor_limit()
    tune_gc()
    uvloop.run(_run(settings, name or given_name()))


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

    app = Starlette(
        routes=[Route("/healthz", healthz), Route("/metrics", metrics)],
        middleware=[Middleware(Edge, settings=settings)],
    )
    config = uvicorn.Config(
        app,
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


def _release(settings: Settings, worker_name: str) -> None:
    """Releases the answers of a dead worker, so that another one continues them at once."""
    asyncio.run(_release_answers(settings, worker_name))


async def _release_answers(settings: Settings, worker_name: str) -> None:
    redis = open_redis(settings.redis_url, connections=1)
    try:
        async with open_database(settings.database_url) as database:
            queue = Queue(redis, settings.redis.key_prefix)
            for generation_id in await database.write(release_dead, worker_name):
                await queue.put(generation_id)
    except DatabaseAway as error:  # the sweep will find them
        log.warning("release_failed", worker=worker_name, reason=str(error))
    finally:
        await redis.aclose(close_connection_pool=True)
