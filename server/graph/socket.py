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
from server.graph.operations import BrokenOff, NotRun, Operations
from server.history.database import DatabaseAway
from server.identity.presence import Presence
from server.logs import log
from server.serve.refusals import log_refusal
from server.serve.slow_readers import dropped_when_slow

PROTOCOL: Final = "graphql-transport-ws"
INIT_WITHIN_S: Final = 5.0
ID_MAX_CHARS: Final = 256
REASON_MAX_BYTES: Final = 120
OPERATIONS_MAX: Final = 100
QUERIES_MAX: Final = 4
"""How many queries and mutations of a socket run, or wait for their result to be sent, at once: each
result may have 16 MiB."""

WAITING_MAX_BYTES: Final = 1024 * 1024
"""How much text operations that have not begun may have before the socket is read on."""

UNREADABLE, UNAUTHORIZED, FORBIDDEN, WRONG_PROTOCOL, TOO_LATE, TAKEN, TOO_MANY = (
    4400,
    4401,
    4403,
    4406,
    4408,
    4409,
    4429,
)
FAULT, AWAY, COME_BACK = 1011, 1013, 1012


class Closing(Exception):
    """The socket closes with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Gone(Exception):
    """The client has disconnected."""


def rest_of_next(payloads: list[bytes]) -> list[str]:
    """A `next` message without its id, which comes first: the same for every subscriber."""
    return [f',"type":"next","payload":{payload.decode()}}}' for payload in payloads]


class WaitingText:
    """The text of a socket's operations that have not begun."""

    def __init__(self) -> None:
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    @contextmanager
    def text(self, size: int) -> Iterator[None]:
        """Counts a text while the context is open."""
        self._add(size)
        try:
            yield
        finally:
            self._add(-size)

    async def has_room(self) -> None:
        """Returns once the limit is not exceeded."""
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
        self._closing: Closing | None = None
        self._context: Context | None = None
        self._signed_in = False
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._queries = asyncio.Semaphore(QUERIES_MAX)
        self._waiting = WaitingText()
        self._left = ExitStack()
        self._sends = 0
        self.sending_since: float | None = None

    async def serve(self) -> None:
        """Runs the protocol until either side closes."""
        try:
            await self._open()
            with dropped_when_slow(self), self._left:
                async with asyncio.TaskGroup() as self._tasks:
                    try:
                        with self._listening:
                            await self._listen()
                    except Closing as closing:
                        self._closing = self._closing or closing
                    finally:
                        for task in list(self._operations.values()):
                            task.cancel()
                if self._closing and self._closing.code:
                    await self._close(self._closing)
        except Gone:
            pass

    def drop(self) -> None:
        """Closes the socket of a slow reader without a close frame."""
        self._end(0, "")

    def _end(self, code: int, reason: str) -> None:
        """Closes the socket from outside `_listen`; the first reason counts."""
        self._closing = self._closing or Closing(code, reason)
        self._listening.cancel()

    async def _open(self) -> None:
        """Accepts the handshake, and closes with a code where the subprotocol is another one."""
        if (await self._receive())["type"] != "websocket.connect":
            raise Gone
        offered = self._scope["subprotocols"]
        spoken = PROTOCOL if PROTOCOL in offered else next(iter(offered), None)
        await self._send({"type": "websocket.accept", "subprotocol": spoken, "headers": []})
        if spoken != PROTOCOL:
            await self._close(Closing(WRONG_PROTOCOL, "Subprotocol not acceptable"))
            raise Gone
        self._send_on = self._scope["state"][
            "send"
        ]  # a wrapper would cost time for each event and subscriber

    async def _listen(self) -> None:
        timer = asyncio.get_running_loop().call_later(
            INIT_WITHIN_S, self._end, TOO_LATE, "Connection initialisation timeout"
        )
        self._left.callback(timer.cancel)
        while (received := await self._next_frame())["type"] == "websocket.receive":
            message = _read(received)
            match message.get("type"):
                case "connection_init":
                    if self._context is not None:
                        raise Closing(TOO_MANY, "Too many initialisation requests")
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
                    await asyncio.sleep(0)  # lets operations end before they are counted
                case "complete":
                    if task := self._operations.pop(_id(message), None):
                        task.cancel()
                case _:
                    raise Closing(UNREADABLE, "Unknown message type")

    async def _sign_in(self, payload: object) -> None:
        """Authenticates by `connection_init`, or else by the handshake."""
        if not isinstance(payload, dict | None):
            raise Closing(UNREADABLE, "payload: must be an object")
        connection = WebSocket(self._scope, self._receive, self._send_on)
        try:
            self._context = await context_of(connection)
            await self._context.sign_in((payload or {}).get("authorization"))
        except Unauthenticated:
            raise Closing(FORBIDDEN, "Forbidden") from None
        except DatabaseAway as refused:
            log_refusal(refused, self._scope["state"]["request_id"], PATH)
            raise Closing(AWAY, "Try again later") from None
        presence: Presence = self._context.presence
        try:
            presence.check_room(self._context.caller)
        except TooMany as refused:
            log_refusal(refused, self._context.request_id, PATH)
            raise Closing(TOO_MANY, refused.detail) from None
        self._left.enter_context(
            presence.stream(self._context.caller, lambda: self._end(FORBIDDEN, "Forbidden"))
        )
        self._signed_in = True
        await self._send_message({"type": "connection_ack"})

    async def _next_frame(self) -> Message:
        await self._waiting.has_room()
        return await self._receive()

    def _subscribe(self, message: dict[str, Any], size: int) -> None:
        if not self._signed_in:
            raise Closing(UNAUTHORIZED, "Unauthorized")
        id = _id(message)
        if id in self._operations:
            raise Closing(TAKEN, f"Subscriber for {id} already exists")
        if len(self._operations) >= self._operations_max:
            raise Closing(TOO_MANY, f"At most {self._operations_max} operations at a time")
        request = _operation_request(message)
        self._operations[id] = self._tasks.create_task(self._run(id, request, size))

    async def _run(self, id: str, request: OperationRequest, size: int) -> None:
        """Runs one operation, and sends its results and its end."""
        assert self._context is not None
        operations, head = self._run_operations, '{"id":' + orjson.dumps(id).decode()
        try:
            with self._waiting.text(size):
                await self._queries.acquire()
            try:
                started = await operations.start(request, self._context)
                if isinstance(started, bytes):
                    await self._send_next(head, rest_of_next([started]))
            finally:
                self._queries.release()
            if not isinstance(started, bytes):
                async with aclosing(operations.events(started, rest_of_next)) as results:
                    async for rests in results:
                        await self._send_next(head, rests or [])  # uvicorn sends pings
            end: dict[str, Any] = {"id": id, "type": "complete"}
        except NotRun as refused:
            end = {"id": id, "type": "error", "payload": orjson.Fragment(refused.errors)}
        except BrokenOff:
            stopping = self._context.services.feeds.stopping
            self._end(*((COME_BACK, "Service Restart") if stopping else (AWAY, "Try again later")))
            return
        except Gone:
            self._end(0, "")  # operations that wait do not run for nobody
            return
        except Exception:  # a fault of ours, logged
            log.exception("fault", request=self._context.request_id, path="/graphql")
            self._end(FAULT, "Internal error")
            return
        finally:
            if self._operations.get(id) is asyncio.current_task():
                del self._operations[id]
        with suppress(Gone):
            await self._send_message(end)

    async def _send_next(self, head: str, rests: list[str]) -> None:
        for rest in rests:
            await self._send({"type": "websocket.send", "text": head + rest})

    async def _close(self, closing: Closing) -> None:
        reason = closing.reason.encode()[:REASON_MAX_BYTES].decode(errors="ignore")
        await self._send({"type": "websocket.close", "code": closing.code, "reason": reason})

    async def _send_message(self, message: dict[str, Any]) -> None:
        await self._send({"type": "websocket.send", "text": orjson.dumps(message).decode()})

    async def _send(self, message: Message) -> None:
        """Sends once the client has read most of what was sent before; raises Gone."""
        self._sends += 1
        if self.sending_since is None:
            self.sending_since = monotonic()
        try:
            await self._send_on(message)
        except (
            OSError,
            RuntimeError,
        ) as error:  # uvicorn raises RuntimeError after a close frame of its own
            raise Gone from error
        finally:
            self._sends -= 1
            self.sending_since = monotonic() if self._sends else None


def _read(received: Message) -> dict[str, Any]:
    """The message in a frame; raises Closing."""
    text = received.get("text")
    if text is None:
        raise Closing(UNREADABLE, "A message must be text")
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Closing(UNREADABLE, "A message must be JSON") from None
    if not isinstance(message, dict):
        raise Closing(UNREADABLE, "A message must be an object")
    return message


def _id(message: dict[str, Any]) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= ID_MAX_CHARS:
        raise Closing(UNREADABLE, f"id: must be a string of 1 to {ID_MAX_CHARS} characters")
    return id


def _operation_request(message: dict[str, Any]) -> OperationRequest:
    payload = message.get("payload")
    if not isinstance(payload, dict):
        raise Closing(UNREADABLE, "payload: must be an object")
    try:
        return OperationRequest.parse(payload)
    except Unreadable as error:
        raise Closing(UNREADABLE, f"payload.{error.detail.rstrip('.')}") from None
