"""The isolation matrix: whatever takes an id, asked by its owner, by another account and by nobody.

Its rows are made from the routes and from the schema: a new route, field, argument or input that has no entry here fails.
Another account's id has to behave exactly like one that does not exist.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from graphql import (
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    build_schema,
    get_named_type,
)
from starlette.routing import Mount, Route, WebSocketRoute

from server.api.operations import OPERATIONS
from server.app import build_app
from server.cursors import pack
from server.graph.schema import schema_text
from server.ids import Prefix, new_id
from server.settings import Settings
from tests.client import Client
from tests.graph import graph, mutate, mutation
from tests.system import System
from tests.test_bad_input import rows_of

QUICK = "/demo tokens=3 rate=0"
GRAPH = {"Accept": "application/graphql-response+json"}
STREAM = {"Accept": "text/event-stream"}


class Ids(NamedTuple):
    """Everything of a turn that has an id, and the cursors of its places."""

    conversation: str
    question: str
    answer: str
    generation: str
    key: str
    list_cursor: str
    list_cursor_here: str
    message_cursor: str
    generation_cursor: str
    page_cursor: str

    @staticmethod
    def of(conversation: str, question: str, answer: str, generation: str, key: str) -> "Ids":
        """With the cursors that name them; their moments are the same whoever's they are."""
        moment = "2026-11-20T12:00:00+00:00"
        cursors = (
            pack(moment, conversation),
            pack("updated", moment, conversation),
            pack("message", answer),
            pack("generation", moment, generation),
            f"1.{conversation}",
        )
        return Ids(conversation, question, answer, generation, key, *cursors)


NOWHERE = Ids.of(
    *map(
        new_id, (Prefix.CONVERSATION, Prefix.MESSAGE, Prefix.MESSAGE, Prefix.GENERATION, Prefix.KEY)
    )
)


class Call(NamedTuple):
    """A request with places for ids. `mine` in a name means the caller's own, in the place of which nobody else's is tried."""

    method: str
    path: str
    json: Any = None
    headers: dict[str, str] | None = None
    deletes: bool = False
    endless: bool = False  # a stream that goes on: its first event is looked at


def query(document: str, **variables: Any) -> Call:
    return Call("POST", "/graphql", {"query": document, "variables": variables}, GRAPH)


def follow(document: str, **variables: Any) -> Call:
    return query(document, **variables)._replace(headers=STREAM, endless=True)


def change(name: str, /, *, deletes: bool = False, **input: Any) -> Call:
    return Call(
        "POST", "/graphql", {"query": mutation(name), "variables": {"input": input}}, GRAPH, deletes
    )


ASK, CONVERSATION, MESSAGE = (
    "/api/messages",
    "/api/conversations/{conversation}",
    "/api/messages/{answer}",
)
HTTP = {
    "POST /api/messages#conversation_id": Call(
        "POST", ASK, {"text": QUICK, "conversation_id": "{conversation}"}
    ),
    "POST /api/messages#parent_id": Call(
        "POST",
        ASK,
        {"text": QUICK, "conversation_id": "{mine.conversation}", "parent_id": "{answer}"},
    ),
    "POST /api/messages/{id}/edit": Call("POST", "/api/messages/{question}/edit", {"text": QUICK}),
    "POST /api/messages/{id}/regenerate": Call("POST", f"{MESSAGE}/regenerate", {}),
    "POST /api/messages/{id}/continue": Call("POST", f"{MESSAGE}/continue", {}),
    "GET /api/messages/{id}": Call("GET", MESSAGE),
    "GET /api/generations/{id}": Call("GET", "/api/generations/{generation}"),
    "GET /api/generations/{id}/events": Call(
        "GET", "/api/generations/{generation}/events", headers=STREAM
    ),
    "POST /api/generations/{id}/cancel": Call("POST", "/api/generations/{generation}/cancel"),
    "GET /api/conversations?before": Call("GET", "/api/conversations?before={list_cursor}"),
    "GET /api/conversations/{id}": Call("GET", CONVERSATION),
    "PATCH /api/conversations/{id}": Call("PATCH", CONVERSATION, {"title": "changed"}),
    "PATCH /api/conversations/{id}#shown_message_id": Call(
        "PATCH", "/api/conversations/{mine.conversation}", {"shown_message_id": "{answer}"}
    ),
    "DELETE /api/conversations/{id}": Call("DELETE", CONVERSATION, deletes=True),
    "GET /api/conversations/{id}/export": Call("GET", f"{CONVERSATION}/export"),
    "GET /api/events?conversation_id": Call(
        "GET", "/api/events?conversation_id={conversation}", endless=True
    ),
    "GET /api/conversations/{id}/messages": Call("GET", f"{CONVERSATION}/messages"),
    "GET /api/conversations/{id}/messages?before": Call(
        "GET", "/api/conversations/{mine.conversation}/messages?before={answer}"
    ),
    "GET /api/conversations/{id}/messages?leaf": Call(
        "GET", "/api/conversations/{mine.conversation}/messages?leaf={answer}"
    ),
}
"""What names something over HTTP: in the path, in the query, in the body."""

OWN = {
    "GET /api/session": Call("GET", "/api/session"),
    "DELETE /api/session": Call("DELETE", "/api/session"),
    "POST /api/messages": Call("POST", ASK, {"text": QUICK}),
    "GET /api/conversations": Call("GET", "/api/conversations"),
    "GET /api/models": Call("GET", "/api/models"),
    "GET /api/events": Call("GET", "/api/events", endless=True),
    "POST /graphql": query("{ __typename }"),
}
"""What names nothing: for nobody it is closed, and for another account it has nothing of the owner."""

PUBLIC = {
    "POST /api/session",  # anyone, as a guest or with a link
    "POST /api/session/preview",  # anyone who has a link
    *(
        "GET /healthz",
        "GET /readyz",
        "GET /status",
        "GET /metrics",
    ),  # of this machine alone, or with the operator's token
    *(
        "GET /api/openapi.json",
        "GET /api/docs",
        "GET /",
        "GET /c/{id}",
        "GET /assets",
    ),  # the same for everybody
    "WEBSOCKET /graphql",  # whoever is refused is so by connection_init; what it carries is what is below
}

BRANCH = (
    "query ($id: ID!, $c: {}) {{ conversation(id: $id) {{ messages({}) {{ nodes {{ id }} }} }} }}"
)
WRITINGS = (
    "query ($id: ID!, $c: String) {{ message(id: $id) {{ generations({}) {{ nodes {{ id }} }} }} }}"
)
EVENTS = "subscription ($id: ID!, $c: String) { generationEvents(id: $id, after: $c) { __typename cursor } }"
HITS = (
    'query ($c: String) {{ search(query: "demo", {}: $c) {{ nodes {{ conversation {{ id }} }} }} }}'
)
CHANGES = (
    "subscription ($id: ID!, $c: String) { conversationEvents(id: $id, after: $c) { __typename } }"
)
LISTS = "subscription ($c: String) { conversationsChanged(after: $c) { __typename } }"
GRAPHQL = {
    "Node:Conversation": query("query ($id: ID!) { node(id: $id) { id } }", id="{conversation}"),
    "Node:Message": query("query ($id: ID!) { node(id: $id) { id } }", id="{answer}"),
    "Node:Generation": query("query ($id: ID!) { node(id: $id) { id } }", id="{generation}"),
    "Query.node(id)": query("query ($id: ID!) { node(id: $id) { id } }", id="{question}"),
    "Query.conversation(id)": query(
        "query ($id: ID!) { conversation(id: $id) { id title } }", id="{conversation}"
    ),
    "Query.message(id)": query("query ($id: ID!) { message(id: $id) { id text } }", id="{answer}"),
    "Query.generation(id)": query(
        "query ($id: ID!) { generation(id: $id) { id text } }", id="{generation}"
    ),
    "Query.conversations(after)": query(
        "query ($c: String) { conversations(after: $c) { nodes { id } } }", c="{list_cursor_here}"
    ),
    "Query.conversations(before)": query(
        "query ($c: String) { conversations(before: $c) { nodes { id } } }", c="{list_cursor_here}"
    ),
    "Conversation.messages(after)": query(
        BRANCH.format("String", "after: $c"), id="{mine.conversation}", c="{message_cursor}"
    ),
    "Conversation.messages(before)": query(
        BRANCH.format("String", "before: $c"), id="{mine.conversation}", c="{message_cursor}"
    ),
    "Conversation.messages(leaf)": query(
        BRANCH.format("ID", "leaf: $c"), id="{mine.conversation}", c="{answer}"
    ),
    "Message.generations(after)": query(
        WRITINGS.format("after: $c"), id="{mine.answer}", c="{generation_cursor}"
    ),
    "Message.generations(before)": query(
        WRITINGS.format("before: $c"), id="{mine.answer}", c="{generation_cursor}"
    ),
    "Subscription.generationEvents(id)": query(EVENTS, id="{generation}")._replace(headers=STREAM),
    "Subscription.generationEvents(after)": query(EVENTS, id="{generation}", c="3")._replace(
        headers=STREAM
    ),
    "Subscription.conversationEvents(id)": query(CHANGES, id="{conversation}")._replace(
        headers=STREAM, endless=True
    ),
    "Subscription.conversationEvents(after)": query(
        CHANGES, id="{mine.conversation}", c="{page_cursor}"
    )._replace(headers=STREAM, endless=True),
    "Subscription.conversationsChanged(after)": query(LISTS, c="{page_cursor}")._replace(
        headers=STREAM, endless=True
    ),
    "Query.search(after)": query(HITS.format("after"), c=pack("hit", "0")),
    "Query.search(before)": query(HITS.format("before"), c=pack("hit", "9")),
    "SendMessageInput.conversationId": change(
        "sendMessage", text=QUICK, conversationId="{conversation}"
    ),
    "SendMessageInput.parentId": change(
        "sendMessage", text=QUICK, conversationId="{mine.conversation}", parentId="{answer}"
    ),
    "EditMessageInput.id": change("editMessage", id="{question}", text=QUICK),
    "RegenerateMessageInput.id": change("regenerateMessage", id="{answer}"),
    "ContinueMessageInput.id": change("continueMessage", id="{answer}"),
    "CancelGenerationInput.id": change("cancelGeneration", id="{generation}"),
    "UpdateConversationInput.id": change(
        "updateConversation", id="{conversation}", title="changed"
    ),
    "UpdateConversationInput.shownMessageId": change(
        "updateConversation", id="{mine.conversation}", shownMessageId="{answer}"
    ),
    "DeleteConversationInput.id": change("deleteConversation", deletes=True, id="{conversation}"),
    "RestoreConversationInput.id": change("restoreConversation", id="{conversation}"),
    "RevokeApiKeyInput.id": change("revokeApiKey", deletes=True, id="{key}"),
}
"""What names something over GraphQL: every argument and every field of an input that is an id or a cursor, and every node."""

OWN_GRAPHQL = {
    "Query.viewer": query("{ viewer { account { id apiKeys { id } } apiKey { id } } }"),
    "Query.conversations": query(
        "{ conversations { nodes { id lastMessage { id generation { id } } } } }"
    ),
    "Query.models": query("{ models { id } }"),
    "Query.search": query(
        '{ search(query: "demo") { nodes { conversation { id } message { id } excerpt { text } } } }'
    ),
    "Subscription.conversationsChanged": follow(LISTS),
    "Mutation.sendMessage": change("sendMessage", text=QUICK),
    "Mutation.createConversation": change("createConversation"),
    "Mutation.createApiKey": change("createApiKey", name="another"),
}


# Every row there has to be.


def routed() -> Iterator[str]:
    """What the program answers to: `METHOD path`."""
    for route in build_app(Settings(providers={})).routes:
        if isinstance(route, WebSocketRoute):
            yield f"WEBSOCKET {route.path}"
        elif isinstance(route, Mount):
            yield f"GET {route.path}"
        elif isinstance(route, Route):
            methods = {"POST"} if route.path == "/graphql" else set(route.methods or ()) - {"HEAD"}
            yield from (f"{method} {route.path}" for method in methods)


def named_over_http() -> Iterator[str]:
    """What names something over HTTP."""
    for operation in OPERATIONS:
        name = f"{operation.method} {operation.path}"
        if "{id}" in operation.path:
            yield name
        yield from (
            f"{name}?{each.name}"
            for each in operation.parameters
            if each.name in ("before", "leaf") or each.name.endswith("_id")
        )
        if operation.body is not None:
            yield from (
                f"{name}#{field}" for field in operation.body.model_fields if field.endswith("_id")
            )


def named_over_graphql() -> Iterator[str]:
    """What names something over GraphQL."""
    schema = build_schema(schema_text())
    yield from (
        f"Node:{kind.name}" for kind in schema.get_implementations(schema.type_map["Node"]).objects
    )  # type: ignore[arg-type]
    for type in schema.type_map.values():
        if type.name.startswith("__"):
            continue
        if isinstance(type, GraphQLInputObjectType):
            yield from (
                f"{type.name}.{name}"
                for name, field in type.fields.items()
                if get_named_type(field.type).name == "ID"
            )
        if isinstance(type, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in type.fields.items():
                for argument, definition in field.args.items():
                    if get_named_type(definition.type).name == "ID" or argument in (
                        "after",
                        "before",
                    ):
                        yield f"{type.name}.{name}({argument})"


def own_over_graphql() -> Iterator[str]:
    """The root fields that can be asked for without naming anything."""
    schema = build_schema(schema_text())
    for root in (schema.query_type, schema.mutation_type, schema.subscription_type):
        for name, field in root.fields.items() if root else ():
            inputs = [get_named_type(argument.type) for argument in field.args.values()]
            required = [str(argument.type) for argument in field.args.values()]
            required += [
                str(each.type)
                for type in inputs
                if isinstance(type, GraphQLInputObjectType)
                for each in type.fields.values()
            ]
            if "ID!" not in required:
                yield f"{root.name}.{name}"


def test_every_route_has_a_row() -> None:
    by_path = {row.split("?")[0].split("#")[0] for row in HTTP}

    assert set(routed()) == by_path | set(OWN) | PUBLIC


def test_every_way_to_name_something_has_a_row() -> None:
    assert set(HTTP) == set(named_over_http())
    assert set(GRAPHQL) == set(named_over_graphql())
    assert set(OWN_GRAPHQL) == set(own_over_graphql())


# The columns.


@pytest.fixture(scope="module")
def keys(tidemark: System) -> tuple[str, str]:
    """The keys of two accounts that only these tests have."""
    return tidemark.new_key(account=f"{uuid4().hex}@example.org"), tidemark.new_key(
        account=f"{uuid4().hex}@example.org"
    )


@pytest.fixture
async def owner(tidemark: System, keys: tuple[str, str]) -> AsyncIterator[Client]:
    async with Client(tidemark.web.url, keys[0]) as client:
        yield client


@pytest.fixture
async def stranger(tidemark: System, keys: tuple[str, str]) -> AsyncIterator[Client]:
    async with Client(tidemark.web.url, keys[1]) as client:
        yield client


@pytest.fixture
async def nobody(tidemark: System) -> AsyncIterator[Client]:
    async with Client(tidemark.web.url) as client:
        yield client


async def new_turn(client: Client) -> Ids:
    """A settled turn of this caller, whose answer was cut short and can be continued, and a key to spare."""
    sent = await client.send("/demo tokens=9 rate=0", max_output_tokens=5)
    await client.read(sent["generation_id"])
    keys = (await graph(client, "{ viewer { account { apiKeys { id name } } } }"))["viewer"][
        "account"
    ]["apiKeys"]
    spare = next((key["id"] for key in keys if key["name"] == "spare"), None)
    if spare is None:
        spare = (await mutate(client, "createApiKey", "apiKey { id }", name="spare"))["apiKey"][
            "id"
        ]
    return Ids.of(
        sent["conversation_id"],
        sent["question_id"],
        sent["message_id"],
        sent["generation_id"],
        spare,
    )


@pytest.fixture(scope="module")
def turns(tidemark: System, keys: tuple[str, str]) -> tuple[Ids, Ids]:
    """A turn of each account, for what must change nothing."""

    async def make(key: str) -> Ids:
        async with Client(tidemark.web.url, key) as client:
            return await new_turn(client)

    return asyncio.run(make(keys[0])), asyncio.run(make(keys[1]))


@pytest.fixture
def turn(turns: tuple[Ids, Ids]) -> Ids:
    """The owner's."""
    return turns[0]


def filled(value: Any, ids: Ids, mine: Ids) -> Any:
    """The value with these ids in their places."""
    if isinstance(value, str):
        for name, id in (
            ids._asdict() | {f"mine.{name}": id for name, id in mine._asdict().items()}
        ).items():
            value = value.replace(f"{{{name}}}", id)
        return value
    return (
        {key: filled(each, ids, mine) for key, each in value.items()}
        if isinstance(value, dict)
        else value
    )


async def send(client: Client, call: Call, ids: Ids, mine: Ids) -> httpx.Response:
    body = filled(call.json, ids, mine)
    if call.endless:
        return await first_event(client, call, filled(call.path, ids, mine), body)
    return await client.http.request(
        call.method,
        filled(call.path, ids, mine),
        headers=call.headers,
        **({"json": body} if body is not None else {}),
    )


async def first_event(client: Client, call: Call, path: str, body: Any) -> httpx.Response:
    """The answer with its first event, or all of it where it ends before one."""
    async with client.http.stream(
        call.method, path, headers=call.headers, **({"json": body} if body is not None else {})
    ) as answer:
        text = ""
        async for chunk in answer.aiter_text():
            text += chunk
            if "data:" in text and text.endswith("\n\n"):
                break
        return httpx.Response(
            answer.status_code, headers=answer.headers, text=text, request=answer.request
        )


def shown(answer: httpx.Response, *ids: Ids) -> Any:
    """All that a caller can tell two answers apart by: everything but the request's id, and the ids that were sent themselves."""
    varying = ("tidemark-request-id", "date", "content-length")
    text = answer.text.replace(answer.headers["tidemark-request-id"], "…")
    for name, id in ((name, id) for each in ids for name, id in each._asdict().items()):
        text = text.replace(id, name)
    return (
        answer.status_code,
        {name: value for name, value in answer.headers.items() if name not in varying},
        text,
    )


def succeeded(answer: httpx.Response) -> bool:
    """Whether the answer is what was asked for."""
    missing = (
        any(word in answer.text for word in ('"errors"', '":null}}'))
        if "graphql" in str(answer.url)
        else False
    )
    return answer.is_success and not missing


ROWS = {**HTTP, **GRAPHQL}


@pytest.mark.parametrize("row", ROWS)
async def test_what_is_another_accounts_is_like_what_is_not_there(
    row: str, turns: tuple[Ids, Ids], stranger: Client, tidemark: System
) -> None:
    call, (turn, mine) = ROWS[row], turns
    before = rows_of(tidemark)

    foreign = await send(stranger, call, turn, mine)
    unknown = await send(stranger, call, NOWHERE, mine)

    assert shown(foreign, turn) == shown(unknown, NOWHERE)
    assert rows_of(tidemark) == before


@pytest.mark.parametrize("row", ROWS)
async def test_nobody_is_told_the_same_whatever_is_named(
    row: str, turn: Ids, nobody: Client, tidemark: System
) -> None:
    before = rows_of(tidemark)

    answers = [await send(nobody, ROWS[row], ids, ids) for ids in (turn, NOWHERE)]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert shown(answers[0], turn) == shown(answers[1], NOWHERE)
    assert rows_of(tidemark) == before


@pytest.mark.parametrize("row", ROWS)
async def test_the_owner_gets_what_is_asked_for(row: str, owner: Client, tidemark: System) -> None:
    call, ids = ROWS[row], await new_turn(owner)

    answer = await send(owner, call, ids, ids)

    assert succeeded(answer), answer.text
    again = await send(owner, ROWS["GET /api/conversations/{id}"], ids, ids)
    assert again.status_code == (404 if call.deletes and "key" not in str(call.json) else 200)


@pytest.mark.parametrize("row", {**OWN, **OWN_GRAPHQL})
async def test_what_names_nothing_has_nothing_of_others(
    row: str, turn: Ids, stranger: Client, nobody: Client
) -> None:
    call = {**OWN, **OWN_GRAPHQL}[row]

    theirs = await send(stranger, call, NOWHERE, NOWHERE)
    nobodys = await send(nobody, call, NOWHERE, NOWHERE)

    assert succeeded(theirs), theirs.text
    assert nobodys.status_code == 401
    for answer in (theirs, nobodys):
        assert not [id for id in turn if id in answer.text]


async def test_a_guest_is_another_account_too(turn: Ids, nobody: Client, tidemark: System) -> None:
    opened = await nobody.http.post(
        "/api/session", json={}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert opened.status_code == 201, opened.text

    for row in (
        "GET /api/conversations/{id}",
        "Query.conversation(id)",
        "DeleteConversationInput.id",
    ):
        call = ROWS[row]._replace(
            headers=(ROWS[row].headers or {}) | {"Sec-Fetch-Site": "same-origin"}
        )
        foreign, unknown = await asyncio.gather(
            send(nobody, call, turn, turn), send(nobody, call, NOWHERE, NOWHERE)
        )
        assert shown(foreign, turn) == shown(unknown, NOWHERE)
