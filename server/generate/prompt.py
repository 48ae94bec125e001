"""What is sent to a model: the system prompt, then the shown branch.

Cancelled partials are in, failed and empty answers are out, tool calls nobody answered never. Where all of it would not fit the model,
the oldest whole turns are left out.
"""

from typing import NamedTuple

from sqlmodel import Session

from server.errors import Invalid
from server.generate.usage import tokens_in, tokens_of
from server.history.claims import Seen, claim, content_of, note_left_out
from server.history.messages import Spoken, spoken_branch
from server.history.tables import Generation, Role, Status
from server.parts import Parts
from server.providers.base import ModelRequest, Turn
from server.providers.registry import Model, Models

CONTEXT_MAX_MESSAGES = 2_000
TURN_TOKENS = 4


class Claimed(NamedTuple):
    """A generation this process owns now: what its model is asked, and the content it goes on from. No request: the model is gone."""

    generation: Generation
    request: ModelRequest | None
    provider: str
    base: Parts


class Prompt(NamedTuple):
    """What fits the model, and how many messages of the branch did not."""

    turns: list[Turn]
    messages_left_out: int


def take_up(
    session: Session,
    generation_id: str,
    owner: str,
    models: Models,
    output_max_tokens: int,
    seen: Seen | None = None,
) -> Claimed | None:
    """Claims a generation and reads all that is needed to write it; None when it is not to be had."""
    generation = claim(session, generation_id, owner, seen=seen)
    if generation is None:
        return None
    base = content_of(session, generation.previous_id) if generation.previous_id else []
    try:
        model = models.find(generation.model)
    except Invalid:
        return Claimed(generation, None, "", base)
    said = spoken_branch(session, generation.question_id, limit=CONTEXT_MAX_MESSAGES)
    request, left_out = request_for(generation, said, model, output_max_tokens=output_max_tokens)
    if left_out:
        note_left_out(session, generation_id, left_out)
    return Claimed(generation, request, model.provider, base)


def prompt_of(
    said: list[Spoken], model: Model, *, system_prompt: str | None, output_tokens: int
) -> Prompt:
    """The turns of a branch that fit, its last question in any case."""
    turns = [turn for message in said if (turn := _turn(message)) is not None]
    room = (
        model.context_tokens
        - min(output_tokens, model.context_tokens // 2)
        - tokens_of(system_prompt or "")
    )
    kept: list[Turn] = []
    for turn in reversed(turns):
        room -= TURN_TOKENS + tokens_in(turn.parts)
        if room < 0 and kept:
            break
        kept.insert(0, turn)
    while len(kept) > 1 and kept[0].role != Role.USER:
        kept.pop(0)  # a turn is a question and its answer: half of one is worse than none
    return Prompt(kept, len(turns) - len(kept))


def asked_tokens(session: Session, generation: Generation) -> int:
    """An estimate of what a generation's model was asked, for whoever settles it without its model."""
    said = spoken_branch(session, generation.question_id, limit=CONTEXT_MAX_MESSAGES)
    turns = [turn for message in said if (turn := _turn(message)) is not None]
    return tokens_of(generation.options.get("system_prompt") or "") + sum(
        tokens_in(turn.parts) for turn in turns
    )


def request_for(
    generation: Generation, said: list[Spoken], model: Model, *, output_max_tokens: int
) -> tuple[ModelRequest, int]:
    """What the model is asked for this generation, as yet without a prefix, and how many messages are left out."""
    options = generation.options
    output_tokens = min(options.get("max_output_tokens") or output_max_tokens, output_max_tokens)
    prompt = prompt_of(
        said, model, system_prompt=options.get("system_prompt"), output_tokens=output_tokens
    )
    request = ModelRequest(
        model=model.name,
        turns=prompt.turns,
        system_prompt=options.get("system_prompt"),
        max_output_tokens=output_tokens,
        temperature=options.get("temperature"),
        place=options.get("place", 0),
        prefix=[],
    )
    return request, prompt.messages_left_out


def _turn(said: Spoken) -> Turn | None:
    if said.role is Role.USER:
        return Turn(Role.USER, said.parts)
    if said.status in (Status.FAILED, Status.QUEUED, Status.RUNNING):
        return None
    answered = {part["call_id"] for part in said.parts if part["type"] == "tool_result"}
    parts = [
        part
        for part in said.parts
        if (part["type"] == "text" and part["text"])
        or part["type"] == "tool_result"
        or (part["type"] == "tool_call" and part["call_id"] in answered)
    ]
    return Turn(Role.ASSISTANT, parts) if parts else None
