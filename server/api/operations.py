"""Every operation of the HTTP interface; routes and openapi.json are generated from this list."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from server.api import (
    changes,
    conversations,
    export,
    generations,
    health,
    messages,
    page,
    present,
    sessions,
)
from server.cursors import SEQ_PATTERN
from server.lifecycle.row_events import Snapshot
from server.verbs import inputs
from server.verbs.sessions import OpenSession, PreviewSession

Handler = Callable[[Request], Awaitable[Response]]


class Parameter(NamedTuple):
    """A query or header parameter."""

    name: str
    description: str
    schema: dict[str, Any]
    where: Literal["query", "header"] = "query"


class Operation(NamedTuple):
    """One method of one path. `answers` maps statuses to types; `refusals` are problems."""

    method: str
    path: str
    handler: Handler
    answers: dict[int, Any]
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    streams: bool = False
    refusals: tuple[int, ...] = (401, 404)
    public: bool = False  # needs no authentication
    other_type: str | None = None  # another media type of the 200 response


_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_SEQ = {"type": "string", "pattern": f"^({SEQ_PATTERN})?$"}
KEY = Parameter(
    "Idempotency-Key",
    "For 24 hours, the same key returns the same generation; a different body is an error.",
    {"type": "string", "pattern": "^[ -~]{1,255}$"},
    "header",
)
LAST_SEQ = Parameter(
    "Last-Event-ID",
    "The id of the last event seen; the stream resumes after it.",
    _SEQ,
    "header",
)
AFTER = Parameter("after", "The same, for clients that cannot set headers.", _SEQ)
SNAPSHOT = Parameter(
    "snapshot",
    "Start with the content so far instead of the events that led to it.",
    {"type": "boolean"},
)
WAIT = Parameter(
    "wait_s",
    "How many seconds to wait for the end; by default 2.",
    {"type": "number", "minimum": 0, "maximum": 30},
)
CHANGE_CURSOR = Parameter(
    "Last-Event-ID",
    "The opaque id of the last event seen; the stream resumes after it.",
    _TEXT,
    "header",
)
CHANGE_AFTER = Parameter("after", "The same, for clients that cannot set headers.", _TEXT)
FORMAT = Parameter(
    "format",
    "`json` for every branch, `markdown` for the shown branch as `text/markdown`.",
    {"type": "string", "enum": ["json", "markdown"]},
)
CONVERSATION = Parameter(
    "conversation_id", "The conversation to follow in addition to the account's list.", _TEXT
)
LIMIT = Parameter(
    "limit", "The maximum number of items; by default 20.", _NUMBER | {"minimum": 1, "maximum": 100}
)
BEFORE = Parameter("before", "The `next` of the previous page.", _TEXT)
LEAF = Parameter("leaf", "The message that ends the branch; by default the shown leaf.", _TEXT)
ARCHIVED = Parameter(
    "archived",
    "Whether to list archived conversations or the others; by default both.",
    {"type": "boolean"},
)

ASK: dict[str, Any] = {
    "answers": {202: present.RequestedAnswer},
    "parameters": (KEY,),
    "streams": True,
    "refusals": (400, 401, 404, 408, 409, 413, 422, 429),
}

OPERATIONS = (
    Operation(
        "POST",
        "/api/session",
        sessions.open_,
        {201: present.Session, 200: present.Session},
        OpenSession,
        refusals=(400, 401, 403, 408, 413, 422, 429),
        public=True,
    ),
    Operation(
        "POST",
        "/api/session/preview",
        sessions.preview,
        {200: present.SessionPreview},
        PreviewSession,
        refusals=(400, 401, 403, 408, 413, 422),
        public=True,
    ),
    Operation("GET", "/api/session", sessions.show, {200: present.Session}, refusals=(401,)),
    Operation("DELETE", "/api/session", sessions.close, {204: None}, refusals=(401,)),
    Operation("POST", "/api/messages", messages.send, body=inputs.SendMessage, **ASK),
    Operation(
        "POST",
        "/api/messages/{id}/regenerate",
        messages.regenerate,
        body=inputs.AnswerOptions,
        **ASK,
    ),
    Operation("POST", "/api/messages/{id}/edit", messages.edit, body=inputs.EditMessage, **ASK),
    Operation(
        "POST", "/api/messages/{id}/continue", messages.continue_, body=inputs.AnswerOptions, **ASK
    ),
    Operation("GET", "/api/messages/{id}", messages.show, {200: present.Message}),
    Operation("GET", "/api/generations/{id}", generations.show, {200: Snapshot}),
    Operation(
        "GET",
        "/api/generations/{id}/events",
        generations.events,
        {204: None},
        None,
        (LAST_SEQ, AFTER, SNAPSHOT),
        streams=True,
        refusals=(400, 401, 404, 422),
    ),
    Operation(
        "POST",
        "/api/generations/{id}/cancel",
        generations.cancel,
        {200: Snapshot},
        None,
        (WAIT,),
        refusals=(401, 404, 422),
    ),
    Operation(
        "GET",
        "/api/conversations",
        conversations.list_,
        {200: present.Page[present.Conversation]},
        None,
        (LIMIT, BEFORE, ARCHIVED),
        refusals=(400, 401, 422),
    ),
    Operation("GET", "/api/conversations/{id}", conversations.show, {200: present.Conversation}),
    Operation(
        "PATCH",
        "/api/conversations/{id}",
        conversations.change,
        {200: present.Conversation},
        inputs.ChangeConversation,
        refusals=(400, 401, 404, 408, 413, 422),
    ),
    Operation("DELETE", "/api/conversations/{id}", conversations.delete, {204: None}),
    Operation(
        "GET",
        "/api/conversations/{id}/messages",
        conversations.messages,
        {200: present.Page[present.Message]},
        None,
        (LIMIT, BEFORE, LEAF),
        refusals=(400, 401, 404, 422),
    ),
    Operation(
        "GET",
        "/api/conversations/{id}/export",
        export.export,
        {200: present.Export},
        None,
        (FORMAT,),
        refusals=(401, 404, 422),
        other_type="text/markdown",
    ),
    Operation(
        "GET",
        "/api/events",
        changes.events,
        {},
        None,
        (CHANGE_CURSOR, CHANGE_AFTER, CONVERSATION),
        streams=True,
        refusals=(400, 401, 404),
    ),
    Operation(
        "GET",
        "/api/models",
        generations.models,
        {200: present.Page[present.Model]},
        refusals=(401,),
    ),
    Operation("GET", "/healthz", health.healthz, {200: present.Health}, refusals=(), public=True),
    Operation(
        "GET",
        "/readyz",
        health.readyz,
        {200: present.Health, 503: present.Health},
        refusals=(),
        public=True,
    ),
    Operation("GET", "/status", health.status, {200: present.Health}, refusals=(404,), public=True),
    Operation("GET", "/metrics", health.metrics, {200: None}, refusals=(404,), public=True),
)


def routes() -> list[Route | Mount]:
    """One route per path, so that 405 names all its methods; and the routes of the page."""
    by_path: dict[str, dict[str, Handler]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation.handler
    found: list[Route | Mount] = [
        Route(path, _by_method(handlers), methods=list(handlers))
        for path, handlers in by_path.items()
    ]
    found += [Route(path, page.show, methods=["GET"]) for path in ("/", "/c/{id}")]
    return [*found, Mount("/assets", page.Assets())]


def _by_method(handlers: dict[str, Handler]) -> Handler:
    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle
