"""Searches are bounded: how many run at once, how much text they scan, how many a document may have."""

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
    """Searches that go on until they are let go; what counts is how many there are at once."""

    def __init__(self) -> None:
        self.slots, self.let_go = SearchSlots(), asyncio.Event()
        self.running: list[str] = []

    async def search(self, account_id: str) -> None:
        async with self.slots.take(account_id):
            self.running.append(account_id)
            await self.let_go.wait()
            self.running.remove(account_id)


async def settled() -> None:
    """Everything that can go on has done so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_account_searches_once_at_a_time_and_two_accounts_beside_each_other() -> None:
    searching = Searching()
    async with asyncio.TaskGroup() as tasks:
        for account_id in ("acct_a", "acct_a", "acct_a", "acct_b", "acct_c"):
            tasks.create_task(searching.search(account_id))
        await settled()
        at_once = sorted(searching.running)
        searching.let_go.set()

    assert at_once == ["acct_a", "acct_b"]
    assert searching.running == []


async def test_a_search_that_gets_no_slot_in_time_is_refused_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.identity.search_slots.SEARCH_WAIT_MAX_S", 0)
    searching = Searching()
    async with asyncio.TaskGroup() as tasks:
        for account_id in ("acct_a", "acct_b"):
            tasks.create_task(searching.search(account_id))
        await settled()
        for account_id in ("acct_a", "acct_c"):
            with pytest.raises(TooMany) as refused:
                await searching.search(account_id)
            assert refused.value.code == "too_many_searches"
        searching.let_go.set()

    monkeypatch.undo()
    await asyncio.gather(*(searching.search(f"acct_{each}") for each in "abcabc"))


async def test_a_search_that_is_cancelled_while_it_waits_leaves_its_slot_to_others() -> None:
    searching = Searching()
    first, second = (asyncio.create_task(searching.search(f"acct_{each}")) for each in "ab")
    await settled()
    waiting = [asyncio.create_task(searching.search(f"acct_{each}")) for each in "ac"]
    await settled()

    for each in waiting:
        each.cancel()
    searching.let_go.set()
    await asyncio.gather(first, second, *waiting, return_exceptions=True)

    await asyncio.gather(*(searching.search(f"acct_{each}") for each in "abcabc"))


async def test_excerpts_show_the_beginning_of_a_text_once_the_operation_has_scanned_enough() -> (
    None
):
    scans, terms = ScanBudget(), terms_of("tide ")

    first = await excerpts_of([(rank, TEXT) for rank in range(8)], terms, scans)
    second = await excerpts_of([(rank, TEXT) for rank in range(8, 12)], terms, scans)

    excerpts = first | second
    marked = [any(piece.match for piece in excerpts[rank]) for rank in range(12)]
    assert marked == [True] * (SCAN_MAX_CHARS // INDEXED_CHARS) + [False] * 2
    assert all(excerpt[0].text.startswith("tide") for excerpt in excerpts.values())


async def test_a_document_may_search_a_few_times_but_not_thirty(client: Client) -> None:
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
