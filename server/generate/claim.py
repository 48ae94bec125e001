"""Claiming a generation, and reading what is needed to write it."""

from typing import NamedTuple

from sqlmodel import Session

from server.errors import Invalid
from server.history.claims import claim, content_of, note_left_out
from server.history.tables import Generation
from server.history.tree import prompt_branch
from server.lifecycle.prompt import CONTEXT_MAX_MESSAGES, prompt_for
from server.parts import Parts
from server.providers.base import ModelRequest
from server.providers.registry import Models


class Claimed(NamedTuple):
    """A generation that this process owns, the request for its model, and the content it continues.

    `request` is None when the model is no longer offered.
    """

    generation: Generation
    request: ModelRequest | None
    provider: str
    base: Parts


def claim_and_prepare(
    session: Session,
    generation_id: str,
    owner: str,
    models: Models,
    output_max_tokens: int,
) -> Claimed | None:
    """Claims a generation and reads what is needed to write it; None when it cannot be claimed."""
    generation = claim(session, generation_id, owner)
    if generation is None:
        return None
    base = content_of(session, generation.previous_id) if generation.previous_id else []
    try:
        model = models.find(generation.model)
    except Invalid:
        return Claimed(generation, None, "", base)
    branch = prompt_branch(session, generation.question_id, limit=CONTEXT_MAX_MESSAGES)
    request, left_out = prompt_for(generation, branch, model, output_max_tokens=output_max_tokens)
    if left_out:
        note_left_out(session, generation_id, left_out)
    return Claimed(generation, request, model.provider, base)
