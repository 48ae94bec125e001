"""The isolation matrix: every operation that takes an id, as owner, as stranger, and signed out.

A new route, field, argument or input without a row here fails a test. An id of another account must
behave exactly like one that does not exist.
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
    """The ids of a turn, and the cursors that contain them."""

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
        """Add the cursors of these ids, all with the same timestamp."""
        moment = "2026-11-20T12:00:00+00:00"
        cursors = (
            pack(moment, conversation),
            pack("updated", moment, conversation),
            pack("message", answer),
            pack("generation", moment, generation),
            f"1.{conversation}",
        )
        return Ids(conversation, question, answer, generation, key, *cursors)


UNKNOWN = Ids.of(
    *map(
        new_id, (Prefix.CONVERSATION, Prefix.MESSAGE, Prefix.MESSAGE, Prefix.GENERATION, Prefix.KEY)
    )
)


class Call(NamedTuple):
    """A request with placeholders for ids.

    A placeholder that starts with `mine` always gets the caller's own id.
    """

    method: str
    path: str
    json: Any = None
    headers: dict[str, str] | None = None
    deletes: bool = False
    endless: bool = False  # a stream: only its first event is read


def query(document: str, **variables: Any) -> Call:
    return Call("POST", "/graphql", {"query": document, "variables": variables}, GRAPH)


def follow(document: str, **variables: Any) -> Call:
    return query(document, **variables)._replace(headers=STREAM, endless=True)


def change(name: str, /, *, deletes: bool = False, **input: Any) -> Call:
    return Call(
        "POST", "/graphql", {"query": mutation(name), "variables": {"input": input}}, GRAPH, deletes
    )


SEND, CONVERSATION, MESSAGE = (
    "/api/messages",
    "/api/conversations/{conversation}",
    "/api/messages/{answer}",
)
HTTP_WITH_IDS = {
    "POST /api/messages#conversation_id": Call(
        "POST", SEND, {"text": QUICK, "conversation_id": "{conversation}"}
    ),
    "POST /api/messages#parent_id": Call(
        "POST",
        SEND,
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
"""Every id over HTTP: in a path, a query or a body."""

WITHOUT_IDS = {
    "GET /api/session": Call("GET", "/api/session"),
    "DELETE /api/session": Call("DELETE", "/api/session"),
    "POST /api/messages": Call("POST", SEND, {"text": QUICK}),
    "GET /api/conversations": Call("GET", "/api/conversations"),
    "GET /api/models": Call("GET", "/api/models"),
    "GET /api/events": Call("GET", "/api/events", endless=True),
    "POST /graphql": query("{ __typename }"),
}
"""Operations without an id: refused when signed out, and without anything of other accounts."""

PUBLIC = {
    "POST /api/session",  # as a guest or with a link
    "POST /api/session/preview",  # with a link
    *(
        "GET /healthz",
        "GET /readyz",
        "GET /status",
        "GET /metrics",
    ),  # local requests, or with the operator's token
    *(
        "GET /api/openapi.json",
        "GET /api/docs",
        "GET /",
        "GET /c/{id}",
        "GET /assets",
    ),  # public documents and pages
    # Authentication happens in connection_init; the operations are those below.
    "WEBSOCKET /graphql",
}

BRANCH = (
    "query ($id: ID!, $c: {}) {{ conversation(id: $id) {{ messages({}) {{ nodes {{ id }} }} }} }}"
)
GENERATIONS = (
    "query ($id: ID!, $c: String) {{ message(id: $id) {{ generations({}) {{ nodes {{ id }} }} }} }}"
)
EVENTS = (
    "subscription ($id: ID!, $c: String) { "
    "generationEvents(id: $id, after: $c) { __typename cursor } }"
)
HITS = (
    'query ($c: String) {{ search(query: "demo", {}: $c) {{ nodes {{ conversation {{ id }} }} }} }}'
)
CHANGES = (
    "subscription ($id: ID!, $c: String) { conversationEvents(id: $id, after: $c) { __typename } }"
)
LISTS = "subscription ($c: String) { conversationsChanged(after: $c) { __typename } }"
GRAPHQL_WITH_IDS = {
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
        GENERATIONS.format("after: $c"), id="{mine.answer}", c="{generation_cursor}"
    ),
    "Message.generations(before)": query(
        GENERATIONS.format("before: $c"), id="{mine.answer}", c="{generation_cursor}"
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
"""Every id over GraphQL: ids and cursors in arguments and input fields, and every node type."""

GRAPHQL_WITHOUT_IDS = {
    "Query.viewer": query("{ viewer { account { id apiKeys { id } } apiKey { id } } }"),
    "Query.conversations": query(
        "{ conversations { nodes { id lastMessage { id generation { id } } } } }"
    ),
    "Query.models": query("{ models { id } }"),
    "Query.search": query(
        '{ search(query: "demo") { nodes { conversation { id } message { id }'
        " excerpt { text } } } }"
    ),
    "Subscription.conversationsChanged": follow(LISTS),
    "Mutation.sendMessage": change("sendMessage", text=QUICK),
    "Mutation.createConversation": change("createConversation"),
    "Mutation.createApiKey": change("createApiKey", name="another"),
}


# Completeness of the rows.


def all_routes() -> Iterator[str]:
    """Every route of the application, as `METHOD path`."""
    for route in build_app(Settings(providers={})).routes:
        if isinstance(route, WebSocketRoute):
            yield f"WEBSOCKET {route.path}"
        elif isinstance(route, Mount):
            yield f"GET {route.path}"
        elif isinstance(route, Route):
            methods = {"POST"} if route.path == "/graphql" else set(route.methods or ()) - {"HEAD"}
            yield from (f"{method} {route.path}" for method in methods)


def http_ids() -> Iterator[str]:
    """Every id over HTTP."""
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


def graphql_ids() -> Iterator[str]:
    """Every id over GraphQL."""
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


def graphql_without_ids() -> Iterator[str]:
    """The root fields that can be queried without an id."""
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
    by_path = {row.split("?")[0].split("#")[0] for row in HTTP_WITH_IDS}

    assert set(all_routes()) == by_path | set(WITHOUT_IDS) | PUBLIC


def test_every_id_has_a_row() -> None:
    assert set(HTTP_WITH_IDS) == set(http_ids())
    assert set(GRAPHQL_WITH_IDS) == set(graphql_ids())
    assert set(GRAPHQL_WITHOUT_IDS) == set(graphql_without_ids())


# Callers.


@pytest.fixture(scope="module")
def keys(tidemark: System) -> tuple[str, str]:
    """The keys of two accounts that only these tests use."""
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
async def signed_out(tidemark: System) -> AsyncIterator[Client]:
    async with Client(tidemark.web.url) as client:
        yield client


async def new_turn(client: Client) -> Ids:
    """A settled turn with a truncated answer that can be continued, and a spare API key."""
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
    """A turn of each account that must not change."""

    async def make(key: str) -> Ids:
        async with Client(tidemark.web.url, key) as client:
            return await new_turn(client)

    return asyncio.run(make(keys[0])), asyncio.run(make(keys[1]))


@pytest.fixture
def turn(turns: tuple[Ids, Ids]) -> Ids:
    """The owner's turn."""
    return turns[0]


def filled(value: Any, ids: Ids, mine: Ids) -> Any:
    """The value with ids in place of its placeholders."""
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
    """The response up to its first event, or all of it if it ends earlier."""
    async with client.http.stream(
        call.method, path, headers=call.headers, **({"json": body} if body is not None else {})
    ) as response:
        text = ""
        async for chunk in response.aiter_text():
            text += chunk
            if "data:" in text and text.endswith("\n\n"):
                break
        return httpx.Response(
            response.status_code, headers=response.headers, text=text, request=response.request
        )


def visible_parts(response: httpx.Response, *ids: Ids) -> Any:
    """Everything by which a caller could distinguish two responses.

    Request ids and the ids that were sent are left out.
    """
    varying = ("tidemark-request-id", "date", "content-length")
    text = response.text.replace(response.headers["tidemark-request-id"], "…")
    for name, id in ((name, id) for each in ids for name, id in each._asdict().items()):
        text = text.replace(id, name)
    return (
        response.status_code,
        {name: value for name, value in response.headers.items() if name not in varying},
        text,
    )


def succeeded(response: httpx.Response) -> bool:
    """Whether the response has the requested data."""
    missing = (
        any(word in response.text for word in ('"errors"', '":null}}'))
        if "graphql" in str(response.url)
        else False
    )
    return response.is_success and not missing


ROWS = {**HTTP_WITH_IDS, **GRAPHQL_WITH_IDS}


@pytest.mark.parametrize("row", ROWS)
async def test_an_id_of_another_account_behaves_like_an_unknown_one(
    row: str, turns: tuple[Ids, Ids], stranger: Client, tidemark: System
) -> None:
    call, (turn, mine) = ROWS[row], turns
    before = rows_of(tidemark)

    foreign = await send(stranger, call, turn, mine)
    unknown = await send(stranger, call, UNKNOWN, mine)

    assert visible_parts(foreign, turn) == visible_parts(unknown, UNKNOWN)
    assert rows_of(tidemark) == before


@pytest.mark.parametrize("row", ROWS)
async def test_signed_out_callers_get_the_same_refusal_for_every_id(
    row: str, turn: Ids, signed_out: Client, tidemark: System
) -> None:
    before = rows_of(tidemark)

    responses = [await send(signed_out, ROWS[row], ids, ids) for ids in (turn, UNKNOWN)]

    assert [response.status_code for response in responses] == [401, 401]
    assert visible_parts(responses[0], turn) == visible_parts(responses[1], UNKNOWN)
    assert rows_of(tidemark) == before


@pytest.mark.parametrize("row", ROWS)
async def test_the_owner_succeeds(row: str, owner: Client, tidemark: System) -> None:
    call, ids = ROWS[row], await new_turn(owner)

    response = await send(owner, call, ids, ids)

    assert succeeded(response), response.text
    again = await send(owner, ROWS["GET /api/conversations/{id}"], ids, ids)
    assert again.status_code == (404 if call.deletes and "key" not in str(call.json) else 200)


@pytest.mark.parametrize("row", {**WITHOUT_IDS, **GRAPHQL_WITHOUT_IDS})
async def test_operations_without_ids_show_nothing_of_other_accounts(
    row: str, turn: Ids, stranger: Client, signed_out: Client
) -> None:
    call = {**WITHOUT_IDS, **GRAPHQL_WITHOUT_IDS}[row]

    by_stranger = await send(stranger, call, UNKNOWN, UNKNOWN)
    by_signed_out = await send(signed_out, call, UNKNOWN, UNKNOWN)

    assert succeeded(by_stranger), by_stranger.text
    assert by_signed_out.status_code == 401
    for response in (by_stranger, by_signed_out):
        assert not [id for id in turn if id in response.text]


async def test_a_guest_is_isolated_like_any_other_account(
    turn: Ids, signed_out: Client, tidemark: System
) -> None:
    opened = await signed_out.http.post(
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
            send(signed_out, call, turn, turn),
            send(signed_out, call, UNKNOWN, UNKNOWN),
        )
        assert visible_parts(foreign, turn) == visible_parts(unknown, UNKNOWN)
