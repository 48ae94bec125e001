"""Searching the messages of an account and the titles of its conversations."""

import asyncio
from typing import Final, NamedTuple

from sqlmodel import Session

from server.errors import Invalid
from server.history.contents import stored_contents
from server.history.conversations import conversations_by_id
from server.history.keyset import Page, Slice
from server.history.messages import PAGE_MAX_CHARS, MessageRow, messages_by_id
from server.history.search import RANKED_MAX
from server.history.search import search as ranked_hits
from server.history.tables import Conversation
from server.history.tokenizer import INDEXED_CHARS, Piece, Term, excerpt_of, terms_of
from server.identity.callers import Caller
from server.parts import joined_text
from server.resources import Services

QUERY_MAX_CHARS: Final = 1_000
SCAN_MAX_CHARS: Final = 1_000_000
TEXTS_PER_READ: Final = 20


class ScanBudget:
    """The text that the searches of one request may still scan for excerpts."""

    def __init__(self) -> None:
        self._left_chars = SCAN_MAX_CHARS

    def take(self, chars: int) -> bool:
        """Takes a text of this length from the budget; false if it exceeds what is left."""
        if chars > self._left_chars:
            return False
        self._left_chars -= chars
        return True


class FoundHit(NamedTuple):
    """A message that matches or, without one, a conversation whose title does.

    `rank` is its position among the hits, from 0 for the best. The rows have no content.
    """

    rank: int
    conversation: Conversation
    message: MessageRow | None
    excerpt: list[Piece]


async def search(
    services: Services, caller: Caller, query: str, part: Slice, scans: ScanBudget
) -> Page[FoundHit]:
    """A slice of the hits, whose cursors are ranks. Raises Invalid and TooMany.

    An excerpt is the text around the first match, or the beginning of the text once `scans` is
    used up.
    """
    if len(query) > QUERY_MAX_CHARS:
        raise Invalid.at("/query", f"exceeds the limit of {QUERY_MAX_CHARS} characters")
    async with services.search_slots.take(caller.account_id):
        page = await services.database.read(_page, caller.account_id, query, part)
        excerpts = await _excerpts(services, caller, page.items, terms_of(query), scans)
    hits = [hit._replace(excerpt=excerpts.get(hit.rank, [])) for hit in page.items]
    return page._replace(items=hits)


def _page(session: Session, account_id: str, query: str, part: Slice) -> Page[FoundHit]:
    """The hits of a slice, without excerpts."""
    start = 0 if part.after is None else part.after + 1
    end = RANKED_MAX if part.before is None else part.before
    if part.backwards and part.before is not None:
        start = max(start, end - part.limit)
    most = max(0, end - start) if part.backwards else min(part.limit, max(0, end - start))
    hits = ranked_hits(session, account_id, query, offset=start, limit=most + 1)
    more, hits = len(hits) > most, hits[:most]
    if part.backwards:
        left_out = max(0, len(hits) - part.limit)
        start, hits = start + left_out, hits[left_out:]
    conversations = conversations_by_id(session, account_id, [hit.conversation_id for hit in hits])
    ids = [hit.message_id for hit in hits if hit.message_id]
    messages = messages_by_id(session, account_id, ids) if ids else {}
    found = [
        FoundHit(rank, conversations[hit.conversation_id], messages.get(hit.message_id or ""), [])
        for rank, hit in enumerate(hits, start)
        if hit.conversation_id in conversations
    ]
    return Page(found, start > 0, more)


async def _excerpts(
    services: Services, caller: Caller, hits: list[FoundHit], terms: list[Term], scans: ScanBudget
) -> dict[int, list[Piece]]:
    """The excerpt of each hit by its rank. At most a few MiB of texts are in memory at a time."""
    titles = [(hit.rank, hit.conversation.title) for hit in hits if hit.message is None]
    excerpts = await excerpts_of(titles, terms, scans)
    ranks = {hit.message.content_id: hit.rank for hit in hits if hit.message is not None}
    left = list(ranks)
    while left:
        ids, left = left[:TEXTS_PER_READ], left[TEXTS_PER_READ:]
        contents = await services.database.read(
            stored_contents, caller.account_id, ids, PAGE_MAX_CHARS
        )
        left = [id for id in ids if id in contents.left_out] + left
        texts = [
            (ranks[id], joined_text(contents.found[id].parts)) for id in ids if id in contents.found
        ]
        excerpts |= await excerpts_of(texts, terms, scans)
    return excerpts


async def excerpts_of(
    texts: list[tuple[int, str]], terms: list[Term], scans: ScanBudget
) -> dict[int, list[Piece]]:
    """The excerpt of each text by its rank; only its beginning, once the budget is used up."""
    scanned = [
        (rank, text, terms if scans.take(min(len(text), INDEXED_CHARS)) else [])
        for rank, text in texts
    ]
    return await asyncio.to_thread(
        lambda: {rank: excerpt_of(text, terms) for rank, text, terms in scanned}
    )
