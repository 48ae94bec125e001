"""GraphQL queries: the same data as over HTTP, page by page, in few SQL statements."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from server.graph.context import Context
from server.graph.schema import Schema
from server.identity.callers import Caller
from server.ids import Prefix, new_id
from server.resources import Services, open_resources
from server.settings import GraphqlSettings
from tests.client import Client
from tests.databases import both_databases
from tests.graph import code, graph, mutate, refusal
from tests.system import System

pytestmark = both_databases

QUICK = "/demo tokens=3 rate=0"
STALLED = "/demo tokens=10 rate=0 stall_after=5"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}

UNKNOWN_ULID = "01K00000000000000000000000"


async def ask(client: Client, text: str = QUICK, **body: Any) -> dict[str, Any]:
    """Send a message and read the answer to its end."""
    sent = await client.send(text, **body)
    await client.read(sent["generation_id"])
    return sent


def camel(http_object: dict[str, Any]) -> dict[str, Any]:
    """An HTTP object with the key names and enum values of GraphQL."""
    named = {}
    for key, value in http_object.items():
        first, *rest = key.split("_")
        enum = key in ("status", "finish_reason", "role") and value is not None
        named[first + "".join(map(str.capitalize, rest))] = value.upper() if enum else value
    return named


async def test_the_viewer_is_the_account_of_the_request(person: Client) -> None:
    query = (
        "{ viewer { account { id createdAt apiKeys { id name prefix } } user { id email } "
        "apiKey { id name expiresAt revokedAt } } }"
    )

    viewer = (await graph(person, query))["viewer"]

    assert viewer["account"]["id"].startswith("acct_")
    assert viewer["user"]["email"].endswith("@example.org")
    assert viewer["apiKey"] == {
        "id": viewer["account"]["apiKeys"][0]["id"],
        "name": "test",
        "expiresAt": None,
        "revokedAt": None,
    }


async def test_a_session_cookie_works_only_from_the_same_site(tidemark: System) -> None:
    async with Client(tidemark.web.url) as guest:
        assert (
            await guest.http.post("/api/session", json={}, headers=SAME_ORIGIN)
        ).status_code == 201
        query = {"query": "{ viewer { user { id } apiKey { id } } }"}

        inside = await guest.http.post("/graphql", json=query, headers=SAME_ORIGIN)
        outside = await guest.http.post(
            "/graphql", json=query, headers={"Origin": "https://elsewhere.example"}
        )

    assert inside.json() == {"data": {"viewer": {"user": None, "apiKey": None}}}
    assert (outside.status_code, outside.json()["code"]) == (403, "cross_site")


async def test_a_conversation_equals_that_of_http(client: Client) -> None:
    sent = await ask(client, system_prompt="Be brief.")
    query = """query ($id: ID!) { conversation(id: $id) {
        id title pinned archived model systemPrompt metadata createdAt updatedAt
        shownMessage { id } activeGenerations { id } } }"""

    found = (await graph(client, query, id=sent["conversation_id"]))["conversation"]

    over_http = camel(await client.get(f"/api/conversations/{sent['conversation_id']}"))
    assert found | {"shownMessageId": found.pop("shownMessage")["id"]} == over_http


async def test_a_message_equals_that_of_http(client: Client) -> None:
    sent = await ask(client, metadata={"a": "b"})
    query = """query ($id: ID!) { message(id: $id) {
        id role text status model finishReason metadata createdAt error { code }
        usage { inputTokens outputTokens } content { type ... on TextPart { text } }
        position siblingCount conversation { id } parent { id } siblings { id }
        generation { id } } }"""

    for message_id in (sent["question_id"], sent["message_id"]):
        found = (await graph(client, query, id=message_id))["message"]

        over_http = camel(await client.message(message_id))
        over_http["content"] = [
            {"type": part["type"].upper(), "text": part["text"]} for part in over_http["content"]
        ]
        over_http["usage"] = over_http["usage"] and camel(
            {key: over_http["usage"][key] for key in ("input_tokens", "output_tokens")}
        )
        ids = {
            f"{name}Id": (found.pop(name) or {}).get("id")
            for name in ("conversation", "parent", "generation")
        }
        assert found | ids | {"siblings": [each["id"] for each in found["siblings"]]} == over_http


async def test_a_generation_equals_that_of_http(client: Client) -> None:
    sent = await ask(client, "/demo tokens=20 rate=0 reasoning=5 tool=1")
    query = """query ($id: ID!) { generation(id: $id) {
        id status attempt seq text model finishReason createdAt startedAt firstTokenAt
        finishedAt messagesLeftOut error { code }
        usage { inputTokens outputTokens cachedInputTokens reasoningTokens estimated }
        content { __typename type ... on TextPart { text } ... on ReasoningPart { text }
            ... on ToolCallPart { callId name arguments } }
        message { id } conversation { id } } }"""

    found = (await graph(client, query, id=sent["generation_id"]))["generation"]

    over_http = camel(await client.snapshot(sent["generation_id"]))
    assert [camel(part) | {"type": part["type"].upper()} for part in over_http.pop("content")] == [
        {key: value for key, value in part.items() if key != "__typename"}
        for part in found.pop("content")
    ]
    usage = {"cachedInputTokens": None, "reasoningTokens": None, "estimated": False} | camel(
        over_http.pop("usage")
    )
    assert found.pop("usage") == usage
    assert found.pop("messagesLeftOut") == over_http.pop("context")["messages_left_out"]
    assert (found.pop("message")["id"], found.pop("conversation")["id"]) == (
        over_http.pop("messageId"),
        over_http.pop("conversationId"),
    )
    assert over_http.pop("questionId") == sent["question_id"]
    assert found == over_http


async def test_a_running_generation_has_its_text_so_far(client: Client) -> None:
    sent = await client.send(STALLED)
    events = await client.read(sent["generation_id"], stop_after=3)
    query = (
        "query ($id: ID!) { generation(id: $id) { status seq text"
        " conversation { activeGenerations { id text } } } }"
    )

    found = (await graph(client, query, id=sent["generation_id"]))["generation"]

    snapshot = await client.snapshot(sent["generation_id"])
    assert found["seq"] >= events[-1].seq
    assert (found["status"], found["seq"], found["text"]) == (
        "RUNNING",
        snapshot["seq"],
        snapshot["text"],
    )
    assert found["conversation"]["activeGenerations"] == [
        {"id": sent["generation_id"], "text": snapshot["text"]}
    ]
    await client.cancel(sent["generation_id"])


async def test_any_node_is_found_by_its_id(client: Client) -> None:
    sent = await ask(client)
    query = "query ($id: ID!) { node(id: $id) { __typename id } }"

    for name, id in (
        ("Conversation", "conversation_id"),
        ("Message", "message_id"),
        ("Generation", "generation_id"),
    ):
        assert (await graph(client, query, id=sent[id]))["node"] == {
            "__typename": name,
            "id": sent[id],
        }


@pytest.mark.parametrize(
    "id",
    [
        "",
        "x",
        "acct_01",
        "conv_",
        "gen_\0",
        "msg_ü",
        "_",
        "x" * 10_000,
        *(f"{prefix}_{UNKNOWN_ULID}" for prefix in Prefix),
    ],
)
async def test_unknown_objects_are_null(id: str, client: Client) -> None:
    query = (
        "query ($id: ID!) { node(id: $id) { id } conversation(id: $id) { id }"
        " message(id: $id) { id } generation(id: $id) { id } }"
    )

    assert await graph(client, query, id=id) == {
        "node": None,
        "conversation": None,
        "message": None,
        "generation": None,
    }


async def test_models_equal_those_of_http(client: Client) -> None:
    found = (await graph(client, "{ models { id provider name contextTokens default } }"))["models"]

    assert found == [camel(model) for model in (await client.get("/api/models"))["data"]]


# Pages.

PAGE = (
    "nodes { id } edges { cursor node { id } }"
    " pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"
)
LIST = f"""query ($first: Int, $after: String, $last: Int, $before: String,
    $filter: ConversationFilter, $orderBy: ConversationOrder) {{
    conversations(first: $first, after: $after, last: $last, before: $before,
        filter: $filter, orderBy: $orderBy) {{ {PAGE} }} }}"""


def check_page(
    page: dict[str, Any], whole: list[str], cursors: dict[str, str], **arguments: Any
) -> None:
    """Check that the page is the part of the whole list that its arguments select."""
    start = whole.index(arguments["after"]) + 1 if arguments.get("after") else 0
    stop = whole.index(arguments["before"]) if arguments.get("before") else len(whole)
    bounded = whole[start:stop]
    expected = (
        bounded[-arguments["last"] :]
        if arguments.get("last")
        else bounded[: arguments.get("first", 20)]
    )
    at = whole.index(expected[0]) if expected else start
    assert [node["id"] for node in page["nodes"]] == expected
    assert [(edge["node"]["id"], edge["cursor"]) for edge in page["edges"]] == [
        (id, cursors[id]) for id in expected
    ]
    assert page["pageInfo"] == {
        "hasPreviousPage": at > 0,
        "hasNextPage": at + len(expected) < len(whole),
        "startCursor": cursors[expected[0]] if expected else None,
        "endCursor": cursors[expected[-1]] if expected else None,
    }


def all_pages(whole: list[str]) -> Iterator[dict[str, Any]]:
    """Every combination of arguments that selects a part of a list."""
    positions = [None, *whole]
    for after, before in itertools.product(positions, positions):
        if not (after and before) or whole.index(after) < whole.index(before):
            for length in (1, 2, len(whole), 100):
                for name in ("first", "last"):
                    yield {
                        name: length,
                        **({"after": after} if after else {}),
                        **({"before": before} if before else {}),
                    }


async def make_conversations(client: Client, count: int) -> None:
    for number in range(count):
        await mutate(client, "createConversation", title=f"number {number}")


@pytest.mark.parametrize("field", ["UPDATED_AT", "CREATED_AT"])
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_every_part_of_the_list_can_be_requested(
    field: str, direction: str, person: Client
) -> None:
    await make_conversations(person, 4)
    order = {"field": field, "direction": direction}
    page = (await graph(person, LIST, orderBy=order))["conversations"]
    whole, cursors = (
        [node["id"] for node in page["nodes"]],
        {edge["node"]["id"]: edge["cursor"] for edge in page["edges"]},
    )
    check_page(page, whole, cursors)

    for arguments in all_pages(whole):
        positions = {
            name: cursors[arguments[name]] for name in ("after", "before") if name in arguments
        }
        check_page(
            (await graph(person, LIST, **arguments | positions, orderBy=order))["conversations"],
            whole,
            cursors,
            **arguments,
        )

    assert len(set(whole)) == 4


async def test_the_list_is_in_the_requested_order(person: Client) -> None:
    sent = [await ask(person), await ask(person), await ask(person)]
    first, second, third = [each["conversation_id"] for each in sent]
    await ask(person, conversation_id=first)

    async def ids(**order: str) -> list[str]:
        return [
            node["id"]
            for node in (await graph(person, LIST, orderBy=order))["conversations"]["nodes"]
        ]

    assert await ids() == [first, third, second]
    assert await ids(direction="ASC") == [second, third, first]
    assert await ids(field="CREATED_AT") == [third, second, first]
    assert await ids(field="CREATED_AT", direction="ASC") == [first, second, third]


async def test_the_list_is_filtered(person: Client) -> None:
    await make_conversations(person, 3)
    everything = [node["id"] for node in (await graph(person, LIST))["conversations"]["nodes"]]
    await mutate(person, "updateConversation", id=everything[0], archived=True)
    await mutate(person, "updateConversation", id=everything[1], pinned=True)

    async def ids(**filter: Any) -> set[str]:
        return {
            node["id"]
            for node in (await graph(person, LIST, filter=filter))["conversations"]["nodes"]
        }

    assert await ids(archived=True) == {everything[0]}
    assert await ids(archived=False) == set(everything[1:])
    assert await ids(pinned=True) == {everything[1]}
    assert await ids(pinned=False, archived=False) == {everything[2]}
    assert await ids(model="demo", archived=None) == set(everything)
    assert await ids(model="another/one") == set()


BRANCH = f"""query ($id: ID!, $first: Int, $after: String, $last: Int, $before: String,
    $leaf: ID) {{ conversation(id: $id) {{
    messages(first: $first, after: $after, last: $last, before: $before, leaf: $leaf) {{
        {PAGE} }} }} }}"""


async def test_every_part_of_a_branch_can_be_requested(client: Client) -> None:
    sent = await ask(client)
    for _ in range(2):
        await ask(client, conversation_id=sent["conversation_id"])
    id = sent["conversation_id"]
    page = (await graph(client, BRANCH, id=id))["conversation"]["messages"]
    whole, cursors = (
        [node["id"] for node in page["nodes"]],
        {edge["node"]["id"]: edge["cursor"] for edge in page["edges"]},
    )

    for arguments in all_pages(whole):
        positions = {
            name: cursors[arguments[name]] for name in ("after", "before") if name in arguments
        }
        found = (await graph(client, BRANCH, id=id, **arguments | positions))["conversation"][
            "messages"
        ]
        check_page(found, whole, cursors, **arguments)

    assert whole == [
        message["id"] for message in (await client.get(f"/api/conversations/{id}/messages"))["data"]
    ]
    assert len(whole) == 6


async def test_a_branch_starts_with_its_newest_page(client: Client) -> None:
    sent = await ask(client)
    for _ in range(10):
        await ask(client, conversation_id=sent["conversation_id"])

    page = (await graph(client, BRANCH, id=sent["conversation_id"]))["conversation"]["messages"]

    over_http = await client.get(f"/api/conversations/{sent['conversation_id']}/messages")
    assert [node["id"] for node in page["nodes"]] == [
        message["id"] for message in over_http["data"]
    ]
    assert (
        len(page["nodes"]),
        page["pageInfo"]["hasPreviousPage"],
        page["pageInfo"]["hasNextPage"],
    ) == (20, True, False)


async def test_a_branch_that_is_not_shown_is_selected_by_its_leaf(client: Client) -> None:
    sent = await ask(client)
    other = (
        await client.http.post(f"/api/messages/{sent['message_id']}/regenerate", json={})
    ).json()
    await client.read(other["generation_id"])

    async def ids(leaf: str | None) -> list[str]:
        page = (await graph(client, BRANCH, id=sent["conversation_id"], leaf=leaf))["conversation"][
            "messages"
        ]
        return [node["id"] for node in page["nodes"]]

    assert await ids(None) == [sent["question_id"], other["message_id"]]
    assert await ids(sent["message_id"]) == [sent["question_id"], sent["message_id"]]
    assert await ids(sent["question_id"]) == [sent["question_id"]]


async def test_siblings_and_the_last_message_include_all_branches(client: Client) -> None:
    sent = await ask(client)
    other = (
        await client.http.post(f"/api/messages/{sent['message_id']}/regenerate", json={})
    ).json()
    await client.read(other["generation_id"])
    await mutate(
        client, "updateConversation", id=sent["conversation_id"], shownMessageId=sent["message_id"]
    )
    query = """query ($id: ID!) { conversation(id: $id) {
        shownMessage { id siblings { id } parent { id parent { id } siblings { id } } }
        lastMessage { id } } }"""

    found = (await graph(client, query, id=sent["conversation_id"]))["conversation"]

    assert found["lastMessage"] == {"id": other["message_id"]}
    assert found["shownMessage"] == {
        "id": sent["message_id"],
        "siblings": [{"id": sent["message_id"]}, {"id": other["message_id"]}],
        "parent": {
            "id": sent["question_id"],
            "parent": None,
            "siblings": [{"id": sent["question_id"]}],
        },
    }


async def test_a_continued_answer_has_all_its_generations(client: Client) -> None:
    sent = await client.send("/demo tokens=12 rate=0", max_output_tokens=5)
    generations = [sent["generation_id"]]
    await client.read(generations[0])
    for _ in range(2):
        again = (
            await client.http.post(
                f"/api/messages/{sent['message_id']}/continue", json={"max_output_tokens": 5}
            )
        ).json()
        generations.append(again["generation_id"])
        await client.read(generations[-1])
    query = f"""query ($id: ID!, $first: Int, $after: String, $last: Int, $before: String) {{
        message(id: $id) {{ generation {{ id }}
        generations(first: $first, after: $after, last: $last, before: $before) {{
            {PAGE} }} }} }}"""

    message = (await graph(client, query, id=sent["message_id"]))["message"]

    assert message["generation"] == {"id": generations[-1]}
    cursors = {edge["node"]["id"]: edge["cursor"] for edge in message["generations"]["edges"]}
    for arguments in all_pages(generations):
        positions = {
            name: cursors[arguments[name]] for name in ("after", "before") if name in arguments
        }
        found = (await graph(client, query, id=sent["message_id"], **arguments | positions))[
            "message"
        ]["generations"]
        check_page(found, generations, cursors, **arguments)


BAD_CURSORS = ["", "x", "ü", "\0", "!!!", "eHx5", "bWVzc2FnZXxtc2df", "a" * 10_000]


@pytest.mark.parametrize("name", ["after", "before"])
@pytest.mark.parametrize("cursor", BAD_CURSORS, ids=lambda cursor: repr(cursor[:10]))
async def test_a_malformed_cursor_is_refused(name: str, cursor: str, client: Client) -> None:
    sent = await ask(client)

    assert await code(client, LIST, **{name: cursor}) == "invalid_cursor"
    assert (
        await code(client, BRANCH, id=sent["conversation_id"], **{name: cursor}) == "invalid_cursor"
    )


async def test_a_cursor_of_another_list_is_refused(client: Client) -> None:
    one, other = await ask(client), await ask(client)
    of_branch = (await graph(client, BRANCH, id=one["conversation_id"]))["conversation"][
        "messages"
    ]["pageInfo"]["startCursor"]
    by_update = (await graph(client, LIST, first=1))["conversations"]["pageInfo"]["startCursor"]

    assert await code(client, LIST, after=of_branch) == "invalid_cursor"
    assert (
        await code(client, LIST, after=by_update, orderBy={"field": "CREATED_AT"})
        == "invalid_cursor"
    )
    assert (
        await code(client, BRANCH, id=one["conversation_id"], before=by_update) == "invalid_cursor"
    )
    for name in ("before", "after"):
        assert (
            await code(client, BRANCH, id=other["conversation_id"], **{name: of_branch})
            == "invalid_cursor"
        )
    assert (
        await code(client, BRANCH, id=other["conversation_id"], leaf=one["message_id"])
        == "invalid_cursor"
    )
    assert (
        await code(client, BRANCH, id=other["conversation_id"], leaf=new_id(Prefix.MESSAGE))
        == "not_found"
    )


@pytest.mark.parametrize(
    "arguments", [{"first": 0}, {"first": -1}, {"last": 101}, {"first": 1, "last": 1}], ids=str
)
async def test_a_page_has_one_length_from_1_to_100(
    arguments: dict[str, int], client: Client
) -> None:
    error = await refusal(client, LIST, **arguments)

    assert error["extensions"]["code"] == "invalid_limit"
    assert error["extensions"]["errors"][0]["pointer"] in ("/first", "/last")


# Statements.


@contextmanager
def statements() -> Iterator[list[str]]:
    """The SQL that this process executes within the block."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def run_here(system: System, account_id: str, query: str) -> tuple[dict[str, Any], list[str]]:
    """Run a query in this process on the system's database; return its data and its SQL."""
    async with open_resources(system.settings) as resources:
        nothing: Any = None
        services = Services(**vars(resources), feeds=nothing, changes=nothing)
        caller = Caller(account_id, None, None, "session")
        context = Context(services, nothing, nothing, "req_test", caller)
        with statements() as sent:
            result = await Schema(GraphqlSettings()).execute(query, context_value=context)
    assert result.errors is None
    assert result.data is not None
    return result.data, sent


FIFTY = """{ conversations(first: 50) { nodes {
    id title model lastMessage { id text model generation {
        id status text model usage { outputTokens } } } } } }"""
FIFTY_PAGES = """{ conversations(first: 50) { nodes { id messages(last: 20) { nodes {
    id text siblings { id } generation { id text } generations(first: 2) { nodes { id } }
    parent { id } conversation { id } } } } } }"""


async def test_the_number_of_statements_does_not_grow_with_the_page(
    person: Client, tidemark: System
) -> None:
    account_id = (await graph(person, "{ viewer { account { id } } }"))["viewer"]["account"]["id"]
    for _ in range(2):
        await ask(person)
    _, sql_of_two = await run_here(tidemark, account_id, FIFTY_PAGES)
    sent = [await person.send(QUICK) for _ in range(48)]
    for each in sent:
        await person.read(each["generation_id"])

    found, sql_of_fifty = await run_here(tidemark, account_id, FIFTY)
    pages, sql_of_pages = await run_here(tidemark, account_id, FIFTY_PAGES)

    assert (
        len(
            [
                node
                for node in found["conversations"]["nodes"]
                if node["lastMessage"]["generation"]["status"] == "COMPLETED"
            ]
        )
        == 50
    )
    assert len(sql_of_fifty) <= 4, sql_of_fifty
    assert sum(len(node["messages"]["nodes"]) for node in pages["conversations"]["nodes"]) == 100
    assert len(sql_of_pages) == len(sql_of_two) <= 6, sql_of_pages
