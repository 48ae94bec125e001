"""Health checks, status and metrics, for probes, operators and Prometheus."""

import asyncio
from hmac import compare_digest
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from redis.exceptions import NoPermissionError, RedisError
from starlette.requests import Request
from starlette.responses import Response

from server import __version__
from server.api.http import Json
from server.errors import NotFound
from server.history.claims import count_open
from server.history.database import Database, DatabaseAway
from server.history.schema import schema_is_current
from server.identity.loopback import from_this_machine
from server.lifecycle.checks import Check
from server.lifecycle.queue import answers_queue, worker_reports
from server.metrics import OPEN_FEEDS, OPEN_STREAMS, TASKS
from server.settings import Settings

CHECK_TIMEOUT_S = 2.0


async def healthz(_request: Request) -> Response:
    """Reports that this process is alive."""
    return Json({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Reports whether this process can serve.

    It can when the database is reachable, migrated and can be written, and Redis is either
    unreachable, as messages are accepted without it, or does what is needed.
    """
    if request.app.state.draining:
        return Json({"status": "not ready", "reason": "shutting down"}, 503)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            migrated = await request.state.services.database.read(schema_is_current)
    except (DatabaseAway, TimeoutError):
        migrated = False
    if not migrated:
        reason = "database not ready"
    elif await request.state.database_check.problem():
        reason = "database not writable"
    elif await request.state.redis_check.problem():
        reason = "redis refuses commands"
    else:
        return Json({"status": "ready"})
    return Json({"status": "not ready", "reason": reason}, 503)


async def status(request: Request) -> Response:
    """Reports the state of the database, Redis and workers, with figures."""
    check_operator(request, request.state.services.settings)
    resources = request.state.services
    database, redis = await asyncio.gather(
        _database(resources.database, request.state.database_check),
        _redis(resources.redis, request.state.redis_check, resources.settings.redis.key_prefix),
    )
    web = {
        "version": __version__,
        "open_streams": request.state.presence.streams,
        "feeds": len(request.state.services.feeds),
    }
    ok = database["ok"] and redis["ok"] and bool(redis.get("workers"))
    return Json(
        {"status": "ok" if ok else "degraded", "web": web, "database": database, "redis": redis}
    )


async def metrics(request: Request) -> Response:
    """Returns the metrics of this process for Prometheus."""
    check_operator(request, request.state.services.settings)
    OPEN_STREAMS.set(request.state.presence.streams)
    OPEN_FEEDS.set(len(request.state.services.feeds))
    TASKS.set(len(asyncio.all_tasks()))
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def check_operator(request: Request, settings: Settings) -> None:
    """Raises NotFound without the metrics token or, if none is set, from other machines."""
    token = settings.metrics_token
    sent = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if token and compare_digest(sent.encode(), token.encode()):
        return
    if token or not from_this_machine(request):
        raise NotFound


async def _database(database: Database, check: Check) -> dict[str, Any]:
    if problem := await check.problem():
        return {"ok": False, "reason": problem}
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return {"ok": True, "generations": await database.read(count_open)}
    except (DatabaseAway, TimeoutError) as error:
        return {"ok": False, "reason": str(error) or "timed out"}


async def _redis(redis: Any, check: Check, key_prefix: str) -> dict[str, Any]:
    if problem := await check.problem():
        return {"ok": False, "reason": problem}
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            info = await _memory(redis)
            workers = await worker_reports(redis, key_prefix)
            queued = await redis.zcard(answers_queue(key_prefix))
    except (RedisError, TimeoutError) as error:
        return {"ok": False, "reason": str(error) or "timed out"}
    return {"ok": True, "memory": info, "queued_jobs": queued, "workers": workers}


async def _memory(redis: Any) -> dict[str, Any] | None:
    try:
        info = await redis.info("memory")
    except NoPermissionError:
        return None
    return {
        "used_bytes": info["used_memory"],
        "max_bytes": info["maxmemory"],
        "policy": info["maxmemory_policy"],
    }
