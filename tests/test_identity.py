"""Who is asking: keys, guests, sign-in links, other sites, other accounts, and secrets that stay secret."""

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
GONE_WITHIN_S = 15
STALLED = "/demo tokens=10 rate=0 stall_after=3"

Make = Callable[..., System]


class Turn(NamedTuple):
    """A settled turn of a conversation."""

    conversation: str
    question: str
    answer: str
    generation: str


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An installation that takes as many guests as these tests have."""
    system = System(
        tmp_path_factory.mktemp("identity"), {"auth": {"guest_sessions_max_per_hour_per_ip": 1000}}
    )
    try:
        yield system.start()
    finally:
        system.close()


@pytest.fixture(scope="module")
def ada_key(house: System) -> str:
    return house.new_key(account="ada@example.org")


@pytest.fixture(scope="module")
def bob_key(house: System) -> str:
    return house.new_key(account="bob@example.org")


@pytest.fixture
async def ada(house: System, ada_key: str) -> AsyncIterator[Client]:
    async with Client(house.web.url, ada_key) as client:
        yield client


@pytest.fixture
async def bob(house: System, bob_key: str) -> AsyncIterator[Client]:
    async with Client(house.web.url, bob_key) as client:
        yield client


@pytest.fixture
async def nobody(house: System) -> AsyncIterator[Client]:
    async with Client(house.web.url) as client:
        yield client


def problem_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refusal, which has to be this one."""
    assert answer.headers.get("content-type") == "application/problem+json", (
        answer.status_code,
        answer.text[:300],
    )
    problem = dict(answer.json())
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), (
        problem
    )
    return problem


async def guest_of(client: Client) -> str:
    """Signs in as a guest; the cookie. The client does not keep it."""
    answer = await client.http.post("/api/session")
    assert answer.status_code == 201, answer.text
    client.http.cookies.clear()
    return str(answer.cookies[COOKIE])


async def settled_turn(client: Client) -> Turn:
    """Asks, and reads the answer to its end."""
    sent = await client.send("/demo tokens=3 rate=0")
    await client.read(sent["generation_id"])
    return Turn(
        sent["conversation_id"], sent["question_id"], sent["message_id"], sent["generation_id"]
    )


async def comes_true(condition: Callable[[], Any], within_s: float = GONE_WITHIN_S) -> None:
    """Waits for a condition that has to be awaited."""
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


def parts_of_cookie(answer: httpx.Response) -> tuple[str, str, dict[str, str]]:
    """Name, value and attributes of the one cookie that was set."""
    [header] = answer.headers.get_list("set-cookie")
    pair, *attributes = (part.strip() for part in header.split(";"))
    name, _, value = pair.partition("=")
    return (
        name,
        value.strip('"'),
        {key.lower(): value for key, _, value in (each.partition("=") for each in attributes)},
    )


async def test_a_key_opens_the_door(nobody: Client, ada_key: str) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await nobody.http.get(
            "/api/session", headers={"Authorization": f"{scheme} {ada_key}"}
        )

        assert answer.status_code == 200
        assert answer.json()["guest"] is False


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
async def test_what_is_no_key_of_ours_opens_nothing(
    authorization: str | bytes, nobody: Client
) -> None:
    answer = await nobody.http.get("/api/conversations", headers={"Authorization": authorization})

    problem_of(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_bad_key_is_not_made_up_for_by_a_good_cookie(nobody: Client) -> None:
    cookie = await guest_of(nobody)

    answer = await nobody.http.get(
        "/api/session",
        headers={"Authorization": f"Bearer {FORGED}", "Cookie": f"{COOKIE}={cookie}"},
    )

    problem_of(answer, 401, "unauthenticated")


async def test_an_expired_key_opens_nothing(house: System) -> None:
    secret = await asyncio.to_thread(people.create_key, house.settings, "short-lived", None, "1m")
    key_id = await asyncio.to_thread(key_id_of, house, secret)
    with closing(sqlite3.connect(house.settings.data_dir / "tidemark.db")) as database, database:
        database.execute(
            "UPDATE api_key SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?", (key_id,)
        )

    async with Client(house.web.url, secret) as client:
        answer = await client.http.get("/api/session")

    problem_of(answer, 401, "unauthenticated")


async def test_a_guest_gets_an_account_and_a_cookie_that_scripts_cannot_read(
    nobody: Client,
) -> None:
    answer = await nobody.http.post("/api/session")

    name, value, attributes = parts_of_cookie(answer)
    assert (answer.status_code, name) == (201, COOKIE)
    assert (attributes["path"], attributes["samesite"].lower(), attributes["max-age"]) == (
        "/",
        "lax",
        "2592000",
    )
    assert "httponly" in attributes
    assert not {"domain", "secure"} & set(attributes)
    assert value not in answer.text
    shown = (await nobody.http.get("/api/session")).json()
    assert shown == answer.json()
    assert (shown["guest"], shown["user"]) == (True, None)


async def test_every_guest_has_an_account_of_their_own(house: System) -> None:
    async with Client(house.web.url) as one, Client(house.web.url) as other:
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
async def test_what_is_no_cookie_of_ours_opens_nothing(cookie: str, nobody: Client) -> None:
    answer = await nobody.http.get(
        "/api/session", headers={"Cookie": f"{COOKIE}={cookie}".encode("latin-1")}
    )

    problem_of(answer, 401, "unauthenticated")


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
        elsewhere = {"Cookie": f"{name}={value}", "Origin": "http://chat.example.org"}
        problem_of(
            await client.http.post("/api/messages", json=text, headers=elsewhere), 403, "cross_site"
        )
        closed = await client.http.delete("/api/session", headers={"Cookie": f"{name}={value}"})
        name, value, attributes = parts_of_cookie(closed)
        assert (name, value, attributes["max-age"]) == (f"__Host-{COOKIE}", "", "0")
        assert "secure" in attributes


@pytest.mark.slow
async def test_one_address_opens_only_so_many_guest_sessions_in_an_hour(new_system: Make) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(auth={"guests": True, "guest_sessions_max_per_hour_per_ip": 2}).start(
            workers=0
        )
    )
    async with Client(system.web.url) as client:
        answers = []
        for _ in range(3):
            client.http.cookies.clear()  # somebody new, from the same address
            answers.append(await client.http.post("/api/session", headers=SAME_ORIGIN))
        client.http.cookies.clear()
        forwarded = await client.http.post(
            "/api/session", headers=SAME_ORIGIN | {"X-Forwarded-For": "192.0.2.1"}
        )

    assert [answer.status_code for answer in answers] == [201, 201, 429]
    problem = problem_of(answers[2], 429, "too_many_guest_sessions")
    assert problem["limit"] == 2
    assert answers[2].headers["retry-after"] == str(problem["retry_after_s"])
    assert "set-cookie" not in answers[2].headers
    problem_of(forwarded, 429, "too_many_guest_sessions")


@pytest.mark.slow
async def test_where_guests_are_not_taken_a_link_still_signs_in(new_system: Make) -> None:
    system = await asyncio.to_thread(lambda: new_system(auth={"guests": False}).start(workers=0))
    token = await asyncio.to_thread(link_token, system, "ada@example.org")
    async with Client(system.web.url) as client:
        guest = await client.http.post("/api/session")
        user = await client.http.post("/api/session", json={"token": token})

    problem_of(guest, 403, "guests_not_allowed")
    assert "set-cookie" not in guest.headers
    assert user.status_code == 201


def link_token(system: System, email: str) -> str:
    """The token of a new sign-in link; makes the user where there is none."""
    if email not in {row[1] for row in people.list_users(system.settings)}:
        people.create_user(system.settings, email, admin=False)
    return people.link(system.settings, email).partition("#token=")[2]


async def test_a_link_signs_in_once(house: System, nobody: Client) -> None:
    token = await asyncio.to_thread(link_token, house, "once@example.org")

    answers = await asyncio.gather(
        *(
            nobody.http.post("/api/session", json={"token": token}, headers=SAME_ORIGIN)
            for _ in range(10)
        )
    )

    [opened] = [answer for answer in answers if answer.status_code == 201]
    assert opened.json()["user"]["email"] == "once@example.org"
    assert opened.json()["guest"] is False
    for answer in answers:
        if answer is not opened:
            problem_of(answer, 401, "unauthenticated")
            assert "set-cookie" not in answer.headers
    assert (await nobody.http.get("/api/session")).json() == opened.json()


async def test_two_links_lead_to_one_account(house: System, nobody: Client) -> None:
    tokens = [await asyncio.to_thread(link_token, house, "twice@example.org") for _ in range(2)]

    opened = [
        (await nobody.http.post("/api/session", json={"token": token}, headers=SAME_ORIGIN)).json()
        for token in tokens
    ]

    assert opened[0] == opened[1]


async def test_a_link_that_is_too_old_or_unknown_signs_nobody_in(
    house: System, nobody: Client
) -> None:
    token = await asyncio.to_thread(link_token, house, "late@example.org")
    with closing(sqlite3.connect(house.settings.data_dir / "tidemark.db")) as database, database:
        database.execute(
            "UPDATE sign_in_link SET expires_at = '2020-01-01 00:00:00.000000' WHERE used_at IS NULL"
        )

    for each in (token, new_token(), "nonsense"):
        problem_of(
            await nobody.http.post("/api/session", json={"token": each}), 401, "unauthenticated"
        )


async def test_who_signs_out_is_out_on_every_process(house: System, nobody: Client) -> None:
    cookie = {"Cookie": f"{COOKIE}={await guest_of(nobody)}"} | SAME_ORIGIN
    await nobody.http.get("/api/session", headers=cookie)

    closed = await nobody.http.delete("/api/session", headers=cookie)

    name, value, attributes = parts_of_cookie(closed)
    assert (closed.status_code, name, value, attributes["max-age"]) == (204, COOKIE, "", "0")
    problem_of(await nobody.http.get("/api/session", headers=cookie), 401, "unauthenticated")


CROSS_SITE = {
    "a foreign origin": {"Origin": "https://evil.example"},
    "no origin at all": {"Origin": "null"},
    "our host by another scheme": {"Origin": "https://127.0.0.1"},
    "our host on another port": {"Origin": "http://127.0.0.1:1"},
    "our host as a prefix": {"Origin": "http://127.0.0.1.evil.example"},
    "a foreign origin that claims to be ours": {
        "Origin": "https://evil.example",
        "Sec-Fetch-Site": "same-origin",
    },
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "a sister site": {"Sec-Fetch-Site": "same-site"},
    "a word": {"Sec-Fetch-Site": "nonsense"},
    "nothing": {},
}
CHANGING = [operation for operation in OPERATIONS if operation.method != "GET"]


@pytest.mark.parametrize(
    "operation", CHANGING, ids=lambda operation: f"{operation.method} {operation.path}"
)
@pytest.mark.parametrize("headers", CROSS_SITE.values(), ids=CROSS_SITE)
async def test_another_site_cannot_act_with_our_cookie(
    headers: dict[str, str], operation: Operation, guest: tuple[str, Turn], nobody: Client
) -> None:
    cookie, turn = guest
    headers = headers | {"Cookie": f"{COOKIE}={cookie}"}

    answer = await nobody.http.request(
        operation.method, path_of(operation, turn), json=body_of(operation), headers=headers
    )

    problem_of(answer, 403, "cross_site")
    assert "set-cookie" not in answer.headers


@pytest.fixture(scope="module")
def guest(house: System) -> tuple[str, Turn]:
    """The cookie of a guest, and a turn of theirs."""
    with httpx.Client(base_url=house.web.url, trust_env=False) as client:
        client.post("/api/session")
        headers = SAME_ORIGIN | {"Accept": "text/event-stream"}
        answer = client.post(
            "/api/messages", json={"text": "/demo tokens=3 rate=0"}, headers=headers
        )
        ids = (
            answer.headers[f"tidemark-{name}"]
            for name in ("conversation", "question", "message", "generation")
        )
        return client.cookies[COOKIE], Turn(*ids)


async def test_after_all_that_nothing_of_the_guest_has_changed(
    guest: tuple[str, Turn], nobody: Client
) -> None:
    cookie, turn = guest
    headers = {"Cookie": f"{COOKIE}={cookie}", "Sec-Fetch-Site": "cross-site"}

    [conversation] = (await nobody.http.get("/api/conversations", headers=headers)).json()["data"]
    messages = (
        await nobody.http.get(f"/api/conversations/{turn.conversation}/messages", headers=headers)
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
async def test_our_own_page_can_act_with_the_cookie(
    site: dict[str, str], house: System, nobody: Client
) -> None:
    headers = {name: value.format(url=house.web.url) for name, value in site.items()}
    cookie = {"Cookie": f"{COOKIE}={await guest_of(nobody)}"}

    answer = await nobody.http.post(
        "/api/messages", json={"text": "/demo tokens=1 rate=0"}, headers=headers | cookie
    )

    assert answer.status_code == 202


async def test_a_key_needs_no_origin_and_no_authorization_header_lifts_the_rule(
    house: System, nobody: Client, ada_key: str
) -> None:
    foreign, cookie = (
        {"Origin": "https://evil.example"},
        {"Cookie": f"{COOKIE}={await guest_of(nobody)}"},
    )
    message = {"text": "/demo tokens=1 rate=0"}

    with_key = await nobody.http.post(
        "/api/messages", json=message, headers=foreign | {"Authorization": f"Bearer {ada_key}"}
    )
    with_cookie = await nobody.http.post(
        "/api/messages", json=message, headers=foreign | cookie | {"Authorization": "Basic x"}
    )

    assert with_key.status_code == 202
    assert with_cookie.status_code in (401, 403)


async def test_a_guest_cannot_be_made_from_another_site(nobody: Client) -> None:
    problem_of(
        await nobody.http.post("/api/session", headers={"Origin": "https://evil.example"}),
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
async def test_a_foreign_host_gets_no_answer(host: str, ada: Client) -> None:
    answer = await ada.http.get("/api/conversations", headers={"Host": host.encode("latin-1")})

    problem_of(answer, 400, "host_not_allowed")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "LOCALHOST", "127.0.0.1", "[::1]", "[::1]:8000"]
)
async def test_a_loopback_host_gets_one(host: str, ada: Client) -> None:
    assert (await ada.http.get("/api/conversations", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.7:8000", "[", ""])
async def test_a_probe_may_use_any_host(host: str, nobody: Client) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await nobody.http.get(path, headers={"Host": host})).status_code == 200


async def test_an_allowed_host_is_answered_and_no_other(new_system: Make) -> None:
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
                answer = await client.http.get(
                    path, headers={"Authorization": token} if token else {}
                )
                problem_of(answer, 404, "not_found")
            headers = {"Authorization": "Bearer s3cret", "X-Forwarded-For": "192.0.2.1"}
            assert (await client.http.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/status", "/metrics"])
async def test_figures_are_for_this_machine_and_not_for_what_came_through_a_proxy(
    path: str, nobody: Client
) -> None:
    assert (await nobody.http.get(path)).status_code == 200

    for header in ("X-Forwarded-For", "Forwarded"):
        problem_of(await nobody.http.get(path, headers={header: "192.0.2.1"}), 404, "not_found")


OWNED = [operation for operation in OPERATIONS if "{id}" in operation.path]
CLOSED = [
    each
    for each in OPERATIONS
    if each.path.startswith("/api/") and (each.method, each.path) != ("POST", "/api/session")
]


def path_of(operation: Operation, turn: Turn) -> str:
    """The path with the id that belongs there."""
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
    """A body that would do for the owner."""
    if operation.body is None:
        return None
    if operation.path in ("/api/messages", "/api/messages/{id}/edit"):
        return {"text": "/demo tokens=1 rate=0"}
    if operation.path == "/api/session/preview":
        return {"token": "no such link"}
    return {"title": "stolen"} if operation.method == "PATCH" else {}


async def all_of(client: Client, turn: Turn) -> Any:
    """Everything an owner can see of a conversation."""
    return [
        await client.get(f"/api/conversations/{turn.conversation}"),
        await client.get(f"/api/conversations/{turn.conversation}/messages"),
        await client.snapshot(turn.generation),
        [each["id"] for each in (await client.get("/api/conversations"))["data"]],
    ]


@pytest.mark.parametrize(
    "operation", OWNED, ids=lambda operation: f"{operation.method} {operation.path}"
)
async def test_nobody_else_sees_or_changes_what_is_mine(
    operation: Operation, ada: Client, bob: Client, nobody: Client
) -> None:
    turn = await settled_turn(ada)
    before = await all_of(ada, turn)
    path, body = path_of(operation, turn), body_of(operation)

    by_bob = await bob.http.request(operation.method, path, json=body)
    by_nobody = await nobody.http.request(operation.method, path, json=body)

    problem_of(by_bob, 404, "not_found")
    problem_of(by_nobody, 401, "unauthenticated")
    assert await all_of(ada, turn) == before
    for id in turn:
        assert id not in by_bob.text + by_nobody.text


@pytest.mark.parametrize(
    "operation", CLOSED, ids=lambda operation: f"{operation.method} {operation.path}"
)
async def test_nobody_gets_nowhere(operation: Operation, nobody: Client) -> None:
    answer = await nobody.http.request(
        operation.method, operation.path.replace("{id}", "x"), json=body_of(operation)
    )

    problem_of(answer, 401, "unauthenticated")


async def test_a_list_holds_only_ones_own(ada: Client, bob: Client) -> None:
    turn = await settled_turn(ada)

    theirs = await bob.get("/api/conversations", limit=100)

    assert turn.conversation not in {each["id"] for each in theirs["data"]}


async def test_a_running_answer_is_not_for_others_to_follow_or_stop(
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


async def test_a_revoked_key_ends_its_open_streams_and_opens_nothing_any_more(
    house: System, ada: Client
) -> None:
    secret = await asyncio.to_thread(house.new_key, "to be revoked", "ada@example.org")
    async with Client(house.web.url, secret) as revoked:
        sent = await ada.send(STALLED)
        theirs = asyncio.create_task(revoked.read(sent["generation_id"]))
        ours = asyncio.create_task(ada.read(sent["generation_id"]))
        await revoked.read(sent["generation_id"], stop_after=3)

        await asyncio.to_thread(revoke, house, secret)

        async with asyncio.timeout(GONE_WITHIN_S):
            events = await theirs
        assert not ours.done()
        assert not {event.type for event in events} & set(TERMINAL)
        await comes_true(lambda: is_refused(revoked))
    await ada.cancel(sent["generation_id"])
    assert (await ours)[-1].type == "cancelled"


@pytest.mark.slow
async def test_an_open_stream_ends_with_its_session(new_system: Make) -> None:
    system = await asyncio.to_thread(lambda: new_system(auth={"session_ttl_s": 3}).start())
    async with Client(system.web.url) as client:
        client.http.headers.update(SAME_ORIGIN | {"Cookie": f"{COOKIE}={await guest_of(client)}"})
        sent = await client.send(STALLED)

        async with asyncio.timeout(GONE_WITHIN_S):
            events = await client.read(sent["generation_id"])

        assert not {event.type for event in events} & set(TERMINAL)
        await comes_true(lambda: is_refused(client))


@pytest.mark.slow
async def test_a_secret_is_in_no_log_and_in_no_file(new_system: Make) -> None:
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
        secrets = {"key": key, "link": link, "guest": guest, "user": opened.cookies[COOKIE]}
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
    """Takes tables away, so that what needs them is a fault of the server."""
    with closing(sqlite3.connect(system.settings.data_dir / "tidemark.db")) as database, database:
        database.execute("ALTER TABLE conversation RENAME TO conversation_gone")
        database.execute("ALTER TABLE sign_in_link RENAME TO sign_in_link_gone")


async def test_a_guest_who_comes_again_stays_the_same_guest(house: System) -> None:
    async with Client(house.web.url) as guest:
        first = await guest.http.post("/api/session", headers=SAME_ORIGIN)
        again = await guest.http.post("/api/session", headers=SAME_ORIGIN)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
