"""Authentication: keys, guests, sign-in links, cross-site requests, isolation, and secrets."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import httpx
import pytest

from server.api.operations import OPERATIONS, Operation
from server.command import people
from server.identity.secrets import new_key, new_token
from tests.client import TERMINAL, Client
from tests.system import System

COOKIE = "tidemark_session"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
REVOKED_WITHIN_S = 15
STALLED = "/demo tokens=10 rate=0 stall_after=3"

Make = Callable[..., System]


class Turn(NamedTuple):
    """A settled turn of a conversation."""

    conversation: str
    question: str
    answer: str
    generation: str


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An installation that accepts as many guests as these tests need."""
    system = System(
        tmp_path_factory.mktemp("identity"), {"auth": {"guest_sessions_max_per_hour_per_ip": 1000}}
    )
    try:
        yield system.start()
    finally:
        system.close()


@pytest.fixture(scope="module")
def ada_key(installation: System) -> str:
    return installation.new_key(account="ada@example.org")


@pytest.fixture(scope="module")
def bob_key(installation: System) -> str:
    return installation.new_key(account="bob@example.org")


@pytest.fixture
async def ada(installation: System, ada_key: str) -> AsyncIterator[Client]:
    async with Client(installation.web.url, ada_key) as client:
        yield client


@pytest.fixture
async def bob(installation: System, bob_key: str) -> AsyncIterator[Client]:
    async with Client(installation.web.url, bob_key) as client:
        yield client


@pytest.fixture
async def signed_out(installation: System) -> AsyncIterator[Client]:
    async with Client(installation.web.url) as client:
        yield client


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refusal, after checking its status and code."""
    assert response.headers.get("content-type") == "application/problem+json", (
        response.status_code,
        response.text[:300],
    )
    problem = dict(response.json())
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), (
        problem
    )
    return problem


async def guest_of(client: Client) -> str:
    """Sign in as a guest; return the cookie, which the client does not keep."""
    response = await client.http.post("/api/session")
    assert response.status_code == 201, response.text
    client.http.cookies.clear()
    return str(parts_of_cookie(response)[1])


async def settled_turn(client: Client) -> Turn:
    """Send a message and read the answer to its end."""
    sent = await client.send("/demo tokens=3 rate=0")
    await client.read(sent["generation_id"])
    return Turn(
        sent["conversation_id"], sent["question_id"], sent["message_id"], sent["generation_id"]
    )


async def wait_until(condition: Callable[[], Any], within_s: float = REVOKED_WITHIN_S) -> None:
    """Wait until an asynchronous condition is true."""
    async with asyncio.timeout(within_s):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


async def is_refused(client: Client) -> bool:
    return (await client.http.get("/api/session")).status_code == 401


def key_id_of(system: System, secret: str) -> str:
    [found] = [
        row[0]
        for row in people.list_keys(system.settings)
        if secret.startswith(row[1].removesuffix("…"))
    ]
    return found


def revoke(system: System, secret: str) -> None:
    people.revoke_key(system.settings, key_id_of(system, secret))


def parts_of_cookie(response: httpx.Response) -> tuple[str, str, dict[str, str]]:
    """Name, value and attributes of the only cookie that was set."""
    [header] = response.headers.get_list("set-cookie")
    pair, *attributes = (part.strip() for part in header.split(";"))
    name, _, value = pair.partition("=")
    return (
        name,
        value.strip('"'),
        {key.lower(): value for key, _, value in (each.partition("=") for each in attributes)},
    )


async def test_a_key_authenticates_with_any_case_of_the_scheme(
    signed_out: Client, ada_key: str
) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        response = await signed_out.http.get(
            "/api/session", headers={"Authorization": f"{scheme} {ada_key}"}
        )

        assert response.status_code == 200
        assert response.json()["guest"] is False


FORGED = new_key().secret
BAD_AUTHORIZATIONS = {
    "nothing": "",
    "a scheme alone": "Bearer",
    "no scheme": FORGED,
    "basic": "Basic YWRhOmFkYQ==",
    "digest": "Digest username=ada",
    "another scheme": f"Token {FORGED}",
    "a word": "Bearer nonsense",
    "the prefix": "Bearer tmk_",
    "too short": f"Bearer {FORGED[:-1]}",
    "too long": f"Bearer {FORGED}0",
    "another prefix": f"Bearer sk_{FORGED[4:]}",
    "two keys": f"Bearer {FORGED} {FORGED}",
    "a comma": f"Bearer {FORGED}, {FORGED}",
    "not ASCII": f"Bearer {FORGED[:-1]}é".encode(),
    "not Latin": "Bearer ключ".encode(),
    "very long": "Bearer tmk_" + "a" * 30_000,
    "well formed and unknown": f"Bearer {FORGED}",
    "a wrong checksum": f"Bearer {FORGED[:-1]}{'0' if FORGED[-1] != '0' else '1'}",
    "a typing error": f"Bearer {FORGED[:10]}{'0' if FORGED[10] != '0' else '1'}{FORGED[11:]}",
}


@pytest.mark.parametrize("authorization", BAD_AUTHORIZATIONS.values(), ids=BAD_AUTHORIZATIONS)
async def test_invalid_credentials_are_refused(
    authorization: str | bytes, signed_out: Client
) -> None:
    response = await signed_out.http.get(
        "/api/conversations", headers={"Authorization": authorization}
    )

    problem_of(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"


async def test_an_invalid_key_is_refused_even_with_a_valid_cookie(signed_out: Client) -> None:
    cookie = await guest_of(signed_out)

    response = await signed_out.http.get(
        "/api/session",
        headers={"Authorization": f"Bearer {FORGED}", "Cookie": f"{COOKIE}={cookie}"},
    )

    problem_of(response, 401, "unauthenticated")


async def test_an_expired_key_does_not_authenticate(installation: System) -> None:
    secret = await asyncio.to_thread(
        people.create_key, installation.settings, "short-lived", None, "1m"
    )
    key_id = await asyncio.to_thread(key_id_of, installation, secret)
    with (
        closing(sqlite3.connect(installation.settings.data_dir / "tidemark.db")) as database,
        database,
    ):
        database.execute(
            "UPDATE api_key SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?", (key_id,)
        )

    async with Client(installation.web.url, secret) as client:
        response = await client.http.get("/api/session")

    problem_of(response, 401, "unauthenticated")


async def test_a_guest_gets_an_account_and_an_http_only_cookie(
    signed_out: Client,
) -> None:
    response = await signed_out.http.post("/api/session")

    name, value, attributes = parts_of_cookie(response)
    assert (response.status_code, name.startswith(COOKIE)) == (201, True)
    assert (attributes["path"], attributes["samesite"].lower(), attributes["max-age"]) == (
        "/",
        "lax",
        "34560000",
    )
    assert "httponly" in attributes
    assert not {"domain", "secure"} & set(attributes)
    assert value not in response.text
    session = (await signed_out.http.get("/api/session")).json()
    assert session == response.json()
    assert (session["guest"], session["user"]) == (True, None)


async def test_every_guest_has_a_separate_account(installation: System) -> None:
    async with Client(installation.web.url) as one, Client(installation.web.url) as other:
        accounts = {
            (await guest.http.post("/api/session")).json()["account"]["id"]
            for guest in (one, other)
        }
        sent = await one.http.post(
            "/api/messages", json={"text": "/demo tokens=1 rate=0"}, headers=SAME_ORIGIN
        )

        assert len(accounts) == 2
        assert sent.status_code == 202
        assert len((await one.get("/api/conversations"))["data"]) == 1
        assert (await other.get("/api/conversations"))["data"] == []


UNKNOWN_TOKEN = "Zm9yZXZlci11bmtub3duLXRva2VuLW9mLTI1Ni1iaXRz"


@pytest.mark.parametrize(
    "cookie",
    ["", "x", "x" * 5000, "\xe9", UNKNOWN_TOKEN, f'"{UNKNOWN_TOKEN}"'],
    ids=lambda text: text[:9],
)
async def test_an_invalid_cookie_is_refused(cookie: str, signed_out: Client) -> None:
    response = await signed_out.http.get(
        "/api/session", headers={"Cookie": f"{COOKIE}={cookie}".encode("latin-1")}
    )

    problem_of(response, 401, "unauthenticated")


@pytest.mark.slow
async def test_behind_https_the_cookie_is_bound_to_the_host(new_system: Make) -> None:
    settings = {"server": {"public_url": "https://chat.example"}, "auth": {"guests": True}}
    system = await asyncio.to_thread(lambda: new_system(**settings).start(workers=0))
    async with Client(system.web.url) as client:
        client.http.headers.update({"Host": "chat.example", "Origin": "https://chat.example"})

        opened = await client.http.post("/api/session")

        name, value, attributes = parts_of_cookie(opened)
        assert name == f"__Host-{COOKIE}"
        assert {"httponly", "secure"} <= set(attributes)
        assert (attributes["path"], attributes["samesite"].lower(), attributes.get("domain")) == (
            "/",
            "lax",
            None,
        )
        text = {"text": "/demo tokens=1"}
        sent = await client.http.post(
            "/api/messages", json=text, headers={"Cookie": f"{name}={value}"}
        )
        assert sent.status_code == 202
        without_prefix = await client.http.post(
            "/api/messages", json=text, headers={"Cookie": f"{COOKIE}={value}"}
        )
        problem_of(without_prefix, 401, "unauthenticated")
        cross_site = {"Cookie": f"{name}={value}", "Origin": "http://chat.example.org"}
        problem_of(
            await client.http.post("/api/messages", json=text, headers=cross_site),
            403,
            "cross_site",
        )
        closed = await client.http.delete("/api/session", headers={"Cookie": f"{name}={value}"})
        name, value, attributes = parts_of_cookie(closed)
        assert (name, value, attributes["max-age"]) == (f"__Host-{COOKIE}", "", "0")
        assert "secure" in attributes


@pytest.mark.slow
async def test_guest_sessions_per_address_and_hour_are_limited(new_system: Make) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(auth={"guests": True, "guest_sessions_max_per_hour_per_ip": 2}).start(
            workers=0
        )
    )
    async with Client(system.web.url) as client:
        responses = []
        for _ in range(3):
            client.http.cookies.clear()  # a new guest from the same address
            responses.append(await client.http.post("/api/session", headers=SAME_ORIGIN))
        client.http.cookies.clear()
        forwarded = await client.http.post(
            "/api/session", headers=SAME_ORIGIN | {"X-Forwarded-For": "192.0.2.1"}
        )

    assert [response.status_code for response in responses] == [201, 201, 429]
    problem = problem_of(responses[2], 429, "too_many_guest_sessions")
    assert problem["limit"] == 2
    assert responses[2].headers["retry-after"] == str(problem["retry_after_s"])
    assert "set-cookie" not in responses[2].headers
    problem_of(forwarded, 429, "too_many_guest_sessions")


@pytest.mark.slow
async def test_a_link_signs_in_where_guests_are_disabled(new_system: Make) -> None:
    system = await asyncio.to_thread(lambda: new_system(auth={"guests": False}).start(workers=0))
    token = await asyncio.to_thread(link_token, system, "ada@example.org")
    async with Client(system.web.url) as client:
        guest = await client.http.post("/api/session")
        user = await client.http.post("/api/session", json={"token": token})

    problem_of(guest, 403, "guests_not_allowed")
    assert "set-cookie" not in guest.headers
    assert user.status_code == 201


def link_token(system: System, email: str) -> str:
    """The token of a new sign-in link; creates the user if necessary."""
    if email not in {row[1] for row in people.list_users(system.settings)}:
        people.create_user(system.settings, email, admin=False)
    return people.link(system.settings, email).partition("#token=")[2]


async def test_a_link_signs_in_only_once(installation: System, signed_out: Client) -> None:
    token = await asyncio.to_thread(link_token, installation, "once@example.org")

    responses = await asyncio.gather(
        *(
            signed_out.http.post("/api/session", json={"token": token}, headers=SAME_ORIGIN)
            for _ in range(10)
        )
    )

    [opened] = [response for response in responses if response.status_code == 201]
    assert opened.json()["user"]["email"] == "once@example.org"
    assert opened.json()["guest"] is False
    for response in responses:
        if response is not opened:
            problem_of(response, 401, "unauthenticated")
            assert "set-cookie" not in response.headers
    assert (await signed_out.http.get("/api/session")).json() == opened.json()


async def test_two_links_sign_in_to_the_same_account(
    installation: System, signed_out: Client
) -> None:
    tokens = [
        await asyncio.to_thread(link_token, installation, "twice@example.org") for _ in range(2)
    ]

    opened = [
        (
            await signed_out.http.post("/api/session", json={"token": token}, headers=SAME_ORIGIN)
        ).json()
        for token in tokens
    ]

    assert opened[0] == opened[1]


async def test_an_expired_or_unknown_link_is_refused(
    installation: System, signed_out: Client
) -> None:
    token = await asyncio.to_thread(link_token, installation, "late@example.org")
    with (
        closing(sqlite3.connect(installation.settings.data_dir / "tidemark.db")) as database,
        database,
    ):
        database.execute(
            "UPDATE sign_in_link SET expires_at = '2020-01-01 00:00:00.000000' WHERE "
            "used_at IS NULL"
        )

    for each in (token, new_token(), "nonsense"):
        problem_of(
            await signed_out.http.post("/api/session", json={"token": each}), 401, "unauthenticated"
        )


async def test_signing_out_applies_to_every_process(
    installation: System, signed_out: Client
) -> None:
    cookie = {"Cookie": f"{COOKIE}={await guest_of(signed_out)}"} | SAME_ORIGIN
    await signed_out.http.get("/api/session", headers=cookie)

    closed = await signed_out.http.delete("/api/session", headers=cookie)

    name, value, attributes = parts_of_cookie(closed)
    assert name.startswith(COOKIE)
    assert (closed.status_code, value, attributes["max-age"]) == (204, "", "0")
    problem_of(await signed_out.http.get("/api/session", headers=cookie), 401, "unauthenticated")


CROSS_SITE = {
    "a foreign origin": {"Origin": "https://evil.example"},
    "no origin at all": {"Origin": "null"},
    "the same host with another scheme": {"Origin": "https://127.0.0.1"},
    "the same host on another port": {"Origin": "http://127.0.0.1:1"},
    "the same host as a prefix": {"Origin": "http://127.0.0.1.evil.example"},
    "a foreign origin that claims to be the same": {
        "Origin": "https://evil.example",
        "Sec-Fetch-Site": "same-origin",
    },
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "a sister site": {"Sec-Fetch-Site": "same-site"},
    "a word": {"Sec-Fetch-Site": "nonsense"},
    "nothing": {},
}


async def test_a_proxy_that_hides_https_is_explained(
    guest: tuple[str, Turn], signed_out: Client
) -> None:
    host = signed_out.http.base_url.netloc.decode()
    headers = {"Cookie": f"{COOKIE}={guest[0]}", "Origin": f"https://{host}"}

    refused = await signed_out.http.post("/api/messages", json={"text": "x"}, headers=headers)

    assert (
        f"set server.public_url to 'https://{host}'"
        in problem_of(refused, 403, "cross_site")["detail"]
    )


CHANGING = [operation for operation in OPERATIONS if operation.method != "GET"]


@pytest.mark.parametrize(
    "operation", CHANGING, ids=lambda operation: f"{operation.method} {operation.path}"
)
@pytest.mark.parametrize("headers", CROSS_SITE.values(), ids=CROSS_SITE)
async def test_a_cross_site_request_with_a_cookie_is_refused(
    headers: dict[str, str], operation: Operation, guest: tuple[str, Turn], signed_out: Client
) -> None:
    cookie, turn = guest
    headers = headers | {"Cookie": f"{COOKIE}={cookie}"}

    response = await signed_out.http.request(
        operation.method, path_of(operation, turn), json=body_of(operation), headers=headers
    )

    problem_of(response, 403, "cross_site")
    assert "set-cookie" not in response.headers


@pytest.fixture(scope="module")
def guest(installation: System) -> tuple[str, Turn]:
    """The cookie of a guest, and a turn of that guest."""
    with httpx.Client(base_url=installation.web.url, trust_env=False) as client:
        cookie = parts_of_cookie(client.post("/api/session"))[1]
        headers = SAME_ORIGIN | {"Accept": "text/event-stream"}
        response = client.post(
            "/api/messages", json={"text": "/demo tokens=3 rate=0"}, headers=headers
        )
        ids = (
            response.headers[f"tidemark-{name}"]
            for name in ("conversation", "question", "message", "generation")
        )
        return cookie, Turn(*ids)


async def test_refused_cross_site_requests_changed_nothing(
    guest: tuple[str, Turn], signed_out: Client
) -> None:
    cookie, turn = guest
    headers = {"Cookie": f"{COOKIE}={cookie}", "Sec-Fetch-Site": "cross-site"}

    [conversation] = (await signed_out.http.get("/api/conversations", headers=headers)).json()[
        "data"
    ]
    messages = (
        await signed_out.http.get(
            f"/api/conversations/{turn.conversation}/messages", headers=headers
        )
    ).json()["data"]

    assert conversation["title"] == "/demo tokens=3 rate=0"
    assert [message["id"] for message in messages] == [turn.question, turn.answer]
    assert all(len(message["siblings"]) == 1 for message in messages)


@pytest.mark.parametrize(
    "site",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "{url}"},
        {"Origin": "{url}", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_a_same_origin_request_with_a_cookie_is_accepted(
    site: dict[str, str], installation: System, signed_out: Client
) -> None:
    headers = {name: value.format(url=installation.web.url) for name, value in site.items()}
    cookie = {"Cookie": f"{COOKIE}={await guest_of(signed_out)}"}

    response = await signed_out.http.post(
        "/api/messages", json={"text": "/demo tokens=1 rate=0"}, headers=headers | cookie
    )

    assert response.status_code == 202


async def test_only_a_valid_key_exempts_a_cross_site_request(
    installation: System, signed_out: Client, ada_key: str
) -> None:
    foreign, cookie = (
        {"Origin": "https://evil.example"},
        {"Cookie": f"{COOKIE}={await guest_of(signed_out)}"},
    )
    message = {"text": "/demo tokens=1 rate=0"}

    with_key = await signed_out.http.post(
        "/api/messages", json=message, headers=foreign | {"Authorization": f"Bearer {ada_key}"}
    )
    with_cookie = await signed_out.http.post(
        "/api/messages", json=message, headers=foreign | cookie | {"Authorization": "Basic x"}
    )

    assert with_key.status_code == 202
    assert with_cookie.status_code in (401, 403)


async def test_a_guest_session_cannot_be_created_from_another_site(signed_out: Client) -> None:
    problem_of(
        await signed_out.http.post("/api/session", headers={"Origin": "https://evil.example"}),
        403,
        "cross_site",
    )


FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "[::2]",
    "0.0.0.0",
    "192.0.2.1",
    "evil@evil",
    "",
    "[",
    "[::1",
    "]",
    "[nonsense]",
    "a b",
    "\xe9",
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_a_foreign_host_is_refused(host: str, ada: Client) -> None:
    response = await ada.http.get("/api/conversations", headers={"Host": host.encode("latin-1")})

    problem_of(response, 400, "host_not_allowed")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "LOCALHOST", "127.0.0.1", "[::1]", "[::1]:8000"]
)
async def test_a_loopback_host_is_accepted(host: str, ada: Client) -> None:
    assert (await ada.http.get("/api/conversations", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.7:8000", "[", ""])
async def test_health_checks_accept_any_host(host: str, signed_out: Client) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await signed_out.http.get(path, headers={"Host": host})).status_code == 200


async def test_an_allowed_host_is_accepted_and_others_are_refused(new_system: Make) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(
            server={"allowed_hosts": ["Chat.Example"], "metrics_token": "s3cret"}
        ).start(workers=0)
    )
    async with Client(system.web.url) as client:
        assert (
            await client.http.get("/api/models", headers={"Host": "chat.example:8000"})
        ).status_code == 401
        problem_of(
            await client.http.get("/api/models", headers={"Host": "other.example"}),
            400,
            "host_not_allowed",
        )

        for path in ("/status", "/metrics"):
            for token in (
                None,
                "Bearer",
                "Bearer wrong",
                "Bearer s3cre",
                "Basic s3cret",
                "Bearer ключ".encode(),
            ):
                response = await client.http.get(
                    path, headers={"Authorization": token} if token else {}
                )
                problem_of(response, 404, "not_found")
            headers = {"Authorization": "Bearer s3cret", "X-Forwarded-For": "192.0.2.1"}
            assert (await client.http.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/status", "/metrics"])
async def test_status_and_metrics_are_refused_to_proxied_requests(
    path: str, signed_out: Client
) -> None:
    assert (await signed_out.http.get(path)).status_code == 200

    for header in ("X-Forwarded-For", "Forwarded"):
        problem_of(await signed_out.http.get(path, headers={header: "192.0.2.1"}), 404, "not_found")


OWNED = [operation for operation in OPERATIONS if "{id}" in operation.path]
CLOSED = [
    each
    for each in OPERATIONS
    if each.path.startswith("/api/") and (each.method, each.path) != ("POST", "/api/session")
]


def path_of(operation: Operation, turn: Turn) -> str:
    """The path of an operation with the matching id."""
    noun = operation.path.split("/")[2]
    message = turn.question if operation.path.endswith("/edit") else turn.answer
    return operation.path.replace(
        "{id}",
        {
            "messages": message,
            "generations": turn.generation,
            "conversations": turn.conversation,
        }.get(noun, ""),
    )


def body_of(operation: Operation) -> dict[str, Any] | None:
    """A body that the owner could send."""
    if operation.body is None:
        return None
    if operation.path in ("/api/messages", "/api/messages/{id}/edit"):
        return {"text": "/demo tokens=1 rate=0"}
    if operation.path == "/api/session/preview":
        return {"token": "no such link"}
    return {"title": "stolen"} if operation.method == "PATCH" else {}


async def all_of(client: Client, turn: Turn) -> Any:
    """Everything that an owner can see of a conversation."""
    return [
        await client.get(f"/api/conversations/{turn.conversation}"),
        await client.get(f"/api/conversations/{turn.conversation}/messages"),
        await client.snapshot(turn.generation),
        [each["id"] for each in (await client.get("/api/conversations"))["data"]],
    ]


@pytest.mark.parametrize(
    "operation", OWNED, ids=lambda operation: f"{operation.method} {operation.path}"
)
async def test_another_account_can_neither_see_nor_change_a_conversation(
    operation: Operation, ada: Client, bob: Client, signed_out: Client
) -> None:
    turn = await settled_turn(ada)
    before = await all_of(ada, turn)
    path, body = path_of(operation, turn), body_of(operation)

    by_bob = await bob.http.request(operation.method, path, json=body)
    by_signed_out = await signed_out.http.request(operation.method, path, json=body)

    problem_of(by_bob, 404, "not_found")
    problem_of(by_signed_out, 401, "unauthenticated")
    assert await all_of(ada, turn) == before
    for id in turn:
        assert id not in by_bob.text + by_signed_out.text


@pytest.mark.parametrize(
    "operation", CLOSED, ids=lambda operation: f"{operation.method} {operation.path}"
)
async def test_unauthenticated_requests_are_refused(
    operation: Operation, signed_out: Client
) -> None:
    response = await signed_out.http.request(
        operation.method, operation.path.replace("{id}", "x"), json=body_of(operation)
    )

    problem_of(response, 401, "unauthenticated")


async def test_the_list_has_only_conversations_of_the_account(ada: Client, bob: Client) -> None:
    turn = await settled_turn(ada)

    listed = await bob.get("/api/conversations", limit=100)

    assert turn.conversation not in {each["id"] for each in listed["data"]}


async def test_another_account_can_neither_follow_nor_stop_an_answer(
    ada: Client, bob: Client
) -> None:
    sent = await ada.send(STALLED)
    await ada.read(sent["generation_id"], stop_after=3)

    problem_of(await bob.http.get(sent["events_url"]), 404, "not_found")
    problem_of(
        await bob.http.post(f"/api/generations/{sent['generation_id']}/cancel"), 404, "not_found"
    )

    assert (await ada.snapshot(sent["generation_id"]))["status"] == "running"
    await ada.cancel(sent["generation_id"])


async def test_revoking_a_key_ends_its_streams_and_refuses_it(
    installation: System, ada: Client
) -> None:
    secret = await asyncio.to_thread(installation.new_key, "to be revoked", "ada@example.org")
    async with Client(installation.web.url, secret) as revoked:
        sent = await ada.send(STALLED)
        revoked_reader = asyncio.create_task(revoked.read(sent["generation_id"]))
        other_reader = asyncio.create_task(ada.read(sent["generation_id"]))
        await revoked.read(sent["generation_id"], stop_after=3)

        await asyncio.to_thread(revoke, installation, secret)

        async with asyncio.timeout(REVOKED_WITHIN_S):
            events = await revoked_reader
        assert not other_reader.done()
        assert not {event.type for event in events} & set(TERMINAL)
        await wait_until(lambda: is_refused(revoked))
    await ada.cancel(sent["generation_id"])
    assert (await other_reader)[-1].type == "cancelled"


@pytest.mark.slow
async def test_an_open_stream_ends_when_its_session_expires(new_system: Make) -> None:
    system = await asyncio.to_thread(lambda: new_system(auth={"session_ttl_s": 3}).start())
    async with Client(system.web.url) as client:
        client.http.headers.update(SAME_ORIGIN | {"Cookie": f"{COOKIE}={await guest_of(client)}"})
        sent = await client.send(STALLED)

        async with asyncio.timeout(REVOKED_WITHIN_S):
            events = await client.read(sent["generation_id"])

        assert not {event.type for event in events} & set(TERMINAL)
        await wait_until(lambda: is_refused(client))


@pytest.mark.slow
async def test_no_secret_is_in_a_log_or_in_the_database(new_system: Make) -> None:
    system = await asyncio.to_thread(lambda: new_system().start())
    key = await asyncio.to_thread(system.new_key)
    link = await asyncio.to_thread(link_token, system, "ada@example.org")
    async with Client(system.web.url, key) as client, Client(system.web.url) as browser:
        await settled_turn(client)
        await client.http.post("/api/messages", content=b"{")
        await client.http.get("/api/conversations", headers={"Host": "["})
        await client.http.get("/api/nothing", params={"key": key})
        guest = await guest_of(browser)
        await browser.http.get("/api/conversations", headers={"Cookie": f"{COOKIE}={guest}"})
        opened = await browser.http.post("/api/session", json={"token": link})
        await browser.http.post("/api/session", json={"token": link}, headers=SAME_ORIGIN)
        secrets = {"key": key, "link": link, "guest": guest, "user": parts_of_cookie(opened)[1]}
        break_the_database(system)
        for headers in (
            {"Authorization": f"Bearer {key}"},
            {"Cookie": f"{COOKIE}={guest}"} | SAME_ORIGIN,
        ):
            fault = await browser.http.post("/api/messages", json={"text": "x"}, headers=headers)
            problem_of(fault, 500, "internal")
        await browser.http.post("/api/session", json={"token": link}, headers=SAME_ORIGIN)

    files = [process.log for process in system.processes] + list(
        system.settings.data_dir.glob("tidemark.db*")
    )
    assert any(b"internal_error" in process.log.read_bytes() for process in system.of("web"))
    assert len(files) >= 4
    leaks = [
        (file.name, name)
        for file in files
        for name, secret in secrets.items()
        if secret.encode() in file.read_bytes()
    ]
    assert leaks == []


def break_the_database(system: System) -> None:
    """Rename tables, so that requests that need them fail."""
    with closing(sqlite3.connect(system.settings.data_dir / "tidemark.db")) as database, database:
        database.execute("ALTER TABLE conversation RENAME TO conversation_gone")
        database.execute("ALTER TABLE sign_in_link RENAME TO sign_in_link_gone")


async def test_a_returning_guest_keeps_the_session(installation: System) -> None:
    async with Client(installation.web.url) as guest:
        first = await guest.http.post("/api/session", headers=SAME_ORIGIN)
        again = await guest.http.post("/api/session", headers=SAME_ORIGIN)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
