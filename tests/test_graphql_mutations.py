"""GraphQL: what is changed, and that HTTP and GraphQL refuse the same things with the same codes."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from server.ids import Prefix, new_id
from tests.client import Client, check_law
from tests.graph import code, graph, mutate, mutation, post, refusal
from tests.system import System
from tests.waiting import until

QUICK = "/demo tokens=3 rate=0"
STALLED = "/demo tokens=10 rate=0 stall_after=5"
ASKED = "replayed conversation { id shownMessage { id } } question { id text } answer { id status } generation { id status seq model }"


async def ask(client: Client, text: str = QUICK, **input: Any) -> dict[str, Any]:
    """Sends a message and reads the answer to its end; the payload."""
    payload = await mutate(client, "sendMessage", ASKED, text=text, **input)
    await client.read(payload["generation"]["id"])
    return payload


async def test_a_message_is_sent_and_its_answer_written(client: Client) -> None:
    payload = await mutate(client, "sendMessage", ASKED, text="/demo tokens=20 rate=0")

    events = await client.read_through(payload["generation"]["id"])

    check_law(events, await client.snapshot(payload["generation"]["id"]))
    assert payload["replayed"] is False
    assert payload["conversation"]["shownMessage"]["id"] == payload["answer"]["id"]
    assert payload["question"]["text"] == "/demo tokens=20 rate=0"
    assert payload["answer"]["status"] == payload["generation"]["status"] == "QUEUED"
    assert payload["generation"]["seq"] >= 1


async def test_a_parent_that_is_absent_and_one_that_is_null_are_two_things(client: Client) -> None:
    first = await ask(client)
    place = {"conversationId": first["conversation"]["id"]}

    following = await ask(client, **place)
    beginning = await ask(client, **place, parentId=None)
    beside = await ask(client, **place, parentId=first["answer"]["id"])

    parents = {}
    for payload in (following, beginning, beside):
        question = await graph(
            client,
            "query ($id: ID!) { message(id: $id) { parent { id } } }",
            id=payload["question"]["id"],
        )
        parents[payload["question"]["id"]] = question["message"]["parent"]
    assert list(parents.values()) == [
        {"id": first["answer"]["id"]},
        None,
        {"id": first["answer"]["id"]},
    ]


async def test_content_may_come_in_parts(client: Client) -> None:
    payload = await ask(
        client,
        text=None,
        content=[{"type": "TEXT", "text": "/demo tokens=2 "}, {"type": "TEXT", "text": "rate=0"}],
    )

    assert payload["question"]["text"] == "/demo tokens=2 rate=0"


async def test_the_four_ways_to_ask_do_what_they_do_over_http(client: Client) -> None:
    sent = await ask(client, "/demo tokens=12 rate=0", maxOutputTokens=5)

    edited = await mutate(client, "editMessage", ASKED, id=sent["question"]["id"], text=QUICK)
    await client.read(edited["generation"]["id"])
    again = await mutate(client, "regenerateMessage", ASKED, id=edited["answer"]["id"])
    await client.read(again["generation"]["id"])
    more = await mutate(
        client, "continueMessage", ASKED, id=sent["answer"]["id"], maxOutputTokens=5
    )
    await client.read(more["generation"]["id"])

    question, answer = (
        await client.message(edited["question"]["id"]),
        await client.message(again["answer"]["id"]),
    )
    assert question["siblings"] == [sent["question"]["id"], edited["question"]["id"]]
    assert answer["siblings"] == [edited["answer"]["id"], again["answer"]["id"]]
    assert more["answer"]["id"] == sent["answer"]["id"]
    assert more["generation"]["id"] != sent["generation"]["id"]
    assert len((await client.snapshot(more["generation"]["id"]))["text"].split()) == 10


async def test_a_generation_is_stopped_and_its_end_waited_for(client: Client) -> None:
    sent = await client.send(STALLED)
    await client.read(sent["generation_id"], stop_after=3)

    payload = await mutate(
        client, "cancelGeneration", "generation { id status text }", id=sent["generation_id"]
    )
    again = await mutate(
        client,
        "cancelGeneration",
        "generation { id status text }",
        id=sent["generation_id"],
        waitS=0,
    )

    assert payload["generation"]["status"] == "CANCELLED"
    assert (
        payload["generation"]["text"]
        == (await client.snapshot(sent["generation_id"]))["text"]
        != ""
    )
    assert again == payload


# One namespace of idempotency keys.


async def test_a_key_means_the_same_over_http_and_here(client: Client) -> None:
    over_http, here = uuid4().hex, uuid4().hex
    sent = await client.send(
        "/demo tokens=1 rate=0", key=over_http, temperature=1, metadata={"a": "b"}
    )
    first = await mutate(
        client, "sendMessage", ASKED, text="/demo tokens=2 rate=0", idempotencyKey=here
    )

    replayed = await mutate(
        client,
        "sendMessage",
        ASKED,
        text="/demo tokens=1 rate=0",
        temperature=1,
        metadata={"a": "b"},
        idempotencyKey=over_http,
    )
    answer = await client.http.post(
        "/api/messages", json={"text": "/demo tokens=2 rate=0"}, headers={"Idempotency-Key": here}
    )

    assert (replayed["replayed"], replayed["generation"]["id"]) == (True, sent["generation_id"])
    assert (answer.headers["idempotent-replayed"], answer.json()["generation_id"]) == (
        "true",
        first["generation"]["id"],
    )


async def test_each_way_to_ask_replays_what_was_asked_over_http(client: Client) -> None:
    sent = await client.send("/demo tokens=12 rate=0", max_output_tokens=5)
    await client.read(sent["generation_id"])
    ways = {
        "editMessage": (
            f"/api/messages/{sent['question_id']}/edit",
            {"id": sent["question_id"], "text": QUICK},
        ),
        "regenerateMessage": (
            f"/api/messages/{sent['message_id']}/regenerate",
            {"id": sent["message_id"]},
        ),
        "continueMessage": (
            f"/api/messages/{sent['message_id']}/continue",
            {"id": sent["message_id"]},
        ),
    }

    for name, (path, input) in ways.items():
        body = {key: value for key, value in input.items() if key != "id"}
        first = (
            await client.http.post(
                path, json=body, headers={"Idempotency-Key": "k" + sent["message_id"]}
            )
        ).json()
        replayed = await mutate(
            client, name, ASKED, **input, idempotencyKey="k" + sent["message_id"]
        )
        assert (replayed["replayed"], replayed["generation"]["id"]) == (
            True,
            first["generation_id"],
        )
        await client.read(first["generation_id"])


async def test_a_key_with_another_input_is_refused(client: Client) -> None:
    key = uuid4().hex
    await ask(client, idempotencyKey=key)

    assert (
        await code(
            client, mutation("sendMessage"), input={"text": "another", "idempotencyKey": key}
        )
        == "idempotency_key_reused"
    )
    assert (
        await code(client, mutation("sendMessage"), input={"text": "x", "idempotencyKey": ""})
        == "invalid_idempotency_key"
    )


async def test_fifty_equal_mutations_at_once_are_one(client: Client) -> None:
    key = uuid4().hex

    payloads = await asyncio.gather(
        *(mutate(client, "sendMessage", ASKED, text=QUICK, idempotencyKey=key) for _ in range(50))
    )

    assert len({payload["generation"]["id"] for payload in payloads}) == 1
    assert sum(not payload["replayed"] for payload in payloads) == 1


# Conversations.


async def test_a_conversation_is_created_and_then_asked_in(person: Client) -> None:
    input = {
        "title": "My own",
        "systemPrompt": "Be brief.",
        "metadata": {"a": "b"},
        "model": "demo",
    }
    fields = "id title systemPrompt metadata model pinned archived shownMessage { id } lastMessage { id } messages { nodes { id } }"

    created = (await mutate(person, "createConversation", f"conversation {{ {fields} }}", **input))[
        "conversation"
    ]

    empty = {
        "pinned": False,
        "archived": False,
        "shownMessage": None,
        "lastMessage": None,
        "messages": {"nodes": []},
    }
    assert created == input | empty | {"id": created["id"]}
    asked = await ask(person, conversationId=created["id"])
    shown = await person.get(f"/api/conversations/{created['id']}")
    assert (shown["title"], shown["shown_message_id"]) == ("My own", asked["answer"]["id"])


async def test_a_conversation_without_a_title_is_called_by_its_first_words(person: Client) -> None:
    created = (await mutate(person, "createConversation", "conversation { id title }"))[
        "conversation"
    ]

    await ask(person, "/demo tokens=1 rate=0", conversationId=created["id"])
    await ask(person, "Something else", conversationId=created["id"])

    assert created["title"] == ""
    assert (await person.get(f"/api/conversations/{created['id']}"))[
        "title"
    ] == "/demo tokens=1 rate=0"


CHANGES = {
    "title": "Another",
    "pinned": True,
    "archived": True,
    "systemPrompt": "Be long.",
    "metadata": {"x": "y"},
    "model": "demo",
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_changes_what_it_names_and_leaves_the_rest(
    name: str, client: Client
) -> None:
    fields = "id title pinned archived systemPrompt metadata model"
    before = (
        await mutate(
            client, "createConversation", f"conversation {{ {fields} }}", systemPrompt="Be brief."
        )
    )["conversation"]

    payload = await mutate(
        client,
        "updateConversation",
        f"conversation {{ {fields} }}",
        id=before["id"],
        **{name: CHANGES[name]},
    )

    assert payload["conversation"] == before | {name: CHANGES[name]}


async def test_null_clears_and_silence_leaves(client: Client) -> None:
    created = (
        await mutate(client, "createConversation", "conversation { id }", systemPrompt="Be brief.")
    )["conversation"]
    fields = "conversation { systemPrompt pinned }"

    left = await mutate(client, "updateConversation", fields, id=created["id"], pinned=True)
    cleared = await mutate(
        client, "updateConversation", fields, id=created["id"], systemPrompt=None
    )

    assert left["conversation"] == {"systemPrompt": "Be brief.", "pinned": True}
    assert cleared["conversation"] == {"systemPrompt": None, "pinned": True}


FOUND = "query ($c: ID!, $m: ID!, $g: ID!) { conversation(id: $c) { id } message(id: $m) { id } generation(id: $g) { id } }"


async def test_what_is_deleted_is_gone_until_it_is_restored(person: Client) -> None:
    sent = await ask(person)
    ids = {
        "c": sent["conversation"]["id"],
        "m": sent["answer"]["id"],
        "g": sent["generation"]["id"],
    }

    deleted = await mutate(person, "deleteConversation", "conversationId", id=ids["c"])
    gone = await graph(person, FOUND, **ids)
    empty = await graph(person, "{ conversations { nodes { id } } }")
    refused = await code(person, mutation("deleteConversation"), input={"id": ids["c"]})
    restored = await mutate(person, "restoreConversation", "conversation { id title }", id=ids["c"])
    again = await mutate(person, "restoreConversation", "conversation { id title }", id=ids["c"])

    assert (deleted["conversationId"], refused) == (ids["c"], "not_found")
    assert gone == {"conversation": None, "message": None, "generation": None}
    assert empty["conversations"]["nodes"] == []
    assert restored == again == {"conversation": {"id": ids["c"], "title": QUICK}}
    assert await graph(person, FOUND, **ids) == {
        "conversation": {"id": ids["c"]},
        "message": {"id": ids["m"]},
        "generation": {"id": ids["g"]},
    }
    assert (await ask(person, conversationId=ids["c"]))["conversation"]["id"] == ids["c"]


async def test_answers_that_a_deletion_stopped_stay_stopped(client: Client) -> None:
    sent = await client.send(STALLED)
    await client.read(sent["generation_id"], stop_after=3)

    await mutate(client, "deleteConversation", id=sent["conversation_id"])
    await mutate(client, "restoreConversation", id=sent["conversation_id"])

    events = await client.read_through(sent["generation_id"])
    assert events[-1].type == "cancelled"
    check_law(events, await client.snapshot(sent["generation_id"]))


# Keys.


async def key_works(system: System, secret: str) -> bool:
    async with Client(system.web.url, secret) as holder:
        return (await post(holder, "{ viewer { apiKey { id } } }")).status_code == 200


async def test_a_key_opens_the_door_until_it_is_revoked(person: Client, tidemark: System) -> None:
    made = await mutate(
        person, "createApiKey", "apiKey { id name prefix revokedAt } secret", name="for the robot"
    )
    opened = await key_works(tidemark, made["secret"])
    keys = "{ viewer { account { apiKeys { id } } } }"
    before = (await graph(person, keys))["viewer"]["account"]["apiKeys"]

    revoked = await mutate(
        person, "revokeApiKey", "apiKey { id revokedAt }", id=made["apiKey"]["id"]
    )
    again = await mutate(person, "revokeApiKey", "apiKey { id revokedAt }", id=made["apiKey"]["id"])

    assert opened
    assert made["secret"].startswith(made["apiKey"]["prefix"])
    assert {"id": made["apiKey"]["id"]} in before
    assert revoked == again
    assert revoked["apiKey"]["revokedAt"] is not None
    assert {"id": made["apiKey"]["id"]} not in (await graph(person, keys))["viewer"]["account"][
        "apiKeys"
    ]
    assert not await key_works(tidemark, made["secret"])


async def test_a_secret_is_kept_nowhere(person: Client, tidemark: System) -> None:
    made = await mutate(person, "createApiKey", "secret", name="secret")

    with closing(sqlite3.connect(tidemark.settings.data_dir / "tidemark.db")) as database:
        dump = "\n".join(database.iterdump())

    assert made["secret"] not in dump
    assert all(made["secret"] not in process.output() for process in tidemark.processes)


async def test_a_key_that_expires_makes_none_that_outlives_it(
    person: Client, tidemark: System
) -> None:
    soon, later = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (60, 120))
    made = await mutate(
        person,
        "createApiKey",
        "secret apiKey { expiresAt }",
        name="short",
        expiresAt=soon.isoformat(),
    )
    assert datetime.fromisoformat(made["apiKey"]["expiresAt"]) == soon

    async with Client(tidemark.web.url, made["secret"]) as holder:
        for expiry in ({}, {"expiresAt": later.isoformat()}):
            error = await refusal(
                holder, mutation("createApiKey"), input={"name": "longer", **expiry}
            )
            assert error["extensions"]["errors"][0]["pointer"] == "/expiresAt"
        await mutate(holder, "createApiKey", name="as short", expiresAt=soon.isoformat())


async def test_a_key_ends_by_itself(person: Client, tidemark: System) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    made = await mutate(person, "createApiKey", "secret", name="short", expiresAt=soon.isoformat())

    while datetime.now(UTC) < soon:
        await asyncio.sleep(0.05)

    assert not await key_works(tidemark, made["secret"])


async def test_an_account_has_only_so_many_keys(person: Client) -> None:
    await asyncio.gather(*(mutate(person, "createApiKey", name="one of many") for _ in range(99)))

    error = await refusal(person, mutation("createApiKey"), input={"name": "one too many"})

    assert (error["extensions"]["code"], error["extensions"]["limit"]) == ("too_many_api_keys", 100)


# The same refusals.

NOWHERE = {
    prefix: new_id(prefix) for prefix in (Prefix.CONVERSATION, Prefix.MESSAGE, Prefix.GENERATION)
}
SEND, CHANGE = ("sendMessage", ""), ("updateConversation", "{conversation}")
CALLS = {
    "sendMessage": ("POST", "/api/messages"),
    "editMessage": ("POST", "/api/messages/{id}/edit"),
    "regenerateMessage": ("POST", "/api/messages/{id}/regenerate"),
    "continueMessage": ("POST", "/api/messages/{id}/continue"),
    "updateConversation": ("PATCH", "/api/conversations/{id}"),
}
SAME = {
    "nothing said": (SEND, {}),
    "two things said": (SEND, {"text": "x", "content": [{"type": "text", "text": "x"}]}),
    "an empty text": (SEND, {"text": "   "}),
    "a NUL": (SEND, {"text": "a\0b"}),
    "empty content": (SEND, {"content": []}),
    "content without text": (SEND, {"content": [{"type": "text"}]}),
    "content that cannot be asked": (SEND, {"content": [{"type": "reasoning", "text": "x"}]}),
    "an unknown model": (SEND, {"text": "x", "model": "nobody/nothing"}),
    "a long model": (SEND, {"text": "x", "model": "m" * 201}),
    "no tokens": (SEND, {"text": "x", "max_output_tokens": 0}),
    "too many tokens": (SEND, {"text": "x", "max_output_tokens": 1_000_001}),
    "too hot": (SEND, {"text": "x", "temperature": 2.1}),
    "a long system prompt": (SEND, {"text": "x", "system_prompt": "x" * 100_001}),
    "metadata null": (SEND, {"text": "x", "metadata": None}),
    "metadata a list": (SEND, {"text": "x", "metadata": []}),
    "metadata with a number": (SEND, {"text": "x", "metadata": {"a_b": 1}}),
    "too much metadata": (SEND, {"text": "x", "metadata": {str(n): "x" for n in range(17)}}),
    "an unknown conversation": (
        SEND,
        {"text": "x", "conversation_id": NOWHERE[Prefix.CONVERSATION]},
    ),
    "no conversation at all": (SEND, {"text": "x", "conversation_id": "nonsense"}),
    "a parent without its conversation": (SEND, {"text": "x", "parent_id": "{answer}"}),
    "a question as parent": (
        SEND,
        {"text": "x", "conversation_id": "{conversation}", "parent_id": "{question}"},
    ),
    "an unknown parent": (
        SEND,
        {"text": "x", "conversation_id": "{conversation}", "parent_id": NOWHERE[Prefix.MESSAGE]},
    ),
    "a parent that is being written": (
        SEND,
        {"text": "x", "conversation_id": "{stalled.conversation}", "parent_id": "{stalled.answer}"},
    ),
    "an answer edited": (("editMessage", "{answer}"), {"text": "x"}),
    "an unknown question edited": (("editMessage", NOWHERE[Prefix.MESSAGE]), {"text": "x"}),
    "nothing edited": (("editMessage", "{question}"), {"text": ""}),
    "a question regenerated": (("regenerateMessage", "{question}"), {}),
    "regenerated while written": (("regenerateMessage", "{stalled.answer}"), {}),
    "regenerated by nobody": (("regenerateMessage", "{answer}"), {"model": "nobody/nothing"}),
    "continued though complete": (("continueMessage", "{answer}"), {}),
    "title null": (CHANGE, {"title": None}),
    "title empty": (CHANGE, {"title": ""}),
    "title too long": (CHANGE, {"title": "x" * 201}),
    "pinned null": (CHANGE, {"pinned": None}),
    "model null": (CHANGE, {"model": None}),
    "model unknown": (CHANGE, {"model": "nobody/nothing"}),
    "showing what is not there": (CHANGE, {"shown_message_id": NOWHERE[Prefix.MESSAGE]}),
    "showing nonsense": (CHANGE, {"shown_message_id": "x\0"}),
    "changing nothing that is there": (
        ("updateConversation", NOWHERE[Prefix.CONVERSATION]),
        {"title": "x"},
    ),
}


@pytest.fixture(scope="module")
def turns(tidemark: System, key: str) -> dict[str, Any]:
    """The ids of a settled turn, and of one that is being written."""

    async def make() -> dict[str, Any]:
        async with Client(tidemark.web.url, key) as client:
            sent = await client.send(QUICK)
            await client.read(sent["generation_id"])
            stalled = await client.send(STALLED)
        names = {
            "conversation": "conversation_id",
            "question": "question_id",
            "answer": "message_id",
        }
        ids = {name: sent[id] for name, id in names.items()}
        return ids | {f"stalled.{name}": stalled[id] for name, id in names.items()}

    return asyncio.run(make())


def filled(value: Any, ids: dict[str, str]) -> Any:
    """The value with the ids it names."""
    if isinstance(value, str):
        for name, id in ids.items():
            value = value.replace(f"{{{name}}}", id)
        return value
    return (
        {key: filled(each, ids) for key, each in value.items()}
        if isinstance(value, dict)
        else value
    )


def as_input(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a request, as GraphQL takes it."""
    spelled = {}
    for key, value in body.items():
        first, *rest = key.split("_")
        spelled[first + "".join(map(str.capitalize, rest))] = value
    if spelled.get("content"):
        spelled["content"] = [part | {"type": part["type"].upper()} for part in spelled["content"]]
    return spelled


@pytest.mark.parametrize("case", SAME.values(), ids=SAME)
async def test_both_interfaces_refuse_alike(
    case: tuple[tuple[str, str], dict[str, Any]], turns: dict[str, Any], client: Client
) -> None:
    (name, id), body = (filled(each, turns) for each in case[0]), filled(case[1], turns)
    method, path = CALLS[name]

    problem = (await client.http.request(method, path.format(id=id), json=body)).json()
    error = await refusal(client, mutation(name), input=as_input(body) | ({"id": id} if id else {}))

    assert error["extensions"]["code"] == problem["code"]
    assert [fault["detail"] for fault in error["extensions"].get("errors", ())] == [
        fault["detail"] for fault in problem.get("errors", ())
    ]
    assert [fault["pointer"] for fault in error["extensions"].get("errors", ())] == [
        camel_pointer(fault["pointer"]) for fault in problem.get("errors", ())
    ]


def camel_pointer(pointer: str) -> str:
    """A JSON pointer into a body, as one into the input."""
    first, *rest = pointer.removeprefix("/").split("/")
    return "/".join([f"/{next(iter(as_input({first: None})))}", *rest]) if first else ""


@pytest.mark.parametrize("wait_s", [-1, 31, 1e9])
async def test_waiting_has_its_bounds(wait_s: float, turns: dict[str, Any], client: Client) -> None:
    sent = await client.send(QUICK)

    error = await refusal(
        client, mutation("cancelGeneration"), input={"id": sent["generation_id"], "waitS": wait_s}
    )

    assert (error["extensions"]["code"], error["extensions"]["errors"][0]["pointer"]) == (
        "invalid_request",
        "/waitS",
    )


BAD_KEYS = {
    "no name": ({"name": ""}, "invalid_request"),
    "a long name": ({"name": "x" * 101}, "invalid_request"),
    "a NUL": ({"name": "\0"}, "invalid_request"),
    "over already": ({"name": "x", "expiresAt": "2020-01-01T00:00:00Z"}, "invalid_request"),
    "no offset": ({"name": "x", "expiresAt": "2040-01-01T00:00:00"}, "invalid_request"),
    "no moment": ({"name": "x", "expiresAt": "tomorrow"}, "invalid_request"),
    "a number": ({"name": "x", "expiresAt": 2_000_000_000}, "invalid_request"),
}


@pytest.mark.parametrize("case", BAD_KEYS.values(), ids=BAD_KEYS)
async def test_a_key_that_makes_no_sense_is_refused(
    case: tuple[dict[str, Any], str], person: Client
) -> None:
    input, expected = case

    assert await code(person, mutation("createApiKey"), input=input) == expected


async def test_a_fault_of_ours_says_nothing_but_where_it_is_recorded(
    person: Client, tidemark: System
) -> None:
    sent = await ask(person)
    with closing(sqlite3.connect(tidemark.settings.data_dir / "tidemark.db")) as database:
        database.execute(
            "UPDATE generation SET usage = '\"nonsense\"' WHERE id = ?", [sent["generation"]["id"]]
        )
        database.commit()

    error = await refusal(
        person, "query ($id: ID!) { generation(id: $id) { id } }", id=sent["generation"]["id"]
    )

    request_id = error["extensions"]["requestId"]
    assert (error["extensions"]["code"], error["message"]) == (
        "internal",
        f"Internal server error. The server logged it with request id {request_id}.",
    )
    log = until(
        lambda: next(
            (line for line in tidemark.web.output().splitlines() if request_id in line), None
        ),
        "the log",
    )
    assert '"event": "fault"' in log
    assert "TypeError" in log


async def test_a_mutation_sees_what_an_earlier_one_of_its_operation_changed(
    client: Client,
) -> None:
    sent = await client.send("/demo tokens=1 rate=0")
    await client.read(sent["generation_id"])
    document = """mutation ($first: SendMessageInput!, $second: SendMessageInput!) {
        a: sendMessage(input: $first) { conversation { shownMessage { id } lastMessage { id } } answer { id } }
        b: sendMessage(input: $second) { conversation { shownMessage { id } lastMessage { id } } answer { id } } }"""
    question = {"conversationId": sent["conversation_id"], "text": "/demo tokens=1 rate=0"}

    both = await graph(
        client, document, first=question | {"parentId": None}, second=question | {"parentId": None}
    )

    for payload in both.values():
        assert payload["conversation"]["lastMessage"] == payload["answer"]
        assert payload["conversation"]["shownMessage"] == payload["answer"]
