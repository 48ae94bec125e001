"""Sessions of browsers: cookies of several installations on one host, and sessions in use."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import timedelta
from http.cookies import SimpleCookie

import httpx
import pytest

from server.history.tables import now
from server.identity.credentials import COOKIE
from server.identity.secrets import digest
from tests.in_process import InProcess

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def cookie_of(response: httpx.Response) -> tuple[str, str]:
    [(name, morsel)] = SimpleCookie(response.headers["set-cookie"]).items()
    return name, morsel.value


@pytest.fixture(scope="module")
def installation(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("sessions"), valkey) as installation:
        yield installation


@pytest.fixture
async def browsing(installation: InProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=installation.url, trust_env=False, headers=SAME_ORIGIN
    ) as browser:
        yield browser


async def test_installations_on_other_ports_have_cookies_of_their_own(
    browsing: httpx.AsyncClient,
) -> None:
    opened = await browsing.post("/api/session")
    name, token = cookie_of(opened)
    of_another = {"Cookie": f"{COOKIE}_1=another; {COOKIE}=old; {name}={token}"}

    shown = await browsing.get("/api/session", headers=of_another)

    assert name == f"{COOKIE}_{browsing.base_url.port}"
    assert shown.json() == opened.json()


async def test_a_cookie_of_an_earlier_version_is_accepted_and_replaced(
    browsing: httpx.AsyncClient,
) -> None:
    opened = await browsing.post("/api/session")
    name, token = cookie_of(opened)
    browsing.cookies.clear()

    shown = await browsing.get("/api/session", headers={"Cookie": f"{COOKIE}={token}"})

    assert shown.json() == opened.json()
    assert cookie_of(shown) == (name, token)


async def test_any_session_cookie_makes_a_request_without_an_origin_suspicious(
    installation: InProcess,
) -> None:
    async with httpx.AsyncClient(base_url=installation.url, trust_env=False) as browser:
        refused = await browser.post("/api/session", headers={"Cookie": f"{COOKIE}_1=another"})

    assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")


@pytest.mark.parametrize(("left", "prolonged"), [(0.4, True), (0.6, False), (-0.1, False)])
async def test_a_session_in_use_does_not_expire(
    left: float, prolonged: bool, installation: InProcess, browsing: httpx.AsyncClient
) -> None:
    _, token = cookie_of(await browsing.post("/api/session"))
    ttl = timedelta(seconds=installation.settings.auth.session_ttl_s)
    with closing(sqlite3.connect(installation.settings.data_dir / "tidemark.db")) as database:
        expires_at = f"{now() + left * ttl:%Y-%m-%d %H:%M:%S.%f}"
        of_session = "WHERE sha256 = ?", (digest(token),)
        database.execute(
            f"UPDATE browser_session SET expires_at = '{expires_at}' {of_session[0]}", of_session[1]
        )
        database.commit()

        shown = await browsing.get("/api/conversations")

        [after] = database.execute(
            f"SELECT expires_at FROM browser_session {of_session[0]}", of_session[1]
        ).fetchone()
    assert (shown.status_code == 200) == (left > 0)
    assert (after > expires_at) == prolonged
