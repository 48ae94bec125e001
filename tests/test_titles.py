"""Titles: a model names a conversation after its first answer, unless its user did."""

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


class HeldUpstream(Upstream):
    """An upstream that delays its responses while `held` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        while self.held:
            await asyncio.sleep(0.01)
        await super()._answer(request, writer)


@pytest.fixture(scope="module")
def upstream() -> Iterator[HeldUpstream]:
    with HeldUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, upstream: HeldUpstream, valkey: str
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
async def caller(installation: InProcess, upstream: HeldUpstream) -> AsyncIterator[Client]:
    upstream.held = False
    async with Client(installation.url, installation.new_key()) as client:
        yield client


async def wait_until(holds: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


async def wait_for_title(client: Client, conversation_id: str, title: str = GREETING) -> None:
    async def has_title() -> bool:
        return bool((await client.get(f"/api/conversations/{conversation_id}"))["title"] == title)

    await wait_until(has_title)


async def rename(client: Client, conversation_id: str, title: str) -> None:
    response = await client.http.patch(
        f"/api/conversations/{conversation_id}", json={"title": title}
    )
    assert response.status_code == 200, response.text


async def test_a_conversation_gets_a_title_after_its_first_answer(
    caller: Client, upstream: HeldUpstream
) -> None:
    sent = await caller.send("/demo tokens=3 rate=0\nWhen is high water in Dover?")
    before = await caller.get(f"/api/conversations/{sent['conversation_id']}")

    await wait_for_title(caller, sent["conversation_id"])

    after = await caller.get(f"/api/conversations/{sent['conversation_id']}")
    assert before["title"].startswith("/demo tokens=3")
    assert after["updated_at"] >= before["updated_at"]
    prompt = str(upstream.sent_to("plain")[-1].body["messages"])
    answer = await caller.message(sent["message_id"])
    assert "When is high water in Dover?" in prompt
    assert answer["text"] in prompt


async def test_pages_receive_a_title_set_by_a_worker(
    caller: Client, upstream: HeldUpstream
) -> None:
    upstream.held = True
    sent = await caller.send("/demo tokens=3 rate=0\nWhen is low water?")
    pages = [Page(sent["conversation_id"]), Page()]
    for page in pages:
        await page.read(caller, events=1)
    upstream.held = False

    def has_title(page: Page) -> bool:
        return page.conversations.get(sent["conversation_id"], {}).get("title") == GREETING

    async with asyncio.timeout(60):
        await asyncio.gather(*(page.read(caller, until=has_title) for page in pages))


async def test_a_title_is_generated_once(caller: Client, upstream: HeldUpstream) -> None:
    first = await caller.send("/demo tokens=3 rate=0\none")
    await wait_for_title(caller, first["conversation_id"])
    requests_before = len(upstream.sent_to("plain"))

    second = await caller.send(
        "/demo tokens=3 rate=0\ntwo", conversation_id=first["conversation_id"]
    )
    await caller.read_through(second["generation_id"])
    other = await caller.send("/demo tokens=3 rate=0\nthree")
    await wait_for_title(caller, other["conversation_id"])

    assert len(upstream.sent_to("plain")) == requests_before + 1


async def test_a_title_set_by_the_user_is_kept(caller: Client, upstream: HeldUpstream) -> None:
    requests_before = len(upstream.sent_to("plain"))
    renamed = await caller.send("/demo tokens=30 rate=60\nmine")
    await rename(caller, renamed["conversation_id"], "My own words")
    await caller.read_through(renamed["generation_id"])

    other = await caller.send("/demo tokens=3 rate=0\nother")
    await wait_for_title(caller, other["conversation_id"])

    assert (await caller.get(f"/api/conversations/{renamed['conversation_id']}"))[
        "title"
    ] == "My own words"
    assert len(upstream.sent_to("plain")) == requests_before + 1


async def test_a_title_set_during_generation_is_kept(
    caller: Client, upstream: HeldUpstream
) -> None:
    upstream.held = True
    requests_before = len(upstream.sent_to("plain"))
    renamed = await caller.send("/demo tokens=3 rate=0\nwhile it thinks")

    async def is_requested() -> bool:
        return len(upstream.sent_to("plain")) > requests_before

    await wait_until(is_requested)
    await rename(caller, renamed["conversation_id"], "Set by the user")
    upstream.held = False
    # More than there are slots for such jobs: when the last has its title, the first job has ended.
    for n in range(3):
        other = await caller.send(f"/demo tokens=3 rate=0\nother {n}")
        await wait_for_title(caller, other["conversation_id"])

    assert (await caller.get(f"/api/conversations/{renamed['conversation_id']}"))[
        "title"
    ] == "Set by the user"


async def test_a_failed_answer_sets_no_title_and_its_retry_does(caller: Client) -> None:
    sent = await caller.send("/demo tokens=3 fail_after=1\nfails")
    await caller.read_through(sent["generation_id"])
    edited = await caller.http.post(
        f"/api/messages/{sent['question_id']}/edit", json={"text": "/demo tokens=3 rate=0\nworks"}
    )
    assert edited.status_code == 202

    await wait_for_title(caller, sent["conversation_id"])


@pytest.mark.slow
async def test_a_title_is_generated_later_if_its_job_or_model_failed(
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

            await wait_until(refused)
            system.worker.stop()
            system.configure(
                providers={"up": up}, generation=generation | {"title_model": "up/plain"}
            )
            with sqlite3.connect(system.folder / "data" / "tidemark.db") as database:
                database.execute(
                    "UPDATE conversation SET created_at = datetime(created_at, '-2 minutes')"
                )
            system.start_worker()

            await wait_for_title(client, sent["conversation_id"])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("output", "title"),
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
def test_the_output_of_a_model_becomes_one_clean_line(output: str, title: str | None) -> None:
    assert clean_title(output) == title
