"""Data loaders: objects that many nodes of an operation need are read in one statement.

Rows are read without their large columns, and are counted. Contents are read separately, a few MiB
at a time, and only as much as the response may have.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from sqlmodel import Session
from strawberry.dataloader import DataLoader

from server.errors import InvalidCursor
from server.graph.budget import ResponseBudget
from server.history.contents import Contents, StoredContent, stored_contents, system_prompts
from server.history.conversations import conversations_by_id
from server.history.database import Database
from server.history.generations import (
    GenerationsPart,
    Written,
    active_generations,
    generation_pages,
    generations_by_id,
)
from server.history.keyset import Page
from server.history.messages import PAGE_MAX_CHARS, MessageRow, last_messages, messages_by_id
from server.history.tables import Conversation, Generation, Status
from server.history.tree import BranchPart, SiblingKey, branch_pages, sibling_ids, sibling_totals
from server.lifecycle.written import written_so_far
from server.parts import Parts, content_chars
from server.resources import Services

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Ids = tuple[str, ...]

KEYS_PER_READ: Final = 500


class LiveContent(NamedTuple):
    """The content of a generation so far, and its status at that time."""

    written: Written
    status: Status


class Loaders:
    """The loaders of one operation, or of one event of a subscription, of one account.

    Nothing in them refers back to them, so that the rows of an operation are freed with it.
    """

    def __init__(self, services: Services, account_id: str, budget: ResponseBudget) -> None:
        self._budget, database = budget, services.database
        rows = partial(_rows, database, account_id, budget)
        contents = partial(_contents, database, account_id, budget, asyncio.Lock())
        self.conversation: DataLoader[str, Conversation | None] = rows(conversations_by_id)
        messages: dict[str, MessageRow] = {}
        self.message: DataLoader[str, MessageRow | None] = rows(messages_by_id, known=messages)
        self.last_message: DataLoader[str, MessageRow | None] = rows(last_messages)
        self.generation: DataLoader[str, Generation | None] = rows(generations_by_id)
        self.active: DataLoader[str, list[Generation] | None] = rows(active_generations)
        self.generations: DataLoader[GenerationsPart, Page[Generation] | None] = rows(
            generation_pages
        )
        keep = partial(_keep_messages, messages, budget)
        self.branch: DataLoader[BranchPart, Page[MessageRow] | None] = rows(
            _branches(budget, content=False), keep
        )
        self.branch_with_content: DataLoader[BranchPart, Page[MessageRow] | None] = rows(
            _branches(budget, content=True), keep
        )
        self.sibling_ids: DataLoader[str, list[str] | None] = rows(sibling_ids, counted=False)
        self.sibling_total: DataLoader[SiblingKey, int | None] = rows(sibling_totals)
        self.content: DataLoader[Ids, list[StoredContent | None]] = contents(stored_contents)
        self.system_prompt: DataLoader[Ids, list[str | None]] = contents(system_prompts)
        self.live: DataLoader[str, LiveContent | None] = DataLoader(
            partial(_live, services, budget, self.content), KEYS_PER_READ
        )

    async def parts(self, row: MessageRow) -> Parts:
        """The content of a message."""
        [stored] = await self.content.load((row.content_id,))
        return stored.parts if stored else []

    def charge_rows(self, rows: int) -> None:
        """Counts rows that are read without a loader; raises GraphQLError once there are too many."""
        self._budget.charge_rows(rows)


def _rows(
    database: Database,
    account_id: str,
    budget: ResponseBudget,
    read: Callable[[Session, str, Sequence[K]], Mapping[K, V]],
    on_read: Callable[[Mapping[K, V]], None] = lambda _found: None,
    *,
    known: Mapping[K, V] = MappingProxyType({}),
    counted: bool = True,
) -> Any:
    """A loader of rows, or lists or pages of them, that are not `known` already.

    `counted`: they count as objects.
    """

    async def load(keys: list[K]) -> list[V | None]:
        distinct = [key for key in dict.fromkeys(keys) if key not in known]
        if not distinct:
            return [known[key] for key in keys]
        if counted:
            budget.charge_rows(len(distinct))
        found = await database.read(read, account_id, distinct)
        if counted:
            budget.charge_rows(sum(max(0, _length(each) - 1) for each in found.values()))
        on_read(found)
        return [found.get(key) or known.get(key) for key in keys]

    return DataLoader(load, KEYS_PER_READ)


def _length(found: object) -> int:
    if isinstance(found, Page):
        return len(found.items)
    return len(found) if isinstance(found, list) else 1


def _contents(
    database: Database,
    account_id: str,
    budget: ResponseBudget,
    lock: asyncio.Lock,
    read: Callable[[Session, str, Sequence[str], int], Contents],
) -> Any:
    """A loader whose keys are the ids of several rows: a key for each would be slow for a page.

    It reads at most one content more than the budget has left, and nothing twice.
    """
    kept: dict[str, Any] = {}

    async def load(keys: list[Ids]) -> list[list[Any]]:
        async with lock:
            left = [id for id in dict.fromkeys(chain.from_iterable(keys)) if id not in kept]
            while left:
                if budget.left_chars == 0:
                    raise budget.refuse()
                ids, left = left[:KEYS_PER_READ], left[KEYS_PER_READ:]
                chars_max = min(PAGE_MAX_CHARS, budget.left_chars)
                contents = await database.read(read, account_id, ids, chars_max)
                budget.charge_content(contents.chars)
                kept.update(contents.found)
                left = contents.left_out + left
        return [[kept.get(id) for id in ids] for ids in keys]

    return DataLoader(load, KEYS_PER_READ, cache=False)


async def _live(
    services: Services,
    budget: ResponseBudget,
    content: DataLoader[Ids, list[StoredContent | None]],
    ids: list[str],
) -> list[LiveContent | None]:
    """The content of generations: the stored content, and later events from their logs."""
    stored = await content.load(tuple(ids))
    rows = [each for each in stored if each is not None]
    key_prefix = services.settings.redis.key_prefix
    found = {}
    for row, written in zip(
        rows, await written_so_far(services.redis, key_prefix, rows), strict=True
    ):
        if written.parts is not row.parts:
            budget.charge_content(content_chars(written.parts) - content_chars(row.parts))
        found[row.id] = LiveContent(written, row.status)
    return [found.get(id) for id in ids]


def _branches(
    budget: ResponseBudget, *, content: bool
) -> Callable[[Session, str, Sequence[BranchPart]], Mapping[BranchPart, Any]]:
    """Reads pages of branches whose leaves are known to be the account's.

    With `content`, their rows have as much of it as one read may have. The data loader raises
    those that are exceptions.
    """

    def read(
        session: Session, _account_id: str, wanted: Sequence[BranchPart]
    ) -> Mapping[BranchPart, Page[MessageRow] | InvalidCursor]:
        chars_max = min(PAGE_MAX_CHARS, budget.left_chars) if content else 0
        return branch_pages(session, wanted, chars_max=chars_max)

    return read


def _keep_messages(
    messages: dict[str, MessageRow],
    budget: ResponseBudget,
    found: Mapping[BranchPart, Page[MessageRow] | InvalidCursor],
) -> None:
    """Saves reading the parents and siblings of a page that are on it, and counts its content."""
    for page in found.values():
        if isinstance(page, Page):
            messages.update({row.message.id: row for row in page.items})
            rows = [row for row in page.items if row.has_content]
            budget.charge_content(sum(content_chars(row.parts) for row in rows))
