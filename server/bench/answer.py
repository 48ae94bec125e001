"""A scripted answer in OpenAI's chunk format, and the timer that all answers share."""

import asyncio
import heapq
import time
from itertools import count
from typing import Any, Final, Protocol

from server.bench.script import Script
from server.bench.stamps import first_stamp, stamp

MODEL: Final = "script"
_TICK_MIN_S: Final = 0.001  # the resolution of uvloop's timers
_BURST_TOKENS: Final = 512  # written by an unpaced answer between checks for back-pressure
_PAUSED_RETRY_NS: Final = 10_000_000
_GOLDEN: Final = 0.618033988749895  # its multiples, modulo 1, are evenly spread

_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Wire(Protocol):
    """The connection that an answer is written to; `paused` while its buffer is full."""

    @property
    def paused(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def finish(self, data: bytes) -> None: ...


class Clock:
    """One timer for all paced answers: a heap of due times, checked at most once a millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[tuple[int, int, Answer]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_ns = 0

    def add(self, due_ns: int, answer: "Answer") -> None:
        heapq.heappush(self._due, (due_ns, next(self._order), answer))
        if self._timer is None or due_ns < self._wakes_ns:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._wakes_ns = self._due[0][0]
            wait_s = (self._wakes_ns - time.monotonic_ns()) / 1e9
            self._timer = self._loop.call_later(max(_TICK_MIN_S, wait_s), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_ns = time.monotonic_ns()
        while self._due and self._due[0][0] <= now_ns:
            due_ns, _, answer = heapq.heappop(self._due)
            next_ns = answer.advance(due_ns)
            if next_ns is not None:
                heapq.heappush(self._due, (next_ns, next(self._order), answer))
        self._arm()


class Answer:
    """One answer: writes its tokens when they are due, until it ends, stalls or is disconnected."""

    def __init__(
        self,
        script: Script,
        *,
        number: int,
        include_usage: bool,
        received_ns: int,
        connection: Wire,
    ) -> None:
        self.script, self.number, self.received_ns = script, number, received_ns
        self.tokens_sent = 0
        self.ended_ns = 0
        self.cut = False
        self._connection = connection
        self._include_usage = include_usage
        self._interval_ns = int(1e9 / script.rate) if script.rate else 0
        self._stop_at = (
            script.tokens if script.stall_after < 0 else min(script.tokens, script.stall_after)
        )
        common = (
            f'{{"id":"chatcmpl-{number}","object":"chat.completion.chunk",'
            f'"created":{int(time.time())},"model":"{MODEL}",'
        )
        self._common = common
        self._before = f'data: {common}"choices":[{{"index":0,"delta":{{"content":"'
        self._after = '"},"logprobs":null,"finish_reason":null}]}\n\n'

    def first_due_ns(self) -> int:
        """When the first token is due. Answers that begin together are spread over one interval."""
        return (
            self.received_ns
            + self.script.first_token_ms * 1_000_000
            + int(self.number * _GOLDEN % 1 * self._interval_ns)
        )

    def opening(self) -> bytes:
        """The headers and the chunk with only the role, which OpenAI sends first."""
        delta = '{"role":"assistant","content":""}'
        choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}'
        return _STREAM_HEAD + _chunk(f'data: {self._common}"choices":[{choice}]}}\n\n')

    def advance(self, due_ns: int) -> int | None:
        """Writes the tokens that are due. Returns when the next are due, or None at the end."""
        if self.cut:
            return None
        if self._connection.paused:
            return time.monotonic_ns() + _PAUSED_RETRY_NS
        now_ns = time.monotonic_ns()
        # A paced answer has more than one token due only after a late tick.
        due = 1 + (now_ns - due_ns) // self._interval_ns if self._interval_ns else _BURST_TOKENS
        until = min(self._stop_at, self.tokens_sent + due)
        events = [
            self._before + self._word(index, now_ns) + self._after
            for index in range(self.tokens_sent, until)
        ]
        self.tokens_sent = until
        at_end = until >= self._stop_at
        if at_end and self._stop_at == self.script.tokens:
            self.ended_ns = now_ns
            self._connection.finish(_chunk("".join(events) + self._closing()) + b"0\r\n\r\n")
            return None
        if events:
            self._connection.write(_chunk("".join(events)))
        return None if at_end else due_ns + due * self._interval_ns if self._interval_ns else now_ns

    def leave(self) -> None:
        """The client has disconnected: nothing more is written."""
        if not self.ended_ns:
            self.cut, self.ended_ns = True, time.monotonic_ns()

    def record(self) -> dict[str, Any]:
        """Its state, for `GET /answers`."""
        keys = ("number", "received_ns", "ended_ns", "tokens_sent", "cut")
        return {key: getattr(self, key) for key in keys}

    def _word(self, index: int, now_ns: int) -> str:
        return stamp(now_ns, index) if index else first_stamp(now_ns, self.received_ns)

    def _closing(self) -> str:
        tokens = self.script.tokens
        choice = '{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}'
        finish = f'data: {self._common}"choices":[{choice}]}}\n\n'
        counts = f'"prompt_tokens":1,"completion_tokens":{tokens},"total_tokens":{tokens + 1}'
        usage = f'data: {self._common}"choices":[],"usage":{{{counts}}}}}\n\n'
        return finish + (usage if self._include_usage else "") + "data: [DONE]\n\n"


def _chunk(text: str) -> bytes:
    body = text.encode()
    return b"%x\r\n%b\r\n" % (len(body), body)
