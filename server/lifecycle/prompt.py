"""The prompt: the part of a conversation that is sent to a model.

That is the system prompt, then the branch that ends with the question. Cancelled answers are
included with their content; failed and empty answers and tool calls without a result are not. If
not everything fits the model, the oldest turns are left out.
"""

from typing import NamedTuple

from sqlmodel import Session

from server.history.tables import Generation, Role, Status
from server.history.tree import PromptMessage, prompt_branch
from server.lifecycle.usage import tokens_in, tokens_of
from server.providers.base import ModelRequest, Turn
from server.providers.registry import Model

CONTEXT_MAX_MESSAGES = 2_000
TURN_TOKENS = 4


class Prompt(NamedTuple):
    """The request to a model, without a prefix, and how many messages did not fit."""

    request: ModelRequest
    messages_left_out: int


def prompt_for(
    generation: Generation, branch: list[PromptMessage], model: Model, *, output_max_tokens: int
) -> Prompt:
    """The request to a generation's model, with the newest turns of the branch that fit."""
    options = generation.options
    output_tokens = min(options.get("max_output_tokens") or output_max_tokens, output_max_tokens)
    system_prompt = options.get("system_prompt")
    turns = turns_of(branch)
    kept = _newest_that_fit(turns, _room(model, system_prompt, output_tokens))
    request = ModelRequest(
        model=model.name,
        turns=kept,
        system_prompt=system_prompt,
        max_output_tokens=output_tokens,
        temperature=options.get("temperature"),
        position=options.get("place", 0),
        prefix=[],
    )
    return Prompt(request, len(turns) - len(kept))


def _room(model: Model, system_prompt: str | None, output_tokens: int) -> int:
    """How many tokens are left for the turns."""
    reserved = min(output_tokens, model.context_tokens // 2)
    return model.context_tokens - reserved - tokens_of(system_prompt or "")


def _newest_that_fit(turns: list[Turn], room: int) -> list[Turn]:
    """The newest turns that fit, starting with a question; always the last turn."""
    kept: list[Turn] = []
    for turn in reversed(turns):
        room -= TURN_TOKENS + tokens_in(turn.parts)
        if room < 0 and kept:
            break
        kept.insert(0, turn)
    while len(kept) > 1 and kept[0].role != Role.USER:
        kept.pop(0)
    return kept


def prompt_tokens(session: Session, generation: Generation) -> int:
    """An estimate of the input tokens of a generation, whatever its model."""
    branch = prompt_branch(session, generation.question_id, limit=CONTEXT_MAX_MESSAGES)
    in_turns = sum(tokens_in(turn.parts) for turn in turns_of(branch))
    return tokens_of(generation.options.get("system_prompt") or "") + in_turns


def turns_of(branch: list[PromptMessage]) -> list[Turn]:
    """The turns of a branch: messages that a model is sent, with the parts it is sent."""
    return [turn for message in branch if (turn := _turn(message)) is not None]


def _turn(message: PromptMessage) -> Turn | None:
    if message.role is Role.USER:
        return Turn(Role.USER, message.parts)
    if message.status in (Status.FAILED, Status.QUEUED, Status.RUNNING):
        return None
    answered = {part["call_id"] for part in message.parts if part["type"] == "tool_result"}
    parts = [
        part
        for part in message.parts
        if (part["type"] == "text" and part["text"])
        or part["type"] == "tool_result"
        or (part["type"] == "tool_call" and part["call_id"] in answered)
    ]
    return Turn(Role.ASSISTANT, parts) if parts else None
