"""A server in OpenAI's format whose model sends the tokens that a test provides."""

import asyncio
import json
import threading
from contextlib import suppress
from typing import Any, Self

from aiohttp import web

MODEL = "scripted/anything"


class ScriptedProvider:
    """Answers the message `name` with `texts[name]`, one item per token.

    `rates[name]` is in tokens per second; 0 sends them at once.
    """

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.rates: dict[str, float] = {}
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def provider(self) -> dict[str, Any]:
        """The settings section that offers it as a model."""
        return {
            "base_url": f"{self.url}/v1",
            "models": [MODEL.split("/")[1]],
            "context_tokens": 1_000_000,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=16_000_000)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        content = (await request.json())["messages"][-1]["content"]
        name = content if isinstance(content, str) else content[0]["text"]
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        started_at = self._loop.time()
        with suppress(ConnectionError):  # the client may disconnect
            for n, token in enumerate(self.texts.get(name, ["?"])):
                if rate := self.rates.get(name):
                    await asyncio.sleep(max(0, started_at + n / rate - self._loop.time()))
                await answer.write(_chunk({"content": token}))
            await answer.write(_chunk({}, "stop") + b"data: [DONE]\n\n")
        return answer


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
