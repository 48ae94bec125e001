"""An export contains the whole conversation, whatever its size, in constant memory."""

import asyncio
from collections.abc import Callable

import psutil
import pytest

from server.history.database import open_database
from tests.client import Client
from tests.databases import both_databases
from tests.history import grow
from tests.system import System


@both_databases
async def test_the_json_export_has_every_branch(client: Client) -> None:
    first = await client.send("/demo tokens=3 rate=0\nfirst", metadata={"k": "v"})
    await client.read_through(first["generation_id"])
    again = (
        await client.http.post(f"/api/messages/{first['message_id']}/regenerate", json={})
    ).json()
    await client.read_through(again["generation_id"])
    edited = (
        await client.http.post(
            f"/api/messages/{first['question_id']}/edit", json={"text": "/demo tokens=1\nother"}
        )
    ).json()
    await client.read_through(edited["generation_id"])
    ids = [
        first["question_id"],
        first["message_id"],
        again["message_id"],
        edited["question_id"],
        edited["message_id"],
    ]

    exported = await client.get(f"/api/conversations/{first['conversation_id']}/export")

    assert exported["conversation"] == await client.get(
        f"/api/conversations/{first['conversation_id']}"
    )
    assert {message["id"]: message for message in exported["messages"]} == {
        id: await client.message(id) for id in ids
    }


@both_databases
async def test_the_markdown_export_has_the_shown_branch(client: Client) -> None:
    first = await client.send("/demo tokens=3 rate=0\nWhat *is* a tide?")
    await client.read_through(first["generation_id"])
    again = (
        await client.http.post(f"/api/messages/{first['message_id']}/regenerate", json={})
    ).json()
    await client.read_through(again["generation_id"])
    answer = await client.message(again["message_id"])

    exported = await client.http.get(
        f"/api/conversations/{first['conversation_id']}/export", params={"format": "markdown"}
    )

    assert exported.headers["content-type"] == "text/markdown; charset=utf-8"
    assert (
        exported.headers["content-disposition"]
        == f'attachment; filename="{first["conversation_id"]}.md"'
    )
    assert "What *is* a tide?" in exported.text
    assert exported.text.count(answer["text"]) == 1
    assert exported.text.count("## ") == 2


async def test_an_unknown_conversation_or_format_is_refused(client: Client) -> None:
    sent = await client.send("/demo tokens=1")

    unknown = await client.http.get("/api/conversations/conv_01K00000000000000000000000/export")
    wrong = await client.http.get(
        f"/api/conversations/{sent['conversation_id']}/export", params={"format": "pdf"}
    )

    assert (unknown.status_code, wrong.status_code) == (404, 422)


@pytest.mark.slow
async def test_exporting_a_hundred_thousand_messages_uses_constant_memory(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=0)
    async with Client(system.web.url, system.new_key(account="long@example.org")) as client:
        sent = await client.send("the beginning")
        await client.cancel(sent["generation_id"])
        async with open_database(system.settings.database_url) as database:
            await database.write(grow, sent["conversation_id"], sent["message_id"], 50_000)
        await client.get(f"/api/conversations/{sent['conversation_id']}/messages")
        before = psutil.Process(system.web.pid).memory_info().rss
        peak = before

        async def watch() -> None:
            nonlocal peak
            while True:
                peak = max(peak, psutil.Process(system.web.pid).memory_info().rss)
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        exported = await client.get(f"/api/conversations/{sent['conversation_id']}/export")
        async with client.http.stream(
            "GET",
            f"/api/conversations/{sent['conversation_id']}/export",
            params={"format": "markdown"},
        ) as response:
            headings = [
                line
                async for line in response.aiter_lines()
                if line in ("## Question", "## Answer")
            ]
        watching.cancel()

    assert (
        len({message["id"] for message in exported["messages"]})
        == len(exported["messages"])
        == 100_002
    )
    assert headings == ["## Question", "## Answer"] * 50_001
    assert peak - before < 32 * 1024 * 1024
