"""The search field: hits with excerpts."""

from typing import Annotated

import strawberry

from server.cursors import pack, unpack
from server.graph.context import Info
from server.graph.loaders import Loaders
from server.graph.page import Connection, connection, parse_slice
from server.graph.types import Conversation, Message
from server.verbs.search import FoundHit, search

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


async def search_hits(
    info: Info,
    query: str,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
) -> Connection[SearchHit]:
    """A page of hits of the caller's account. Raises Invalid, InvalidCursor and TooMany."""
    context, loaders = info.context, info.context.loaders
    part = parse_slice(first, after, last, before, _parse_hit_cursor)
    loaders.charge_rows(part.limit)
    page = await search(context.services, context.caller, query, part, context.scans)
    loaders.conversation.prime_many({hit.conversation.id: hit.conversation for hit in page.items})
    cursors = [pack("hit", str(hit.rank)) for hit in page.items]
    return connection(page, cursors, [_hit(found, loaders) for found in page.items])


def _hit(found: FoundHit, loaders: Loaders) -> SearchHit:
    return SearchHit(
        conversation=Conversation.of(found.conversation),
        message=Message.of(found.message, loaders) if found.message else None,
        excerpt=[ExcerptPart(text=piece.text, match=piece.match) for piece in found.excerpt],
    )


def _parse_hit_cursor(cursor: str) -> int | None:
    fields = unpack(cursor, 2)
    number = fields[1] if fields and fields[0] == "hit" else ""
    return int(number) if number.isascii() and number.isdigit() and len(number) < 5 else None
