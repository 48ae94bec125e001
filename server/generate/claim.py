"""Claiming a generation, and reading what is needed to write it.

A model is sent the system prompt, then the branch that ends with the question. Where all of it does
not fit the model, the oldest whole turns are left out.
"""

from collections.abc import Iterable
from typing import NamedTuple

from sqlmodel import Session

from server.errors import Invalid
from server.history.claims import Fence, claim, content_of, give_back, note_left_out
from server.history.database import Database, until_available
from server.history.tables import Generation, Role
from server.history.tree import PromptMessage, count_sendable, prompt_branch
from server.lifecycle.prompt import CONTEXT_MAX_MESSAGES, turn_of
from server.lifecycle.usage import tokens_in, tokens_of
from server.parts import Parts
from server.providers.adjustments import OUTPUT_MIN_TOKENS
from server.providers.base import ModelRequest, Turn
from server.providers.registry import Model, Models

TURN_TOKENS = 4
TEMPLATE_TOKENS = 64
"""What the model's own template may add to a prompt."""


class Claimed(NamedTuple):
    """A generation that this process owns, the request for its model, and the content it continues.

    `request` is None when the model is no longer offered.
    """

    generation: Generation
    request: ModelRequest | None
    provider: str
    base: Parts
    messages_left_out: int = 0


async def claim_and_prepare(
    database: Database,
    generation_id: str,
    owner: str,
    models: Models,
    output_max_tokens: int,
) -> Claimed | None:
    """Claims a generation and reads what is needed to write it; None when it cannot be claimed.

    The prompt is read after the claim: on SQLite, no process could write while it is read in the
    same transaction. Raises DatabaseAway when it is unknown whether the claim was stored. Once it
    is, this waits for the database, as the answer itself does: an outage does not count as a crash.
    """
    generation = await database.write(claim, generation_id, owner)
    if generation is None:
        return None
    fence = Fence(generation.id, owner, generation.attempt)
    try:
        claimed: Claimed = await until_available(
            database.read, _prepare, generation, models, output_max_tokens
        )
        if claimed.messages_left_out != generation.messages_left_out:
            await until_available(database.write, note_left_out, fence, claimed.messages_left_out)
    except Exception:
        await database.write(give_back, fence)  # so that it can be claimed to settle it as failed
        raise
    return claimed


def _prepare(
    session: Session, generation: Generation, models: Models, output_max_tokens: int
) -> Claimed:
    base = content_of(session, generation.previous_id) if generation.previous_id else []
    try:
        model = models.find(generation.model)
    except Invalid:
        return Claimed(generation, None, "", base)
    options = generation.options
    most = min(output_max_tokens, model.output_max_tokens or output_max_tokens)
    output_tokens = min(options.get("max_output_tokens") or most, most)
    system_prompt = options.get("system_prompt")
    branch = prompt_branch(session, generation.question_id, limit=CONTEXT_MAX_MESSAGES)
    fixed_tokens = tokens_of(system_prompt or "") + tokens_in(base)
    kept = _newest_that_fit(branch, _room(model, fixed_tokens, output_tokens))
    request = ModelRequest(
        model=model.name,
        turns=[each.turn for each in kept],
        system_prompt=system_prompt,
        max_output_tokens=_output_that_fits(model, fixed_tokens, kept, output_tokens),
        temperature=options.get("temperature"),
        position=options.get("place", 0),
        prefix=[],
    )
    above = kept[0].parent_id if kept else None
    left_out = count_sendable(session, above) if above is not None else 0
    return Claimed(generation, request, model.provider, base, left_out)


class _KeptTurn(NamedTuple):
    """A turn that fits the model, the message above it, and an estimate of its tokens."""

    turn: Turn
    parent_id: str | None
    tokens: int


def _room(model: Model, fixed_tokens: int, output_tokens: int) -> int:
    """How many tokens are left for the turns."""
    reserved = min(output_tokens, model.context_tokens // 2)
    return model.context_tokens - reserved - fixed_tokens


def _output_that_fits(
    model: Model, fixed_tokens: int, kept: list[_KeptTurn], output_tokens: int
) -> int:
    """How long the answer may be: servers refuse a request that could exceed the context.

    Never less than OUTPUT_MIN_TOKENS, because the prompt's size is an estimate.
    """
    prompt = fixed_tokens + sum(each.tokens for each in kept)
    left = model.context_tokens - prompt - TEMPLATE_TOKENS
    return max(min(output_tokens, left), min(output_tokens, OUTPUT_MIN_TOKENS))


def _newest_that_fit(newest_first: Iterable[PromptMessage], room: int) -> list[_KeptTurn]:
    """The last turns, the last one in any case, beginning with a question.

    Reads no further than that.
    """
    kept: list[_KeptTurn] = []
    for message in newest_first:
        turn = turn_of(message)
        if turn is None:
            continue
        tokens = TURN_TOKENS + tokens_in(turn.parts)
        room -= tokens
        if room < 0 and kept:
            break
        kept.append(_KeptTurn(turn, message.parent_id, tokens))
    kept.reverse()
    while len(kept) > 1 and kept[0].turn.role != Role.USER:
        kept.pop(0)
    return kept
