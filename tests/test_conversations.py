"""Conversations: lists and pages, the tree of messages, the four requests, limits, idempotency."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any
from uuid import uuid4

import httpx
import pytest
from aiohttp import web

from tests.client import Client, check_law, content_of, parse, text_of
from tests.databases import both_databases
from tests.readers import reading
from tests.system import System
from tests.waiting import condition

QUICK = "/demo tokens=1 rate=0"
STALLED = "/demo tokens=10 rate=0 stall_after=5"
STREAM = {"Accept": "text/event-stream"}

Sent = dict[str, Any]
Make = Callable[..., System]


async def ask(client: Client, text: str = QUICK, **body: Any) -> Sent:
    """Send a message and read the answer to its end."""
    return await to_end(client, await client.send(text, **body))


async def to_end(client: Client, sent: Sent) -> Sent:
    await client.read(sent["generation_id"])
    return sent


async def post(client: Client, path: str, status: int = 202, **body: Any) -> Any:
    response = await client.http.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def change(client: Client, conversation_id: str, **changes: Any) -> dict[str, Any]:
    response = await client.http.patch(f"/api/conversations/{conversation_id}", json=changes)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def conversation(client: Client, sent: Sent) -> dict[str, Any]:
    return dict(await client.get(f"/api/conversations/{sent['conversation_id']}"))


async def messages(client: Client, sent: Sent, **params: Any) -> list[dict[str, Any]]:
    """The messages of a branch, oldest first."""
    return list(
        (
            await client.get(
                f"/api/conversations/{sent['conversation_id']}/messages", limit=100, **params
            )
        )["data"]
    )


async def branch(client: Client, sent: Sent, **params: Any) -> list[str]:
    return [message["id"] for message in await messages(client, sent, **params)]


async def pages(client: Client, path: str, **params: Any) -> list[list[str]]:
    """The ids on every page of a list."""
    found, before = [], {}
    while True:
        page = await client.get(path, **params, **before)
        found.append([each["id"] for each in page["data"]])
        if page["next"] is None:
            return found
        before = {"before": page["next"]}


async def stalled(client: Client, **body: Any) -> Sent:
    """An answer that has some text and then stalls."""
    sent = await client.send(STALLED, **body)
    await client.read(sent["generation_id"], stop_after=3)
    return sent


async def wait_for_words(client: Client, sent: Sent, words: int) -> None:
    """Wait until an answer has this many words."""
    async with asyncio.timeout(10):
        while True:
            if len((await client.snapshot(sent["generation_id"]))["text"].split()) >= words:
                return
            await asyncio.sleep(0.02)


# The list


async def test_the_most_recently_used_conversation_comes_first(person: Client) -> None:
    first, second, third = [await ask(person) for _ in range(3)]

    await ask(person, conversation_id=first["conversation_id"])

    [page] = await pages(person, "/api/conversations")
    assert page == [first["conversation_id"], third["conversation_id"], second["conversation_id"]]


@pytest.mark.parametrize("same_time", [False, True])
async def test_pages_of_the_list_contain_every_conversation_exactly_once(
    same_time: bool, person: Client, tidemark: System
) -> None:
    sent = await asyncio.gather(*(ask(person) for _ in range(7)))
    if same_time:
        ids = [each["conversation_id"] for each in sent]
        with (
            closing(
                sqlite3.connect(tidemark.settings.data_dir / "tidemark.db", timeout=10)
            ) as database,
            database,
        ):
            placeholders = ",".join("?" * len(ids))
            database.execute(
                "UPDATE conversation SET updated_at = '2026-01-01 00:00:00.000000' "
                f"WHERE id IN ({placeholders})",
                ids,
            )

    [whole] = await pages(person, "/api/conversations", limit=100)
    threes = await pages(person, "/api/conversations", limit=3)
    ones = await pages(person, "/api/conversations", limit=1)

    assert sorted(whole) == sorted(each["conversation_id"] for each in sent)
    assert threes == [whole[:3], whole[3:6], whole[6:]]
    assert ones == [[id] for id in whole]


async def test_a_full_last_page_has_no_next_cursor(person: Client) -> None:
    for _ in range(2):
        await ask(person)

    page = await person.get("/api/conversations", limit=2)

    assert (len(page["data"]), page["next"]) == (2, None)


async def test_archived_conversations_are_listed_separately(person: Client) -> None:
    kept, archived_one = await ask(person), await ask(person)

    await change(person, archived_one["conversation_id"], archived=True)

    for archived, expected in (
        ("true", archived_one),
        ("false", kept),
        ("1", archived_one),
        ("0", kept),
    ):
        [page] = await pages(person, "/api/conversations", archived=archived)
        assert page == [expected["conversation_id"]]


async def test_the_first_words_of_the_question_become_the_title(
    person: Client,
) -> None:
    sent = await ask(person, "/demo tokens=1 rate=0\n  how\tdeep   is the " + "very " * 30 + "sea?")

    title = (await conversation(person, sent))["title"]

    assert title.startswith("/demo tokens=1 rate=0 how deep is the very")
    assert title.endswith("…")
    assert len(title) <= 60


# Changing


CHANGES = {
    "title": "Depths",
    "pinned": True,
    "archived": True,
    "system_prompt": "Be brief.",
    "metadata": {"a": "1"},
    "model": "demo",
}


@pytest.mark.parametrize(("name", "value"), CHANGES.items(), ids=CHANGES)
async def test_a_change_affects_only_the_given_fields(
    name: str, value: Any, client: Client
) -> None:
    sent = await ask(client)
    before = await conversation(client, sent)

    changed = await change(client, sent["conversation_id"], **{name: value})

    assert changed == before | {name: value}
    assert await conversation(client, sent) == changed


async def test_null_clears_a_system_prompt_and_absence_keeps_it(client: Client) -> None:
    sent = await ask(client, system_prompt="Be brief.")
    assert (await change(client, sent["conversation_id"], pinned=True))[
        "system_prompt"
    ] == "Be brief."

    changed = await change(client, sent["conversation_id"], system_prompt=None)

    assert changed["system_prompt"] is None
    assert changed["pinned"] is True


@both_databases
async def test_showing_a_message_shows_the_newest_leaf_of_its_branch(client: Client) -> None:
    root = await ask(client)
    older = await ask(client, conversation_id=root["conversation_id"])
    newer = await to_end(
        client, await post(client, f"/api/messages/{older['question_id']}/edit", text=QUICK)
    )
    other = await to_end(
        client, await post(client, f"/api/messages/{root['message_id']}/regenerate")
    )

    for shown, leaf in (
        (root["message_id"], newer),
        (older["question_id"], older),
        (older["message_id"], older),
        (root["question_id"], other),
    ):
        changed = await change(client, root["conversation_id"], shown_message_id=shown)

        assert changed["shown_message_id"] == leaf["message_id"]
        assert (await branch(client, root))[-1] == leaf["message_id"]


async def test_the_next_message_follows_the_shown_branch(client: Client) -> None:
    root = await ask(client)
    await to_end(client, await post(client, f"/api/messages/{root['message_id']}/regenerate"))
    await change(client, root["conversation_id"], shown_message_id=root["message_id"])

    sent = await ask(client, conversation_id=root["conversation_id"])

    assert await branch(client, sent) == [
        root["question_id"],
        root["message_id"],
        sent["question_id"],
        sent["message_id"],
    ]


# Deleting


@both_databases
async def test_a_deleted_conversation_and_everything_in_it_is_not_found(person: Client) -> None:
    sent, kept = await ask(person), await ask(person)
    message_path, generation_path = (
        f"/api/messages/{sent['message_id']}",
        f"/api/generations/{sent['generation_id']}",
    )
    conversation_path = f"/api/conversations/{sent['conversation_id']}"

    assert (await person.http.delete(conversation_path)).status_code == 204

    reads = [
        conversation_path,
        f"{conversation_path}/messages",
        message_path,
        f"/api/messages/{sent['question_id']}",
        generation_path,
        f"{generation_path}/events",
    ]
    writes = [f"{message_path}/regenerate", f"{message_path}/continue", f"{generation_path}/cancel"]
    responses = [await person.http.get(path) for path in reads] + [
        await person.http.post(path, json={}) for path in writes
    ]
    responses.append(
        await person.http.post(f"/api/messages/{sent['question_id']}/edit", json={"text": "x"})
    )
    responses.append(
        await person.http.post(
            "/api/messages", json={"text": "x", "conversation_id": sent["conversation_id"]}
        )
    )
    responses += [
        await person.http.patch(conversation_path, json={"title": "x"}),
        await person.http.delete(conversation_path),
    ]
    assert [response.status_code for response in responses] == [404] * len(responses)
    assert await pages(person, "/api/conversations") == [[kept["conversation_id"]]]


@both_databases
async def test_deleting_a_conversation_cancels_its_answer_and_ends_its_streams(
    tidemark: System, own_key: str
) -> None:
    async with (
        Client(tidemark.of("web")[0].url, own_key) as one,
        Client(tidemark.of("web")[1].url, own_key) as other,
    ):
        sent = await stalled(one)
        async with reading(one, sent) as first, reading(other, sent) as second:
            seen = [*first, *second]
            await condition(lambda: all(seen))
            deleted = await other.http.delete(f"/api/conversations/{sent['conversation_id']}")
            assert deleted.status_code == 204

        for events in seen:
            assert events[-1].type == "cancelled"


# Reading messages


@both_databases
async def test_a_long_conversation_is_read_page_by_page(client: Client) -> None:
    root = await ask(client)
    turns = [root] + [await ask(client, conversation_id=root["conversation_id"]) for _ in range(29)]
    expected = [id for turn in turns for id in (turn["question_id"], turn["message_id"])]
    path = f"/api/conversations/{root['conversation_id']}/messages"

    assert await pages(client, path, limit=100) == [expected]
    assert await pages(client, path) == [expected[40:], expected[20:40], expected[:20]]
    assert [id for page in reversed(await pages(client, path, limit=7)) for id in page] == expected
    assert await pages(client, path, limit=60) == [expected]
    assert await branch(client, root, leaf=turns[9]["message_id"]) == expected[:20]
    assert await pages(client, path, limit=15, leaf=turns[9]["question_id"]) == [
        expected[4:19],
        expected[:4],
    ]
    assert await branch(client, root, before=expected[3]) == expected[:3]
    assert await branch(client, root, before=expected[0]) == []


async def test_messages_have_roles_parents_and_models(client: Client) -> None:
    sent = await ask(client, "/demo tokens=2 rate=0\nhello", metadata={"from": "a test"})

    question, answer = await messages(client, sent)

    assert (question["role"], question["status"], question["parent_id"], question["model"]) == (
        "user",
        "completed",
        None,
        None,
    )
    assert question["content"] == [{"type": "text", "text": "/demo tokens=2 rate=0\nhello"}]
    assert question["metadata"] == {"from": "a test"}
    assert (answer["role"], answer["status"], answer["parent_id"], answer["model"]) == (
        "assistant",
        "completed",
        question["id"],
        "demo",
    )
    assert (answer["finish_reason"], answer["generation_id"], answer["error"]) == (
        "stop",
        sent["generation_id"],
        None,
    )
    assert answer["usage"]["output_tokens"] == 2
    assert [await client.message(each["id"]) for each in (question, answer)] == [question, answer]


async def test_content_with_several_parts_is_stored_unchanged(client: Client) -> None:
    content = [
        {"type": "text", "text": "/demo tokens=1 "},
        {"type": "text", "text": "rate=0\nné 🌊 \u202e"},
    ]

    sent = await to_end(client, await post(client, "/api/messages", content=content))

    question, _ = await messages(client, sent)
    assert question["content"] == content
    assert question["text"] == "/demo tokens=1 rate=0\nné 🌊 \u202e"


# The tree


@both_databases
async def test_a_regenerated_answer_is_a_sibling_and_is_shown(client: Client) -> None:
    first = await ask(client, "/demo tokens=30 rate=0\nagain")

    others = [
        await to_end(client, await post(client, f"/api/messages/{first['message_id']}/regenerate"))
        for _ in range(2)
    ]

    answers = [each["message_id"] for each in (first, *others)]
    assert {each["question_id"] for each in (first, *others)} == {first["question_id"]}
    assert len(set(answers)) == 3
    for answer in answers:
        assert (await client.message(answer))["siblings"] == answers
    assert len({(await client.message(answer))["text"] for answer in answers}) == 3
    assert (await conversation(client, first))["shown_message_id"] == answers[-1]
    assert (await client.message(first["question_id"]))["siblings"] == [first["question_id"]]


@both_databases
async def test_a_new_sibling_comes_last(client: Client) -> None:
    first = await ask(client)
    second = await to_end(
        client, await post(client, f"/api/messages/{first['message_id']}/regenerate")
    )

    third = await to_end(
        client, await post(client, f"/api/messages/{first['message_id']}/regenerate")
    )

    assert (await client.message(second["message_id"]))["siblings"] == [
        each["message_id"] for each in (first, second, third)
    ]


@both_databases
async def test_an_edited_question_is_a_sibling_with_its_own_answer(client: Client) -> None:
    root = await ask(client)
    first = await ask(client, conversation_id=root["conversation_id"])

    edited = await to_end(
        client,
        await post(
            client, f"/api/messages/{first['question_id']}/edit", text=f"{QUICK}\nin other words"
        ),
    )

    assert (await client.message(edited["question_id"]))["siblings"] == [
        first["question_id"],
        edited["question_id"],
    ]
    assert (await client.message(edited["question_id"]))["parent_id"] == root["message_id"]
    assert (await client.message(edited["message_id"]))["siblings"] == [edited["message_id"]]
    assert (await branch(client, root))[2:] == [edited["question_id"], edited["message_id"]]
    assert (await branch(client, root, leaf=first["message_id"]))[2:] == [
        first["question_id"],
        first["message_id"],
    ]


async def test_a_conversation_may_have_several_roots(client: Client) -> None:
    first = await ask(client)

    edited = await to_end(
        client, await post(client, f"/api/messages/{first['question_id']}/edit", text=QUICK)
    )
    third = await ask(client, conversation_id=first["conversation_id"], parent_id=None)

    roots = [each["question_id"] for each in (first, edited, third)]
    for root in roots:
        message = await client.message(root)
        assert (message["siblings"], message["parent_id"]) == (roots, None)
    assert await branch(client, first) == [third["question_id"], third["message_id"]]


async def test_a_question_may_follow_any_answer(client: Client) -> None:
    root = await ask(client)
    later = await ask(client, conversation_id=root["conversation_id"])

    sent = await ask(client, conversation_id=root["conversation_id"], parent_id=root["message_id"])

    assert await branch(client, root) == [
        root["question_id"],
        root["message_id"],
        sent["question_id"],
        sent["message_id"],
    ]
    assert (await client.message(sent["question_id"]))["siblings"] == [
        later["question_id"],
        sent["question_id"],
    ]


@both_databases
async def test_a_parent_must_be_an_answer_of_the_same_conversation(
    client: Client,
) -> None:
    one, other = await ask(client), await ask(client)

    for parent in (one["question_id"], other["message_id"], other["question_id"]):
        refused = await post(
            client,
            "/api/messages",
            422,
            text=QUICK,
            conversation_id=one["conversation_id"],
            parent_id=parent,
        )
        assert refused["code"] == "invalid_parent"
    assert await branch(client, one) == [one["question_id"], one["message_id"]]


@both_databases
async def test_nothing_may_follow_an_answer_in_progress(client: Client) -> None:
    sent = await stalled(client)
    text = {"text": QUICK, "conversation_id": sent["conversation_id"]}

    refusals = [
        await post(client, "/api/messages", 409, **text),
        await post(client, "/api/messages", 409, **text, parent_id=sent["message_id"]),
        await post(client, f"/api/messages/{sent['message_id']}/regenerate", 409),
        await post(client, f"/api/messages/{sent['message_id']}/continue", 409),
    ]

    assert [refused["code"] for refused in refusals] == ["answer_in_progress"] * 4
    await client.cancel(sent["generation_id"])
    await ask(client, **text)


async def test_another_branch_can_be_extended_while_an_answer_is_in_progress(
    client: Client,
) -> None:
    sent = await stalled(client)

    edited = await to_end(
        client, await post(client, f"/api/messages/{sent['question_id']}/edit", text=QUICK)
    )

    assert (await client.snapshot(sent["generation_id"]))["status"] == "running"
    assert (await conversation(client, sent))["shown_message_id"] == edited["message_id"]
    await client.cancel(sent["generation_id"])


# Continuing


@both_databases
async def test_a_truncated_answer_is_continued_to_its_end(client: Client) -> None:
    text = "/demo tokens=20 rate=0\nlong"
    whole = (await client.message((await ask(client, text))["message_id"]))["text"]
    cut = await ask(client, text, max_output_tokens=5)
    before = await client.message(cut["message_id"])
    assert (before["finish_reason"], before["text"]) == ("length", " ".join(whole.split(" ")[:5]))

    more = await post(client, f"/api/messages/{cut['message_id']}/continue")

    events = await client.read(more["generation_id"])
    after = await client.message(cut["message_id"])
    assert (more["message_id"], more["question_id"]) == (cut["message_id"], cut["question_id"])
    assert more["generation_id"] != cut["generation_id"]
    assert (after["status"], after["finish_reason"], after["text"]) == ("completed", "stop", whole)
    assert after["generation_id"] == more["generation_id"]
    assert after["siblings"] == [cut["message_id"]]
    assert (await client.snapshot(cut["generation_id"]))["text"] == before["text"]
    check_law(events, await client.snapshot(more["generation_id"]))


@both_databases
async def test_an_answer_may_be_continued_several_times(client: Client) -> None:
    text = "/demo tokens=20 rate=0 reasoning=3\nagain and again"
    whole = (await client.message((await ask(client, text))["message_id"]))["content"]
    sent = await ask(client, text, max_output_tokens=6)

    continuations = 0
    while (await client.message(sent["message_id"]))["finish_reason"] == "length":
        more = await to_end(
            client,
            await post(client, f"/api/messages/{sent['message_id']}/continue", max_output_tokens=6),
        )
        continuations += 1
        check_law(
            await client.read(more["generation_id"]), await client.snapshot(more["generation_id"])
        )

    assert continuations == 3
    assert (await client.message(sent["message_id"]))["content"] == whole


async def test_continuing_a_stopped_answer_starts_over(client: Client) -> None:
    sent = await stalled(client)
    await wait_for_words(client, sent, 5)
    stopped = await client.cancel(sent["generation_id"])

    again = await post(client, f"/api/messages/{sent['message_id']}/continue")

    await wait_for_words(client, again, 5)
    await client.cancel(again["generation_id"])
    events = await client.read(again["generation_id"])
    assert (again["message_id"], again["generation_id"] != sent["generation_id"]) == (
        sent["message_id"],
        True,
    )
    assert [event.type for event in events[:2]] == ["queued", "started"]
    assert text_of(events) == stopped["text"]
    check_law(events, await client.snapshot(again["generation_id"]))


@both_databases
async def test_continuing_a_failed_answer_starts_over(client: Client) -> None:
    sent = await ask(client, "/demo tokens=9 rate=0 fail_after=4")
    failed = await client.message(sent["message_id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "provider_unavailable")

    again = await to_end(client, await post(client, f"/api/messages/{sent['message_id']}/continue"))

    message = await client.message(sent["message_id"])
    assert (again["message_id"], message["generation_id"]) == (
        sent["message_id"],
        again["generation_id"],
    )
    assert message["text"] == failed["text"]
    assert len(message["text"].split(" ")) == 4
    assert (await conversation(client, sent))["shown_message_id"] == sent["message_id"]


async def test_a_complete_answer_cannot_be_continued(client: Client) -> None:
    sent = await ask(client)

    refused = await post(client, f"/api/messages/{sent['message_id']}/continue", 409)

    assert refused["code"] == "answer_complete"
    assert (await client.message(sent["message_id"]))["generation_id"] == sent["generation_id"]


async def test_only_answers_are_regenerated_and_only_questions_edited(client: Client) -> None:
    sent = await ask(client)

    for path in (
        f"{sent['question_id']}/regenerate",
        f"{sent['question_id']}/continue",
        f"{sent['message_id']}/edit",
    ):
        body = {"text": QUICK} if path.endswith("edit") else {}
        response = await client.http.post(f"/api/messages/{path}", json=body)
        assert response.status_code in (409, 422)
    assert await branch(client, sent) == [sent["question_id"], sent["message_id"]]


# Models and prompts


@asynccontextmanager
async def scripted_model() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Run a model that answers «fine»; its address and the requests it received."""
    requests: list[dict[str, Any]] = []

    async def complete(request: web.Request) -> web.StreamResponse:
        requests.append(await request.json())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for choice in ({"delta": {"content": "fine"}}, {"delta": {}, "finish_reason": "stop"}):
            await response.write(
                f"data: {json.dumps({'choices': [{'index': 0, **choice}]})}\n\n".encode()
            )
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", requests
    finally:
        await runner.cleanup()


def prompt_of(request: dict[str, Any]) -> str | None:
    """The system prompt in a model request."""
    first = request["messages"][0]
    return str(first["content"]) if first["role"] == "system" else None


async def test_a_conversation_keeps_its_initial_model_and_prompt(new_system: Make) -> None:
    async with scripted_model() as (url, requests):
        local = {"base_url": url, "models": ["tiny", "org/large", "twin"]}
        providers = {"local": local, "other": {"base_url": url, "models": ["twin"]}}
        settings = {"providers": providers, "generation": {"default_model": "demo"}}
        system = await asyncio.to_thread(lambda: new_system(**settings).start())
        async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
            await check_models(client)
            await check_conversation_rules(client, requests)


async def check_models(client: Client) -> None:
    models = (await client.get("/api/models"))["data"]
    assert [model["id"] for model in models] == [
        "demo",
        "local/tiny",
        "local/org/large",
        "local/twin",
        "other/twin",
    ]
    assert [model["id"] for model in models if model["default"]] == ["demo"]
    for name, full in (
        ("org/large", "local/org/large"),
        ("local/tiny", "local/tiny"),
        ("tiny", "local/tiny"),
    ):
        sent = await ask(client, "hello", model=name)
        assert sent["model"] == full
        assert (await conversation(client, sent))["model"] == full
        assert (await client.message(sent["message_id"]))["model"] == full
        assert (await client.snapshot(sent["generation_id"]))["model"] == full
    refused = await post(client, "/api/messages", 422, text="hello", model="twin")
    assert refused["code"] == "unknown_model"
    assert "local/twin" in refused["detail"]
    assert "other/twin" in refused["detail"]


async def check_conversation_rules(client: Client, requests: list[dict[str, Any]]) -> None:
    sent = await ask(client, "hello", model="tiny", system_prompt="Be brief.")
    in_conversation = {"conversation_id": sent["conversation_id"]}
    assert (requests[-1]["model"], prompt_of(requests[-1])) == ("tiny", "Be brief.")

    await ask(
        client,
        "and once",
        **in_conversation,
        model="org/large",
        system_prompt="Be long.",
        temperature=0,
        max_output_tokens=7,
    )
    assert (requests[-1]["model"], prompt_of(requests[-1]), requests[-1]["temperature"]) == (
        "org/large",
        "Be long.",
        0,
    )
    assert 7 in (requests[-1].get("max_tokens"), requests[-1].get("max_completion_tokens"))

    await ask(client, "and again", **in_conversation)
    assert (requests[-1]["model"], prompt_of(requests[-1])) == ("tiny", "Be brief.")
    assert "temperature" not in requests[-1]
    stored = await conversation(client, sent)
    assert (stored["model"], stored["system_prompt"]) == ("local/tiny", "Be brief.")

    assert (await change(client, sent["conversation_id"], model="org/large", system_prompt=None))[
        "model"
    ] == "local/org/large"
    last = await ask(client, "and after a change", **in_conversation)
    assert (requests[-1]["model"], prompt_of(requests[-1])) == ("org/large", None)
    turns = [(turn["role"], turn["content"]) for turn in requests[-1]["messages"]]
    questions = ["hello", "and once", "and again", "and after a change"]
    assert (
        turns
        == [turn for question in questions for turn in (("user", question), ("assistant", "fine"))][
            :-1
        ]
    )

    await to_end(
        client,
        await post(
            client,
            f"/api/messages/{last['message_id']}/regenerate",
            model="tiny",
            system_prompt="Once more.",
        ),
    )
    assert (requests[-1]["model"], prompt_of(requests[-1])) == ("tiny", "Once more.")
    assert (await conversation(client, sent))["model"] == "local/org/large"


# Limits


@pytest.mark.slow
async def test_active_answers_per_account_are_limited(new_system: Make) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(generation={"active_max_per_account": 2}).start()
    )
    keys = [
        await asyncio.to_thread(system.new_key, "test", account)
        for account in (None, "other@example.org")
    ]
    async with Client(system.web.url, keys[0]) as client, Client(system.web.url, keys[1]) as other:
        first = await client.send(STALLED, key="first")
        second = await stalled(client)
        count = len((await client.get("/api/conversations"))["data"])

        refused = await client.http.post(
            "/api/messages", json={"text": QUICK}, headers={"Idempotency-Key": "third"}
        )

        problem = refused.json()
        assert (refused.status_code, problem["status"], problem["limit"]) == (429, 429, 2)
        assert problem["code"] == "too_many_active_generations"
        assert refused.headers["retry-after"] == str(problem["retry_after_s"])
        assert len((await client.get("/api/conversations"))["data"]) == count
        assert (
            await client.http.post(
                f"/api/messages/{second['question_id']}/edit", json={"text": QUICK}
            )
        ).status_code == 429
        assert await client.send(STALLED, key="first") == first
        await ask(other)

        await client.cancel(first["generation_id"])
        again = await client.http.post(
            "/api/messages", json={"text": QUICK}, headers={"Idempotency-Key": "third"}
        )
        assert again.status_code == 202
        assert "idempotent-replayed" not in again.headers


async def test_the_limit_holds_for_concurrent_requests(new_system: Make) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(generation={"active_max_per_account": 2}).start(webs=2, workers=0)
    )
    key = await asyncio.to_thread(system.new_key)
    async with (
        Client(system.of("web")[0].url, key) as one,
        Client(system.of("web")[1].url, key) as two,
    ):
        responses = await asyncio.gather(
            *(each.http.post("/api/messages", json={"text": QUICK}) for each in (one, two) * 10)
        )

    assert sorted(response.status_code for response in responses) == [202] * 2 + [429] * 18


# Idempotency


@both_databases
async def test_fifty_concurrent_requests_with_one_key_create_one_answer(
    tidemark: System, own_key: str
) -> None:
    body, headers = {"text": QUICK, "metadata": {"a": "b"}}, {"Idempotency-Key": "fifty"}
    async with (
        Client(tidemark.of("web")[0].url, own_key) as one,
        Client(tidemark.of("web")[1].url, own_key) as two,
    ):
        responses = await asyncio.gather(
            *(
                each.http.post("/api/messages", json=body, headers=headers)
                for each in (one, two) * 25
            )
        )

        assert {response.status_code for response in responses} == {202}
        assert {response.text for response in responses} == {responses[0].text}
        assert {response.headers["location"] for response in responses} == {
            f"/api/generations/{responses[0].json()['generation_id']}"
        }
        assert (
            sorted(response.headers.get("idempotent-replayed", "") for response in responses)
            == [""] + ["true"] * 49
        )
        await to_end(one, responses[0].json())
        assert len((await one.get("/api/conversations"))["data"]) == 1
        assert len(await messages(one, responses[0].json())) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"text": "x"},
        {"temperature": 1},
        {"system_prompt": "x"},
        {"max_output_tokens": 5},
        {"metadata": {"a": "b"}},
        {"parent_id": None},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_key_reused_with_another_body_is_refused(
    other: dict[str, Any], person: Client
) -> None:
    body, headers = {"text": QUICK}, {"Idempotency-Key": "once"}
    first = await person.http.post("/api/messages", json=body, headers=headers)

    second = await person.http.post("/api/messages", json=body | other, headers=headers)

    assert (first.status_code, second.status_code) == (202, 422)
    assert second.json()["code"] == "idempotency_key_reused"
    assert len((await person.get("/api/conversations"))["data"]) == 1


async def test_equivalent_bodies_count_as_the_same_request(person: Client) -> None:
    key = {"Idempotency-Key": "same"}
    spellings = [
        {"text": QUICK},
        {"content": [{"text": QUICK, "type": "text"}]},
        {"text": QUICK, "conversation_id": None, "model": None},
    ]

    responses = [
        await person.http.post("/api/messages", json=body, headers=key) for body in spellings
    ]

    assert [response.status_code for response in responses] == [202] * 3
    assert len({response.text for response in responses}) == 1


@both_databases
async def test_keys_are_scoped_to_the_account_and_the_operation(
    person: Client, client: Client
) -> None:
    key = uuid4().hex
    headers = {"Idempotency-Key": key}
    sent = await to_end(person, await person.send(QUICK, key=key))

    others = await client.send(QUICK, key=key)
    regenerated = await person.http.post(
        f"/api/messages/{sent['message_id']}/regenerate", headers=headers
    )
    replayed = await person.http.post(
        f"/api/messages/{sent['message_id']}/regenerate", headers=headers
    )
    edited = await person.http.post(
        f"/api/messages/{sent['question_id']}/edit", json={"text": QUICK}, headers=headers
    )

    assert [response.status_code for response in (regenerated, replayed, edited)] == [202] * 3
    assert [
        "idempotent-replayed" in response.headers for response in (regenerated, replayed, edited)
    ] == [False, True, False]
    generations = {
        sent["generation_id"],
        others["generation_id"],
        *(each.json()["generation_id"] for each in (regenerated, edited)),
    }
    assert len(generations) == 4
    assert replayed.json() == regenerated.json()


@both_databases
async def test_a_replay_can_be_streamed_from_any_cursor(person: Client) -> None:
    sent = await person.send("/demo tokens=8 rate=0", key="followed")
    whole = await person.read(sent["generation_id"])
    headers = STREAM | {"Idempotency-Key": "followed"}
    body = {"text": "/demo tokens=8 rate=0"}

    for cursor in (None, 0, 3, whole[-1].seq - 1):
        with_cursor = headers | ({"Last-Event-ID": str(cursor)} if cursor is not None else {})
        async with person.http.stream(
            "POST", "/api/messages", json=body, headers=with_cursor
        ) as response:
            events = [event async for event in parse(response)]
        assert response.headers["idempotent-replayed"] == "true"
        assert response.headers["tidemark-generation"] == sent["generation_id"]
        assert events == whole[cursor or 0 :]

    at_the_end = await person.http.post(
        "/api/messages", json=body, headers=headers | {"Last-Event-ID": str(whole[-1].seq)}
    )
    beyond = await person.http.post(
        "/api/messages", json=body, headers=headers | {"Last-Event-ID": str(whole[-1].seq + 1)}
    )
    assert (at_the_end.status_code, beyond.status_code) == (204, 400)


async def test_a_request_first_sent_as_a_stream_is_replayed_as_json(person: Client) -> None:
    body, key = {"text": QUICK}, {"Idempotency-Key": "streamed"}
    async with person.http.stream(
        "POST", "/api/messages", json=body, headers=STREAM | key
    ) as response:
        events = [event async for event in parse(response)]

    replayed = await person.http.post("/api/messages", json=body, headers=key)

    assert (replayed.status_code, replayed.headers["idempotent-replayed"]) == (202, "true")
    assert (
        replayed.json()["generation_id"]
        == events[0].data["generation_id"]
        == response.headers["tidemark-generation"]
    )
    assert content_of(events)


REFUSED_FIRST: dict[str, dict[str, Any]] = {
    "unreadable": {"content": b"{"},
    "wrong": {"json": {"text": ""}},
    "no such model": {"json": {"text": QUICK, "model": "nobody/nothing"}},
    "no such conversation": {"json": {"text": QUICK, "conversation_id": "conv_x"}},
}


@pytest.mark.parametrize("refused", REFUSED_FIRST.values(), ids=REFUSED_FIRST)
async def test_a_refused_request_does_not_consume_its_key(
    refused: dict[str, Any], person: Client
) -> None:
    headers = {"Idempotency-Key": "refused first"}
    first = await person.http.post("/api/messages", **refused, headers=headers)

    second = await person.http.post("/api/messages", json={"text": QUICK}, headers=headers)

    assert 400 <= first.status_code < 500
    assert second.status_code == 202
    assert "idempotent-replayed" not in second.headers


async def test_a_retry_after_a_lost_response_creates_no_second_answer(
    tidemark: System, own_key: str
) -> None:
    headers = {"Authorization": f"Bearer {own_key}", "Idempotency-Key": "lost"}
    async with httpx.AsyncClient(
        base_url=tidemark.web.url, headers=headers, trust_env=False
    ) as client:
        requests = [
            asyncio.create_task(client.post("/api/messages", json={"text": QUICK}))
            for _ in range(5)
        ]
        await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

    async with Client(tidemark.web.url, own_key) as person:
        await person.send(QUICK, key="lost")
        assert len((await person.get("/api/conversations"))["data"]) == 1
