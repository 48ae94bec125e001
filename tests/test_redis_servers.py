"""Redis as it is run: users with few rights, replicas, Sentinels, clusters, TLS, balancers."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from server.bench.processes import free_port
from server.command.waiting import wait_for_redis
from server.errors import SettingsError, StartError
from server.generate import writer
from server.lifecycle.queue import open_redis
from server.lifecycle.redis_check import RedisRefuses, check_redis, redis_refusal
from server.redis_url import RedisUrl, parse_redis_url
from server.settings import load_settings
from server.stream import pools
from tests.certificates import make_certificates
from tests.client import Client, text_of
from tests.command_line.commands import process
from tests.links import url_of
from tests.proxy import Proxy
from tests.system import System
from tests.valkey import running_sentinel, running_valkey
from tests.waiting import condition, until
from tests.writing import running_writer

PREFIX = "tidemark:"
OWN = "~tidemark:* &tidemark:*"
NewSystem = Callable[..., System]


def socket_of(url: str) -> Path:
    return Path(url.removeprefix("unix://"))


def user(rights: str) -> list[str]:
    """Options of a Valkey with the user `tides`, whose password is `p`."""
    return ["--user", "tides", "on", ">p", *rights.split()]


def run(url: str, *command: str) -> Any:
    with closing(redis.Redis.from_url(url)) as client:
        return client.execute_command(*command)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("redis://h", RedisUrl(False, {"host": "h", "port": 6379})),
        (
            "redis://u:p%40ss@[::1]:6380/2?client_name=tides",
            RedisUrl(
                False,
                {"client_name": "tides", "username": "u", "password": "p@ss"}
                | {"db": 2, "host": "::1", "port": 6380},
            ),
        ),
        (
            "rediss://:p@h",
            RedisUrl(
                True,
                {"ssl_check_hostname": True, "password": "p", "host": "h", "port": 6379},
            ),
        ),
        (
            "rediss://h?ssl_cert_reqs=CERT_NONE",
            RedisUrl(
                True,
                {"ssl_cert_reqs": "none", "ssl_check_hostname": False, "host": "h", "port": 6379},
            ),
        ),
        ("unix:///run/r.sock?db=1", RedisUrl(False, {"db": 1, "path": "/run/r.sock"})),
        (
            "redis+sentinel://u:p@a:1,b/tides/3?sentinel_password=s",
            RedisUrl(
                False,
                {"sentinel_password": "s", "username": "u", "password": "p", "db": 3},
                (("a", 1), ("b", 26_379)),
                "tides",
            ),
        ),
    ],
)
def test_addresses_of_redis_are_understood(url: str, parsed: RedisUrl) -> None:
    assert parse_redis_url(url) == parsed


@pytest.mark.quick
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://u:secret@h?decode_responses=true", "'decode_responses'"),
        ("redis://u:secret@h?socket_timeout=soon", "socket_timeout to be a number"),
        ("redis://u:secret@h:port", "a port number instead of 'port'"),
        ("redis://u:secret@h/zero", "the database to be a number"),
        ("redis://u:secret@h?ssl_cert_reqs=none", "rediss:// with ssl_cert_reqs"),
        ("rediss://u:secret@h?ssl_cert_reqs=maybe", "required, optional or none"),
        ("rediss://u:secret@h?ssl_ca_certs=/nowhere", "ssl_ca_certs to be a readable file"),
        ("redis://u:secret@a,b", "redis+sentinel://"),
        ("redis+sentinel://u:secret@a,b", "NAME"),
    ],
)
@pytest.mark.parametrize("variable", ["TIDEMARK_REDIS__URL", "REDIS_URL"])
def test_an_address_that_is_not_valid_is_one_line(
    url: str, words: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, url)

    with pytest.raises(SettingsError) as raised:
        load_settings(None, tmp_path)

    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


# Users with few rights


@pytest.mark.slow
async def test_a_user_with_rights_for_its_prefix_and_nothing_dangerous_is_enough(
    new_system: NewSystem,
) -> None:
    with running_valkey(*user(f"{OWN} +@all -@dangerous")) as url:
        system = new_system(redis={"url": url.replace("unix://", "unix://tides:p@")})
        system.migrate()
        web = system.start_web()
        system.start_worker()
        async with Client(web.url, system.new_key()) as client:
            sent = await client.send("one two three four")
            events = await client.read(sent["generation_id"])
            keys = run(url, "KEYS", "*")
            status = await client.http.get("/status")
            guest = await client.http.post("/api/session/guest", headers={"Authorization": ""})
        doctor = process("doctor", "--config", str(system.config))

    assert events[-1].type == "completed"
    assert keys
    assert [key for key in keys if not key.startswith(PREFIX.encode())] == []
    assert status.json()["redis"]["memory"] is None
    assert status.json()["status"] == "ok"
    assert guest.status_code in (201, 403, 404), guest.text
    assert doctor.code == 0
    assert "its user has no right to INFO" in " ".join(doctor.out.split())
    assert "limit_check_failed" not in web.output()
    assert "log_write_failed" not in system.worker.output()


REFUSALS = {
    "no channels": ("~tidemark:* +@all", "No permissions to access a channel"),
    "other keys": ("~other:* &* +@all", "No permissions to access a key"),
    "no scripts": (f"{OWN} +@all -@scripting", "no permissions to run the 'evalsha'"),
    "read-only": (f"{OWN} +@read +@connection +@pubsub", "no permissions to run the"),
}


@contextmanager
def refusing(case: str) -> Iterator[tuple[str, str]]:
    """A Valkey that answers but is of no use: its URL, and words of the reason."""
    if case == "cluster":
        with running_valkey("--port", str(free_port()), "--cluster-enabled", "yes") as url:
            run(url, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            until(lambda: "cluster_state:ok" in run(url, "CLUSTER", "INFO").decode(), "the cluster")
            yield url, "a cluster, which is not supported"
    elif case == "replica":
        with running_valkey("--replicaof", "127.0.0.1", "1") as url:
            yield url, "a read-only replica"
    elif case == "wrong password":
        with running_valkey(*user(f"{OWN} +@all")) as url:
            yield url.replace("unix://", "unix://tides:wrong@"), "username-password"
    else:
        rights, words = REFUSALS[case]
        with running_valkey(*user(rights)) as url:
            yield url.replace("unix://", "unix://tides:p@"), words


@pytest.mark.slow
@pytest.mark.parametrize("case", [*REFUSALS, "cluster", "replica", "wrong password"])
async def test_a_redis_that_is_of_no_use_is_reported(case: str, new_system: NewSystem) -> None:
    with refusing(case) as (url, words):
        client = open_redis(url, connections=2)
        with pytest.raises(RedisRefuses, match=words):
            await check_redis(client, PREFIX)
        await client.aclose(close_connection_pool=True)

        system = new_system(redis={"url": url})
        system.migrate()
        with pytest.raises(StartError, match=words) as raised:
            await wait_for_redis(system.settings, wait_s=0.1)
        assert "\n" not in str(raised.value)

        doctor = process("doctor", "--config", str(system.config))
        assert doctor.code == 1
        assert words in " ".join(doctor.out.split())

        web = system.start_web(wait=False)
        async with httpx.AsyncClient(base_url=web.url, trust_env=False) as http:
            until(lambda: answers(web.url), "the web process")
            ready = await http.get("/readyz")
            status = await http.get("/status")
        assert (ready.status_code, ready.json()["reason"]) == (503, "redis refuses commands")
        assert words in status.json()["redis"]["reason"]
        assert web.output().count("redis_refuses") == 1


async def test_a_full_redis_leaves_a_web_process_ready(redis: ArqRedis) -> None:
    await redis.config_set("maxmemory", 1024)
    try:
        with pytest.raises(RedisRefuses, match="maxmemory"):
            await check_redis(redis, PREFIX)
        assert await redis_refusal(redis, PREFIX) == ""
    finally:
        await redis.config_set("maxmemory", 0)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


# Failovers


@contextmanager
def primary_and_replica() -> Iterator[tuple[str, str]]:
    with (
        running_valkey(
            "--port", str(port := free_port()), "--repl-diskless-sync-delay", "0"
        ) as first,
        running_valkey("--port", str(free_port()), "--replicaof", "127.0.0.1", str(port)) as second,
    ):
        until(lambda: run(second, "INFO", "replication")["master_link_status"] == "up", "a replica")
        yield first, second


@pytest.mark.slow
async def test_connections_leave_a_primary_that_was_demoted_but_stays_up(
    new_system: NewSystem,
) -> None:
    with primary_and_replica() as (old, new), Proxy(socket_of(old)) as link:
        system = new_system(redis={"url": url_of(link)})
        system.migrate()
        web = system.start_web()
        worker = system.start_worker()
        async with Client(web.url, system.new_key()) as client:
            before = await client.send("/demo tokens=200 rate=50")
            reading = asyncio.create_task(client.read(before["generation_id"]))
            await condition(lambda: run(old, "DBSIZE") > 0)

            run(new, "REPLICAOF", "NO", "ONE")
            link.lead_to(socket_of(new))
            run(old, "REPLICAOF", "127.0.0.1", "1")

            after = [await client.send(f"after the failover {n}") for n in range(4)]
            events = [await reading]
            events += [await client.read(each["generation_id"]) for each in after]
            texts = [text_of(each) for each in events]
            messages = [await client.message(each["message_id"]) for each in (before, *after)]

            assert [each[-1].type for each in events] == ["completed"] * 5
            assert texts == [message["text"] for message in messages]
            assert web.output().count("enqueue_failed") == 1
            until(lambda: b"cmd=subscribe" not in run(old, "CLIENT", "LIST"), "the subscriptions")
        assert worker.alive


@pytest.mark.slow
async def test_the_sentinels_are_asked_for_the_primary(
    new_system: NewSystem, tmp_path: Path
) -> None:
    with primary_and_replica() as (old, new):
        [_, port] = run(old, "CONFIG", "GET", "port")
        with running_sentinel(tmp_path, int(port)) as sentinel:
            url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel}/tides"
            sentinel_url = f"redis://127.0.0.1:{sentinel}"
            until(lambda: run(sentinel_url, "SENTINEL", "REPLICAS", "tides"), "the replica")
            system = new_system(redis={"url": url})
            system.migrate()
            web = system.start_web()
            system.start_worker()
            async with Client(web.url, system.new_key()) as client:
                before = await client.send("/demo tokens=400 rate=50")
                reading = asyncio.create_task(client.read(before["generation_id"]))
                await condition(lambda: run(old, "DBSIZE") > 0)

                run(sentinel_url, "SENTINEL", "FAILOVER", "tides")
                until(lambda: run(new, "ROLE")[0] == b"master", "the failover")

                events = await reading
                message = await client.message(before["message_id"])

    assert events[-1].type == "completed"
    assert text_of(events) == message["text"]


async def test_sentinels_that_know_nothing_are_explained(valkey: str) -> None:
    client = open_redis("redis+sentinel://127.0.0.1:1/tides", connections=1)
    with pytest.raises(RedisError, match=r"no Sentinel knows the primary: 127\.0\.0\.1:1: "):
        await client.ping()
    await client.aclose(close_connection_pool=True)


# TLS


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["127.0.0.1"], "", ""),
        (["other.example"], "", "not valid for '127.0.0.1'"),
        (["other.example"], "&ssl_check_hostname=false", ""),
    ],
)
async def test_a_certificate_has_to_be_for_the_host(
    names: list[str], options: str, words: str, valkey: str, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path, *names)
    with Proxy(socket_of(valkey), certificates.server_context()) as link:
        url = f"rediss://127.0.0.1:{link.port}?ssl_ca_certs={certificates.ca}{options}"
        client = open_redis(url, connections=2)
        try:
            if words:
                with pytest.raises(RedisError, match=words):
                    await check_redis(client, PREFIX)
            else:
                await check_redis(client, PREFIX)
        finally:
            await client.aclose(close_connection_pool=True)


# Balancers that drop idle connections


async def test_a_connection_that_was_idle_for_long_is_replaced(
    redis: Any,
) -> None:
    first = await redis.client_id()
    again = await redis.client_id()
    [connection] = redis.connection_pool._available_connections
    connection._taken_at -= 2 * pools.IDLE_MAX_S
    after_idling = await redis.client_id()

    assert again == first
    assert after_idling != first


async def test_the_writer_keeps_its_connection_busy(
    redis: ArqRedis, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PING_EVERY_S", 0.01)
    async with running_writer(valkey, PREFIX) as writing:
        await writing.add("one").opened
        while (await redis.info("commandstats")).get("cmdstat_ping", {}).get("calls", 0) < 3:
            await asyncio.sleep(0.01)
