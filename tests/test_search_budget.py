"""Limits of searches: concurrent searches, scanned text, searches per document."""

import asyncio

import pytest

from server.errors import TooMany
from server.history.tokenizer import INDEXED_CHARS, terms_of
from server.identity.search_slots import SearchSlots
from server.verbs.search import SCAN_MAX_CHARS, ScanBudget, excerpts_of
from tests.client import Client
from tests.graph import post

TEXT = "tide " * (INDEXED_CHARS // 5)


class Searching:
    """Searches that run until `finish` is set; `running` has the concurrent ones."""

    def __init__(self) -> None:
        self.slots, self.finish = SearchSlots(), asyncio.Event()
        self.running: list[str] = []

    async def search(self, account_id: str) -> None:
        async with self.slots.take(account_id):
            self.running.append(account_id)
            await self.finish.wait()
            self.running.remove(account_id)


async def let_tasks_run() -> None:
    """Let all tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_account_has_one_search_slot_and_there_are_two_in_total() -> None:
    searching = Searching()
    async with asyncio.TaskGroup() as tasks:
        for account_id in ("acct_a", "acct_a", "acct_a", "acct_b", "acct_c"):
            tasks.create_task(searching.search(account_id))
        await let_tasks_run()
        concurrent = sorted(searching.running)
        searching.finish.set()

    assert concurrent == ["acct_a", "acct_b"]
    assert searching.running == []


async def test_a_search_without_a_slot_in_time_is_refused_and_leaks_no_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.identity.search_slots.SEARCH_WAIT_MAX_S", 0)
    searching = Searching()
    async with asyncio.TaskGroup() as tasks:
        for account_id in ("acct_a", "acct_b"):
            tasks.create_task(searching.search(account_id))
        await let_tasks_run()
        for account_id in ("acct_a", "acct_c"):
            with pytest.raises(TooMany) as refused:
                await searching.search(account_id)
            assert refused.value.code == "too_many_searches"
        searching.finish.set()

    monkeypatch.undo()
    await asyncio.gather(*(searching.search(f"acct_{each}") for each in "abcabc"))


async def test_a_search_cancelled_while_waiting_leaks_no_slot() -> None:
    searching = Searching()
    first, second = (asyncio.create_task(searching.search(f"acct_{each}")) for each in "ab")
    await let_tasks_run()
    waiting = [asyncio.create_task(searching.search(f"acct_{each}")) for each in "ac"]
    await let_tasks_run()

    for each in waiting:
        each.cancel()
    searching.finish.set()
    await asyncio.gather(first, second, *waiting, return_exceptions=True)

    await asyncio.gather(*(searching.search(f"acct_{each}") for each in "abcabc"))


async def test_excerpts_are_not_highlighted_once_the_scan_budget_is_used() -> None:
    scans, terms = ScanBudget(), terms_of("tide ")

    first = await excerpts_of([(rank, TEXT) for rank in range(8)], terms, scans)
    second = await excerpts_of([(rank, TEXT) for rank in range(8, 12)], terms, scans)

    excerpts = first | second
    highlighted = [any(piece.match for piece in excerpts[rank]) for rank in range(12)]
    assert highlighted == [True] * (SCAN_MAX_CHARS // INDEXED_CHARS) + [False] * 2
    assert all(excerpt[0].text.startswith("tide") for excerpt in excerpts.values())


async def test_a_document_may_have_five_searches_but_not_thirty(client: Client) -> None:
    def document(count: int) -> str:
        return (
            "{"
            + " ".join(
                f's{n}: search(query: "x") {{ nodes {{ excerpt {{ text }} }} }}'
                for n in range(count)
            )
            + "}"
        )

    few, many = await post(client, document(5)), await post(client, document(30))

    assert "errors" not in few.json()
    assert many.status_code == 400
    assert many.json()["errors"][0]["extensions"]["code"] == "document_too_complex"
