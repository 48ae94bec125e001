"""Titles: a model names a conversation after its first answer, and never over a person's head."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from server.generate.titling import clean_title
from tests.client import Client
from tests.in_process import InProcess
from tests.page_client import Page
from tests.system import System
from tests.upstream import Request, Upstream

GREETING = "Hello wörld 🌊"


class Patient(Upstream):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        while self.held:
            await asyncio.sleep(0.01)
        await super()._answer(request, writer)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Patient]:
    with Patient() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, upstream: Patient, valkey: str
) -> Iterator[InProcess]:
    """An installation in which `demo` answers and a scripted model gives titles."""
    up = {"base_url": f"{upstream.url}/v1", "models": ["plain", "html-502"]}
    settings = {
        "providers": {"up": up},
        "generation": {"titles": True, "default_model": "demo", "title_model": "up/plain"},
    }
    with InProcess(tmp_path_factory.mktemp("titles"), valkey, settings) as installation:
        yield installation


@pytest.fixture
async def caller(installation: InProcess, upstream: Patient) -> AsyncIterator[Client]:
    upstream.held = False
    async with Client(installation.url, installation.new_key()) as client:
        yield client


async def until(holds: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


async def titled(client: Client, conversation_id: str, title: str = GREETING) -> None:
    async def has_it() -> bool:
        return bool((await client.get(f"/api/conversations/{conversation_id}"))["title"] == title)

    await until(has_it)


async def rename(client: Client, conversation_id: str, title: str) -> None:
    answer = await client.http.patch(f"/api/conversations/{conversation_id}", json={"title": title})
    assert answer.status_code == 200, answer.text


async def test_a_conversation_is_named_after_its_first_answer(
    caller: Client, upstream: Patient
) -> None:
    sent = await caller.send("/demo tokens=3 rate=0\nWhen is high water in Dover?")
    before = await caller.get(f"/api/conversations/{sent['conversation_id']}")

    await titled(caller, sent["conversation_id"])

    after = await caller.get(f"/api/conversations/{sent['conversation_id']}")
    assert before["title"].startswith("/demo tokens=3")
    assert after["updated_at"] >= before["updated_at"]
    asked = str(upstream.sent_to("plain")[-1].body["messages"])
    answer = await caller.message(sent["message_id"])
    assert "When is high water in Dover?" in asked
    assert answer["text"] in asked


async def test_every_page_is_told_of_the_title_that_a_worker_gave(
    caller: Client, upstream: Patient
) -> None:
    upstream.held = True
    sent = await caller.send("/demo tokens=3 rate=0\nWhen is low water?")
    pages = [Page(sent["conversation_id"]), Page()]
    for page in pages:
        await page.read(caller, events=1)
    upstream.held = False

    def told(page: Page) -> bool:
        return page.conversations.get(sent["conversation_id"], {}).get("title") == GREETING

    async with asyncio.timeout(60):
        await asyncio.gather(*(page.read(caller, until=told) for page in pages))


async def test_a_conversation_is_named_once(caller: Client, upstream: Patient) -> None:
    first = await caller.send("/demo tokens=3 rate=0\none")
    await titled(caller, first["conversation_id"])
    asked = len(upstream.sent_to("plain"))

    second = await caller.send(
        "/demo tokens=3 rate=0\ntwo", conversation_id=first["conversation_id"]
    )
    await caller.read_through(second["generation_id"])
    other = await caller.send("/demo tokens=3 rate=0\nthree")
    await titled(caller, other["conversation_id"])

    assert len(upstream.sent_to("plain")) == asked + 1


async def test_a_title_set_by_a_person_is_kept(caller: Client, upstream: Patient) -> None:
    asked = len(upstream.sent_to("plain"))
    mine = await caller.send("/demo tokens=30 rate=60\nmine")
    await rename(caller, mine["conversation_id"], "My own words")
    await caller.read_through(mine["generation_id"])

    other = await caller.send("/demo tokens=3 rate=0\nother")
    await titled(caller, other["conversation_id"])

    assert (await caller.get(f"/api/conversations/{mine['conversation_id']}"))[
        "title"
    ] == "My own words"
    assert len(upstream.sent_to("plain")) == asked + 1


async def test_a_title_set_while_the_model_thinks_is_kept(
    caller: Client, upstream: Patient
) -> None:
    upstream.held = True
    asked = len(upstream.sent_to("plain"))
    mine = await caller.send("/demo tokens=3 rate=0\nwhile it thinks")

    async def is_thinking() -> bool:
        return len(upstream.sent_to("plain")) > asked

    await until(is_thinking)
    await rename(caller, mine["conversation_id"], "Quicker than it")
    upstream.held = False
    for n in range(
        3
    ):  # more than there are slots for chores: when the last has its title, the first job is over
        other = await caller.send(f"/demo tokens=3 rate=0\nother {n}")
        await titled(caller, other["conversation_id"])

    assert (await caller.get(f"/api/conversations/{mine['conversation_id']}"))[
        "title"
    ] == "Quicker than it"


async def test_a_failed_answer_names_nothing_and_its_retry_does(caller: Client) -> None:
    sent = await caller.send("/demo tokens=3 fail_after=1\nfails")
    await caller.read_through(sent["generation_id"])
    edited = await caller.http.post(
        f"/api/messages/{sent['question_id']}/edit", json={"text": "/demo tokens=3 rate=0\nworks"}
    )
    assert edited.status_code == 202

    await titled(caller, sent["conversation_id"])


@pytest.mark.slow
async def test_a_title_whose_job_was_lost_or_whose_model_was_away_comes_later(
    new_system: Callable[..., System],
) -> None:
    with Upstream() as upstream:
        up = {"base_url": f"{upstream.url}/v1", "models": ["plain", "html-502"]}
        generation = {"titles": True, "default_model": "demo", "title_model": "up/html-502"}
        system = new_system(providers={"up": up}, generation=generation).start()
        async with Client(system.web.url, system.new_key()) as client:
            sent = await client.send("/demo tokens=3 rate=0\nlost")
            await client.read_through(sent["generation_id"])

            async def refused() -> bool:
                return len(upstream.sent_to("html-502")) > 0

            await until(refused)
            system.worker.stop()
            system.configure(
                providers={"up": up}, generation=generation | {"title_model": "up/plain"}
            )
            with sqlite3.connect(system.folder / "data" / "tidemark.db") as database:
                database.execute(
                    "UPDATE conversation SET created_at = datetime(created_at, '-2 minutes')"
                )
            system.start_worker()

            await titled(client, sent["conversation_id"])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("High water in Dover", "High water in Dover"),
        ('  **"High water in Dover."**\n\nBecause you asked.', "High water in Dover"),
        ("# Title: High   water", "High water"),
        ("„Hochwasser in Dover“", "Hochwasser in Dover"),
        ("", None),
        ("\n \n", None),
        ('""', None),
        ("word " * 40, "word " * 14 + "word…"),
        ("a" * 200, "a" * 79 + "…"),
        ("nul\0byte", "nulbyte"),
    ],
)
def test_what_a_model_says_becomes_one_clean_line(said: str, title: str | None) -> None:
    assert clean_title(said) == title
