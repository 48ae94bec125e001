"""Revoking a key revokes the keys created with it; security events are in the audit log."""

import asyncio
import json
from collections.abc import Callable

import pytest

from server.command import people
from server.identity.limits import network_of
from tests.client import Client
from tests.graph import graph, mutate
from tests.system import System


async def make_key(system: System, by: str, name: str) -> str:
    async with Client(system.web.url, by) as client:
        return str((await mutate(client, "createApiKey", "secret", name=name))["secret"])


async def status_of(system: System, key: str) -> int:
    async with Client(system.web.url, key) as client:
        return (await client.http.get("/api/session")).status_code


async def test_keys_created_with_a_revoked_key_are_revoked_as_well(tidemark: System) -> None:
    stolen = await asyncio.to_thread(tidemark.new_key, "stolen", "thief@example.org")
    child = await make_key(tidemark, stolen, "child")
    grandchild = await make_key(tidemark, child, "grandchild")
    sibling = await asyncio.to_thread(tidemark.new_key, "mine", "thief@example.org")
    assert {await status_of(tidemark, key) for key in (stolen, child, grandchild)} == {200}

    rows = await asyncio.to_thread(people.list_keys, tidemark.settings)
    [stolen_id] = [row[0] for row in rows if row[2] == "stolen"]
    async with Client(tidemark.web.url, sibling) as client:
        await mutate(client, "revokeApiKey", "apiKey { revokedAt }", id=stolen_id)

    async with asyncio.timeout(30):
        for key in (stolen, child, grandchild):
            while await status_of(tidemark, key) != 401:
                await asyncio.sleep(0.1)
    assert await status_of(tidemark, sibling) == 200


async def test_security_events_are_logged_without_secrets(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start()
    key = await asyncio.to_thread(system.new_key, "k", "ada@example.org")
    created = await make_key(system, key, "created")
    async with Client(system.web.url, key) as client:
        viewer = (await graph(client, "{ viewer { account { apiKeys { id name } } } }"))["viewer"]
        [created_id] = [
            key["id"] for key in viewer["account"]["apiKeys"] if key["name"] == "created"
        ]
        await mutate(client, "revokeApiKey", id=created_id)
    async with Client(system.web.url) as browser:
        browser.http.headers["sec-fetch-site"] = "same-origin"
        await browser.http.post("/api/session")
        await browser.http.delete("/api/session")
        await browser.http.post("/api/session", json={"token": "x" * 43})
        await browser.http.post("/api/session", headers={"sec-fetch-site": "cross-site"})

    output = system.web.output()

    lines = [json.loads(line) for line in output.splitlines() if '"audit_' in line]
    events = [line["event"].removeprefix("audit_") for line in lines]
    assert events == [
        "key_created",
        "key_revoked",
        "guest_created",
        "signed_out",
        "link_refused",
        "refused",
    ]
    assert all(secret not in output for secret in (key, created, "x" * 43))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("203.0.113.9", "203.0.113.10", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unknown", "unknown", True),
    ],
)
def test_addresses_of_one_network_count_as_one(one: str, other: str, *, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same
