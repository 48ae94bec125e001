"""`tidemark doctor`: looks at everything this program needs, and says what to do about each finding."""

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from redis.exceptions import RedisError

from server.history.database import DatabaseAway, open_database
from server.history.schema import REVISION, schema_revision
from server.lifecycle.queue import open_redis
from server.providers.registry import KINDS, Models
from server.serve.pages import FOLDER
from server.settings import ProviderSettings, Settings

ANSWER_WITHIN_S = 5.0


class Finding(NamedTuple):
    """One thing that was looked at. `advice` is empty when nothing has to be done; `broken` when Tidemark cannot work like this."""

    about: str
    fact: str
    advice: str = ""
    broken: bool = False


def examine(settings: Settings) -> list[Finding]:
    """Everything that was found. Creates nothing."""
    return asyncio.run(_examine(settings))


async def _examine(settings: Settings) -> list[Finding]:
    found = [await _database(settings), await _redis(settings), _page(), _hosts(settings)]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as http:
        for name, provider in settings.providers.items():
            found.append(await _provider(http, name, provider))
    return [*found, Finding("models", f"the default is {Models(settings).default.id}")]


async def _database(settings: Settings) -> Finding:
    url = settings.database_url
    if url.startswith("sqlite") and not (file := Path(url.removeprefix("sqlite:///"))).is_file():
        return Finding(
            "database",
            f"there is none in {file.parent} yet",
            "`tidemark up` makes it, or `tidemark migrate`.",
        )
    try:
        async with open_database(url) as database, asyncio.timeout(ANSWER_WITHIN_S):
            revision = await database.read(schema_revision)
    except (DatabaseAway, TimeoutError) as error:
        return Finding(
            "database",
            f"it does not answer: {error or 'time-out'}",
            "Check database.url, and that the server runs.",
            broken=True,
        )
    if revision < REVISION:
        return Finding(
            "database",
            f"its schema is at revision {revision} of {REVISION}",
            "Run `tidemark migrate`.",
            broken=True,
        )
    return Finding("database", f"{url.split(':', 1)[0]}, schema revision {revision}")


async def _redis(settings: Settings) -> Finding:
    redis: Any = open_redis(settings.redis_url, connections=1)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            info = await redis.info()
    except (RedisError, OSError, TimeoutError) as error:
        if settings.embedded_redis:
            return Finding("redis", "the embedded Valkey does not run", "`tidemark up` starts it.")
        return Finding(
            "redis",
            f"it does not answer: {error}",
            "Check redis.url, and that the server runs.",
            broken=True,
        )
    finally:
        await redis.aclose(close_connection_pool=True)
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        advice = "Set `maxmemory-policy noeviction`: an evicted log is a lost log."
        return Finding("redis", f"its policy is {info['maxmemory_policy']}", advice, broken=True)
    return Finding(
        "redis",
        f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}, {info['used_memory_human']} in use",
    )


def _page() -> Finding:
    if (FOLDER / "index.html").is_file():
        return Finding("page", "the chat page is there")
    return Finding(
        "page",
        "the chat page was not built",
        "Run `npm ci && npm run build` in web/, or install the package again.",
    )


def _hosts(settings: Settings) -> Finding:
    server = settings.server
    if server.host in ("0.0.0.0", "::") and not server.public_url and not server.allowed_hosts:  # noqa: S104  a setting to warn about
        return Finding(
            "hosts",
            "others can connect, but only loopback names are answered",
            "Set server.public_url or server.allowed_hosts.",
        )
    return Finding("hosts", f"listens on {server.host}:{server.port}")


async def _provider(http: aiohttp.ClientSession, name: str, provider: ProviderSettings) -> Finding:
    about = f"provider {name}"
    key = provider.api_key() if provider.wants_key else None
    if provider.wants_key and not key:
        return Finding(
            about,
            "it is off: it has no key",
            f"Set {provider.api_key_env or provider.api_key_file} to use it.",
        )
    if not provider.models:
        return Finding(about, "it offers no models", f"Name some in providers.{name}.models.")
    try:
        kind = KINDS[provider.kind]
        async with http.get(
            kind.url_of(provider.base_url, "models"), headers=kind.headers_of((key or "").strip())
        ) as response:
            if response.status in (401, 403):
                return Finding(
                    about,
                    f"it refused the key ({response.status})",
                    f"Check {provider.api_key_env or provider.api_key_file}.",
                )
            return Finding(
                about, f"it answers ({response.status}); models: {', '.join(provider.models)}"
            )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Finding(
            about,
            f"it does not answer: {error or 'time-out'}",
            f"Check providers.{name}.base_url and the network.",
        )
