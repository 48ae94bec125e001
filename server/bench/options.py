"""What the command line asked for, within bounds."""

import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from server.bench.errors import UseError

KEY_VARIABLE: Final = "TIDEMARK_BENCH_API_KEY"
STREAMS_MAX: Final = 5_000
READERS_MAX: Final = 10_000
RATE_MAX_PER_S: Final = 1_000.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one measurement; None means the scenario's own size, which is the one its targets are for."""

    url: str | None = None
    streams: int | None = None
    rate: float | None = None
    readers: int | None = None

    def __post_init__(self) -> None:
        bounds = (
            ("streams", self.streams, STREAMS_MAX),
            ("rate", self.rate, RATE_MAX_PER_S),
            ("readers", self.readers, READERS_MAX),
        )
        for name, value, most in bounds:
            if value is not None and not 0 < value <= most:
                raise UseError(f"--{name} {value:g}: more than 0 and at most {most:g} is allowed.")

    def reject(self, *names: str) -> None:
        """Raise UseError for options this scenario has no use for."""
        for name in names:
            if getattr(self, name) is not None:
                reason = (
                    "starts processes of its own to measure them"
                    if name == "url"
                    else "has no such size"
                )
                raise UseError(f"--{name} cannot be used here: this scenario {reason}.")

    def address(self) -> tuple[str, int]:
        """Host and port of `--url`. Raises UseError unless it is plain http on loopback."""
        assert self.url is not None
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            host, port = "", 0
        if host not in _LOOPBACK or parts.scheme != "http":
            raise UseError(
                f"--url {self.url}: http://127.0.0.1:<port> (or localhost, or [::1]) is allowed; a load is not for other machines."
            )
        return host, port

    @staticmethod
    def key() -> str:
        """The API key for `--url`. Raises UseError when the environment has none."""
        key = os.environ.get(KEY_VARIABLE, "")
        if not key:
            raise UseError(f"--url needs an API key of that server in {KEY_VARIABLE}.")
        return key
