"""The load generator: a process that opens many event streams and reads them cheaply.

`python -m server.bench.client HOST PORT` reads commands from standard input and writes events to
standard output, both as JSON lines. Its first event is `{"event": "ready"}`, and it ends with its
input. `{"do": "open", …}` (see `Batch`) is answered by `{"event": "open"}` when every stream has
its headers, and by `{"event": "ended", …}` when all have ended. `{"do": "close"}` closes all
streams that are still open.
"""

import argparse
import asyncio
import gc
import re
import sys
from array import array
from hashlib import sha256
from typing import Any, Final, TextIO

import orjson
import uvloop

from server.bench.blocks import Block, parse
from server.bench.sockets import SocketStream, parse_messages
from server.bench.stamps import is_whole
from server.bench.streams import Stream

_CONNECTS_AT_ONCE: Final = 64
_COMMAND_MAX_BYTES: Final = 1024 * 1024
_MEMO_MAX_BLOCKS: Final = 100_000


class Batch:
    """The streams of one command, whose keys are:

    - `method`, `path`, `body`: the request
    - `keys`: the API keys, used in turn
    - `streams`: their number; `spread_s`: the time over which they are opened
    - `deadline_s`: streams that are still open then are closed
    - `tokens`: the number of tokens of a complete answer
    - `shared`: all streams read the same answer, whose bytes are parsed once
    - `lag`: delays are relative to the first reader of a token, for answers without stamps
    - `traced`: the report lists every event with its time
    - `subscription`: the payload of a GraphQL subscription; each stream is a WebSocket
    """

    def __init__(self, command: dict[str, Any], *, host: str, port: int) -> None:
        self._command, self._host, self._port = command, host, port
        self._shared: bool = command.get("shared", False)
        self._lag: bool = command.get("lag", False)
        self._tokens: int = command.get("tokens", 0)
        self._subscription: dict[str, Any] | None = command.get("subscription")
        self._parse = parse_messages if self._subscription else parse
        self._memo: dict[bytes, Block] = {}
        self._first_ns: dict[int, int] = {}
        self._verdicts: dict[str, dict[str, Any]] = {}
        self._delays_us = array("q")
        self._to_open: int = command["streams"]
        self._to_end: int = command["streams"]
        self._all_open = asyncio.Event()
        self._all_ended = asyncio.Event()
        self._streams: list[Stream] = []
        self.traced: bool = command.get("traced", False)

    async def run(self, output: TextIO) -> None:
        """Opens the streams, reads them until they end or the deadline, and reports."""
        deadline = asyncio.get_running_loop().time() + float(self._command["deadline_s"])
        try:
            async with asyncio.timeout_at(deadline):
                await self._open()
                await self._all_open.wait()
                _write(
                    output,
                    {
                        "event": "open",
                        "generation_ids": [
                            stream.headers.get("generation") for stream in self._streams
                        ],
                    },
                )
                await self._all_ended.wait()
            late = 0
        except TimeoutError:
            late = self._to_end
            self.close()
        _write(
            output,
            {
                "event": "ended",
                "late": late,
                "streams": [stream.report() for stream in self._streams],
                "delays_us": list(self._delays_us),
            },
        )

    def close(self) -> None:
        """Closes every stream that is still open."""
        for stream in self._streams:
            stream.end()

    def parse(self, body: bytes) -> Block:
        """Parses events; once for all readers if they share an answer."""
        if not self._shared:
            return self._parse(body)
        block = self._memo.get(body)
        if block is None:
            block = self._parse(body)
            if len(self._memo) < _MEMO_MAX_BLOCKS:
                self._memo[body] = block
        return block

    def record_delays(self, block: Block, now_ns: int) -> None:
        """Records the delay of each token."""
        if self._lag:
            for event in block.events:
                if event.text:
                    self._delays_us.append(
                        (now_ns - self._first_ns.setdefault(event.seq, now_ns)) // 1000
                    )
        else:
            for sent_ns in block.sent_ns:
                self._delays_us.append((now_ns - sent_ns) // 1000)

    def verdict(self, text: str) -> dict[str, Any]:
        """Checks a complete text; equal texts only once."""
        verdict = self._verdicts.get(text)
        if verdict is None:
            words = len(re.findall(r"\S+", text))
            verdict = {
                "tokens": words,
                "digest": sha256(text.encode()).hexdigest(),
                "whole": is_whole(text, self._tokens),
            }
            self._verdicts[text] = verdict
        return verdict

    def stream_opened(self) -> None:
        self._to_open -= 1
        if self._to_open <= 0:
            self._all_open.set()

    def stream_ended(self) -> None:
        self._to_end -= 1
        if self._to_end <= 0:
            self._all_ended.set()

    async def _open(self) -> None:
        """Connects, a few at a time, and then sends all requests at once.

        With `spread_s`, each request is sent when its connection is open.
        """
        requests = [self._request(key) for key in self._command["keys"]]
        kind = SocketStream if self._subscription else Stream
        self._streams = [
            kind(self, requests[index % len(requests)]) for index in range(self._to_open)
        ]
        pause_s = float(self._command.get("spread_s", 0.0)) / len(self._streams)
        slots = asyncio.Semaphore(_CONNECTS_AT_ONCE)

        async def connect(stream: Stream, wait_s: float) -> None:
            await asyncio.sleep(wait_s)
            async with slots:
                try:
                    await asyncio.get_running_loop().create_connection(
                        lambda: stream, self._host, self._port
                    )
                except OSError as failure:
                    stream.refusal = str(failure)
                    stream.end()
            if pause_s:
                stream.request()

        async with asyncio.TaskGroup() as connects:
            for index, stream in enumerate(self._streams):
                connects.create_task(connect(stream, index * pause_s))
        if not pause_s:
            for stream in self._streams:
                stream.request()

    def _request(self, key: str) -> bytes:
        command = self._command
        if self._subscription is not None:
            return SocketStream.handshake(f"{self._host}:{self._port}", key, self._subscription)
        body: bytes = command.get("body", "").encode()
        lines = [
            f"{command['method']} {command['path']} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"Authorization: Bearer {key}",
            "Accept: text/event-stream",
        ]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


def _write(output: TextIO, line: dict[str, Any]) -> None:
    output.write(orjson.dumps(line).decode() + "\n")
    output.flush()


async def run_commands(host: str, port: int) -> None:
    """Executes commands until the parent closes its pipe."""
    commands = asyncio.StreamReader(limit=_COMMAND_MAX_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    _write(sys.stdout, {"event": "ready"})
    batch: Batch | None = None
    async with asyncio.TaskGroup() as batches:
        running: asyncio.Task[None] | None = None
        while line := await commands.readline():
            command = orjson.loads(line)
            match command["do"]:
                case "open" if running is None or running.done():
                    batch = Batch(command, host=host, port=port)
                    running = batches.create_task(batch.run(sys.stdout))
                case "close" if batch is not None:
                    batch.close()
                case unknown:
                    raise ValueError(f"Command {unknown!r} is not possible now.")
        if running is not None:
            running.cancel()


def main() -> None:
    """Reads the command line and executes commands."""
    parser = argparse.ArgumentParser(
        prog="python -m server.bench.client",
        description="Opens event streams on commands from standard input.",
    )
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    gc.disable()  # a collection would count as delay; the process lives for one measurement only
    uvloop.run(run_commands(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
