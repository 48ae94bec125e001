"""`tidemark web`: one web process."""

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette

from server.app import build_app
from server.command.child import inherited_socket
from server.command.listening import listen
from server.command.memory import calm_collector
from server.command.protocol import BoundedProtocol
from server.command.waiting import wait_for_services
from server.command.web_socket import LingeringSocket
from server.settings import Settings

GRACEFUL_S = 5
KEEP_ALIVE_S = 30


class WebServer(uvicorn.Server):
    """uvicorn, which ends our streams between two events before it closes their connections."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._streams = app.state

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.stop()
        await super().shutdown(sockets)
        self._captured_signals.clear()  # else uvicorn raises them again, and a clean stop looks like a death


def run_web(settings: Settings) -> None:
    """Serves until told to stop. Raises StartError."""
    fd = inherited_socket()
    listening = (
        socket.socket(fileno=fd)
        if fd is not None
        else listen(settings.server.host, settings.server.port)
    )
    app = build_app(settings)
    calm_collector()
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
        ws_per_message_deflate=False,  # it would compress the same bytes anew for every subscriber, and keep 40 KB for each
        backlog=2048,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(wait_for_services(settings, redis_too=False))
        runner.run(WebServer(config, app).serve([listening]))
