"""Operations over a WebSocket: the protocol `graphql-transport-ws`.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress
from time import monotonic
from typing import Any, Final

import anyio
import orjson
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from server.errors import TooMany, Unauthenticated, Unreadable
from server.graph.context import Context, context_of
from server.graph.encoding import OperationRequest
from server.graph.errors import PATH
from server.graph.operations import OperationRefused, Operations, StreamInterrupted
from server.history.database import DatabaseAway
from server.identity.presence import Presence
from server.logs import log
from server.serve.refusals import log_refusal
from server.serve.slow_readers import dropped_when_slow

PROTOCOL: Final = "graphql-transport-ws"
INIT_TIMEOUT_S: Final = 5.0
ID_MAX_CHARS: Final = 256
REASON_MAX_BYTES: Final = 120
OPERATIONS_MAX: Final = 100
QUERIES_MAX: Final = 4
"""How many queries and mutations of a socket run, or wait for their result to be sent, at once. A
result may have 16 MiB."""

WAITING_MAX_BYTES: Final = 1024 * 1024
"""The limit of the text of operations that wait to run; beyond it, the socket is not read."""

INVALID_MESSAGE, UNAUTHORIZED, FORBIDDEN, WRONG_PROTOCOL, INIT_TIMEOUT, DUPLICATE_ID, TOO_MANY = (
    4400,
    4401,
    4403,
    4406,
    4408,
    4409,
    4429,
)
INTERNAL_ERROR, TRY_AGAIN_LATER, SERVICE_RESTART = 1011, 1013, 1012


class CloseSocket(Exception):
    """Closes the socket with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Disconnected(Exception):
    """The client has disconnected."""


def next_messages(payloads: list[bytes]) -> list[str]:
    """`next` messages without the id at their start, the same for every subscriber."""
    return [f',"type":"next","payload":{payload.decode()}}}' for payload in payloads]


class WaitingText:
    """The size of the operations of a socket that wait to run."""

    def __init__(self) -> None:
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    @contextmanager
    def count(self, size: int) -> Iterator[None]:
        """Counts an operation while the context is open."""
        self._add(size)
        try:
            yield
        finally:
            self._add(-size)

    async def wait_for_room(self) -> None:
        """Waits until the limit is not exceeded."""
        await self._room.wait()

    def _add(self, size: int) -> None:
        self._bytes += size
        if self._bytes > WAITING_MAX_BYTES:
            self._room.clear()
        else:
            self._room.set()


class Socket:
    """One connection and its operations."""

    def __init__(
        self,
        operations: Operations,
        operations_max: int,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._run_operations, self._operations_max = operations, operations_max
        self._scope, self._receive, self._send_on = scope, receive, send
        self._listening = anyio.CancelScope()
        self._closing: CloseSocket | None = None
        self._context: Context | None = None
        self._signed_in = False
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._queries = asyncio.Semaphore(QUERIES_MAX)
        self._waiting = WaitingText()
        self._exit_stack = ExitStack()
        self._sends = 0
        self.sending_since: float | None = None

    async def serve(self) -> None:
        """Runs the protocol until either side closes."""
        try:
            await self._open()
            with dropped_when_slow(self), self._exit_stack:
                async with asyncio.TaskGroup() as self._tasks:
                    try:
                        with self._listening:
                            await self._listen()
                    except CloseSocket as closing:
                        self._closing = self._closing or closing
                    finally:
                        for task in list(self._operations.values()):
                            task.cancel()
                if self._closing and self._closing.code:
                    await self._close(self._closing)
        except Disconnected:
            pass

    def drop(self) -> None:
        """Closes the socket without a close frame; for slow readers."""
        self._request_close(0, "")

    def _request_close(self, code: int, reason: str) -> None:
        """Ends `_listen` and closes the socket; the first reason counts."""
        self._closing = self._closing or CloseSocket(code, reason)
        self._listening.cancel()

    async def _open(self) -> None:
        """Accepts the handshake; closes the socket if the client does not offer the subprotocol."""
        if (await self._receive())["type"] != "websocket.connect":
            raise Disconnected
        offered = self._scope["subprotocols"]
        accepted = PROTOCOL if PROTOCOL in offered else next(iter(offered), None)
        await self._send({"type": "websocket.accept", "subprotocol": accepted, "headers": []})
        if accepted != PROTOCOL:
            await self._close(CloseSocket(WRONG_PROTOCOL, "Subprotocol not acceptable"))
            raise Disconnected
        # Bypasses the wrapper of the edge, which would cost time for each event and subscriber.
        self._send_on = self._scope["state"]["send"]

    async def _listen(self) -> None:
        timer = asyncio.get_running_loop().call_later(
            INIT_TIMEOUT_S,
            self._request_close,
            INIT_TIMEOUT,
            "Connection initialisation timeout",
        )
        self._exit_stack.callback(timer.cancel)
        while (received := await self._receive_next())["type"] == "websocket.receive":
            message = _read(received)
            match message.get("type"):
                case "connection_init":
                    if self._context is not None:
                        raise CloseSocket(TOO_MANY, "Too many initialisation requests")
                    await self._sign_in(message.get("payload"))
                    timer.cancel()
                case "ping":
                    await self._send_message(
                        {
                            "type": "pong",
                            **({"payload": message["payload"]} if "payload" in message else {}),
                        }
                    )
                case "pong":
                    pass
                case "subscribe":
                    self._subscribe(message, len(received["text"]))
                    await asyncio.sleep(0)  # lets ended operations leave before the next is counted
                case "complete":
                    if task := self._operations.pop(_id(message), None):
                        task.cancel()
                case _:
                    raise CloseSocket(INVALID_MESSAGE, "Unknown message type")

    async def _sign_in(self, payload: object) -> None:
        """Authenticates with `connection_init`, or else with the handshake."""
        if not isinstance(payload, dict | None):
            raise CloseSocket(INVALID_MESSAGE, "payload: must be an object")
        connection = WebSocket(self._scope, self._receive, self._send_on)
        try:
            self._context = await context_of(connection)
            await self._context.sign_in((payload or {}).get("authorization"))
        except Unauthenticated:
            raise CloseSocket(FORBIDDEN, "Forbidden") from None
        except DatabaseAway as refused:
            log_refusal(refused, self._scope["state"]["request_id"], PATH)
            raise CloseSocket(TRY_AGAIN_LATER, "Try again later") from None
        presence: Presence = self._context.presence
        try:
            slot = presence.reserve(self._context.caller)
        except TooMany as refused:
            log_refusal(refused, self._context.request_id, PATH)
            raise CloseSocket(TOO_MANY, refused.detail) from None
        self._exit_stack.callback(slot.release)
        slot.end = lambda: self._request_close(FORBIDDEN, "Forbidden")
        self._signed_in = True
        await self._send_message({"type": "connection_ack"})

    async def _receive_next(self) -> Message:
        await self._waiting.wait_for_room()
        return await self._receive()

    def _subscribe(self, message: dict[str, Any], size: int) -> None:
        if not self._signed_in:
            raise CloseSocket(UNAUTHORIZED, "Unauthorized")
        id = _id(message)
        if id in self._operations:
            raise CloseSocket(DUPLICATE_ID, f"Subscriber for {id} already exists")
        if len(self._operations) >= self._operations_max:
            raise CloseSocket(TOO_MANY, f"At most {self._operations_max} operations at a time")
        request = _operation_request(message)
        self._operations[id] = self._tasks.create_task(self._run(id, request, size))

    async def _run(self, id: str, request: OperationRequest, size: int) -> None:
        """Runs one operation, and sends its results and its end."""
        assert self._context is not None
        operations, head = self._run_operations, '{"id":' + orjson.dumps(id).decode()
        try:
            with self._waiting.count(size):
                await self._queries.acquire()
            try:
                started = await operations.start(request, self._context)
                if isinstance(started, bytes):
                    await self._send_next(head, next_messages([started]))
            finally:
                self._queries.release()
            if not isinstance(started, bytes):
                async with aclosing(operations.events(started, next_messages)) as results:
                    async for messages in results:
                        # Instead of heartbeats, uvicorn sends pings.
                        await self._send_next(head, messages or [])
            end: dict[str, Any] = {"id": id, "type": "complete"}
        except OperationRefused as refused:
            end = {"id": id, "type": "error", "payload": orjson.Fragment(refused.errors)}
        except StreamInterrupted:
            stopping = self._context.services.feeds.stopping
            self._request_close(
                *(
                    (SERVICE_RESTART, "Service Restart")
                    if stopping
                    else (TRY_AGAIN_LATER, "Try again later")
                )
            )
            return
        except Disconnected:
            self._request_close(0, "")  # waiting operations are cancelled before they run
            return
        except Exception:  # a bug, logged
            log.exception("internal_error", request=self._context.request_id, path=PATH)
            self._request_close(INTERNAL_ERROR, "Internal error")
            return
        finally:
            if self._operations.get(id) is asyncio.current_task():
                del self._operations[id]
        with suppress(Disconnected):
            await self._send_message(end)

    async def _send_next(self, head: str, messages: list[str]) -> None:
        for message in messages:
            await self._send({"type": "websocket.send", "text": head + message})

    async def _close(self, closing: CloseSocket) -> None:
        reason = closing.reason.encode()[:REASON_MAX_BYTES].decode(errors="ignore")
        await self._send({"type": "websocket.close", "code": closing.code, "reason": reason})

    async def _send_message(self, message: dict[str, Any]) -> None:
        await self._send({"type": "websocket.send", "text": orjson.dumps(message).decode()})

    async def _send(self, message: Message) -> None:
        """Sends once the client has read most of what was sent before; raises Disconnected."""
        self._sends += 1
        if self.sending_since is None:
            self.sending_since = monotonic()
        try:
            await self._send_on(message)
        except (OSError, RuntimeError) as error:
            # uvicorn raises RuntimeError after it has sent a close frame.
            raise Disconnected from error
        finally:
            self._sends -= 1
            self.sending_since = monotonic() if self._sends else None


def _read(received: Message) -> dict[str, Any]:
    """The message in a frame; raises CloseSocket."""
    text = received.get("text")
    if text is None:
        raise CloseSocket(INVALID_MESSAGE, "A message must be text")
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise CloseSocket(INVALID_MESSAGE, "A message must be JSON") from None
    if not isinstance(message, dict):
        raise CloseSocket(INVALID_MESSAGE, "A message must be an object")
    return message


def _id(message: dict[str, Any]) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= ID_MAX_CHARS:
        raise CloseSocket(
            INVALID_MESSAGE, f"id: must be a string of 1 to {ID_MAX_CHARS} characters"
        )
    return id


def _operation_request(message: dict[str, Any]) -> OperationRequest:
    payload = message.get("payload")
    if not isinstance(payload, dict):
        raise CloseSocket(INVALID_MESSAGE, "payload: must be an object")
    try:
        return OperationRequest.parse(payload)
    except Unreadable as error:
        reason = f"payload.{error.detail.rstrip('.')}"
        raise CloseSocket(INVALID_MESSAGE, reason) from None
