"""Titling: generating the title of a conversation with a model, after its first answer."""

import asyncio
import re
from contextlib import aclosing

from server.errors import Invalid
from server.history.database import Database, DatabaseAway
from server.history.tables import Role
from server.history.titles import Opening, opening_of, set_title
from server.lifecycle.usage import tokens_of
from server.logs import log
from server.providers.base import Finish, ModelRequest, Provider, ProviderError, TextDelta, Turn
from server.providers.registry import DEMO, Model, Models

TITLE_MAX_CHARS = 80
TITLE_MAX_TOKENS = 2_000
"""Most of it is for models that reason before they answer."""

EXCERPT_CHARS = 2_000
TITLE_TIMEOUT_S = 120.0

TASK = (
    "Name a conversation that began as follows. Answer with the name alone: at most six words, "
    "in the language of the question, without quotes, without a full stop."
)


class Titler:
    """Generates titles with the model that is configured for it, or the conversation's own."""

    def __init__(self, database: Database, providers: dict[str, Provider], models: Models) -> None:
        self._database, self._providers, self._models = database, providers, models

    async def title(self, conversation_id: str) -> None:
        """Generates and stores the title of a conversation; after a failure, a chore retries."""
        try:
            opening = await self._database.read(opening_of, conversation_id)
            if opening is None:
                return
            title = await self._generate(
                self._models.titles or self._models.find(opening.model), opening
            )
            await self._database.write(set_title, conversation_id, opening.account_id, title)
        except (ProviderError, Invalid, TimeoutError, DatabaseAway) as error:
            log.warning(
                "titling_failed", conversation=conversation_id, reason=str(error) or "timed out"
            )

    async def _generate(self, model: Model, opening: Opening) -> str | None:
        if model.id == DEMO:
            return None  # it cannot: the title stays the first words of the question
        output = ""
        async with (
            asyncio.timeout(TITLE_TIMEOUT_S),
            aclosing(self._providers[model.provider].stream(_request(model, opening))) as deltas,
        ):
            async for delta in deltas:
                if isinstance(delta, TextDelta):
                    output += delta.text
                if isinstance(delta, Finish) or len(output) > EXCERPT_CHARS:
                    break
        return clean_title(output)


def _request(model: Model, opening: Opening) -> ModelRequest:
    room = max(100, min(EXCERPT_CHARS, model.context_tokens // 2 - tokens_of(TASK)))
    exchange = f"Question:\n{opening.question[:room]}\n\nAnswer:\n{opening.answer[:room]}"
    return ModelRequest(
        model=model.name,
        turns=[Turn(Role.USER, [{"type": "text", "text": f"{TASK}\n\n{exchange}"}])],
        system_prompt=None,
        max_output_tokens=min(TITLE_MAX_TOKENS, model.context_tokens // 2),
        temperature=None,
        position=0,
        prefix=[],
    )


def clean_title(output: str) -> str | None:
    """A title from a model's output: one line of at most 80 characters; None if nothing is left."""
    lines = [line for line in output.replace("\0", "").splitlines() if line.strip()]
    if not lines:
        return None
    words = re.sub(
        r"^(title|name)\s*:\s*", "", lines[0].strip(" #*_`\"'“”„«»"), flags=re.IGNORECASE
    )
    title = " ".join(words.split()).strip(" #*_`\"'“”„«»").removesuffix(".")
    if len(title) > TITLE_MAX_CHARS:
        title = title[: TITLE_MAX_CHARS - 1].rsplit(" ", 1)[0].rstrip() + "…"
    return title or None
