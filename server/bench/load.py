"""The load generator as its parent uses it: commands to its process, and their results."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson

from server.bench.errors import MeasureError
from server.bench.processes import Folder, Running
from server.bench.script import Script
from server.bench.service import Server
from server.bench.system import MODEL

_GRACE_S: Final = 15.0  # for a client that hangs; normally it keeps the deadline itself


class Results:
    """The results of one batch of streams."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.streams: list[dict[str, Any]] = report["streams"]
        self.delays_us: list[int] = report["delays_us"]
        self.late: int = report["late"]

    @property
    def tokens(self) -> int:
        """The number of tokens received, over all streams."""
        return sum(stream["tokens"] for stream in self.streams)

    def faults(self, *, stamped: bool = True) -> list[str]:
        """Delivery errors, one line per kind. Completeness is only checked if `stamped`."""
        kinds: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
            ("were not answered with 200", lambda stream: stream["status"] != 200),
            ("had event numbers out of order", lambda stream: not stream["in_order"]),
            ("did not end with completed", lambda stream: stream["terminal"] != "completed"),
            (
                "do not have every token once and in order",
                lambda stream: stamped and not stream["whole"],
            ),
        ]
        faults = (
            [f"{self.late} of {len(self.streams)} streams were still open at the deadline."]
            if self.late
            else []
        )
        for words, is_faulty in kinds:
            faulty = [stream for stream in self.streams if is_faulty(stream)]
            if faulty:
                detail = f" (the first: {faulty[0].get('refusal') or _brief(faulty[0])})"
                faults.append(f"{len(faulty)} of {len(self.streams)} streams {words}{detail}.")
        return faults


def _brief(stream: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {stream[key]}" for key in ("generation_id", "status", "tokens", "terminal")
    )


class Load:
    """A running load generator."""

    def __init__(self, client: Running, server: Server) -> None:
        self._client, self._server = client, server
        self._deadline_s = 0.0

    def cpu_s(self) -> float:
        """The CPU time it has used."""
        return self._client.cpu_s()

    async def open(self, *, streams: int, deadline_s: float, **command: Any) -> list[str | None]:
        """Opens streams and waits until each has its headers. `command` is described in `Batch`.

        Returns the generation of each stream that was opened by POST, and None for others.
        """
        self._deadline_s = deadline_s + _GRACE_S
        keys = {"keys": self._server.keys}  # of all accounts, unless the command has its own
        await self._client.send(
            {"do": "open", "streams": streams, "deadline_s": deadline_s} | keys | command
        )
        generation_ids: list[str | None] = (await self._expect("open"))["generation_ids"]
        return generation_ids

    async def post(
        self, script: Script, *, streams: int, deadline_s: float, **command: Any
    ) -> None:
        """Sends messages, and reads the answers on the same connections."""
        body = orjson.dumps({"text": str(script), "model": MODEL}).decode()
        await self.open(
            streams=streams,
            deadline_s=deadline_s,
            method="POST",
            path="/api/messages",
            body=body,
            tokens=script.tokens,
            **command,
        )

    async def ended(self) -> Results:
        """Waits until every stream has ended, or the deadline has closed it."""
        return Results(await self._expect("ended"))

    async def close(self) -> Results:
        """Closes all streams that are still open."""
        await self._client.send({"do": "close"})
        return await self.ended()

    async def _expect(self, event: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._deadline_s):
                line: dict[str, Any] = await self._client.read_line()
        except TimeoutError:
            raise MeasureError(
                f"The load generator sent nothing for {self._deadline_s:.0f} s."
            ) from None
        if line["event"] != event:
            raise MeasureError(
                f"The streams were not opened in time. {' '.join(Results(line).faults())}"
            )
        return line


@asynccontextmanager
async def load(folder: Folder, server: Server, name: str = "load") -> AsyncIterator[Load]:
    """Starts a load generator, and stops it at the end."""
    client = await folder.start(
        name, "server.bench.client", server.host, str(server.port), piped=True
    )
    try:
        await client.read_line()  # ready: its start is not measured
        yield Load(client, server)
    finally:
        await client.stop()
