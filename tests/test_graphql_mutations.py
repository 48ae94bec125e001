"""GraphQL mutations; HTTP and GraphQL refuse the same requests with the same codes."""

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
PAYLOAD = (
    "replayed conversation { id shownMessage { id } } question { id text }"
    " answer { id status } generation { id status seq model }"
)


async def ask(client: Client, text: str = QUICK, **input: Any) -> dict[str, Any]:
    """Send a message and read the answer to its end; the payload."""
    payload = await mutate(client, "sendMessage", PAYLOAD, text=text, **input)
    await client.read(payload["generation"]["id"])
    return payload


async def test_a_sent_message_is_answered(client: Client) -> None:
    payload = await mutate(client, "sendMessage", PAYLOAD, text="/demo tokens=20 rate=0")

    events = await client.read_through(payload["generation"]["id"])

    check_law(events, await client.snapshot(payload["generation"]["id"]))
    assert payload["replayed"] is False
    assert payload["conversation"]["shownMessage"]["id"] == payload["answer"]["id"]
    assert payload["question"]["text"] == "/demo tokens=20 rate=0"
    # A worker may have claimed it before the payload is read.
    assert {payload["answer"]["status"], payload["generation"]["status"]} <= {"QUEUED", "RUNNING"}
    assert payload["generation"]["seq"] >= 1


async def test_an_absent_parent_differs_from_null(client: Client) -> None:
    first = await ask(client)
    in_conversation = {"conversationId": first["conversation"]["id"]}

    following = await ask(client, **in_conversation)
    root = await ask(client, **in_conversation, parentId=None)
    sibling = await ask(client, **in_conversation, parentId=first["answer"]["id"])

    parents = {}
    for payload in (following, root, sibling):
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


async def test_content_may_have_several_parts(client: Client) -> None:
    payload = await ask(
        client,
        text=None,
        content=[{"type": "TEXT", "text": "/demo tokens=2 "}, {"type": "TEXT", "text": "rate=0"}],
    )

    assert payload["question"]["text"] == "/demo tokens=2 rate=0"


async def test_the_four_mutations_that_start_answers_work_as_over_http(client: Client) -> None:
    sent = await ask(client, "/demo tokens=12 rate=0", maxOutputTokens=5)

    edited = await mutate(client, "editMessage", PAYLOAD, id=sent["question"]["id"], text=QUICK)
    await client.read(edited["generation"]["id"])
    again = await mutate(client, "regenerateMessage", PAYLOAD, id=edited["answer"]["id"])
    await client.read(again["generation"]["id"])
    more = await mutate(
        client, "continueMessage", PAYLOAD, id=sent["answer"]["id"], maxOutputTokens=5
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


async def test_cancelling_a_generation_waits_for_its_end(client: Client) -> None:
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


async def test_idempotency_keys_are_shared_between_http_and_graphql(client: Client) -> None:
    over_http, over_graphql = uuid4().hex, uuid4().hex
    sent = await client.send(
        "/demo tokens=1 rate=0", key=over_http, temperature=1, metadata={"a": "b"}
    )
    first = await mutate(
        client, "sendMessage", PAYLOAD, text="/demo tokens=2 rate=0", idempotencyKey=over_graphql
    )

    replayed = await mutate(
        client,
        "sendMessage",
        PAYLOAD,
        text="/demo tokens=1 rate=0",
        temperature=1,
        metadata={"a": "b"},
        idempotencyKey=over_http,
    )
    response = await client.http.post(
        "/api/messages",
        json={"text": "/demo tokens=2 rate=0"},
        headers={"Idempotency-Key": over_graphql},
    )

    assert (replayed["replayed"], replayed["generation"]["id"]) == (True, sent["generation_id"])
    assert (response.headers["idempotent-replayed"], response.json()["generation_id"]) == (
        "true",
        first["generation"]["id"],
    )


async def test_every_mutation_replays_a_request_sent_over_http(client: Client) -> None:
    sent = await client.send("/demo tokens=12 rate=0", max_output_tokens=5)
    await client.read_through(sent["generation_id"])
    mutations = {
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

    for name, (path, input) in mutations.items():
        body = {key: value for key, value in input.items() if key != "id"}
        first = (
            await client.http.post(
                path, json=body, headers={"Idempotency-Key": "k" + sent["message_id"]}
            )
        ).json()
        replayed = await mutate(
            client, name, PAYLOAD, **input, idempotencyKey="k" + sent["message_id"]
        )
        assert (replayed["replayed"], replayed["generation"]["id"]) == (
            True,
            first["generation_id"],
        )
        await client.read(first["generation_id"])


async def test_an_idempotency_key_reused_with_another_input_is_refused(client: Client) -> None:
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


async def test_fifty_concurrent_mutations_with_one_key_create_one_answer(client: Client) -> None:
    key = uuid4().hex

    payloads = await asyncio.gather(
        *(mutate(client, "sendMessage", PAYLOAD, text=QUICK, idempotencyKey=key) for _ in range(50))
    )

    assert len({payload["generation"]["id"] for payload in payloads}) == 1
    assert sum(not payload["replayed"] for payload in payloads) == 1


# Conversations.


async def test_a_created_conversation_accepts_messages(person: Client) -> None:
    input = {
        "title": "My own",
        "systemPrompt": "Be brief.",
        "metadata": {"a": "b"},
        "model": "demo",
    }
    fields = (
        "id title systemPrompt metadata model pinned archived shownMessage { id } "
        "lastMessage { id } messages { nodes { id } }"
    )

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
    sent = await ask(person, conversationId=created["id"])
    stored = await person.get(f"/api/conversations/{created['id']}")
    assert (stored["title"], stored["shown_message_id"]) == ("My own", sent["answer"]["id"])


async def test_a_conversation_without_a_title_gets_that_of_its_first_question(
    person: Client,
) -> None:
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
async def test_a_change_affects_only_the_given_input_fields(name: str, client: Client) -> None:
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


async def test_null_clears_a_field_and_absence_keeps_it(client: Client) -> None:
    created = (
        await mutate(client, "createConversation", "conversation { id }", systemPrompt="Be brief.")
    )["conversation"]
    fields = "conversation { systemPrompt pinned }"

    unchanged = await mutate(client, "updateConversation", fields, id=created["id"], pinned=True)
    cleared = await mutate(
        client, "updateConversation", fields, id=created["id"], systemPrompt=None
    )

    assert unchanged["conversation"] == {"systemPrompt": "Be brief.", "pinned": True}
    assert cleared["conversation"] == {"systemPrompt": None, "pinned": True}


FOUND = (
    "query ($c: ID!, $m: ID!, $g: ID!) { conversation(id: $c) { id }"
    " message(id: $m) { id } generation(id: $g) { id } }"
)


async def test_a_deleted_conversation_is_not_found_until_it_is_restored(person: Client) -> None:
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


async def test_restoring_does_not_resume_answers_cancelled_by_a_deletion(client: Client) -> None:
    sent = await client.send(STALLED)
    await client.read(sent["generation_id"], stop_after=3)

    await mutate(client, "deleteConversation", id=sent["conversation_id"])
    await mutate(client, "restoreConversation", id=sent["conversation_id"])

    events = await client.read_through(sent["generation_id"])
    assert events[-1].type == "cancelled"
    check_law(events, await client.snapshot(sent["generation_id"]))


# API keys.


async def key_works(system: System, secret: str) -> bool:
    async with Client(system.web.url, secret) as holder:
        return (await post(holder, "{ viewer { apiKey { id } } }")).status_code == 200


async def test_a_key_authenticates_until_it_is_revoked(person: Client, tidemark: System) -> None:
    created = await mutate(
        person, "createApiKey", "apiKey { id name prefix revokedAt } secret", name="for the robot"
    )
    accepted = await key_works(tidemark, created["secret"])
    keys = "{ viewer { account { apiKeys { id } } } }"
    before = (await graph(person, keys))["viewer"]["account"]["apiKeys"]

    revoked = await mutate(
        person, "revokeApiKey", "apiKey { id revokedAt }", id=created["apiKey"]["id"]
    )
    again = await mutate(
        person, "revokeApiKey", "apiKey { id revokedAt }", id=created["apiKey"]["id"]
    )

    assert accepted
    assert created["secret"].startswith(created["apiKey"]["prefix"])
    assert {"id": created["apiKey"]["id"]} in before
    assert revoked == again
    assert revoked["apiKey"]["revokedAt"] is not None
    assert {"id": created["apiKey"]["id"]} not in (await graph(person, keys))["viewer"]["account"][
        "apiKeys"
    ]
    assert not await key_works(tidemark, created["secret"])


async def test_a_secret_is_neither_stored_nor_logged(person: Client, tidemark: System) -> None:
    created = await mutate(person, "createApiKey", "secret", name="secret")

    with closing(sqlite3.connect(tidemark.settings.data_dir / "tidemark.db")) as database:
        dump = "\n".join(database.iterdump())

    assert created["secret"] not in dump
    assert all(created["secret"] not in process.output() for process in tidemark.processes)


async def test_a_key_cannot_create_one_that_outlives_it(person: Client, tidemark: System) -> None:
    soon, later = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (60, 120))
    created = await mutate(
        person,
        "createApiKey",
        "secret apiKey { expiresAt }",
        name="short",
        expiresAt=soon.isoformat(),
    )
    assert datetime.fromisoformat(created["apiKey"]["expiresAt"]) == soon

    async with Client(tidemark.web.url, created["secret"]) as holder:
        for expiry in ({}, {"expiresAt": later.isoformat()}):
            error = await refusal(
                holder, mutation("createApiKey"), input={"name": "longer", **expiry}
            )
            assert error["extensions"]["errors"][0]["pointer"] == "/expiresAt"
        await mutate(holder, "createApiKey", name="as short", expiresAt=soon.isoformat())


async def test_an_expired_key_is_refused(person: Client, tidemark: System) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    created = await mutate(
        person, "createApiKey", "secret", name="short", expiresAt=soon.isoformat()
    )

    while datetime.now(UTC) < soon:
        await asyncio.sleep(0.05)

    assert not await key_works(tidemark, created["secret"])


async def test_keys_per_account_are_limited(person: Client) -> None:
    await asyncio.gather(*(mutate(person, "createApiKey", name="one of many") for _ in range(99)))

    error = await refusal(person, mutation("createApiKey"), input={"name": "one too many"})

    assert (error["extensions"]["code"], error["extensions"]["limit"]) == ("too_many_api_keys", 100)


# Refusals over both interfaces.

UNKNOWN = {
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
REFUSED_ALIKE = {
    "neither text nor content": (SEND, {}),
    "text and content": (SEND, {"text": "x", "content": [{"type": "text", "text": "x"}]}),
    "an empty text": (SEND, {"text": "   "}),
    "a NUL": (SEND, {"text": "a\0b"}),
    "empty content": (SEND, {"content": []}),
    "content without text": (SEND, {"content": [{"type": "text"}]}),
    "content that only answers have": (SEND, {"content": [{"type": "reasoning", "text": "x"}]}),
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
        {"text": "x", "conversation_id": UNKNOWN[Prefix.CONVERSATION]},
    ),
    "no conversation at all": (SEND, {"text": "x", "conversation_id": "nonsense"}),
    "a parent without its conversation": (SEND, {"text": "x", "parent_id": "{answer}"}),
    "a question as parent": (
        SEND,
        {"text": "x", "conversation_id": "{conversation}", "parent_id": "{question}"},
    ),
    "an unknown parent": (
        SEND,
        {"text": "x", "conversation_id": "{conversation}", "parent_id": UNKNOWN[Prefix.MESSAGE]},
    ),
    "a parent that is being written": (
        SEND,
        {"text": "x", "conversation_id": "{stalled.conversation}", "parent_id": "{stalled.answer}"},
    ),
    "an answer edited": (("editMessage", "{answer}"), {"text": "x"}),
    "an unknown question edited": (("editMessage", UNKNOWN[Prefix.MESSAGE]), {"text": "x"}),
    "nothing edited": (("editMessage", "{question}"), {"text": ""}),
    "a question regenerated": (("regenerateMessage", "{question}"), {}),
    "regenerated while written": (("regenerateMessage", "{stalled.answer}"), {}),
    "regenerated by an unknown model": (
        ("regenerateMessage", "{answer}"),
        {"model": "nobody/nothing"},
    ),
    "continued though complete": (("continueMessage", "{answer}"), {}),
    "title null": (CHANGE, {"title": None}),
    "title empty": (CHANGE, {"title": ""}),
    "title too long": (CHANGE, {"title": "x" * 201}),
    "pinned null": (CHANGE, {"pinned": None}),
    "model null": (CHANGE, {"model": None}),
    "model unknown": (CHANGE, {"model": "nobody/nothing"}),
    "showing an unknown message": (CHANGE, {"shown_message_id": UNKNOWN[Prefix.MESSAGE]}),
    "showing a malformed id": (CHANGE, {"shown_message_id": "x\0"}),
    "changing an unknown conversation": (
        ("updateConversation", UNKNOWN[Prefix.CONVERSATION]),
        {"title": "x"},
    ),
}


@pytest.fixture(scope="module")
def turns(tidemark: System, key: str) -> dict[str, Any]:
    """The ids of a settled turn and of one in progress."""

    async def make() -> dict[str, Any]:
        async with Client(tidemark.web.url, key) as client:
            sent = await client.send(QUICK)
            await client.read_through(sent["generation_id"])
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
    """The value with ids in place of their names."""
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
    """A request body with the key names and enum values of GraphQL."""
    input = {}
    for key, value in body.items():
        first, *rest = key.split("_")
        input[first + "".join(map(str.capitalize, rest))] = value
    if input.get("content"):
        input["content"] = [part | {"type": part["type"].upper()} for part in input["content"]]
    return input


@pytest.mark.parametrize("case", REFUSED_ALIKE.values(), ids=REFUSED_ALIKE)
async def test_both_interfaces_refuse_with_the_same_errors(
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
    """A JSON pointer into a request body as a pointer into the input."""
    first, *rest = pointer.removeprefix("/").split("/")
    return "/".join([f"/{next(iter(as_input({first: None})))}", *rest]) if first else ""


@pytest.mark.parametrize("wait_s", [-1, 31, 1e9])
async def test_the_wait_for_a_cancellation_is_limited(
    wait_s: float, turns: dict[str, Any], client: Client
) -> None:
    sent = await client.send(QUICK)

    error = await refusal(
        client, mutation("cancelGeneration"), input={"id": sent["generation_id"], "waitS": wait_s}
    )

    assert (error["extensions"]["code"], error["extensions"]["errors"][0]["pointer"]) == (
        "invalid_request",
        "/waitS",
    )


INVALID_KEYS = {
    "no name": ({"name": ""}, "invalid_request"),
    "a long name": ({"name": "x" * 101}, "invalid_request"),
    "a NUL": ({"name": "\0"}, "invalid_request"),
    "expired": ({"name": "x", "expiresAt": "2020-01-01T00:00:00Z"}, "invalid_request"),
    "no offset": ({"name": "x", "expiresAt": "2040-01-01T00:00:00"}, "invalid_request"),
    "not a time": ({"name": "x", "expiresAt": "tomorrow"}, "invalid_request"),
    "a number": ({"name": "x", "expiresAt": 2_000_000_000}, "invalid_request"),
}


@pytest.mark.parametrize("case", INVALID_KEYS.values(), ids=INVALID_KEYS)
async def test_an_invalid_new_key_is_refused(
    case: tuple[dict[str, Any], str], person: Client
) -> None:
    input, expected = case

    assert await code(person, mutation("createApiKey"), input=input) == expected


async def test_an_internal_error_gives_only_the_request_id_of_its_log_entry(
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
    assert '"event": "internal_error"' in log
    assert "TypeError" in log


async def test_a_mutation_sees_what_an_earlier_one_of_its_operation_changed(
    client: Client,
) -> None:
    sent = await client.send("/demo tokens=1 rate=0")
    await client.read_through(sent["generation_id"])
    document = """mutation ($first: SendMessageInput!, $second: SendMessageInput!) {
        a: sendMessage(input: $first) { conversation { shownMessage { id } lastMessage { id } } answer { id } }
        b: sendMessage(input: $second) { conversation { shownMessage { id } lastMessage { id } } answer { id } } }"""
    question = {"conversationId": sent["conversation_id"], "text": "/demo tokens=1 rate=0"}

    both = await graph(
        client, document, first=question | {"parentId": None}, second=question | {"parentId": None}
    )

    for payload in both.values():
        assert payload["conversation"]["shownMessage"] == payload["answer"]
    answers = [payload["answer"] for payload in both.values()]
    assert both["a"]["conversation"]["lastMessage"] == answers[0]
    assert both["b"]["conversation"]["lastMessage"] in answers  # the first one may end just then
