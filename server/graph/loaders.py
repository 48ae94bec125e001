"""Data loaders: objects that many nodes of an operation need are read in one statement."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from sqlmodel import Session
from strawberry.dataloader import DataLoader

from server.errors import InvalidCursor
from server.history.conversations import conversations_by_id
from server.history.generations import (
    GenerationsPart,
    Written,
    active_generations,
    generation_pages,
)
from server.history.keyset import Page
from server.history.messages import MessageRow, last_messages, messages_by_id
from server.history.tables import Conversation, Generation
from server.history.tree import BranchPart, SiblingKey, branch_pages, sibling_rows, sibling_totals
from server.resources import Services
from server.verbs.generations import with_content

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

KEYS_PER_READ = 500


class Loaders:
    """The loaders of one operation of one account; with `keep`, they cache what they have read."""

    def __init__(self, services: Services, account_id: str, *, keep: bool) -> None:
        self._services, self._account_id, self._keep = services, account_id, keep
        self.conversation: DataLoader[str, Conversation | None] = self._loader(conversations_by_id)
        self.message: DataLoader[str, MessageRow | None] = self._loader(messages_by_id)
        self.last_message: DataLoader[str, MessageRow | None] = self._loader(last_messages)
        self.active: DataLoader[str, list[Generation] | None] = self._loader(active_generations)
        self.siblings: DataLoader[SiblingKey, list[MessageRow] | None] = self._loader(sibling_rows)
        self.sibling_total: DataLoader[SiblingKey, int | None] = self._loader(sibling_totals)
        self.generations: DataLoader[GenerationsPart, Page[Generation] | None] = self._loader(
            generation_pages
        )
        self.branch: DataLoader[BranchPart, Page[MessageRow] | None] = self._loader(_branch_pages)
        self.written: DataLoader[Generation, Written] = DataLoader(
            self._written, KEYS_PER_READ, cache=keep, cache_key_fn=lambda row: row.id
        )

    def _loader(self, read: Callable[[Session, str, Sequence[K]], Mapping[K, V]]) -> Any:
        async def load(keys: list[K]) -> list[V | None]:
            distinct = list(dict.fromkeys(keys))
            found = await self._services.database.read(read, self._account_id, distinct)
            return [found.get(key) for key in keys]

        return DataLoader(load, KEYS_PER_READ, cache=self._keep)

    async def _written(self, generations: list[Generation]) -> list[Written]:
        return [live.written for live in await with_content(self._services, generations)]


def _branch_pages(
    session: Session, _account_id: str, wanted: Sequence[BranchPart]
) -> Mapping[BranchPart, Page[MessageRow] | InvalidCursor]:
    """Pages of branches whose leaves are known to be the account's.

    The data loader raises those that are exceptions.
    """
    return branch_pages(session, wanted)
