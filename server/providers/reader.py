"""Reading an answer's events, and which faults in them it survives."""

from collections.abc import Iterable
from typing import Protocol

from server.providers.base import Delta, ProviderError
from server.providers.lenient import MalformedEvent, ProtocolViolation
from server.providers.sse_parser import EventParser, EventTooLong

MALFORMED_MAX = 20
"""How many events of an answer may be skipped because they cannot be understood."""


class StreamParser(Protocol):
    """Parses the events of one answer."""

    begun: bool
    """Whether the model has sent any output, even if no delta was returned yet."""

    done: bool
    """Whether the server has announced the end of the stream."""

    @property
    def complete(self) -> bool:
        """Whether a finish reason is known; then nothing that follows makes the answer fail."""
        ...

    @property
    def could_end(self) -> bool:
        """Whether a finish reason came last: if nothing follows, the answer is complete."""
        ...

    @property
    def finished(self) -> bool:
        """Whether no more output follows. Some servers send a finish reason with every piece."""
        ...

    def feed(self, data: bytes) -> Iterable[Delta]:
        """The deltas of one event. Raises ProviderError and ProtocolViolation."""
        ...

    def end(self) -> Iterable[Delta]:
        """The deltas known only at the end. Raises ProviderError if the stream was cut off."""
        ...


class Reader:
    """Turns the bytes of one answer into deltas.

    An event that cannot be understood is skipped. Once a finish reason is known, nothing that
    follows makes the answer fail.
    """

    def __init__(self, answer: StreamParser) -> None:
        self.malformed: list[MalformedEvent] = []
        self.error: Exception | None = None
        """What ends the answer after the deltas that were read."""

        self._answer, self._events = answer, EventParser()

    def read(self, chunk: bytes) -> list[Delta]:
        """The deltas in the next bytes; none are the end."""
        deltas: list[Delta] = []
        try:
            for data in self._events.feed(chunk) if chunk else self._events.end():
                if data:  # some servers send empty events as heartbeats
                    self._read_event(data, deltas)
                if self._answer.done:
                    break
        except (ProviderError, ProtocolViolation, EventTooLong) as error:
            if self._answer.complete:
                self._answer.done = True
            else:
                self.error = error
        return deltas

    def end(self) -> Iterable[Delta]:
        """The deltas known only at the end. Raises ProviderError or ProtocolViolation."""
        try:
            return list(self._answer.end())
        except ProviderError:
            if self.malformed:
                raise self.malformed[0] from None
            raise

    def _read_event(self, data: bytes, deltas: list[Delta]) -> None:
        try:
            for delta in self._answer.feed(data):
                deltas.append(delta)  # noqa: PERF402  what came before an error is kept
        except MalformedEvent as error:
            self.malformed.append(error)
            if len(self.malformed) > MALFORMED_MAX:
                raise
