"""All settings together. `config.toml` is generated from this."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from server.settings.base import read_secret
from server.settings.providers import ProviderSettings
from server.settings.sections import (
    PROVIDER_NAME,
    AuthSettings,
    DatabaseSettings,
    DataSettings,
    GenerationSettings,
    GraphqlSettings,
    RedisSettings,
    ServerSettings,
    WorkerSettings,
)


def _default_providers() -> dict[str, ProviderSettings]:
    return {
        "openai": ProviderSettings(
            api_key_env="OPENAI_API_KEY",
            models=["gpt-5-mini", "gpt-5"],
            context_tokens=272_000,
        ),
        "anthropic": ProviderSettings(
            kind="anthropic",
            base_url="https://api.anthropic.com",
            api_key_env="ANTHROPIC_API_KEY",
            models=["claude-sonnet-5-5", "claude-opus-5-5"],
            prefill=[],
            context_tokens=200_000,
        ),
    }


class Settings(BaseSettings):
    """All settings of a process, frozen. Use `load_settings` to make one."""

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
    providers: dict[Annotated[str, Field(pattern=PROVIDER_NAME)], ProviderSettings] = Field(
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
        """The absolute path of the data folder."""
        return self.data.dir

    @property
    def database_url(self) -> str:
        """The database's URL as SQLAlchemy takes it, e.g. `sqlite:////data/tidemark.db`."""
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
        """The URL of Redis; for the embedded one, of its socket."""
        if self.embedded_redis:
            return f"unix://{embedded_socket(self.data_dir)}"
        return self.redis.url

    @property
    def metrics_token(self) -> str:
        """The bearer token for /status and /metrics, from its file if there is one."""
        return (
            read_secret(self.server.metrics_token_file)
            if self.server.metrics_token_file
            else self.server.metrics_token
        )


def embedded_socket(data_dir: Path) -> Path:
    """The Unix socket of the embedded Valkey.

    Socket paths are limited to about 104 bytes, so a deep data folder gets a private folder under
    /tmp for it.
    """
    socket = data_dir / "redis.sock"
    if len(os.fsencode(socket)) <= 100:
        return socket
    folder = f"tidemark-{os.getuid()}-{sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    return Path("/tmp") / folder / "redis.sock"  # noqa: S108  a folder of this user alone
