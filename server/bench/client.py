"""The load: a process that opens many event streams and reads them with as little work as will do.

`python -m server.bench.client HOST PORT` takes JSON lines on standard input and answers with JSON lines, the first `{"event": "ready"}`;
it ends with its input. `{"do": "open", …}` (see `Batch`) is answered by `{"event": "open"}` once every stream has its headers, and by
`{"event": "ended", …}` once all have ended; `{"do": "close"}` hangs up on all that are still open.
"""

import argparse
import asyncio
import gc
import re
import sys
import time
from array import array
from hashlib import sha256
from typing import Any, Final, TextIO, cast

import httptools
import orjson
import uvloop

from server.bench.blocks import STARTS_OVER, Block, parse
from server.bench.stamps import is_whole

_CONNECTS_AT_ONCE: Final = 64
_COMMAND_MAX_BYTES: Final = 1024 * 1024
_REFUSAL_MAX_CHARACTERS: Final = 500
_TRACE_MAX_EVENTS: Final = 100_000
_MEMO_MAX_BLOCKS: Final = 100_000
_TERMINAL: Final = frozenset({"completed", "cancelled", "failed"})


class Stream(asyncio.Protocol):
    """One connection with one request and the event stream that answers it."""

    def __init__(self, batch: "Batch", request: bytes) -> None:
        self._batch = batch
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._now_ns = 0
        self._seq = 0
        self._texts: list[str] = []
        self._trace: list[tuple[int, int, str, int]] = []
        self._over = False
        self.in_order = True
        self.refusal = ""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.requested_ns = self.opened_ns = self.first_token_ns = self.last_token_ns = self.ended_ns = 0
        self.first_sent_ns = self.received_ns = 0
        self.terminal = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self.end()

    def request(self) -> None:
        """Send the request; first-token times count from here."""
        self.requested_ns = time.monotonic_ns()
        if self._transport is None:
            self.end()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._now_ns = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.end()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name[:9].lower() == b"tidemark-":
            self.headers[name[9:].decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.opened_ns = self._now_ns
        self._batch.stream_opened()

    def on_body(self, body: bytes) -> None:
        if self.status != 200:
            self.refusal = (self.refusal + body.decode(errors="replace"))[:_REFUSAL_MAX_CHARACTERS]
            return
        if self._rest:
            body, self._rest = self._rest + body, b""
        if b"\r\n" in body:
            body = body.replace(b"\r\n", b"\n")
        if not body.endswith(b"\n\n"):
            whole, separator, self._rest = body.rpartition(b"\n\n")
            body = whole + separator
        if body:
            self._take(self._batch.parse(body))

    def on_message_complete(self) -> None:
        self.end()

    def end(self) -> None:
        """The stream is over, for whatever reason; hang up."""
        if self._over:
            return
        self._over = True
        self.ended_ns = self.ended_ns or time.monotonic_ns()
        if self._transport is not None:
            self._transport.abort()
        if not self.opened_ns:
            self._batch.stream_opened()
        self._batch.stream_ended()

    def _take(self, block: Block) -> None:
        now_ns = self._now_ns
        for seq, name, _ in block.events:
            if seq != self._seq + 1 and not (name in STARTS_OVER and seq > self._seq):
                self.in_order = False
            self._seq = seq
            if name in _TERMINAL:
                self.terminal, self.ended_ns = name, now_ns
        if block.starts_over:
            self._texts.clear()
        if block.text:
            if not self.first_token_ns:
                self.first_token_ns = now_ns
                if block.sent_ns:
                    self.first_sent_ns, self.received_ns = block.sent_ns[0], block.received_ns or 0
            self.last_token_ns = now_ns
            self._texts.append(block.text)
            self._batch.record_delays(block, now_ns)
        if self._batch.traced and len(self._trace) < _TRACE_MAX_EVENTS:
            self._trace.extend((now_ns, event.seq, event.name, len(event.text)) for event in block.events)

    def report(self) -> dict[str, Any]:
        """What this stream saw. `digest` stands for its whole text; `whole`: it holds every token of the script once, in order."""
        keys = ("status", "in_order", "terminal", "requested_ns", "opened_ns", "first_token_ns", "last_token_ns", "ended_ns")
        text = "".join(self._texts)
        report = {key: getattr(self, key) for key in keys}
        report |= {"first_sent_ns": self.first_sent_ns, "received_ns": self.received_ns, "generation_id": self.headers.get("generation")}
        report |= self._batch.verdict(text)
        if self.refusal:
            report["refusal"] = self.refusal
        if self._batch.traced:
            report["trace"] = self._trace
        return report


class Batch:
    """Streams opened by one command.

    `method`, `path` and `body` make the request, `keys` are used in turn, `streams` says how many, spread over `spread_s`;
    after `deadline_s` all that is still open is closed. `tokens`: how many a whole answer has. `shared`: all read the same answer
    (its bytes are parsed once). `lag`: delay is counted from the first reader to have a token, for answers without stamps.
    `traced`: the report lists every event with its time.
    """

    def __init__(self, command: dict[str, Any], *, host: str, port: int) -> None:
        self._command, self._host, self._port = command, host, port
        self._shared: bool = command.get("shared", False)
        self._lag: bool = command.get("lag", False)
        self._tokens: int = command.get("tokens", 0)
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
        """Open, follow to the end or the deadline, report."""
        deadline = asyncio.get_running_loop().time() + float(self._command["deadline_s"])
        try:
            async with asyncio.timeout_at(deadline):
                await self._open()
                await self._all_open.wait()
                _tell(output, {"event": "open", "generation_ids": [stream.headers.get("generation") for stream in self._streams]})
                await self._all_ended.wait()
            late = 0
        except TimeoutError:
            late = self._to_end
            self.close()
        _tell(
            output,
            {"event": "ended", "late": late, "streams": [stream.report() for stream in self._streams], "delays_us": list(self._delays_us)},
        )

    def close(self) -> None:
        """Hang up on every stream that is still open."""
        for stream in self._streams:
            stream.end()

    def parse(self, body: bytes) -> Block:
        """Parse a block of events, once for all readers where they share an answer."""
        if not self._shared:
            return parse(body)
        block = self._memo.get(body)
        if block is None:
            block = parse(body)
            if len(self._memo) < _MEMO_MAX_BLOCKS:
                self._memo[body] = block
        return block

    def record_delays(self, block: Block, now_ns: int) -> None:
        """Note how late each token of the block is."""
        if self._lag:
            for event in block.events:
                if event.text:
                    self._delays_us.append((now_ns - self._first_ns.setdefault(event.seq, now_ns)) // 1000)
        else:
            for sent_ns in block.sent_ns:
                self._delays_us.append((now_ns - sent_ns) // 1000)

    def verdict(self, text: str) -> dict[str, Any]:
        """What a whole text amounts to; equal texts are looked at once."""
        verdict = self._verdicts.get(text)
        if verdict is None:
            words = len(re.findall(r"\S+", text))
            verdict = {"tokens": words, "digest": sha256(text.encode()).hexdigest(), "whole": is_whole(text, self._tokens)}
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
        """Connect, a few at a time; all requests then go out together, or each with its connection where they are spread."""
        requests = [self._request(key) for key in self._command["keys"]]
        self._streams = [Stream(self, requests[index % len(requests)]) for index in range(self._to_open)]
        pause_s = float(self._command.get("spread_s", 0.0)) / len(self._streams)
        slots = asyncio.Semaphore(_CONNECTS_AT_ONCE)

        async def connect(stream: Stream, wait_s: float) -> None:
            await asyncio.sleep(wait_s)
            async with slots:
                try:
                    await asyncio.get_running_loop().create_connection(lambda: stream, self._host, self._port)
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


def _tell(output: TextIO, line: dict[str, Any]) -> None:
    output.write(orjson.dumps(line).decode() + "\n")
    output.flush()


async def obey(host: str, port: int) -> None:
    """Do what the parent says until its pipe ends."""
    commands = asyncio.StreamReader(limit=_COMMAND_MAX_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    _tell(sys.stdout, {"event": "ready"})
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
                    raise ValueError(f"The load cannot do {unknown!r} now.")
        if running is not None:
            running.cancel()


def main() -> None:
    """Read the command line and obey."""
    parser = argparse.ArgumentParser(
        prog="python -m server.bench.client", description="Opens event streams as it is told on standard input."
    )
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    gc.disable()  # a collection here would be counted as lateness of the server; the process lives for one measurement
    uvloop.run(obey(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
