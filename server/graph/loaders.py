"""Loaders: what many nodes of one operation ask for one by one is read in one statement."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from sqlmodel import Session
from strawberry.dataloader import DataLoader

from server.errors import InvalidCursor
from server.generate.reading import all_written_so_far
from server.history.branches import BranchPart, branch_pages
from server.history.generations import Written
from server.history.keyset import Page
from server.history.messages import Said
from server.history.several import (
    Generations,
    Siblings,
    active_generations,
    conversations_by_id,
    generations_of,
    last_messages,
    messages_by_id,
    siblings_of,
)
from server.history.tables import Conversation, Generation
from server.resources import Resources

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

KEYS_AT_ONCE = 500


class Loaders:
    """The loaders of one operation of one account. `keep`: what was read once is not read again."""

    def __init__(self, resources: Resources, account_id: str, *, keep: bool) -> None:
        self._resources, self._account_id, self._keep = resources, account_id, keep
        self.conversation: DataLoader[str, Conversation | None] = self._loader(conversations_by_id)
        self.message: DataLoader[str, Said | None] = self._loader(messages_by_id)
        self.last_message: DataLoader[str, Said | None] = self._loader(last_messages)
        self.active: DataLoader[str, list[Generation] | None] = self._loader(active_generations)
        self.siblings: DataLoader[Siblings, list[Said] | None] = self._loader(siblings_of)
        self.generations: DataLoader[Generations, Page[Generation] | None] = self._loader(
            generations_of
        )
        self.branch: DataLoader[BranchPart, Page[Said] | None] = self._loader(_branch_pages)
        self.written: DataLoader[Generation, Written] = DataLoader(
            self._written, KEYS_AT_ONCE, cache=keep, cache_key_fn=lambda row: row.id
        )

    def _loader(self, fn: Callable[[Session, str, Sequence[K]], Mapping[K, V]]) -> Any:
        async def load(keys: list[K]) -> list[V | None]:
            found = await self._resources.database.read(
                fn, self._account_id, list(dict.fromkeys(keys))
            )
            return [found.get(key) for key in keys]

        return DataLoader(load, KEYS_AT_ONCE, cache=self._keep)

    async def _written(self, generations: list[Generation]) -> list[Written]:
        return await all_written_so_far(
            self._resources.redis, self._resources.settings.redis.key_prefix, generations
        )


def _branch_pages(
    session: Session, _account_id: str, wanted: Sequence[BranchPart]
) -> Mapping[BranchPart, Page[Said] | InvalidCursor]:
    """The pages of branches whose leaves are known to be the account's; a loader raises what it gets as an exception."""
    return branch_pages(session, list(wanted))
