"""Every refusal of an operation is in openapi.json."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from server.api.openapi import openapi
from server.api.operations import OPERATIONS, Operation
from server.history.database import Database, DatabaseAway
from tests.client import Client
from tests.in_process import InProcess
from tests.test_guest_merge import SAME_ORIGIN

pytestmark = pytest.mark.quick

UNKNOWN = "conv_01K00000000000000000000000"
ALL = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=lambda each: f"{each.method} {each.path}"
)
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, valkey: str) -> Iterator[InProcess]:
    settings = {"server": {"streams_max_per_account": 1}}
    with InProcess(tmp_path_factory.mktemp("refusals"), valkey, settings) as installation:
        yield installation


async def call(client: Client, operation: Operation, **request: Any) -> httpx.Response:
    """The response to an operation, which must be documented, without the body of a stream."""
    path = operation.path.replace("{id}", UNKNOWN)
    async with client.http.stream(operation.method, path, **request) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await answer.aread()
    responses = openapi()["paths"][operation.path][operation.method.lower()]["responses"]
    assert str(answer.status_code) in responses, answer.status_code
    return answer


@ALL
async def test_of_callers_without_credentials(
    operation: Operation, installation: InProcess
) -> None:
    async with Client(installation.url) as nobody:
        answer = await call(nobody, operation)

    assert operation.public or answer.status_code == 401


@ALL
async def test_of_requests_from_other_sites(operation: Operation, installation: InProcess) -> None:
    async with Client(installation.url) as browser:
        await browser.http.post("/api/session", headers=SAME_ORIGIN)
        answer = await call(browser, operation, headers={"Sec-Fetch-Site": "cross-site"})

    assert operation.method == "GET" or answer.status_code == 403


@ALL
async def test_of_other_hosts(operation: Operation, caller: Client) -> None:
    await call(caller, operation, headers={"Host": "other.example.org"})


@ALL
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x":1}', b" " * 2_000_000])
async def test_of_bodies(operation: Operation, caller: Client, content: bytes) -> None:
    if operation.body is not None:
        await call(caller, operation, content=content)


@ALL
async def test_of_unknown_ids_and_parameters(operation: Operation, caller: Client) -> None:
    await call(caller, operation)
    for parameter in operation.parameters:
        if parameter.where == "query":
            await call(caller, operation, params={parameter.name: "no\0sense"})


@ALL
async def test_of_accounts_at_their_limit_of_streams(operation: Operation, caller: Client) -> None:
    async with caller.http.stream("GET", "/api/events") as held:
        assert held.status_code == 200
        await call(caller, operation, headers=STREAM)


@ALL
async def test_of_a_database_that_is_away(
    operation: Operation, caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.get("/api/session")  # it is cached

    async def fail(*_arguments: object, **_options: object) -> None:
        raise DatabaseAway("away")

    monkeypatch.setattr(Database, "read", fail)
    monkeypatch.setattr(Database, "write", fail)

    await call(caller, operation, json={} if operation.body else None)
