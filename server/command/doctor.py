"""`tidemark doctor`: checks everything that Tidemark needs, and suggests a fix for each problem."""

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from redis.exceptions import NoPermissionError, RedisError

from server.errors import SettingsError
from server.history.database import DatabaseAway, open_database
from server.history.schema import REVISION, schema_revision
from server.lifecycle.queue import open_redis, worker_reports
from server.lifecycle.redis_check import RedisRefuses, check_redis
from server.providers.registry import KINDS, Models
from server.providers.upstream import headers_with
from server.providers.way_out import UnusableProxy, cause_of, open_session, proxy_of, shown
from server.serve.pages import FOLDER
from server.settings import ProviderSettings, Settings

CHECK_TIMEOUT_S = 5.0


class Finding(NamedTuple):
    """The result of one check. `advice` is empty when nothing has to be done.

    `broken`: Tidemark cannot work until it is fixed.
    """

    about: str
    fact: str
    advice: str = ""
    broken: bool = False


def examine(settings: Settings) -> list[Finding]:
    """Runs all checks. Creates no files."""
    return asyncio.run(_examine(settings))


async def _examine(settings: Settings) -> list[Finding]:
    found = [await _database(settings), await _redis(settings), _page(), _hosts(settings)]
    found += [await _provider(name, provider) for name, provider in settings.providers.items()]
    found += await _adjusted(settings)
    return [*found, Finding("models", f"the default is {Models(settings).default.id}")]


async def _database(settings: Settings) -> Finding:
    url = settings.database_url
    if url.startswith("sqlite") and not (file := Path(url.removeprefix("sqlite:///"))).is_file():
        return Finding(
            "database",
            f"there is no database in {file.parent} yet",
            "`tidemark up` or `tidemark migrate` creates it.",
        )
    try:
        async with open_database(url) as database, asyncio.timeout(CHECK_TIMEOUT_S):
            revision = await database.read(schema_revision)
    except (DatabaseAway, TimeoutError) as error:
        return Finding(
            "database",
            f"not reachable: {error or 'timed out'}",
            "Check database.url, and that the server is running.",
            broken=True,
        )
    if revision < REVISION:
        return Finding(
            "database",
            f"the schema is at revision {revision}; this version needs {REVISION}",
            "Run `tidemark migrate`.",
            broken=True,
        )
    return Finding("database", f"{url.split(':', 1)[0]}, schema revision {revision}")


async def _redis(settings: Settings) -> Finding:
    redis: Any = open_redis(settings.redis_url, connections=2)
    try:
        await check_redis(redis, settings.redis.key_prefix)
        try:
            info = await redis.info()
        except NoPermissionError:
            return Finding(
                "redis",
                "in order; its user has no right to INFO",
                "With it, a worker that loses its connection to Redis does not have to write the "
                "log of each answer again, and the memory is checked.",
            )
    except RedisRefuses as error:
        advice = "Check redis.url, and the rights of its user for redis.key_prefix."
        return Finding("redis", f"cannot be used: {str(error).rstrip('.')}", advice, broken=True)
    except RedisError as error:
        if settings.embedded_redis:
            return Finding(
                "redis", "the embedded Valkey is not running", "`tidemark up` starts it."
            )
        return Finding(
            "redis",
            f"not reachable: {error}",
            "Check redis.url, and that the server is running.",
            broken=True,
        )
    finally:
        await redis.aclose(close_connection_pool=True)
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        advice = "Set `maxmemory-policy noeviction`: otherwise Redis may delete logs of answers."
        return Finding(
            "redis", f"maxmemory-policy is {info['maxmemory_policy']}", advice, broken=True
        )
    name, version = info.get("server_name", "redis"), info.get("valkey_version")
    version = version or info["redis_version"]
    return Finding("redis", f"{name} {version}, {info['used_memory_human']} of memory in use")


async def _adjusted(settings: Settings) -> list[Finding]:
    """The models whose servers refused the usual requests of the workers that run."""
    redis: Any = open_redis(settings.redis_url, connections=1)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            reports = await worker_reports(redis, settings.redis.key_prefix)
    except (RedisError, OSError, TimeoutError):
        return []  # reported by `_redis`
    finally:
        await redis.aclose(close_connection_pool=True)
    adjusted: dict[str, list[str]] = {}
    for report in reports:
        adjusted |= report.get("adjusted_models", {})
    return [
        Finding(f"model {id}", f"its server refused the usual requests; now {'; '.join(words)}")
        for id, words in sorted(adjusted.items())
    ]


def _page() -> Finding:
    if (FOLDER / "index.html").is_file():
        return Finding("page", "the chat page is built")
    return Finding(
        "page",
        "the chat page is not built",
        "Run `npm ci && npm run build` in web/, or reinstall the package.",
    )


def _hosts(settings: Settings) -> Finding:
    server = settings.server
    listens_on_all = server.host in ("0.0.0.0", "::")  # noqa: S104  a setting to warn about
    if listens_on_all and not server.public_url and not server.allowed_hosts:
        return Finding(
            "hosts",
            "listens on all interfaces, but accepts only requests for loopback host names",
            "Set server.public_url or server.allowed_hosts.",
        )
    return Finding("hosts", f"listens on {server.host}:{server.port}")


async def _provider(name: str, provider: ProviderSettings) -> Finding:
    about = f"provider {name}"
    key = provider.api_key() if provider.wants_key else None
    if provider.wants_key and not key:
        return Finding(
            about,
            "off, because its API key is missing",
            f"Set {provider.api_key_env} to use it."
            if provider.api_key_env
            else f"Write it to {provider.api_key_file} to use it.",
        )
    if not provider.models:
        return Finding(about, "has no models", f"Add some to providers.{name}.models.")
    try:
        kind = KINDS[provider.kind]
        url = kind.url_of(provider.base_url, "models")
        headers = headers_with(provider, kind.headers_of, (key or "").strip())
        timeout = aiohttp.ClientTimeout(total=CHECK_TIMEOUT_S)
        async with (
            open_session(url, provider, headers, timeout=timeout) as http,
            http.get(url) as response,
        ):
            return _answered(name, provider, response.status, response.reason or "", url)
    except (SettingsError, UnusableProxy) as error:
        fact = f"cannot be used: {str(error).rstrip('.')}"
        return Finding(about, fact, f"Check providers.{name}.", broken=True)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Finding(
            about,
            f"not reachable{_way(provider, url)}: {cause_of(error)}",
            f"Check providers.{name}: base_url, proxy, ca_file; and the network.",
        )


def _answered(name: str, provider: ProviderSettings, status: int, reason: str, url: str) -> Finding:
    """The finding about a provider that responded."""
    about = f"provider {name}"
    if status == 407:
        return Finding(
            about,
            f"not reachable{_way(provider, url)}: the proxy refused the request: {status} {reason}",
            f"Check the user and password in providers.{name}.proxy, or in the environment.",
        )
    if status in (401, 403):
        return Finding(
            about,
            f"rejected the API key ({status})",
            f"Check {provider.api_key_env or provider.api_key_file}.",
        )
    if status >= 500:
        return Finding(
            about,
            f"answers with the server error {status}",
            f"Check the server at {provider.base_url}.",
        )
    models = ", ".join(provider.models)
    return Finding(about, f"reachable{_way(provider, url)} ({status}); models: {models}")


def _way(provider: ProviderSettings, url: str) -> str:
    if provider.unix_socket is not None:
        return f" over {provider.unix_socket}"
    proxy = proxy_of(url, provider.proxy)
    return f" through the proxy {shown(proxy)}" if proxy else ""
