"""Asking for an answer: send, edit, regenerate, continue. Each answers with ids, or with the event stream itself."""

from collections.abc import Callable
from typing import Annotated, Any, Concatenate, Literal, ParamSpec

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import Response

from server.api.caller import caller_of
from server.api.generations import stream_generation
from server.api.http import Body, Json, Text, event_cursor, idempotency_key, read_body
from server.history.asking import SHOWN_LEAF, continue_message, edit_message, regenerate_message, send_message
from server.history.exchange import Asked, Asker, Options
from server.history.tables import Generation
from server.identity.callers import Caller
from server.parts import Parts, joined_text

P = ParamSpec("P")

MetadataKey = Annotated[Text, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[Text, Field(max_length=512)]


class TextPart(BaseModel):
    """A part of a question."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    type: Literal["text"]
    text: Text


class AnswerOptions(Body):
    """How the answer is to be written. What is absent is the conversation's, else the server's."""

    model: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    system_prompt: Annotated[Text, Field(max_length=100_000)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = {}

    def options(self) -> Options:
        return Options(self.model, self.system_prompt, self.max_output_tokens, self.temperature, self.metadata)


class EditMessage(AnswerOptions):
    """A question: `text`, or `content`, exactly one."""

    text: Text | None = None
    content: Annotated[list[TextPart], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "EditMessage":
        if (self.text is None) == (self.content is None):
            raise ValueError("exactly one of text and content must be there")
        if not joined_text(self.parts()).strip():
            raise ValueError("the message is empty")
        return self

    def parts(self) -> Parts:
        """The content, however it was sent."""
        if self.content is not None:
            return [part.model_dump() for part in self.content]
        return [{"type": "text", "text": self.text}]


class SendMessage(EditMessage):
    """A question, and where it belongs."""

    conversation_id: Text | None = None
    parent_id: Text | None = None


async def send(request: Request) -> Response:
    """Sends a message and asks for its answer."""
    caller, body = await caller_of(request), await read_body(request, SendMessage)
    parent = body.parent_id if "parent_id" in body.model_fields_set else SHOWN_LEAF
    return await _ask(request, caller, send_message, body.parts(), body.options(), conversation_id=body.conversation_id, parent_id=parent)


async def edit(request: Request) -> Response:
    """Asks a question in other words: a sibling of it, and an answer."""
    caller, body = await caller_of(request), await read_body(request, EditMessage)
    return await _ask(request, caller, edit_message, request.path_params["id"], body.parts(), body.options())


async def regenerate(request: Request) -> Response:
    """Asks for another answer to the same question."""
    caller, body = await caller_of(request), await read_body(request, AnswerOptions)
    return await _ask(request, caller, regenerate_message, request.path_params["id"], body.options())


async def continue_(request: Request) -> Response:
    """Goes on with an answer that was cut short, or starts one over that failed or was stopped."""
    caller, body = await caller_of(request), await read_body(request, AnswerOptions)
    return await _ask(request, caller, continue_message, request.path_params["id"], body.options())


async def _ask(
    request: Request, caller: Caller, ask: Callable[Concatenate[Session, Asker, P], Asked], /, *args: P.args, **kwargs: P.kwargs
) -> Response:
    """Commits what is asked, sends it to a worker, and answers."""
    resources = request.state.resources
    asker = Asker(
        caller.account_id,
        lambda name: resources.models.find(name).id if name else resources.models.default.id,
        resources.settings.generation.active_max_per_account,
        idempotency_key(request),
    )
    streamed = "text/event-stream" in request.headers.get("accept", "")
    mark = event_cursor(request) if streamed else 0
    generation, replayed = await resources.database.write(ask, asker, *args, **kwargs)
    if not replayed:
        await resources.queue.put(generation.id)
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    if streamed:
        return await stream_generation(request, caller, generation, mark if replayed else 0, headers | _id_headers(generation))
    return Json(_asked(generation), 202, headers | {"Location": f"/api/generations/{generation.id}"})


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
