"""A scripted upstream with one fault or quirk per model name, in OpenAI's or another format.

It uses raw sockets: scripts control every byte, including what no HTTP library would send.
"""

import asyncio
import gzip
import itertools
import json
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

Answer = Callable[["Upstream", asyncio.StreamWriter], Awaitable[None]]

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
DONE = "data: [DONE]\n\n"


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> str:
    """An event with one choice."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return event(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]} | more
    )


def event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def text_chunks(*words: str) -> list[str]:
    return [chunk({"content": word}) for word in words]


ROLE = chunk({"role": "assistant", "content": ""})
STOP = chunk(finish="stop")
HELLO = [ROLE, *text_chunks("Hel", "lo ", "wörld 🌊")]
ENDED = [STOP, DONE]


def call(index: int, arguments: str | None = None, **more: Any) -> str:
    function = ({"name": more.pop("name")} if "name" in more else {}) | (
        {} if arguments is None else {"arguments": arguments}
    )
    return chunk({"tool_calls": [{"index": index, "function": function} | more]})


STREAMS: dict[str, Iterable[str]] = {
    "plain": [*HELLO, *ENDED],
    "role-only": [
        ROLE,
        chunk({}),
        chunk({"role": "assistant"}),
        *HELLO,
        chunk({"content": ""}),
        *ENDED,
    ],
    "content-null": [
        chunk({"role": "assistant", "content": None}),
        *HELLO,
        chunk({"content": None, "tool_calls": None}),
        *ENDED,
    ],
    "usage-chunk": [
        *HELLO,
        STOP,
        event({"choices": [], "usage": USAGE | {"prompt_tokens_details": {"cached_tokens": 4}}}),
        DONE,
    ],
    "usage-every-chunk": [
        *(
            chunk({"content": w}, usage={"prompt_tokens": 11, "completion_tokens": n})
            for n, w in enumerate("abc")
        ),
        *ENDED,
    ],
    "usage-null": [chunk({"content": "x"}, usage=None), chunk(finish="stop", usage=None), DONE],
    "finish-own-chunk": [*HELLO, chunk(None, "length"), DONE],
    "finish-with-text": [ROLE, chunk({"content": "all"}, "stop"), DONE],
    "content-filter": [*HELLO, chunk(finish="content_filter"), DONE],
    "finish-unknown": [*HELLO, chunk(finish="eos"), DONE],
    "reasoning-content": [
        chunk({"reasoning_content": "hm "}),
        chunk({"reasoning_content": "so", "content": None}),
        *HELLO,
        *ENDED,
    ],
    "reasoning": [
        chunk({"reasoning": "hm "}),
        chunk({"reasoning": "so", "content": ""}),
        *HELLO,
        *ENDED,
    ],
    "think-tags": [*text_chunks("<thi", "nk>\nhm ", "so\n</th", "ink>", "\n\n"), *HELLO, *ENDED],
    "think-tags-later": [*text_chunks("Hello ", "<think>", "x</think>"), *ENDED],
    "think-tags-unclosed": [*text_chunks("<thinking>hm ", "so"), *ENDED],
    "alternating": [chunk({"reasoning_content": "h"}), *text_chunks("x")] * 50 + ENDED,
    "tool-calls": [
        *text_chunks("look"),
        call(0, "", id="call_a", type="function", name="tide"),
        call(1, "", id="call_b", type="function", name="wind"),
        call(0, '{"port":'),
        call(1, "{}"),
        call(0, '"Dover"}'),
        chunk(finish="tool_calls"),
        DONE,
    ],
    "tool-calls-no-id": [
        call(0, '{"a":', name="tide"),
        call(0, "1}"),
        chunk(finish="tool_calls"),
        DONE,
    ],
    "tool-calls-id-again": [
        call(0, '{"a":', id="call_a", name="tide"),
        call(0, "1}", id="call_a", name=None),
        chunk(finish="tool_calls"),
        DONE,
    ],
    "tool-calls-no-index": [
        chunk({"tool_calls": [{"id": "call_a", "function": {"name": "tide", "arguments": "{}"}}]}),
        chunk({"tool_calls": [{"id": "call_b", "function": {"name": "wind", "arguments": "[]"}}]}),
        chunk(finish="tool_calls"),
        DONE,
    ],
    "tool-calls-finish-stop": [call(0, "{}", id="call_a", name="tide"), STOP, DONE],
    "refusal": [
        chunk({"role": "assistant", "refusal": None}),
        chunk({"refusal": "I will "}),
        chunk({"refusal": "not."}),
        *ENDED,
    ],
    "comments": [
        ": OPENROUTER PROCESSING\n\n",
        *HELLO[:2],
        ": ping\n",
        ":\n\n",
        "event: ping\ndata:\n\n",
        *HELLO[2:],
        *ENDED,
    ],
    "no-space": [text.replace("data: ", "data:") for text in [*HELLO, *ENDED]],
    "crlf": [text.replace("\n", "\r\n") for text in [*HELLO, *ENDED]],
    "cr": [text.replace("\n", "\r") for text in [*HELLO, *ENDED]],
    "bom": ["\ufeff", *HELLO, *ENDED],
    "error-midstream": [
        *HELLO,
        event({"error": {"message": "the model fell over", "type": "server_error", "code": 500}}),
    ],
    "error-200": [event({"error": {"message": "no room", "type": "overloaded_error"}})],
    "error-200-rate": [event({"error": {"message": "slow down", "code": 429}})],
    "error-200-context": [
        event({"error": {"message": "too much", "code": "context_length_exceeded"}})
    ],
    "error-text": [*HELLO, event({"error": "boom \0 there"})],
    "no-done": [*HELLO, STOP],
    "no-done-no-blank": [*HELLO, STOP.rstrip("\n")],
    "empty": [ROLE, chunk({"content": ""}), STOP, DONE],
    "done-no-finish": [*HELLO, DONE],
    "done-in-other-words": [*HELLO, STOP, "data:  [Done] \n\n"],
    "junk-after-finish": [*HELLO, STOP, "data: }{\n\n", "data: 17\n\n", DONE],
    "error-after-finish": [*HELLO, STOP, event({"error": {"message": "too late"}})],
    "error-between-finishes": [
        *[chunk({"content": word}, finish="stop") for word in ("Hel", "lo ", "wörld 🌊")],
        event({"error": {"message": "the model fell over", "code": 500}}),
    ],
    "huge-line-after-finish": [*HELLO, STOP, "data: " + "x" * 3_000_000],
    "finish-too-early": [*HELLO[:2], STOP, *HELLO[2:], *ENDED],
    "tool-calls-one-index": [
        call(0, "{}", id="call_a", name="tide"),
        call(0, '{"a":', id="call_b", name="wind"),
        call(0, "1}"),
        chunk(finish="tool_calls"),
        DONE,
    ],
    "tool-calls-new-ids": [
        call(0, '{"a":', id="call_a", name="tide"),
        call(0, "1}", id="call_b"),
        chunk(finish="tool_calls"),
        DONE,
    ],
    "cut-after-junk": [*HELLO, "data: {oh no\n\n"],
    "much-junk": [*HELLO, *["data: {oh no\n\n"] * 30, *ENDED],
    "eof-without-finish": HELLO,
    "eof-at-once": [],
    "blank": [*text_chunks("\n", " \n"), STOP, DONE],
    "closing-tag-first": [*text_chunks("\n</th", "ink>", "\n\n"), *HELLO, *ENDED],
    "error-200-detail": [event({"detail": "no such thing", "code": 400})],
    "thought-cut": [chunk({"reasoning_content": "hm "})],
    "not-json": [*HELLO, "data: {oh no\n\n", *ENDED],
    "not-an-object": [*HELLO, "data: 17\n\n", *ENDED],
    "list-content": [
        ROLE,
        chunk({"content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "list"}]}),
        *ENDED,
    ],
    "wrong-types": [*HELLO, chunk({"content": 17}), *ENDED],
    "nul": [
        *text_chunks("a\0b"),
        call(0, '"\0"', id="call\0a", name="t\0"),
        chunk(finish="tool_calls"),
        DONE,
    ],
    "surrogates": [*text_chunks("tide \ud83c", "\udf0a and \udc00 alone"), *ENDED],
    "usage-floats": [
        *HELLO,
        chunk(finish="stop", usage={"prompt_tokens": 11.0, "completion_tokens": None}),
        DONE,
    ],
    "huge-line": [*HELLO, "data: " + "x" * 10_000_000],
    "huge-events": [*text_chunks(*(["0123456789abcdef" * 2048] * 40)), *ENDED],
}
"""The responses of models that answer 200 with a plain sequence of events."""


async def head(
    writer: asyncio.StreamWriter,
    status: str = "200 OK",
    *headers: str,
    type: str = "text/event-stream",
) -> None:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {type}", "Connection: close", *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()


async def refuse(writer: asyncio.StreamWriter, status: str, error: Any, *headers: str) -> None:
    await head(writer, status, *headers, type="application/json")
    writer.write(json.dumps({"error": error}).encode())


async def silence() -> None:
    await asyncio.sleep(3600)


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def split(data: Any, cuts: list[int]) -> list[Any]:
    """Split the data at these positions, taken modulo its length."""
    positions = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(positions)]


async def in_pieces(writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    """Send each piece in a packet of its own, as far as possible."""
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.001)


def byte_by_byte(*texts: str) -> Answer:
    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await head(writer)
        await in_pieces(writer, pieces_of("".join(texts).encode(), 1))

    return answer


async def mid_character(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
    event = 'data: {"choices":[{"index":0,"delta":{"content":"🌊 tide 🌊"}}]}\n\n'
    text = "".join([event, *ENDED]).encode()
    middle = text.index("🌊".encode()) + 2
    await head(writer)
    await in_pieces(writer, [text[:middle], text[middle:]])


async def unauthorized(upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
    """Echo the API key of the request in the error."""
    sent = upstream.requests[-1].headers.get("authorization")
    await refuse(writer, "401 Unauthorized", {"message": f"Incorrect API key provided: {sent}."})


async def html_502(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
    await head(writer, "502 Bad Gateway", type="text/html")
    writer.write(b"<html><body><h1>502 Bad Gateway</h1>nginx</body></html>")


async def html_200(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
    await head(writer, type="text/html")
    writer.write(b"<html><body>Please sign in to the hotel's network.</body></html>")


def json_200(value: Any) -> Answer:
    """One JSON object where a stream is expected."""

    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await head(writer, type="application/json")
        writer.write(json.dumps(value).encode())

    return answer


def gzipped(*texts: str) -> Answer:
    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await head(writer, "200 OK", "Content-Encoding: gzip")
        writer.write(gzip.compress("".join(texts).encode()))

    return answer


def then_silence(*texts: str) -> Answer:
    """Send these texts and keep the connection open."""

    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await head(writer)
        await in_pieces(writer, [text.encode() for text in texts])
        await silence()

    return answer


def slowly(*texts: str, pause_s: float = 0.2) -> Answer:
    """Send the texts one by one with pauses, for longer than the idle timeout in total."""

    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await head(writer)
        for text in texts:
            writer.write(text.encode())
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


async def slow_headers(_upstream: "Upstream", _writer: asyncio.StreamWriter) -> None:
    await silence()


def endless(text: str, *before: str) -> Answer:
    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await head(writer)
        writer.write("".join(before).encode())
        while True:
            writer.write(text.encode())
            await writer.drain()
            await asyncio.sleep(0.05)

    return answer


def reset_midstream(*texts: str) -> Answer:
    """End the connection inside a chunk of the transfer encoding."""

    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await head(writer, "200 OK", "Transfer-Encoding: chunked")
        text = "".join(texts).encode()
        writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n1000\r\nda")

    return answer


def first(refused: Answer, *texts: str) -> Answer:
    """Refuse the first request and answer the second."""

    async def answer(upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        if upstream.request_counts[upstream.model] == 1:
            await refused(upstream, writer)
        else:
            await head(writer)
            writer.write("".join(texts).encode())

    return answer


def refusal(status: str, error: Any, *headers: str) -> Answer:
    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await refuse(writer, status, error, *headers)

    return answer


def refusal_of(status: str, body: Any) -> Answer:
    """Refuse with a body of any shape."""

    async def answer(_upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
        await head(writer, status, type="application/json")
        writer.write(json.dumps(body).encode())

    return answer


async def few_messages(upstream: "Upstream", writer: asyncio.StreamWriter) -> None:
    """Refuse more than three messages as too long."""
    if len(upstream.requests[-1].body["messages"]) > 3:
        await refuse(writer, "400 Bad Request", TOO_LONG)
    else:
        await head(writer)
        writer.write("".join([*HELLO, *ENDED]).encode())


TOO_LONG = {
    "message": "This model's maximum context length is 8192 tokens.",
    "code": "context_length_exceeded",
}

NOT_NOW = {"message": "not now"}
AT_ONCE = {
    "index": 0,
    "message": {"role": "assistant", "content": "all at once"},
    "finish_reason": "stop",
}

SCRIPTS: dict[str, Answer] = {
    "byte-by-byte": byte_by_byte(*HELLO, *ENDED),
    "mid-character": mid_character,
    "html-502": html_502,
    "html-200": html_200,
    "json-200": json_200({"error": {"message": "no room", "type": "overloaded_error"}}),
    "whole-200": json_200({"object": "chat.completion", "choices": [AT_ONCE], "usage": USAGE}),
    "gzip": gzipped(*HELLO, *ENDED),
    "stall": then_silence(*HELLO),
    "stall-with-comments": slowly(*HELLO, *[": keep-alive\n\n"] * 15, *ENDED),
    "silent": then_silence(),
    "slow-headers": slow_headers,
    "endless": endless(chunk({"content": "on "})),
    "empty-endless": endless(chunk({"content": ""})),
    "keeps-open-after-done": then_silence(*HELLO, *ENDED),
    "keeps-open-after-finish": then_silence(*HELLO, STOP),
    "reset-midstream": reset_midstream(*HELLO),
    "429-then-ok": first(
        refusal("429 Too Many Requests", NOT_NOW, "Retry-After: 1"), *HELLO, *ENDED
    ),
    "500-then-ok": first(refusal("500 Internal Server Error", NOT_NOW), *HELLO, *ENDED),
    "500-always": refusal("500 Internal Server Error", {"message": "broken for good"}),
    "422-validator": refusal_of(
        "422 Unprocessable Entity",
        {"detail": [{"loc": ["body", "top_q"], "msg": "Extra inputs are not permitted"}]},
    ),
    "400-nested": refusal_of("400 Bad Request", {"error": {"error": {"msg": "nested words"}}}),
    "finish-with-every-piece": slowly(
        *[chunk({"content": word}, finish="stop") for word in ("Hel", "lo ", "wörld 🌊")],
        DONE,
        pause_s=0.5,
    ),
    "keeps-open-between-finishes": then_silence(
        *[chunk({"content": word}, finish="stop") for word in ("Hel", "lo ", "wörld 🌊")]
    ),
    "503-text": refusal("503 Service Unavailable", "loading model"),
    "few-messages": few_messages,
    "401": unauthorized,
    "404": refusal(
        "404 Not Found", {"message": "The model does not exist.", "code": "model_not_found"}
    ),
    "400": refusal("400 Bad Request", {"message": "bad \0 request"}),
    "redirect": refusal("302 Found", {"message": "elsewhere"}, "Location: /v1/models"),
    "429-always": refusal("429 Too Many Requests", {"message": "quota"}, "Retry-After: 0"),
    "429-date": first(
        refusal("429 Too Many Requests", NOT_NOW, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"),
        *HELLO,
        *ENDED,
    ),
    "429-quota": refusal(
        "429 Too Many Requests",
        {"message": "You exceeded your quota", "code": "insufficient_quota"},
    ),
    "context-too-long": refusal("400 Bad Request", TOO_LONG),
    "context-too-long-words": refusal(
        "400 Bad Request", {"message": TOO_LONG["message"], "code": 400}
    ),
}

MODELS = [*STREAMS, *SCRIPTS]


class Format(NamedTuple):
    """The path of a format and each model's response in it."""

    path: str
    streams: dict[str, Iterable[str]]
    scripts: dict[str, Answer]


OPENAI = Format("/chat/completions", STREAMS, SCRIPTS)


@dataclass
class Request:
    """A request that the upstream received."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)


class Upstream:
    """The server, in a thread with an event loop of its own, so that a test may block.

    It listens on `address`: an IP address, or the path of a Unix socket.
    """

    def __init__(
        self,
        format: Format = OPENAI,
        *,
        address: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.format = format
        self._address, self._tls = address, tls
        self.requests: list[Request] = []
        self.request_counts: Counter[str] = Counter()
        self.model = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        return self

    async def _listen(self) -> asyncio.Server:
        if self._address.startswith("/"):
            return await asyncio.start_unix_server(self._connected, self._address)
        return await asyncio.start_server(self._connected, self._address, 0, ssl=self._tls)

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def url(self) -> str:
        """Its address, without a path."""
        host, port, *_ = self._server.sockets[0].getsockname()
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def sent_to(self, model: str) -> list[Request]:
        """The requests for a model."""
        return [request for request in self.requests if request.body.get("model") == model]

    @property
    def open_answers(self) -> int:
        """How many responses are being sent or held open."""
        return len(self._open)

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        gone = asyncio.create_task(self._gone(reader, task))
        try:
            request = await self._read(reader, gone)
            await self._answer(request, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            gone.cancel()
            self._open.discard(task)
            writer.close()

    async def _gone(self, reader: asyncio.StreamReader, task: asyncio.Task[None]) -> None:
        """End a response when its client disconnects."""
        while not reader.at_eof():
            await asyncio.sleep(0.02)
        task.cancel()

    async def _read(self, reader: asyncio.StreamReader, _gone: asyncio.Task[None]) -> Request:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in lines if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(first.split(" ")[1], headers, json.loads(body) if body else {})
        self.requests.append(request)
        return request

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.model = model = request.body.get("model", "")
        self.request_counts[model] += 1
        if request.path.endswith("/models"):
            await head(writer, type="application/json")
            data = [
                {"id": name, "object": "model"}
                for name in [*self.format.streams, *self.format.scripts]
            ]
            writer.write(json.dumps({"object": "list", "data": data}).encode())
        elif not request.path.endswith(self.format.path):
            await refuse(writer, "404 Not Found", {"message": f"no such path: {request.path}"})
        elif script := self.format.scripts.get(model):
            await script(self, writer)
        else:
            await head(writer)
            for text in self.format.streams[model]:
                writer.write(text.encode())
                await writer.drain()
