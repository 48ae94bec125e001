"""The search field: hits with excerpts."""

import asyncio
from typing import Annotated

import strawberry

from server.cursors import pack, unpack
from server.errors import Invalid
from server.graph.context import Info
from server.graph.page import PageInfo, page_info, parse_slice
from server.graph.types import Conversation, Message
from server.history.keyset import Page, Slice
from server.history.search import RANKED_MAX, Hit, search
from server.history.tokenizer import INDEXED_CHARS, Piece, Term, excerpt_of, terms_of
from server.parts import joined_text

QUERY_MAX_CHARS = 1_000

Words = Annotated[
    str,
    strawberry.argument(
        description="Words that must all occur, ignoring case and accents. Words in double quotes "
        "must be consecutive. The last word, and any word followed by `*`, is a prefix of at least "
        "two letters. No other character has a meaning, so every query is valid."
    ),
]


@strawberry.type(description="A part of an excerpt.")
class ExcerptPart:
    text: str = strawberry.field(description="The text.")
    match: bool = strawberry.field(description="Whether it matches the query.")


@strawberry.type(description="A message, or a conversation whose title matches.")
class SearchHit:
    conversation: Conversation = strawberry.field(description="The conversation.")
    message: Message | None = strawberry.field(
        description="The message; null if the title matches."
    )
    excerpt: list[ExcerptPart] = strawberry.field(
        description="The text around the first match, or the beginning of a text that was not "
        "scanned."
    )


@strawberry.type(description="A search hit in a list.")
class SearchHitEdge:
    cursor: str = strawberry.field(description="The cursor, for `after` and `before`.")
    node: SearchHit = strawberry.field(description="The hit.")


@strawberry.type(
    description="A page of hits: titles, then messages, the best first of the newest 2,000."
)
class SearchHitConnection:
    edges: list[SearchHitEdge] = strawberry.field(description="The hits with their cursors.")
    nodes: list[SearchHit] = strawberry.field(description="The hits alone.")
    page_info: PageInfo = strawberry.field(description="The position of the page.")


async def search_hits(
    info: Info,
    query: str,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
) -> SearchHitConnection:
    """A page of hits of the caller's account. Raises Invalid, InvalidCursor and TooMany."""
    if len(query) > QUERY_MAX_CHARS:
        raise Invalid.at("/query", f"exceeds the limit of {QUERY_MAX_CHARS} characters")
    part = parse_slice(first, after, last, before, _parse_hit_cursor)
    async with info.context.search_budget.slots.take(info.context.caller.account_id):
        return await _connection(info, query, part)


async def _connection(info: Info, query: str, part: Slice) -> SearchHitConnection:
    start, page = await _page_of_hits(info, query, part)
    conversations = await info.context.loaders.conversation.load_many(
        [hit.conversation_id for hit in page.items]
    )
    rows = await info.context.loaders.message.load_many(
        [hit.message_id for hit in page.items if hit.message_id]
    )
    messages = {each.message.id: each for each in rows if each is not None}
    found = [
        (start + n, row, messages.get(hit.message_id or ""))
        for n, (hit, row) in enumerate(zip(page.items, conversations, strict=True))
        if row is not None
    ]
    texts = [joined_text(message.parts) if message else row.title for _, row, message in found]
    excerpts = await _excerpts(info, texts, terms_of(query))
    edges = [
        SearchHitEdge(
            cursor=pack("hit", str(n)),
            node=SearchHit(
                conversation=Conversation.of(row),
                message=Message.of(message) if message else None,
                excerpt=[ExcerptPart(text=piece.text, match=piece.match) for piece in excerpt],
            ),
        )
        for (n, row, message), excerpt in zip(found, excerpts, strict=True)
    ]
    return SearchHitConnection(
        edges=edges,
        nodes=[edge.node for edge in edges],
        page_info=page_info(page, [edge.cursor for edge in edges]),
    )


async def _excerpts(info: Info, texts: list[str], terms: list[Term]) -> list[list[Piece]]:
    """The excerpt of each text; only its beginning, once the operation's budget is used up."""
    budget = info.context.search_budget
    scanned = [
        (text, terms if budget.take(min(len(text), INDEXED_CHARS)) else []) for text in texts
    ]
    return await asyncio.to_thread(lambda: [excerpt_of(*each) for each in scanned])


async def _page_of_hits(info: Info, query: str, part: Slice) -> tuple[int, Page[Hit]]:
    """The hits of a slice, and the rank of the first one, from 0 for the best."""
    start = 0 if part.after is None else part.after + 1
    end = RANKED_MAX if part.before is None else part.before
    if part.backwards and part.before is not None:
        start = max(start, end - part.limit)
    most = max(0, end - start) if part.backwards else min(part.limit, max(0, end - start))
    database, account_id = info.context.services.database, info.context.caller.account_id
    hits = await database.read(search, account_id, query, offset=start, limit=most + 1)
    more, hits = len(hits) > most, hits[:most]
    if part.backwards:
        left_out = max(0, len(hits) - part.limit)
        start, hits = start + left_out, hits[left_out:]
    return start, Page(hits, start > 0, more)


def _parse_hit_cursor(cursor: str) -> int | None:
    fields = unpack(cursor, 2)
    number = fields[1] if fields and fields[0] == "hit" else ""
    return int(number) if number.isascii() and number.isdigit() and len(number) < 5 else None
