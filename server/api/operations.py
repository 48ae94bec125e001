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
from server.api.edge import ANY_HOST_PATHS, SAFE_METHODS
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
    """One method of one path. `answers` maps statuses to types.

    `refused_with` are the refusals that do not follow from the other fields; see `refusals`.
    """

    method: str
    path: str
    handler: Handler
    answers: dict[int, Any]
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    streams: bool = False
    refused_with: tuple[int, ...] = ()
    public: bool = False  # needs no authentication
    other_type: str | None = None  # another media type of the 200 response
    exports: bool = False  # its 200 response counts as a stream

    @property
    def refusals(self) -> list[int]:
        """The statuses of its problems."""
        found = {*self.refused_with, 503}
        if self.path not in ANY_HOST_PATHS:
            found.add(400)  # a host that is not allowed
        if not self.public:
            found.add(401)
        if self.method not in SAFE_METHODS:
            found.add(403)  # requests of other sites
        if "{id}" in self.path:
            found.add(404)
        if self.body is not None:
            found |= {400, 408, 413, 422}
        if self.streams or self.exports:
            found.add(429)
        return sorted(found - self.answers.keys())


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
WAIT_FOR_CHANGES = Parameter(
    "wait_s",
    "If set, the response ends soon after its first event, or after this time, in seconds.",
    {"type": "number", "minimum": 0, "maximum": 30},
)
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
    "refused_with": (404, 409),
}

OPERATIONS = (
    Operation(
        "POST",
        "/api/session",
        sessions.open_,
        {201: present.Session, 200: present.Session},
        OpenSession,
        refused_with=(401, 429),
        public=True,
    ),
    Operation(
        "POST",
        "/api/session/preview",
        sessions.preview,
        {200: present.SessionPreview},
        PreviewSession,
        refused_with=(401,),
        public=True,
    ),
    Operation("GET", "/api/session", sessions.show, {200: present.Session}),
    Operation("DELETE", "/api/session", sessions.close, {204: None}),
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
        refused_with=(422,),
    ),
    Operation(
        "POST",
        "/api/generations/{id}/cancel",
        generations.cancel,
        {200: Snapshot},
        None,
        (WAIT,),
        refused_with=(422,),
    ),
    Operation(
        "GET",
        "/api/conversations",
        conversations.list_,
        {200: present.Page[present.Conversation]},
        None,
        (LIMIT, BEFORE, ARCHIVED),
        refused_with=(422,),
    ),
    Operation("GET", "/api/conversations/{id}", conversations.show, {200: present.Conversation}),
    Operation(
        "PATCH",
        "/api/conversations/{id}",
        conversations.change,
        {200: present.Conversation},
        inputs.ChangeConversation,
    ),
    Operation("DELETE", "/api/conversations/{id}", conversations.delete, {204: None}),
    Operation(
        "GET",
        "/api/conversations/{id}/messages",
        conversations.messages,
        {200: present.Page[present.Message]},
        None,
        (LIMIT, BEFORE, LEAF),
        refused_with=(422,),
    ),
    Operation(
        "GET",
        "/api/conversations/{id}/export",
        export.export,
        {200: present.Export},
        None,
        (FORMAT,),
        refused_with=(422,),
        other_type="text/markdown",
        exports=True,
    ),
    Operation(
        "GET",
        "/api/events",
        changes.events,
        {},
        None,
        (CHANGE_CURSOR, CHANGE_AFTER, CONVERSATION, WAIT_FOR_CHANGES),
        streams=True,
        refused_with=(404, 422),
    ),
    Operation(
        "GET",
        "/api/models",
        generations.models,
        {200: present.Page[present.Model]},
    ),
    Operation("GET", "/healthz", health.healthz, {200: present.Health}, public=True),
    Operation(
        "GET",
        "/readyz",
        health.readyz,
        {200: present.Health, 503: present.Health},
        public=True,
    ),
    Operation(
        "GET", "/status", health.status, {200: present.Health}, refused_with=(404,), public=True
    ),
    Operation("GET", "/metrics", health.metrics, {200: None}, refused_with=(404,), public=True),
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
