"""`tidemark web`: one web process."""

import asyncio
import signal
import socket
from functools import partial
from math import inf
from time import monotonic
from types import FrameType

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
END_WITHIN_S = GRACEFUL_S + 3


class WebServer(uvicorn.Server):
    """uvicorn, but it ends event streams between two events before it closes connections.

    After SIGTERM, it first serves on for `delay_s` while /readyz is 503, so that load balancers stop
    sending requests. Another signal ends that.
    """

    def __init__(self, config: uvicorn.Config, app: Starlette, delay_s: float) -> None:
        super().__init__(config)
        self._state, self._delay_s = app.state, delay_s
        self._exit_at = inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._delay_s and not self._state.draining:
            self._state.draining = True
            self._exit_at = monotonic() + self._delay_s
            return
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or monotonic() >= self._exit_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.stop()
        await super().shutdown(sockets)
        # uvicorn would raise them again, and a clean stop would look like a crash.
        self._captured_signals.clear()


def run_webs(settings: Settings, processes: int) -> int:
    """Keeps web processes running on one socket until stopped. Returns the exit code."""
    raise_descriptor_limit()
    listening = listen(settings.server.host, settings.server.port)
    children = [web_child(settings, listening) for _ in range(processes)]
    end_within_s = settings.server.shutdown_delay_s + END_WITHIN_S
    return Supervisor(children, end_within_s=end_within_s).run()


def web_child(settings: Settings, listening: socket.socket) -> Child:
    return Child("web", lambda: Run(partial(run_web, settings, listening)))


def run_web(settings: Settings, listening: socket.socket | None = None) -> None:
    """Serves until it is stopped. Raises StartError."""
    if listening is None and (fd := inherited_socket()) is not None:
        listening = socket.socket(fileno=fd)
    if listening is None:
        listen(settings.server.host, settings.server.port).close()  # whether that will be possible
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
        timeout_keep_alive=settings.server.keep_alive_s,
        timeout_graceful_shutdown=GRACEFUL_S,
        ws_max_size=settings.server.body_max_bytes,
        # It would compress the same bytes again for every subscriber, and take 40 KB for each.
        ws_per_message_deflate=False,
        limit_concurrency=connections_that_fit(settings.server.connections_max, descriptors),
        backlog=2048,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        server = WebServer(config, app, settings.server.shutdown_delay_s)
        runner.run(_serve(settings, server, listening))


async def _serve(settings: Settings, server: WebServer, listening: socket.socket | None) -> None:
    """Listens once it can serve: until then, load balancers ask another process."""
    # uvicorn takes over the signals when it starts to serve.
    if await wait_for_services(settings, stop_on_signals(), redis_too=False):
        with listening or listen(settings.server.host, settings.server.port) as ready:
            await server.serve([ready])
