"""The measured server: its address, its readiness, and single JSON calls."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson

from server.bench.errors import MeasureError
from server.bench.processes import Running

_START_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.01
_CALL_TIMEOUT_S: Final = 30.0


class Server:
    """The address of a server, and API keys for it."""

    def __init__(
        self, host: str, port: int, keys: Sequence[str], session: aiohttp.ClientSession
    ) -> None:
        self.host, self.port, self.keys = host, port, list(keys)
        self._session = session

    def as_account(self, number: int) -> "Server":
        """The same server, called with the key of this account."""
        return Server(self.host, self.port, [self.keys[number]], self._session)

    @property
    def url(self) -> str:
        return (
            f"http://[{self.host}]:{self.port}"
            if ":" in self.host
            else f"http://{self.host}:{self.port}"
        )

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One JSON call with the first key. Raises MeasureError unless its status is 2xx."""
        headers = {"Authorization": f"Bearer {self.keys[0]}"}
        try:
            async with self._session.request(
                method, self.url + path, json=body, headers=headers
            ) as response:
                text = await response.read()
                if response.status >= 300:
                    raise MeasureError(
                        f"{method} {path} was answered with {response.status}: "
                        f"{text.decode(errors='replace')[:500]}"
                    )
                return orjson.loads(text) if text else None
        except (aiohttp.ClientError, TimeoutError) as failure:
            raise MeasureError(f"{method} {path} was not answered: {failure!r}") from failure

    async def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            async with self._session.get(self.url + "/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


@asynccontextmanager
async def connected(host: str, port: int, keys: Sequence[str]) -> AsyncIterator[Server]:
    """A client for a server that is running or will be."""
    timeout = aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Server(host, port, keys, session)


async def ready(server: Server, *processes: Running) -> None:
    """Waits until the server is ready. Raises MeasureError if a process ends, or after 60 s."""
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not await server.is_ready():
                for process in processes:
                    process.check()
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        tails = "".join(process.log_tail() for process in processes)
        raise MeasureError(
            f"The server was not ready after {_START_TIMEOUT_S:.0f} s.{tails}"
        ) from None
