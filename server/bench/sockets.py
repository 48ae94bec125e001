"""Streams that are GraphQL subscriptions over WebSocket."""

import struct
import time
from typing import Any, Final

import orjson

from server.bench.blocks import Block, Event
from server.bench.stamps import stamps
from server.bench.streams import REFUSAL_MAX_CHARACTERS, Stream

SUBSCRIPTION: Final = """subscription ($id: ID!, $after: String) {
  generationEvents(id: $id, after: $after) {
  __typename seq
  ... on GenerationTextDelta { part text }
  ... on GenerationCompleted { finishReason usage { inputTokens outputTokens } }
} }"""
_TEXT, _PING = 0x81, 0x89
_NAMES: Final = {"TextDelta": "text_delta"}


class SocketStream(Stream):
    """One WebSocket with one subscription. All use the same id, so equal frames are parsed once."""

    _handshake: bytes | None = b""
    _subscribe = b""

    @staticmethod
    def handshake(host: str, key: str, payload: dict[str, Any]) -> bytes:
        """The handshake and, after its blank line, the frames to send when it is accepted."""
        lines = [
            "GET /graphql HTTP/1.1",
            f"Host: {host}",
            f"Authorization: Bearer {key}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Protocol: graphql-transport-ws",
        ]
        subscribe = {"id": "1", "type": "subscribe", "payload": payload}
        frames = _masked(b'{"type":"connection_init"}') + _masked(orjson.dumps(subscribe))
        return "\r\n".join([*lines, "", ""]).encode() + frames

    def request(self) -> None:
        head, separator, self._subscribe = self._request.partition(b"\r\n\r\n")
        self._request = head + separator
        super().request()

    def data_received(self, data: bytes) -> None:
        self._now_ns = time.monotonic_ns()
        if self._handshake is not None:
            head, separator, data = (self._handshake + data).partition(b"\r\n\r\n")
            self._handshake = head + separator if not separator else None
            if not separator:
                return
            self.status = int(head.split(b" ", 2)[1])
            if self.status != 101:
                self.refusal = head.decode(errors="replace")[:REFUSAL_MAX_CHARACTERS]
                self.end()
                return
            assert self._transport is not None
            self._transport.write(self._subscribe)
        data = self._rest + data
        at = _whole(data)
        self._rest = data[at:]
        if at:
            self._messages(data[:at])

    def _messages(self, frames: bytes) -> None:
        block = self._batch.parse(frames)
        if block.events and not self.opened_ns:
            self.status, self.opened_ns = 200, self._now_ns
            self._batch.stream_opened()
        self._take(block)
        if self.terminal or block.broken:
            self.refusal = block.broken
            self.end()


def parse_messages(frames: bytes) -> Block:
    """Parses complete frames."""
    events: list[Event] = []
    broken = ""
    at = 0
    while at < len(frames):
        start, end = _bounds(frames, at)
        kind, at = frames[at], end
        if kind == _PING:
            continue
        message: dict[str, Any] = (
            orjson.loads(frames[start:end]) if kind == _TEXT else {"type": f"frame {kind:#x}"}
        )
        if message["type"] == "next":
            event = message["payload"]["data"]["generationEvents"]
            name = event["__typename"].removeprefix("Generation")
            events.append(
                Event(event["seq"], _NAMES.get(name, name.lower()), event.get("text", ""))
            )
        elif message["type"] not in ("connection_ack", "complete"):
            broken = str(message)
    whole = "".join([event.text for event in events])
    found = stamps(whole)
    return Block(
        events=tuple(events),
        starts_over=False,
        text=whole,
        sent_ns=tuple(one.sent_ns for one in found),
        received_ns=found[0].received_ns if found else None,
        broken=broken,
    )


def _whole(data: bytes) -> int:
    """The length of the complete frames at the beginning of `data`."""
    at = 0
    while at + 2 <= len(data):
        if (length := data[at + 1]) >= 126 and at + (4 if length == 126 else 10) > len(data):
            break
        _, end = _bounds(data, at)
        if end > len(data):
            break
        at = end
    return at


def _bounds(data: bytes, at: int) -> tuple[int, int]:
    """The start and end of the payload of the frame at `at`."""
    length, start = data[at + 1], at + 2
    if length == 126:
        length, start = struct.unpack_from(">H", data, start)[0], start + 2
    elif length == 127:
        length, start = struct.unpack_from(">Q", data, start)[0], start + 8
    return start, start + length


def _masked(payload: bytes) -> bytes:
    """A client's text frame. Its mask is zero, so the payload is unchanged."""
    size = (
        bytes([0x80 | len(payload)])
        if len(payload) < 126
        else b"\xfe" + struct.pack(">H", len(payload))
    )
    return bytes([_TEXT]) + size + bytes(4) + payload
