"""A proxy that holds event streams back, as virus scanners and some company networks do."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


class HoldingProxy:
    """Passes everything on; of event streams, only pieces of `hold_bytes`, or all at their end."""

    def __init__(self, upstream: str, hold_bytes: int) -> None:
        self.upstream, self.hold_bytes = upstream, hold_bytes
        self.polled = self.streamed = 0
        self.url = ""

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        self.polled += "wait_s" in request.query
        self.streamed += request.path == "/api/events" and "wait_s" not in request.query
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        headers["Host"] = request.headers["Host"]
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                f"{self.upstream}{request.path_qs}",
                headers=headers,
                data=await request.read(),
                timeout=aiohttp.ClientTimeout(total=None),
                allow_redirects=False,
            ) as answer,
        ):
            is_stream = answer.content_type == "text/event-stream"
            kept = [(k, v) for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP]
            response = web.StreamResponse(status=answer.status)
            response.headers.extend(kept)
            held = b""
            async for chunk in answer.content.iter_any():
                held += chunk
                while len(held) >= (self.hold_bytes if is_stream else 1):
                    if not response.prepared:
                        await response.prepare(request)
                    piece, held = held[: self.hold_bytes], held[self.hold_bytes :]
                    await response.write(piece)
            if not response.prepared:
                await response.prepare(request)
            await response.write(held)
            return response


@contextmanager
def holding_proxy(upstream: str, port: int, hold_bytes: int) -> Iterator[HoldingProxy]:
    """Run the proxy on a local port, in a thread."""
    proxy = HoldingProxy(upstream, hold_bytes)
    loop, started = asyncio.new_event_loop(), threading.Event()
    ended = asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 22)
        app.router.add_route("*", "/{path:.*}", proxy.pass_on)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        started.set()
        await ended.wait()
        await runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()
