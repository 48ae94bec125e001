"""`tidemark web`: one web process."""

import asyncio
import socket
from functools import partial

import uvicorn
from starlette.applications import Starlette

from server.app import build_app
from server.command.process import (
    connections_that_fit,
    inherited_socket,
    raise_descriptor_limit,
    tune_gc,
)
from server.command.supervisor import Child, Run, Supervisor
from server.command.waiting import stop_on_signals, wait_for_services
from server.serve.listening import listen
from server.serve.protocol import BoundedProtocol
from server.serve.web_socket import LingeringSocket
from server.settings import Settings

GRACEFUL_S = 5
KEEP_ALIVE_S = 30
END_WITHIN_S = GRACEFUL_S + 3


class WebServer(uvicorn.Server):
    """uvicorn, but it ends event streams between two events before it closes connections."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._streams = app.state

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.stop()
        await super().shutdown(sockets)
        # uvicorn would raise them again, and a clean stop would look like a crash.
        self._captured_signals.clear()


def run_webs(settings: Settings, processes: int) -> int:
    """Keeps web processes running on one socket until stopped. Returns the exit code."""
    raise_descriptor_limit()
    listening = listen(settings.server.host, settings.server.port)
    children = [web_child(settings, listening) for _ in range(processes)]
    return Supervisor(children, end_within_s=END_WITHIN_S).run()


def web_child(settings: Settings, listening: socket.socket) -> Child:
    return Child("web", lambda: Run(partial(run_web, settings, listening)))


def run_web(settings: Settings, listening: socket.socket | None = None) -> None:
    """Serves until it is stopped. Raises StartError."""
    if listening is None:
        fd = inherited_socket()
        listening = (
            socket.socket(fileno=fd)
            if fd is not None
            else listen(settings.server.host, settings.server.port)
        )
    app = build_app(settings)
    tune_gc()
    descriptors = raise_descriptor_limit()
    proxies = settings.server.trusted_proxies
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws=LingeringSocket,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
        ws_max_size=settings.server.body_max_bytes,
        # It would compress the same bytes again for every subscriber, and take 40 KB for each.
        ws_per_message_deflate=False,
        limit_concurrency=connections_that_fit(settings.server.connections_max, descriptors),
        backlog=2048,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(settings, WebServer(config, app), listening))


async def _serve(settings: Settings, server: WebServer, listening: socket.socket) -> None:
    # uvicorn takes over the signals when it starts to serve.
    if await wait_for_services(settings, stop_on_signals(), redis_too=False):
        await server.serve([listening])
