"""One event stream of the load generator: a request, and cheap parsing of its response."""

import asyncio
import time
from typing import Any, Final, Protocol, cast

import httptools

from server.bench.blocks import STARTS_OVER, Block

REFUSAL_MAX_CHARACTERS: Final = 500
_TRACE_MAX_EVENTS: Final = 100_000
_TERMINAL: Final = frozenset({"completed", "cancelled", "failed"})


class StreamOwner(Protocol):
    """The batch that a stream belongs to."""

    traced: bool

    def parse(self, body: bytes) -> Block: ...

    def record_delays(self, block: Block, now_ns: int) -> None: ...

    def verdict(self, text: str) -> dict[str, Any]: ...

    def stream_opened(self) -> None: ...

    def stream_ended(self) -> None: ...


class Stream(asyncio.Protocol):
    """One connection with one request and its event stream."""

    def __init__(self, batch: StreamOwner, request: bytes) -> None:
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
        self.requested_ns = self.opened_ns = self.first_token_ns = self.last_token_ns = (
            self.ended_ns
        ) = 0
        self.first_sent_ns = self.received_ns = 0
        self.terminal = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's transport does not inherit from it

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self.end()

    def request(self) -> None:
        """Sends the request, from which the time to the first token is measured."""
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
            self.refusal = (self.refusal + body.decode(errors="replace"))[:REFUSAL_MAX_CHARACTERS]
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
        """Closes the stream, which has ended for whatever reason."""
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
            self._trace.extend(
                (now_ns, event.seq, event.name, len(event.text)) for event in block.events
            )

    def report(self) -> dict[str, Any]:
        """The results of this stream. `whole`: it has every token once and in order."""
        keys = (
            "status",
            "in_order",
            "terminal",
            "requested_ns",
            "opened_ns",
            "first_token_ns",
            "last_token_ns",
            "ended_ns",
        )
        text = "".join(self._texts)
        report = {key: getattr(self, key) for key in keys}
        report |= {
            "first_sent_ns": self.first_sent_ns,
            "received_ns": self.received_ns,
            "generation_id": self.headers.get("generation"),
        }
        report |= self._batch.verdict(text)
        if self.refusal:
            report["refusal"] = self.refusal
        if self._batch.traced:
            report["trace"] = self._trace
        return report
