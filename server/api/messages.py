"""Messages: sending, editing, regenerating, continuing and reading them."""

from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response

from server.api.http import Json, after_seq, idempotency_key, read_body
from server.api.present import message_json, requested_answer_json
from server.dialects import native
from server.history.tables import Generation
from server.identity.callers import Caller
from server.identity.credentials import caller_of
from server.serve.event_stream import NATIVE, EventStream
from server.verbs import conversations, generations
from server.verbs.ask import Continue, Edit, Regenerate, Send, ask
from server.verbs.ask import Request as Ask
from server.verbs.inputs import AnswerOptions, EditMessage, SendMessage


async def send(request: Request) -> Response:
    """Sends a message and requests its answer."""
    caller = await caller_of(request)
    return await _ask(request, caller, Send(await read_body(request, SendMessage)))


async def edit(request: Request) -> Response:
    """Adds an edited sibling of a question, and requests its answer."""
    caller = await caller_of(request)
    message = await read_body(request, EditMessage)
    return await _ask(request, caller, Edit(request.path_params["id"], message))


async def regenerate(request: Request) -> Response:
    """Requests another answer to the same question."""
    caller = await caller_of(request)
    options = await read_body(request, AnswerOptions)
    return await _ask(request, caller, Regenerate(request.path_params["id"], options))


async def continue_(request: Request) -> Response:
    """Continues an answer that was cut short, or restarts one that failed or was cancelled."""
    caller = await caller_of(request)
    options = await read_body(request, AnswerOptions)
    return await _ask(request, caller, Continue(request.path_params["id"], options))


async def show(request: Request) -> Response:
    """Returns a message."""
    caller, services = await caller_of(request), request.state.services
    found = await conversations.message(services, caller, request.path_params["id"])
    return Json(message_json(*found))


async def _ask(request: Request, caller: Caller, what: Ask) -> Response:
    """Requests an answer; returns its ids, or the event stream if that is accepted."""
    if "text/event-stream" in request.headers.get("accept", ""):
        return await _ask_for_stream(request, caller, what)
    services, key = request.state.services, idempotency_key(request)
    generation, replayed = await ask(services, caller, what, key=key)
    base_path = services.settings.server.base_path
    location = f"{base_path}/api/generations/{generation.id}"
    headers = {"Location": location} | _replay_headers(replayed)
    return Json(requested_answer_json(generation, base_path), 202, headers)


async def _ask_for_stream(request: Request, caller: Caller, what: Ask) -> Response:
    services, key, after = request.state.services, idempotency_key(request), after_seq(request)
    slot = request.state.presence.reserve(caller)  # before anything is committed
    with ExitStack() as undo:
        undo.callback(slot.release)
        generation, replayed = await ask(services, caller, what, key=key)
        batches = generations.follow_row(services, generation, after_seq=after if replayed else 0)
        if batches is None:
            return Response(status_code=204)
        undo.pop_all()
        return EventStream(
            batches,
            native.encode_batch,
            request=request,
            caller=caller,
            slot=slot,
            headers=_id_headers(generation) | _replay_headers(replayed),
            wrapping=NATIVE,
        )


def _replay_headers(replayed: bool) -> dict[str, str]:  # noqa: FBT001  one flag, named by the function
    return {"Idempotent-Replayed": "true"} if replayed else {}


def _id_headers(generation: Generation) -> dict[str, str]:
    return {
        "Tidemark-Conversation": generation.conversation_id,
        "Tidemark-Question": generation.question_id,
        "Tidemark-Message": generation.message_id,
        "Tidemark-Generation": generation.id,
    }
