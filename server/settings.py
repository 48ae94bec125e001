"""Settings: `config.toml`, then the environment; whatever is unknown or wrong stops the start with one line."""

import json
import os
import re
import typing
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as PydanticSettingsError

from server.errors import SettingsError

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 365)]


def _guests(value: object) -> bool | Literal["loopback"]:
    known: dict[object, bool | Literal["loopback"]] = {
        True: True,
        False: False,
        "true": True,
        "false": False,
        "loopback": "loopback",
    }
    if not isinstance(value, bool | str) or value not in known:
        raise ValueError('true, false or "loopback" is allowed')
    return known[value]


class Section(BaseModel):
    """One table of the file: frozen, and no key may be in it that is not known here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


class ServerSettings(Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/\s]+)?/?$")] = ""
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []
    trusted_proxies: list[str] = []
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    body_max_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1_048_576
    metrics_token: str = ""
    metrics_token_file: Path | None = None


class DataSettings(Section):
    dir: Path = Path(".tidemark")


class DatabaseSettings(Section):
    url: Annotated[str, Field(pattern=r"^(|sqlite:///.+|postgres(ql)?(\+asyncpg)?://.+)$")] = ""
    url_file: Path | None = None


class RedisSettings(Section):
    url: Annotated[str, Field(pattern=r"^(embedded|(redis|rediss|unix)://.+)$")] = "embedded"
    url_file: Path | None = None
    key_prefix: Annotated[str, Field(pattern=r"^[^\s{}]{0,64}$")] = "tidemark:"


class WorkerSettings(Section):
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 256
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 20
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 0


class GenerationSettings(Section):
    default_model: str = ""
    output_max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 16_384
    output_max_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 1_048_576
    deadline_s: Seconds = 900
    attempts_max: Annotated[int, Field(ge=1, le=100)] = 3
    retention_s: Seconds = 900
    active_max_per_account: Count = 16
    titles: bool = True
    title_model: str = ""


class AuthSettings(Section):
    guests: Annotated[bool | Literal["loopback"], PlainValidator(_guests)] = "loopback"
    guest_sessions_max_per_hour_per_ip: Count = 20
    session_ttl_s: Seconds = 2_592_000


class GraphqlSettings(Section):
    ide: bool = True
    cost_max: Annotated[int, Field(ge=1000, le=10_000_000)] = 30_000


def _base_url(others: dict[str, Any]) -> str:
    return (
        "https://api.anthropic.com"
        if others.get("kind") == "anthropic"
        else "https://api.openai.com/v1"
    )


class ProviderSettings(Section):
    """One upstream, and the wire format it speaks."""

    kind: Literal["openai", "anthropic"] = "openai"
    base_url: Annotated[str, Field(pattern=r"^https?://\S+$")] = Field(default_factory=_base_url)
    api_key_env: str = ""  # empty, and no file: the server wants no key
    api_key_file: Path | None = None
    models: list[str] = []
    prefill: list[str] = []  # those of `models` that go on from the beginning of an answer
    connect_timeout_s: Seconds = 10
    first_token_timeout_s: Seconds = 300
    idle_timeout_s: Seconds = 120
    context_tokens: Annotated[int, Field(ge=256)] = 128_000

    @field_validator("prefill")
    @classmethod
    def _can_prefill(cls, names: list[str], others: ValidationInfo) -> list[str]:
        if names and others.data.get("kind") == "openai":
            raise ValueError('only kind = "anthropic" has a way to ask for it')
        if unknown := set(names) - set(others.data.get("models", names)):
            raise ValueError(f"{min(unknown)!r} is not among its models")
        return names

    @property
    def wants_key(self) -> bool:
        """Whether this provider is off until it has a key."""
        return bool(self.api_key_env or self.api_key_file)

    def api_key(self) -> str | None:
        """The key, from its file or the environment; None when there is none."""
        if self.api_key_file is not None:
            return _secret(self.api_key_file)
        return os.environ.get(self.api_key_env) or None


def _default_providers() -> dict[str, ProviderSettings]:
    openai, anthropic = ["gpt-5-mini", "gpt-5"], ["claude-sonnet-5-5", "claude-opus-5-5"]
    return {
        "openai": ProviderSettings(
            api_key_env="OPENAI_API_KEY", models=openai, context_tokens=272_000
        ),
        "anthropic": ProviderSettings(
            kind="anthropic",
            api_key_env="ANTHROPIC_API_KEY",
            models=anthropic,
            context_tokens=200_000,
        ),
    }


class Settings(BaseSettings):
    """Everything that can be set. One frozen value per process; `load_settings` makes it."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="TIDEMARK_", env_nested_delimiter="__"
    )

    server: ServerSettings = ServerSettings()
    data: DataSettings = DataSettings()
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    worker: WorkerSettings = WorkerSettings()
    generation: GenerationSettings = GenerationSettings()
    auth: AuthSettings = AuthSettings()
    graphql: GraphqlSettings = GraphqlSettings()
    providers: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")], ProviderSettings] = Field(
        default_factory=_default_providers
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        *_args: PydanticBaseSettingsSource,
        **_sources: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = EnvSettingsSource(settings_cls)
        environment.env_vars = {
            name: value for name, value in environment.env_vars.items() if "__" in name
        }
        return environment, TomlConfigSettingsSource(settings_cls)

    @property
    def data_dir(self) -> Path:
        """The folder of the database, the embedded Valkey and the development key; absolute."""
        return self.data.dir

    @property
    def database_url(self) -> str:
        """Where SQL is, with the driver this program uses, e.g. `sqlite:////data/tidemark.db`."""
        if not self.database.url:
            return f"sqlite:///{self.data_dir / 'tidemark.db'}"
        scheme, _, rest = self.database.url.partition("://")
        return self.database.url if scheme == "sqlite" else f"postgresql+asyncpg://{rest}"

    @property
    def embedded_redis(self) -> bool:
        """Whether this program runs its own Valkey."""
        return self.redis.url == "embedded"

    @property
    def redis_url(self) -> str:
        """Where Redis is; the embedded one's socket when it is embedded."""
        if self.embedded_redis:
            return f"unix://{embedded_socket(self.data_dir)}"
        return self.redis.url

    @property
    def metrics_token(self) -> str:
        """The token that opens /status and /metrics from elsewhere; empty: loopback only."""
        return (
            _secret(self.server.metrics_token_file)
            if self.server.metrics_token_file
            else self.server.metrics_token
        )


def embedded_socket(data_dir: Path) -> Path:
    """The Unix socket of the embedded Valkey. The kernel takes about 104 bytes, so a deep data folder gets a private one under /tmp."""
    socket = data_dir / "redis.sock"
    if len(os.fsencode(socket)) <= 100:
        return socket
    folder = f"tidemark-{os.getuid()}-{sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    return Path("/tmp") / folder / "redis.sock"  # noqa: S108  a folder of this user alone


def load_settings(config: Path | None = None, data_dir: Path | None = None) -> Settings:
    """The settings of this process: the file, then the environment, then `data_dir` of the command line.

    The file is `config`, else `TIDEMARK_CONFIG`, else `./config.toml` where it exists. Relative paths in it are relative to it.
    Raises SettingsError.
    """
    file = config or (Path(named) if (named := os.environ.get("TIDEMARK_CONFIG")) else None)
    if file is not None and not file.is_file():
        raise SettingsError(f"{file}: there is no such file.")
    file = file or (default if (default := Path("config.toml")).is_file() else None)
    _refuse_unknown_variables()

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        settings = FromFile()
    except ValidationError as error:
        raise SettingsError(_first_fault(error, file)) from None
    except (PydanticSettingsError, ValueError, OSError) as error:
        raise SettingsError(f"{file or 'environment'}: {str(error).splitlines()[0]}") from None
    return _placed(settings, file, data_dir)


def _placed(settings: Settings, file: Path | None, data_dir: Path | None) -> Settings:
    """The settings with absolute paths, and with what platforms name `PORT`, `DATABASE_URL` and `REDIS_URL` where ours are unset."""
    base = file.resolve().parent if file else Path.cwd()
    values: dict[str, Any] = {
        name: _absolute(getattr(settings, name), base)
        for name in Settings.model_fields
        if name != "providers"
    }
    values["providers"] = {
        name: _absolute(provider, base) for name, provider in settings.providers.items()
    }
    if data_dir is not None:
        values["data"] = DataSettings(dir=data_dir.resolve())
    for section, key, variable in (
        ("server", "port", "PORT"),
        ("database", "url", "DATABASE_URL"),
        ("redis", "url", "REDIS_URL"),
    ):
        ours, file_of_it = getattr(settings, section), getattr(values[section], "url_file", None)
        if file_of_it is not None:
            values[section] = _with(values[section], key, _secret(file_of_it), f"{file_of_it}")
        elif (value := os.environ.get(variable)) and key not in ours.model_fields_set:
            values[section] = _with(
                values[section], key, value, f"environment: {variable} = {_shown(value)}"
            )
    url = values["database"].url
    if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        values["database"] = values["database"].model_copy(
            update={"url": f"sqlite:///{base / url.removeprefix('sqlite:///')}"}
        )
    return settings.model_copy(update=values)


def _with(section: S, key: str, value: str, where: str) -> S:
    """The section with this value; raises SettingsError."""
    try:
        return type(section).model_validate({**section.model_dump(), key: value})
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise SettingsError(f"{where}: {fault[0].lower()}{fault[1:]}.") from None


def _absolute(section: S, base: Path) -> S:
    paths = {name: base / value for name, value in section if isinstance(value, Path)}
    return section.model_copy(update=paths)


def _secret(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{file}: the secret cannot be read: {error.strerror}.") from None


def _refuse_unknown_variables() -> None:
    for name in os.environ:
        if not name.startswith("TIDEMARK_") or "__" not in name:
            continue
        section, _, key = name.removeprefix("TIDEMARK_").lower().partition("__")
        field = Settings.model_fields.get(section)
        if field is None:
            raise SettingsError(
                f"environment: {name}: there is no section {section!r}; there are {', '.join(Settings.model_fields)}."
            )
        known = getattr(field.annotation, "model_fields", None)
        if (
            known is not None
            and key in known
            and typing.get_origin(known[key].annotation) is list
            and not _is_json_list(os.environ[name])
        ):
            raise SettingsError(
                f'environment: {name} = {os.environ[name]!r}: a JSON list is allowed, e.g. ["a", "b"].'
            )
        if known is not None and key not in known:
            raise SettingsError(
                f"environment: {name}: there is no setting {section}.{key}; there are {', '.join(known)}."
            )


def _shown(value: object) -> str:
    """A wrong value as it may be shown: without the password that an address can carry."""
    return re.sub(r"//[^/@]*@", "//…@", repr(value))


def _is_json_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _first_fault(error: ValidationError, file: Path | None) -> str:
    fault = error.errors()[0]
    key = ".".join(str(step) for step in fault["loc"] if step != "[key]")
    variable = "TIDEMARK_" + "__".join(str(step) for step in fault["loc"]).upper()
    where = f"environment: {variable}" if variable in os.environ else f"{file or 'settings'}: {key}"
    if fault["type"] == "extra_forbidden":
        return f"{where}: there is no such setting."
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where} = {_shown(fault['input'])}: {message[0].lower()}{message[1:]}."
