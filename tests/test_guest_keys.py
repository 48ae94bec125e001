"""What a guest leaves behind: no key outlives the session, and nothing is lost after a merge."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from server.identity.callers import Callers
from tests.client import Client
from tests.graph import code, mutate, mutation, refusal
from tests.in_process import InProcess
from tests.test_guest_merge import SAME_ORIGIN, link_token, sign_in

pytestmark = pytest.mark.quick

CREATE_KEY = mutation("createApiKey", "secret")
INSTANT = "/demo tokens=2 rate=0"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, valkey: str) -> Iterator[InProcess]:
    settings = {"auth": {"session_ttl_s": 5}}
    with InProcess(tmp_path_factory.mktemp("guests"), valkey, settings) as installation:
        yield installation


@pytest.fixture
def other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Revocations are not known at once, as on a process that did not do them."""
    monkeypatch.setattr(Callers, "forget", lambda *_arguments: None)
    monkeypatch.setattr("server.identity.callers.CACHED_S", 60.0)


async def become_guest(client: Client) -> None:
    client.http.headers.update(SAME_ORIGIN)
    assert (await client.http.post("/api/session", json={})).status_code == 201


async def make_key(client: Client) -> str:
    return str((await mutate(client, "createApiKey", "secret", name="k"))["secret"])


async def test_a_guests_keys_end_with_the_guests_session(installation: InProcess) -> None:
    async with Client(installation.url) as browser:
        await become_guest(browser)
        async with Client(installation.url, await make_key(browser)) as by_key:
            assert (await by_key.http.get("/api/session")).status_code == 200

            async with asyncio.timeout(60):
                while (await by_key.http.get("/api/session")).status_code != 401:
                    await asyncio.sleep(0.1)


async def test_a_guest_cannot_ask_for_a_key_that_outlives_the_session(
    installation: InProcess,
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    async with Client(installation.url) as browser:
        await become_guest(browser)

        error = await refusal(
            browser, CREATE_KEY, input={"name": "k", "expiresAt": later.isoformat()}
        )

    assert error["extensions"]["errors"][0]["pointer"] == "/expiresAt"


@pytest.mark.parametrize("bring", [True, False])
async def test_a_credential_that_signing_in_ended_stores_nothing_more(
    installation: InProcess, other_process: None, *, bring: bool
) -> None:
    async with Client(installation.url) as browser:
        await become_guest(browser)
        secret, before = await make_key(browser), dict(browser.http.cookies)
        async with (
            Client(installation.url, secret) as by_key,
            Client(installation.url, cookies=before) as by_cookie,
        ):
            by_cookie.http.headers.update(SAME_ORIGIN)
            for each in (by_key, by_cookie):
                await each.get("/api/session")

            token = await link_token(installation, f"{bring}@example.org")
            await sign_in(browser, token, bring=bring)

            for each in (by_key, by_cookie):
                sent = await each.http.post("/api/messages", json={"text": INSTANT})
                assert (sent.status_code, sent.json()["code"]) == (401, "unauthenticated")
                created = mutation("createConversation")
                assert await code(each, created, input={}) == "unauthenticated"
                assert await code(each, CREATE_KEY, input={"name": "k"}) == "unauthenticated"


async def test_keys_that_signing_in_revokes_are_refused_at_once(installation: InProcess) -> None:
    async with Client(installation.url) as browser:
        await become_guest(browser)
        async with Client(installation.url, await make_key(browser)) as by_key:
            await by_key.get("/api/session")

            token = await link_token(installation, "now@example.org")
            await sign_in(browser, token)

            assert (await by_key.http.get("/api/session")).status_code == 401
