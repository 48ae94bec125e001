"""A scripted upstream: a cheap server for OpenAI's streaming format on loopback.

`python -m server.bench.upstream --port 0` prints `{"port": N}` and serves
`POST /v1/chat/completions`, `GET /v1/models`, and `GET /answers`: the state of the last answers,
which shows when the connection of a cancelled one was closed.
"""

import argparse
import asyncio
import gc
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final, cast

import httptools
import orjson
import uvloop

from server.bench.answer import MODEL, Answer, Clock
from server.bench.script import Script, ScriptError

_ANSWERS_KEPT: Final = 10_000
_BODY_MAX_BYTES: Final = 16 * 1024 * 1024


class Connection(asyncio.Protocol):
    """One keep-alive connection: a request, its answer, the next request."""

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body = bytearray()
        self._answer: Answer | None = None
        self._keep_alive = True
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._upstream.connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._upstream.connections.discard(self)
        if self._answer is not None:
            self._answer.leave()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def on_message_begin(self) -> None:
        self._path = b""
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > _BODY_MAX_BYTES:
            self.close()

    def on_message_complete(self) -> None:
        received_ns = time.monotonic_ns()
        self._keep_alive = self._parser.should_keep_alive()
        if self._answer is not None:  # a pipelined request, which Tidemark never sends
            self.close()
            return
        match self._parser.get_method(), self._path:
            case b"POST", b"/v1/chat/completions":
                self._complete(received_ns)
            case b"GET", b"/v1/models":
                self._reply(
                    200,
                    {
                        "object": "list",
                        "data": [
                            {"id": MODEL, "object": "model", "created": 0, "owned_by": "bench"}
                        ],
                    },
                )
            case b"GET", b"/answers":
                self._reply(
                    200, {"answers": [answer.record() for answer in self._upstream.answers]}
                )
            case _:
                self._reply(404, _error("Unknown path."))

    def write(self, data: bytes) -> None:
        """Sends bytes, if the client is still connected."""
        if self._transport is not None:
            self._transport.write(data)

    def finish(self, data: bytes) -> None:
        """Sends the last bytes of an answer. The connection can then be reused."""
        self.write(data)
        self._answer = None
        if not self._keep_alive:
            self.close()

    def close(self) -> None:
        """Closes the connection after the written bytes are sent."""
        if self._transport is not None:
            self._transport.close()

    def _complete(self, received_ns: int) -> None:
        try:
            request = orjson.loads(self._body)
            script = _script(request)
        except (
            orjson.JSONDecodeError,
            ScriptError,
            KeyError,
            TypeError,
            AttributeError,
        ) as refusal:
            self._reply(400, _error(str(refusal)))
            return
        options = request.get("stream_options") or {}
        answer = Answer(
            script,
            number=next(self._upstream.numbers),
            include_usage=bool(options.get("include_usage")),
            received_ns=received_ns,
            connection=self,
        )
        self._answer = answer
        self._upstream.answers.append(answer)
        self.write(answer.opening())
        due_ns = answer.first_due_ns()
        if script.rate == 0 and script.first_token_ms == 0:  # no delay: not even one tick
            following_ns = answer.advance(due_ns)
            if following_ns is not None:
                self._upstream.clock.add(following_ns, answer)
        else:
            self._upstream.clock.add(due_ns, answer)

    def _reply(self, status: int, document: dict[str, Any]) -> None:
        body = orjson.dumps(document)
        lines = (
            f"HTTP/1.1 {status} -",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "",
            "",
        )
        self.finish("\r\n".join(lines).encode() + body)


class Upstream:
    """What the connections share: the timer, and the last answers and their numbers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = Clock(loop)
        self.numbers = count(1)
        self.answers: deque[Answer] = deque(maxlen=_ANSWERS_KEPT)
        self.connections: set[Connection] = set()


def _error(message: str) -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    }


def _script(request: Any) -> Script:
    """The script in the last user message. Raises ScriptError, KeyError or TypeError."""
    if request.get("stream") is not True:
        raise ScriptError("stream must be true.")
    content = next(
        message["content"] for message in reversed(request["messages"]) if message["role"] == "user"
    )
    return Script.parse(
        content
        if isinstance(content, str)
        else "".join(part["text"] for part in content if part["type"] == "text")
    )


async def serve(port: int, *, announce: Callable[[int], None], with_parent: bool) -> None:
    """Serves on 127.0.0.1 until SIGTERM or SIGINT; `with_parent`: until standard input ends."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if with_parent:
        loop.add_reader(sys.stdin, stopped.set)  # the parent writes nothing: readable means ended
    upstream = Upstream(loop)
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", port, backlog=4096)
    announce(server.sockets[0].getsockname()[1])
    await stopped.wait()
    server.close()
    for connection in list(upstream.connections):
        connection.close()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(
        prog="python -m server.bench.upstream", description="A scripted upstream on loopback."
    )
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; printed as JSON")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    gc.disable()  # a collection would delay tokens; the process lives for one measurement only
    uvloop.run(
        serve(
            arguments.port,
            announce=lambda port: print(f'{{"port": {port}}}', flush=True),
            with_parent=arguments.with_parent,
        )
    )


if __name__ == "__main__":
    main()
