"""The web application: routes, middleware and the resources of the process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from server.api.edge import Edge
from server.api.openapi import docs, document
from server.api.operations import routes
from server.changes.follower import Changes
from server.changes.watches import Watches
from server.errors import MethodNotAllowed, NotFound, Refused
from server.graph.view import GraphView
from server.history.database import DatabaseAway
from server.history.schema import write_refusal
from server.identity.callers import Callers
from server.identity.limits import GuestLimit
from server.identity.presence import Presence
from server.lifecycle.checks import Check
from server.lifecycle.redis_check import redis_refusal
from server.lifecycle.row_events import ends_in
from server.lifecycle.settling import Settler, Staleness
from server.logs import log
from server.loops import keep
from server.resources import Resources, Services, open_resources
from server.serve.refusals import REQUEST_ID_HEADER, problem
from server.serve.slow_readers import drop_slow_readers
from server.settings import Settings
from server.stream.feed import Feeds
from server.stream.tail import Tail

SWEEP_EVERY_S = 1.0
EXPOSED_HEADERS = (
    "Allow",
    "Content-Disposition",
    "Idempotent-Replayed",
    "Location",
    "Retry-After",
    REQUEST_ID_HEADER,
    "Tidemark-Conversation",
    "Tidemark-Question",
    "Tidemark-Message",
    "Tidemark-Generation",
    "WWW-Authenticate",
)
"""What a page of another origin may read, in addition to what every page may."""


def build_app(settings: Settings) -> Starlette:
    """The web application. `app.state.stop` ends every stream between two events."""
    graph = GraphView(settings)
    app = Starlette(
        routes=[
            *routes(),
            Route("/api/openapi.json", document),
            Route("/api/docs", docs),
            Route("/graphql", graph),
            WebSocketRoute("/graphql", graph),
        ],
        middleware=[
            *_cors(settings),  # outermost: pages of other origins read refusals and faults, too
            Middleware(Edge, settings=settings),
        ],
        exception_handlers={HTTPException: _not_routed},
        lifespan=lambda app: _lifespan(app, settings),
    )
    # Its redirects would leave the path of public_url, which the router does not see.
    app.router.redirect_slashes = not settings.server.base_path
    app.state.stop = lambda: None
    app.state.draining = False
    return app


@asynccontextmanager
async def _lifespan(app: Starlette, settings: Settings) -> AsyncIterator[dict[str, Any]]:
    async with open_resources(settings) as resources, asyncio.TaskGroup() as tasks:
        tail = Tail(settings.redis_url)
        services = _services(resources, tail)
        feeds, watches = services.feeds, services.changes.watches
        presence = Presence(resources.database, settings.server.streams_max_per_account)
        app.state.stop = partial(_stop, feeds, watches)
        loops = (
            tail.run,
            watches.run,
            resources.announcer.run,
            feeds.run,
            feeds.end,
            presence.run,
            drop_slow_readers,
            partial(_settle_cancelled, resources.settler),
        )
        running = [tasks.create_task(keep(loop)) for loop in loops]
        yield {
            "services": services,
            "presence": presence,
            "redis_check": Check(
                "redis_refuses", partial(redis_refusal, resources.redis, settings.redis.key_prefix)
            ),
            "database_check": Check(
                "database_not_writable", partial(write_refusal, resources.database)
            ),
            "callers": Callers(resources.database, session_ttl_s=settings.auth.session_ttl_s),
            "guest_limit": GuestLimit(
                resources.redis,
                key_prefix=settings.redis.key_prefix,
                per_hour=settings.auth.guest_sessions_max_per_hour_per_ip,
            ),
        }
        for task in running:
            task.cancel()


def _services(resources: Resources, tail: Tail) -> Services:
    settings, database, redis = resources.settings, resources.database, resources.redis
    key_prefix = settings.redis.key_prefix
    feeds = Feeds(
        redis,
        tail,
        ends_in(database),
        key_prefix=key_prefix,
        retention_s=settings.generation.retention_s,
    )
    changes = Changes(feeds, Watches(database, tail, key_prefix), database, redis, key_prefix)
    return Services(**vars(resources), feeds=feeds, changes=changes)


def _stop(feeds: Feeds, watches: Watches) -> None:
    """Ends every stream of this process between two events."""
    feeds.stop()
    watches.stop()


async def _settle_cancelled(settler: Settler) -> None:
    """Settles cancelled answers without an owner, even while there is no worker."""
    staleness = Staleness()
    while True:
        await asyncio.sleep(SWEEP_EVERY_S)
        try:
            await settler.sweep_cancelled(staleness)
        except DatabaseAway as error:
            log.warning("unavailable", doing="sweep", reason=str(error))


def _cors(settings: Settings) -> list[Middleware]:
    if not settings.server.allowed_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.server.allowed_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    ]


async def _not_routed(request: Request, error: Exception) -> Response:
    """404 and 405 of the router and the assets as problems; anything else is a fault of ours."""
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 404:
            refused: Refused = NotFound()
        case 405:
            detail = f"{request.method} is not allowed here."
            refused = MethodNotAllowed("method_not_allowed", detail)
        case _:
            raise error
    response = problem(refused, request.state.request_id)
    response.headers.update(error.headers or {})
    return response
