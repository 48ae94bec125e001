"""Asking for an answer: send, edit, regenerate, continue. Each answers with ids, or with the event stream itself."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import Response

from server.api.generations import stream_generation
from server.api.http import Json, event_cursor, idempotency_key, read_body
from server.bodies import AnswerOptions, EditMessage, SendMessage
from server.generate.asking import ask
from server.history.asking import (
    SHOWN_LEAF,
    continue_message,
    edit_message,
    regenerate_message,
    send_message,
)
from server.history.exchange import Asked, Asker
from server.history.tables import Generation
from server.identity.callers import Caller
from server.identity.credentials import caller_of

P = ParamSpec("P")


async def send(request: Request) -> Response:
    """Sends a message and asks for its answer."""
    caller, body = await caller_of(request), await read_body(request, SendMessage)
    parent = body.parent_id if "parent_id" in body.model_fields_set else SHOWN_LEAF
    return await _ask(
        request,
        caller,
        send_message,
        body.parts(),
        body.options(),
        conversation_id=body.conversation_id,
        parent_id=parent,
    )


async def edit(request: Request) -> Response:
    """Asks a question in other words: a sibling of it, and an answer."""
    caller, body = await caller_of(request), await read_body(request, EditMessage)
    return await _ask(
        request, caller, edit_message, request.path_params["id"], body.parts(), body.options()
    )


async def regenerate(request: Request) -> Response:
    """Asks for another answer to the same question."""
    caller, body = await caller_of(request), await read_body(request, AnswerOptions)
    return await _ask(
        request, caller, regenerate_message, request.path_params["id"], body.options()
    )


async def continue_(request: Request) -> Response:
    """Goes on with an answer that was cut short, or starts one over that failed or was stopped."""
    caller, body = await caller_of(request), await read_body(request, AnswerOptions)
    return await _ask(request, caller, continue_message, request.path_params["id"], body.options())


async def _ask(
    request: Request,
    caller: Caller,
    fn: Callable[Concatenate[Session, Asker, P], Asked],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """Commits what is asked, sends it to a worker, and answers."""
    resources = request.state.resources
    asker = resources.asker(caller.account_id, idempotency_key(request))
    streamed = "text/event-stream" in request.headers.get("accept", "")
    mark = event_cursor(request) if streamed else 0
    generation, replayed = await ask(
        resources.database, resources.queue, fn, asker, *args, **kwargs
    )
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    if streamed:
        return await stream_generation(
            request, caller, generation, mark if replayed else 0, headers | _id_headers(generation)
        )
    return Json(
        _asked(generation), 202, headers | {"Location": f"/api/generations/{generation.id}"}
    )


def _asked(generation: Generation) -> dict[str, Any]:
    return {
        "conversation_id": generation.conversation_id,
        "question_id": generation.question_id,
        "message_id": generation.message_id,
        "generation_id": generation.id,
        "model": generation.model,
        "events_url": f"/api/generations/{generation.id}/events",
    }


def _id_headers(generation: Generation) -> dict[str, str]:
    return {
        "Tidemark-Conversation": generation.conversation_id,
        "Tidemark-Question": generation.question_id,
        "Tidemark-Message": generation.message_id,
        "Tidemark-Generation": generation.id,
    }
