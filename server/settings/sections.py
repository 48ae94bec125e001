"""The sections of the settings: every setting with its default, bounds and description."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, field_validator

from server.postgres_url import parse_postgres_url
from server.redis_url import parse_redis_url
from server.settings.base import Seconds, Section

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
PLATFORM_VARIABLES = {
    ("server", "port"): "PORT",
    ("database", "url"): "DATABASE_URL",
    ("redis", "url"): "REDIS_URL",
}
"""Variables that hosting platforms set. Each applies where the setting itself is not set."""

PROVIDER_NAME = r"^[a-z0-9_-]{1,32}$"

Count = Annotated[int, Field(ge=1)]
Processes = Annotated[int, Field(ge=1, le=64)]
Port = Annotated[int, Field(ge=0, le=65_535)]


def _loopback_or_bool(value: object) -> bool | Literal["loopback"]:
    values: dict[object, bool | Literal["loopback"]] = {
        True: True,
        False: False,
        "true": True,
        "false": False,
        "loopback": "loopback",
    }
    if not isinstance(value, bool | str) or value not in values:
        raise ValueError
    return values[value]


LoopbackOrBool = Annotated[bool | Literal["loopback"], PlainValidator(_loopback_or_bool)]


class ServerSettings(Section):
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: Port = Field(8000, description="The port to listen on; 0 picks a free one.")
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^/\s?#]+(/[A-Za-z0-9._~/-]*)?)?$",
        json_schema_extra={"expected": "an http or https URL, or an empty string"},
        description='The URL of this server as users see it, e.g. "https://chat.example.org" or '
        '"https://example.org/chat". Requests to its host are accepted, and with https session '
        "cookies are secure.",
    )
    allowed_hosts: list[str] = Field(
        [],
        description='Additional host names to accept requests for, e.g. ["chat.internal"]; "*" '
        "accepts all. Loopback names and the host of public_url are always accepted.",
    )
    allowed_origins: list[str] = Field(
        [],
        description="Origins of other sites whose pages may call the API (CORS), e.g. "
        '["https://app.example.org"].',
    )
    trusted_proxies: list[str] = Field(
        [],
        description="Addresses of the proxies whose X-Forwarded-* headers are trusted, e.g. "
        '["10.0.0.2"].',
    )
    processes: Processes = Field(1, description="The number of web processes that `up` runs.")
    body_max_bytes: int = Field(
        1_048_576,
        ge=1024,
        le=64 * 1024 * 1024,
        description="The maximum size of a request body or WebSocket message, in bytes.",
    )
    connections_max: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="The maximum number of connections of a web process. It is lowered to what the "
        "limit of open files allows.",
    )
    keep_alive_s: int = Field(
        75,
        ge=1,
        le=3600,
        description="How long an idle connection is kept open, in seconds: longer than a load "
        "balancer does, which might otherwise send a request as it is closed.",
    )
    shutdown_delay_s: float = Field(
        0,
        ge=0,
        le=600,
        description="How long a web process serves on after SIGTERM, while /readyz is 503, before "
        "it stops listening, in seconds. For load balancers that take time to notice. `up` does not "
        "wait.",
    )
    streams_max_per_account: int = Field(
        1_000,
        ge=1,
        le=1_000_000,
        description="The maximum number of event streams and WebSockets that one account may have "
        "open in a web process.",
    )
    metrics_token: str = Field(
        "",
        description="The bearer token for /status and /metrics. If empty, both answer only to "
        "this machine.",
    )
    metrics_token_file: Path | None = Field(
        None,
        examples=["secrets/metrics-token"],
        description="A file to read metrics_token from.",
    )

    @property
    def base_path(self) -> str:
        """The path of public_url without a slash at its end, e.g. `/chat`; else empty."""
        return urlsplit(self.public_url).path.rstrip("/")


class DataSettings(Section):
    dir: Path = Field(
        Path(".tidemark"),
        description="The folder of the SQLite database, the embedded Valkey and the development "
        "API key.",
    )


class DatabaseSettings(Section):
    url: str = Field(
        "",
        pattern=r"^(|sqlite:///.+|postgres(ql)?(\+asyncpg)?://.+)$",
        json_schema_extra={"expected": "a postgresql:// or sqlite:/// URL, or an empty string"},
        description='The database, e.g. "postgresql://user@host/name?sslmode=require", with the '
        "options that psql takes. Behind a pooler in transaction mode, add pooler=transaction. If "
        "empty, SQLite in the data folder, which is for one machine only.",
    )
    url_file: Path | None = Field(
        None, examples=["secrets/database-url"], description="A file to read url from."
    )
    pool_size: int = Field(
        10,
        ge=2,
        le=500,
        description="The maximum number of connections to PostgreSQL of each web and worker "
        "process. A worker has one more.",
    )
    pool_wait_s: float = Field(
        5,
        gt=0,
        le=60,
        description="How long a transaction waits for a connection to PostgreSQL before it fails, "
        "in seconds.",
    )

    @field_validator("url")
    @classmethod
    def _has_known_options(cls, url: str) -> str:
        if url.startswith("postgres"):
            parse_postgres_url(url)
        return url


class RedisSettings(Section):
    url: str = Field(
        "embedded",
        pattern=r"^(embedded|(rediss?(\+sentinel)?|unix)://.+)$",
        json_schema_extra={
            "expected": "'embedded', or a URL that begins with redis://, rediss:// or unix://"
        },
        description='"embedded" runs a Valkey of its own; otherwise the URL of a Redis or Valkey '
        'server: "redis://…", "rediss://…", "unix://…" or "redis+sentinel://HOST,HOST/NAME". That '
        "server needs `maxmemory-policy noeviction`, and must not be a cluster.",
    )
    url_file: Path | None = Field(
        None, examples=["secrets/redis-url"], description="A file to read url from."
    )
    key_prefix: str = Field(
        "tidemark:",
        pattern=r"^[^\s{}]{0,64}$",
        json_schema_extra={"expected": "at most 64 characters, without spaces and braces"},
        description="The prefix of all keys and channels; installations that share a server need "
        "different ones.",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if url != "embedded":
            parse_redis_url(url)
        return url


class WorkerSettings(Section):
    processes: Processes = Field(1, description="The number of worker processes that `up` runs.")
    concurrency: int = Field(
        256, ge=1, le=10_000, description="The number of answers one worker generates at a time."
    )
    drain_s: float = Field(
        20,
        ge=0,
        le=3600,
        description="How long a stopping worker waits for its answers before it hands them over to "
        "other workers, in seconds. `up` waits at most 2.",
    )
    lease_s: float = Field(
        2,
        ge=1,
        le=60,
        description="How long a worker may give no sign of life before other workers continue its "
        "answers, in seconds.",
    )
    http_port: Port = Field(
        0, description="The port on which a worker serves /healthz and /metrics; 0 turns it off."
    )


class GenerationSettings(Section):
    demo: LoopbackOrBool = Field(
        "loopback",
        json_schema_extra={"expected": "true, false or 'loopback'"},
        description="Whether the built-in model `demo` is offered: true, false, or "
        '"loopback" (while this server listens on loopback, and while there is no other model).',
    )
    default_model: str = Field(
        "",
        description="The model of new conversations. If empty, the first model of the first "
        'usable provider, or "demo" if there is none.',
    )
    output_max_tokens: int = Field(
        16_384,
        ge=1,
        le=1_000_000,
        description="The maximum length of an answer, in tokens. Requests can ask for less, not "
        "for more.",
    )
    output_max_bytes: int = Field(
        1_048_576,
        ge=1024,
        le=16 * 1024 * 1024,
        description="The maximum size of an answer, in bytes. A longer one ends there, with "
        "finish_reason `length`.",
    )
    deadline_s: Seconds = Field(
        900, description="How long an answer may take, in seconds. After that it fails."
    )
    attempts_max: int = Field(
        3,
        ge=1,
        le=100,
        description="The number of worker crashes after which an answer fails.",
    )
    retention_s: Seconds = Field(
        900,
        description="How long the events of a finished answer can be replayed, in seconds. After "
        "that, readers get a snapshot of it.",
    )
    active_max_per_account: Count = Field(
        16, description="The maximum number of unfinished answers of one account."
    )
    titles: bool = Field(
        default=True,
        description="Whether a model names new conversations after their first answer. Otherwise "
        "the title is the beginning of the question.",
    )
    title_model: str = Field(
        "", description="The model that names conversations. If empty, the conversation's own."
    )


class AuthSettings(Section):
    guests: LoopbackOrBool = Field(
        "loopback",
        json_schema_extra={"expected": "true, false or 'loopback'"},
        description="Whether anyone can chat without signing in: true, false, or "
        '"loopback" (only while this server is reachable from this machine alone).',
    )
    guest_sessions_max_per_hour_per_ip: Count = Field(
        20, description="The maximum number of guest sessions that one address can open per hour."
    )
    session_ttl_s: Seconds = Field(
        2_592_000,
        description="How long a browser stays signed in after it was last used, in seconds (30 "
        "days).",
    )


class GraphqlSettings(Section):
    ide: bool = Field(
        default=True, description="Whether /graphql shows browsers a page to try queries."
    )
    cost_max: int = Field(
        30_000,
        ge=1000,
        le=10_000_000,
        description="The maximum cost of a document: the number of fields its result can have. "
        "A field inside a list counts once for every item that the list can return.",
    )
