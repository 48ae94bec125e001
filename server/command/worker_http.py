"""A worker's own HTTP, for probes and Prometheus; only where `worker.http_port` names a port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.edge import Edge
from server.api.health import check_operator, healthz
from server.command.listening import listen
from server.settings import Settings


@asynccontextmanager
async def worker_http(settings: Settings) -> AsyncIterator[None]:
    """Answers /healthz and /metrics while the context is open. Raises StartError when the port is taken."""
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
        serving = asyncio.create_task(server._serve([listening]))  # noqa: SLF001  `serve` would take the worker's signals
        try:
            yield
        finally:
            server.should_exit = True
            await serving
