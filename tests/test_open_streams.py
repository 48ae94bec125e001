"""Open streams, exports among them: counted before anything is stored, and ended with their key."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from server.api import export
from server.history.conversations import ConversationRow
from server.history.export import ExportPage, export_page
from server.identity.callers import Caller
from server.metrics import REQUESTS_FAILED
from server.resources import Services
from server.serve import slow_readers
from tests.client import Client
from tests.graph import mutate
from tests.in_process import InProcess

pytestmark = pytest.mark.quick

STREAMS_MAX = 3
STALLED = "/demo tokens=5 rate=0 stall_after=2"
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, valkey: str) -> Iterator[InProcess]:
    settings = {"server": {"streams_max_per_account": STREAMS_MAX}}
    with InProcess(tmp_path_factory.mktemp("streams"), valkey, settings) as installation:
        yield installation


@pytest.fixture
async def person(installation: InProcess) -> AsyncIterator[Client]:
    """A caller with an account that only this test uses."""
    key = installation.new_key(account=f"{uuid4().hex}@example.org")
    async with Client(installation.url, key) as person:
        yield person


@pytest.fixture
def endless_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of the first page again and again."""

    async def pages(
        services: Services, caller: Caller, row: ConversationRow
    ) -> AsyncGenerator[ExportPage, None]:
        id = row.conversation.id
        while True:
            yield await services.database.read(export_page, id, caller.account_id, None)

    monkeypatch.setattr(export.verbs, "all_branches", pages)


async def conversation_of(person: Client, text: str = "/demo tokens=2 rate=0") -> str:
    sent = await person.send(text)
    await person.read_through(sent["generation_id"])
    return str(sent["conversation_id"])


async def no_stream_is_open(person: Client) -> None:
    async with asyncio.timeout(30):
        while (await person.get("/status"))["web"]["open_streams"]:
            await asyncio.sleep(0.05)


async def test_streams_that_are_refused_store_nothing(person: Client) -> None:
    requests = [
        person.http.build_request("POST", "/api/messages", json={"text": STALLED}, headers=STREAM)
        for _ in range(8)
    ]

    async with person.http.stream("GET", "/api/events"):
        answers = await asyncio.gather(
            *(person.http.send(request, stream=True) for request in requests)
        )
        listed = (await person.get("/api/conversations"))["data"]

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * (STREAMS_MAX - 1) + [429] * (9 - STREAMS_MAX)
    assert len(listed) == STREAMS_MAX - 1
    for answer in answers:
        await answer.aclose()
    for conversation in listed:
        for id in conversation["active_generations"]:
            await person.cancel(id)
    await no_stream_is_open(person)


async def test_a_request_for_a_stream_that_is_refused_takes_up_no_room(person: Client) -> None:
    for _ in range(STREAMS_MAX + 1):
        answer = await person.http.post(
            "/api/messages", json={"text": "hello", "model": "unknown"}, headers=STREAM
        )
        assert answer.status_code == 422


async def read_to_the_end(person: Client, path: str, begun: asyncio.Event) -> None:
    async with person.http.stream("GET", path) as answer:
        assert answer.status_code == 200
        async for _chunk in answer.aiter_raw():
            begun.set()


async def test_an_export_breaks_off_when_its_key_is_revoked(
    person: Client, installation: InProcess, endless_exports: None
) -> None:
    path = f"/api/conversations/{await conversation_of(person)}/export"
    made = await mutate(person, "createApiKey", "secret apiKey { id }", name="x")
    begun = asyncio.Event()

    async with Client(installation.url, made["secret"]) as other:
        reading = asyncio.create_task(read_to_the_end(other, path, begun))
        await begun.wait()
        await mutate(person, "revokeApiKey", "apiKey { id }", id=made["apiKey"]["id"])
        async with asyncio.timeout(30):
            with pytest.raises(httpx.TransportError):
                await reading


async def test_an_export_breaks_off_when_its_conversation_is_deleted(
    person: Client, endless_exports: None, caplog: pytest.LogCaptureFixture
) -> None:
    id, faults = await conversation_of(person), REQUESTS_FAILED._value.get()
    begun = asyncio.Event()

    reading = asyncio.create_task(read_to_the_end(person, f"/api/conversations/{id}/export", begun))
    await begun.wait()
    await person.http.delete(f"/api/conversations/{id}")
    async with asyncio.timeout(30):
        with pytest.raises(httpx.TransportError):
            await reading

    await no_stream_is_open(person)
    assert REQUESTS_FAILED._value.get() == faults
    assert errors_in(caplog) == []


async def test_exports_count_as_streams(person: Client, endless_exports: None) -> None:
    path = f"/api/conversations/{await conversation_of(person)}/export"
    begun = [asyncio.Event() for _ in range(STREAMS_MAX)]

    reading = [asyncio.create_task(read_to_the_end(person, path, each)) for each in begun]
    for each in begun:
        await each.wait()
    refused = await person.http.get(path)
    for task in reading:
        task.cancel()

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert "retry-after" in refused.headers
    await no_stream_is_open(person)


async def test_an_export_that_nobody_reads_is_dropped_without_a_fault(
    person: Client,
    endless_exports: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(slow_readers, "READ_WITHIN_S", 0.2)
    id = await conversation_of(person, "/demo tokens=2 rate=0\n" + "x" * 100_000)
    faults, address = REQUESTS_FAILED._value.get(), urlsplit(str(person.http.base_url))

    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            f"GET /api/conversations/{id}/export HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: {person.http.headers['authorization']}\r\n\r\n".encode()
        )
        await one_stream_is_open(person)
        await no_stream_is_open(person)
        rest = await asyncio.to_thread(read_all, connection)

    assert not rest.endswith(b"0\r\n\r\n"), "it looks whole"
    assert REQUESTS_FAILED._value.get() == faults
    assert errors_in(caplog) == []


async def one_stream_is_open(person: Client) -> None:
    async with asyncio.timeout(30):
        while not (await person.get("/status"))["web"]["open_streams"]:
            await asyncio.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    connection.settimeout(30)
    with connection.makefile("rb") as file:
        return file.read()


def errors_in(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]
