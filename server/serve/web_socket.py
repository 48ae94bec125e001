"""uvicorn's WebSocket protocol, but a client that is still sending receives the close code."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINGER_S = 5.0


class LingeringSocket(WebSocketsSansIOProtocol):
    """One connection. After an invalid frame it sends the close frame, and discards input for 5 s.

    A connection that is closed at once is reset, and the client may never see the code.
    """

    _broken = False

    def data_received(self, data: bytes) -> None:
        if not self._broken:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        closing = self.conn.close_sent
        if not self.handshake_complete or closing is None:
            self.transport.close()
            return
        self._broken = self.close_sent = True
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.transport.write_eof()

    def eof_received(self) -> None:
        if self._broken:
            self.transport.close()
