"""The validated options of a benchmark."""

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
    """The options of one benchmark. None means the scenario's own size."""

    url: str | None = None
    streams: int | None = None
    rate: float | None = None
    readers: int | None = None
    database: str | None = None

    def __post_init__(self) -> None:
        bounds = (
            ("streams", self.streams, STREAMS_MAX),
            ("rate", self.rate, RATE_MAX_PER_S),
            ("readers", self.readers, READERS_MAX),
        )
        for name, value, most in bounds:
            if value is not None and not 0 < value <= most:
                raise UseError(
                    f"--{name} {value:g} is not valid: expected more than 0 and at most {most:g}."
                )

    def reject(self, *names: str) -> None:
        """Raises UseError if an option is set that this scenario does not have."""
        for name in names:
            if getattr(self, name) is not None:
                reason = (
                    "starts its own processes" if name == "url" else "does not have this option"
                )
                raise UseError(f"--{name} cannot be used: this scenario {reason}.")

    def address(self) -> tuple[str, int]:
        """Host and port of `--url`. Raises UseError unless it is http on loopback."""
        assert self.url is not None
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            host, port = "", 0
        if host not in _LOOPBACK or parts.scheme != "http":
            raise UseError(
                f"{self.url!r} is not a valid value for --url: expected http://127.0.0.1:<port>, "
                "or localhost or [::1]. Other machines cannot be measured."
            )
        return host, port

    @staticmethod
    def key() -> str:
        """The API key for `--url`. Raises UseError if the environment has none."""
        key = os.environ.get(KEY_VARIABLE, "")
        if not key:
            raise UseError(
                f"--url needs an API key of the server in the environment variable {KEY_VARIABLE}."
            )
        return key
