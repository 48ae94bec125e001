"""GraphQL over HTTP: malformed, excessive and non-POST requests are refused cheaply."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from graphql import get_introspection_query

from server.graph.context import Context
from server.graph.schema import Schema
from server.identity.callers import Caller
from server.settings import GraphqlSettings
from tests.client import Client
from tests.graph import code, graph, mutation, post, refusal
from tests.system import System

JSON, RESPONSE = "application/json", "application/graphql-response+json"
BIG_BYTES = 50 * 1024 * 1024


def errors_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The errors of a refusal, after checking its status and media type, and their codes."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:500])
    assert response.headers["content-type"] in (JSON, RESPONSE)
    assert response.headers["tidemark-request-id"]
    body = response.json()
    assert set(body) == {"errors"}
    assert 1 <= len(body["errors"]) <= 20
    assert all(error["message"] and error["extensions"]["code"] for error in body["errors"])
    return list(body["errors"])


BODIES = {
    "nothing": b"",
    "not JSON": b"hello",
    "a number": b"1",
    "null": b"null",
    "a string": b'"x"',
    "true": b"true",
    "an empty list": b"[]",
    "a batch": b'[{"query": "{ __typename }"}, {"query": "{ __typename }"}]',
    "an empty object": b"{}",
    "cut short": b'{"query": "{ __typename }"',
    "not UTF-8": b'{"query": "\xff\xfe"}',
    "a lone surrogate": rb'{"query": "\ud800"}',
    "not a number": b'{"query": "{ __typename }", "variables": {"a": NaN}}',
    "lists 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "objects 100,000 deep": b'{"query":' * 100_000 + b"1" + b"}" * 100_000,
    "variables 100,000 deep": b'{"query": "{ __typename }", "variables": '
    + b'{"a":' * 100_000
    + b"1"
    + b"}" * 100_001,
    "no query": b'{"notquery": "{ __typename }"}',
    "an empty query": b'{"query": ""}',
    "a null query": b'{"query": null}',
    "a query that is a number": b'{"query": 1}',
    "a query that is a list": b'{"query": ["{ __typename }"]}',
    "a query that is an object": b'{"query": {}}',
    "variables that are a list": b'{"query": "{ __typename }", "variables": []}',
    "variables that are a string": b'{"query": "{ __typename }", "variables": "{}"}',
    "an operation name that is a number": b'{"query": "{ __typename }", "operationName": 1}',
    "an operation that is not there": b'{"query": "query A { __typename }", "operationName": "B"}',
    "extensions that are a list": b'{"query": "{ __typename }", "extensions": []}',
    "only a fragment": b'{"query": "fragment F on Query { __typename }"}',
}


@pytest.mark.parametrize("accept", [JSON, RESPONSE, "*/*"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_malformed_request_is_refused(body: bytes, accept: str, client: Client) -> None:
    response = await client.http.post(
        "/graphql", content=body, headers={"Content-Type": JSON, "Accept": accept}
    )

    [error] = errors_of(response)
    assert response.status_code == 400
    assert error["extensions"]["code"] in ("invalid_json", "invalid_body", "invalid_document")
    assert response.headers["content-type"] == (RESPONSE if accept == RESPONSE else JSON)


TYPES = [
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/graphql",
    "nonsense",
]
CHARSETS = ["latin-1", "utf-16", "", "utf-8; charset*=utf-8''x"]


@pytest.mark.parametrize("type", TYPES + [f"{JSON}; charset={name}" for name in CHARSETS])
async def test_the_media_type_must_be_json(type: str, client: Client) -> None:
    response = await client.http.post(
        "/graphql", content=b'{"query": "{ __typename }"}', headers={"Content-Type": type}
    )

    [error] = errors_of(response)
    assert (response.status_code, error["extensions"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused(chunked: bool, client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(BIG_BYTES // 65_536):
            yield b" " * 65_536

    response = await client.http.post(
        "/graphql",
        content=chunks() if chunked else b" " * BIG_BYTES,
        headers={"Content-Type": JSON},
    )

    [error] = errors_of(response)
    assert (response.status_code, error["extensions"]["code"], error["extensions"]["limit"]) == (
        413,
        "body_too_large",
        1_048_576,
    )


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("operation", ["query", "mutation"])
async def test_only_post_is_accepted(method: str, operation: str, client: Client) -> None:
    document = (
        "{ __typename }"
        if operation == "query"
        else 'mutation { createApiKey(input: {name: "x"}) { secret } }'
    )
    keys = "{ viewer { account { apiKeys { id } } } }"
    before = await graph(client, keys)

    response = await client.http.request(
        method, "/graphql", params={"query": document}, headers={"Accept": JSON}
    )

    [error] = errors_of(response)
    assert (response.status_code, error["extensions"]["code"]) == (405, "method_not_allowed")
    assert "POST" in response.headers["allow"]
    assert await graph(client, keys) == before


async def test_a_subscription_needs_a_stream(client: Client) -> None:
    sent = await client.send("/demo tokens=1 rate=0")
    document = f'subscription {{ generationEvents(id: "{sent["generation_id"]}") {{ seq }} }}'

    response = await post(client, document, headers={"Accept": JSON})

    assert (response.status_code, errors_of(response)[0]["extensions"]["code"]) == (
        400,
        "stream_required",
    )


# Status codes.

INVALID = {
    "a syntax error": "{",
    "an unknown field": "{ nothing }",
    "a missing variable": "query ($id: ID!) { node(id: $id) { id } }",
}


@pytest.mark.parametrize("document", INVALID.values(), ids=INVALID)
async def test_an_invalid_document_is_a_400_only_with_the_new_media_type(
    document: str, client: Client
) -> None:
    newer = await post(client, document, headers={"Accept": f"{RESPONSE}, {JSON};q=0.9"})
    older = await post(client, document, headers={"Accept": JSON})

    assert (newer.status_code, older.status_code) == (400, 200)
    assert (newer.headers["content-type"], older.headers["content-type"]) == (RESPONSE, JSON)
    assert newer.json() == older.json()
    assert set(newer.json()) == {"errors"}


async def test_a_response_with_data_and_errors_is_a_200(client: Client) -> None:
    document = (
        '{ models { id } conversations(after: "x") { nodes { id } } viewer { account { id } } }'
    )

    response = await post(client, document, headers={"Accept": RESPONSE})

    assert response.status_code == 200
    assert response.json()["data"] is None
    assert response.json()["errors"][0]["path"] == ["conversations"]


async def test_a_variable_of_the_wrong_type_is_an_invalid_request(client: Client) -> None:
    assert (
        await code(client, "query ($id: ID!) { node(id: $id) { id } }", id={"a": 1})
        == "invalid_request"
    )
    assert (
        await code(client, "query ($n: Int) { conversations(first: $n) { nodes { id } } }", n="3")
        == "invalid_request"
    )
    assert (
        await code(client, mutation("sendMessage"), input={"text": "x", "nonsense": 1})
        == "invalid_request"
    )


# Documents that are too complex.


def nested(depth: int) -> str:
    """A document whose fields are nested this deep."""
    inner = "id"
    for _ in range(depth - 2):
        inner = f"parent {{ {inner} }}"
    return f'{{ message(id: "x") {{ {inner} }} }}'


BOMB = (
    "query { ...F0 } "
    + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40))
    + " fragment F40 on Query { __typename }"
)
LOOP = "query { ...A ...B } fragment A on Query { ...B ...B } fragment B on Query { ...A ...A }"
TOO_COMPLEX = {
    "50,000 aliases": "{" + " ".join(f"a{n}: __typename" for n in range(50_000)) + "}",
    "500 aliases": "{" + " ".join(f"a{n}: __typename" for n in range(500)) + "}",
    "20,000 directives": "{ __typename " + "@skip(if: false) " * 20_000 + "}",
    "200 directives": "{ __typename " + "@include(if: true) " * 200 + "}",
    "200 directives on a variable": "query ($a: Int " + "@x " * 200 + ") { __typename }",
    "50,000 times the same": "{" + " __typename" * 50_000 + "}",
    "100,000 deep": "{a" * 100_000,
    "fields 200 deep": nested(200),
    "fields 900 deep": nested(900),
    "fields 13 deep": nested(13),
    "fragments 13 deep": 'query { message(id: "x") { ...F } } fragment F on Message '
    + "{ parent " * 12
    + "{ id }"
    + "}" * 12,
    "fragments of fragments 14 deep": 'query { message(id: "x") { ...F } } fragment F on Message '
    + "{ parent " * 6
    + "{ ...G }"
    + "}" * 6
    + " fragment G on Message "
    + "{ parent " * 6
    + "{ id }"
    + "}" * 6,
    "a list 1,900 deep": "{ node(id: " + "[" * 900 + "]" * 900 + ") { id } }",
    "an object 300 deep": 'mutation { sendMessage(input: {text: "x", metadata: '
    + "{a: " * 300
    + "1"
    + "}" * 300
    + "}) { replayed } }",
    "a value 100,000 deep": "{ node(id: " + "[" * 100_000,
    "fragments that double 40 times": BOMB,
    "50,000 comments": "#\n" * 50_000 + "{ __typename }",
    "20,000 operations": "query A { __typename } " * 20_000,
    "50,000 variables": "query ("
    + " ".join(f"$v{n}: Int" for n in range(50_000))
    + ") { __typename }",
    "a text of 900,000 characters": '{ node(id: "' + "x" * 900_000 + '") { id } }',
    "pages of pages of pages": """{ conversations(first: 100) { nodes {
        messages(first: 100) { nodes {
        conversation { messages(first: 100) { nodes { id } } } } } } } }""",
    "siblings of siblings": "{ conversations { nodes { shownMessage { siblings { parent "
    "{ siblings { siblings { id } } } } } } } }",
    "the same 31 times": "{" + " viewer { account { id } }" * 31 + "}",
    "the same 40 times in fragments": "{ ...A ...B } "
    + " ".join(f"fragment {f} on Query {{" + " models { id }" * 20 + "}" for f in "AB"),
    "twenty introspections": "{"
    + " ".join(f"a{n}: __schema {{ types {{ name }} }}" for n in range(20))
    + "}",
    "introspection of introspection": "{ __schema { types "
    + "{ fields { type " * 40
    + "{ name }"
    + "} }" * 40
    + "} }",
}


@pytest.mark.parametrize("accept", [JSON, RESPONSE])
@pytest.mark.parametrize("document", TOO_COMPLEX.values(), ids=TOO_COMPLEX)
async def test_a_too_complex_document_is_refused(
    document: str, accept: str, client: Client
) -> None:
    response = await post(client, document, headers={"Accept": accept})

    [error] = errors_of(response)
    assert (response.status_code, error["extensions"]["code"]) == (400, "document_too_complex"), (
        error
    )
    assert error["extensions"]["limit"] > 0


INVALID_ANYWAY = {
    "fragments in a circle": LOOP,
    "a fragment in itself": "{ ...F } fragment F on Query { ...F }",
    "a fragment that is not there": "{ ...F }",
    "two operations and no operation name": "query A { __typename } query B { __typename }",
    "two operations without names": "{ __typename } { __typename }",
    "600 unknown fields": "{" + " ".join(f"f{n}" for n in range(600)) + "}",
    "an argument twice": '{ node(id: "a", id: "b") { id } }',
    "a lone surrogate": '{ node(id: "\\ud800") { id } }',
    "a number of 60,000 digits": "{ conversations(first: " + "1" * 60_000 + ") { nodes { id } } }",
    "a name of 60,000 letters": "{" + "x" * 60_000 + "}",
    "an upload": "mutation ($file: Upload!) { x(file: $file) }",
    "a definition of a type": "type Query { a: Int }",
    "deferred": "{ ... @defer { __typename } }",
}


@pytest.mark.parametrize("document", INVALID_ANYWAY.values(), ids=INVALID_ANYWAY)
async def test_an_invalid_document_is_refused(document: str, client: Client) -> None:
    response = await post(client, document, headers={"Accept": RESPONSE})

    assert {error["extensions"]["code"] for error in errors_of(response)} == {"invalid_document"}
    assert len(response.content) < 50_000


async def test_a_response_has_at_most_twenty_errors(client: Client) -> None:
    failing = " ".join(
        f'a{n}: revokeApiKey(input: {{id: "x"}}) {{ apiKey {{ id }} }}' for n in range(30)
    )

    body = (await post(client, f"mutation {{ {failing} }}")).json()

    assert len(body["errors"]) <= 20
    assert {error["extensions"]["code"] for error in body["errors"]} == {"not_found"}


FIFTY_BY_TWENTY = """query ($n: Int, $m: Int) { conversations(first: $n) {
    edges { cursor node { id title model pinned updatedAt
        messages(last: $m) { nodes { id role text status model createdAt
            content { __typename ... on TextPart { text } }
            usage { inputTokens outputTokens } generation { id status finishReason } }
            pageInfo { hasPreviousPage startCursor } } } }
    pageInfo { hasNextPage endCursor } } }"""


async def test_fifty_conversations_with_twenty_messages_each_are_within_the_limit(
    client: Client,
) -> None:
    assert "conversations" in await graph(client, FIFTY_BY_TWENTY, n=50, m=20)


async def test_a_cached_document_is_measured_again_with_its_variables(client: Client) -> None:
    await graph(client, FIFTY_BY_TWENTY, n=1, m=1)

    assert await code(client, FIFTY_BY_TWENTY, n=100, m=100) == "document_too_complex"
    assert await code(client, FIFTY_BY_TWENTY, n=100, m=1e300) == "document_too_complex"
    assert "conversations" in await graph(client, FIFTY_BY_TWENTY, n=1, m=1)


# Each limit.

SMALL = {
    "cost.DEPTH_MAX": 4,
    "cost.ALIASES_MAX": 3,
    "cost.DIRECTIVES_MAX": 3,
    "guards.TOKENS_MAX": 200,
    "guards.DOCUMENT_MAX_CHARS": 10_000,
}


def operations(count: int) -> str:
    """A document with five tokens per operation."""
    return " ".join(f"query Q{number} {{ __typename }}" for number in range(count))


AT_THE_LIMIT = {
    "depth": (nested(4), nested(5), 4),
    "aliases": (
        "{ a: __typename b: __typename c: __typename }",
        "{ a: __typename b: __typename c: __typename d: __typename }",
        3,
    ),
    "directives": (
        "{ __typename " + "@skip(if: false) @include(if: true) " + "}",
        "{ __typename " + "@skip(if: false) " * 4 + "}",
        3,
    ),
    "characters": ("{ __typename }".ljust(10_000), "{ __typename }".ljust(10_001), 10_000),
    "tokens": (operations(40), operations(41), 200),
    "cost": (
        "{ conversations(first: 99) { nodes { id title } } }",
        (
            "{ conversations(first: 100) { nodes { a: id b: id c: title pinned model archived"
            " createdAt updatedAt metadata systemPrompt } } }"
        ),
        1000,
    ),
}


@pytest.mark.parametrize("case", AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
async def test_each_limit_is_that_of_its_constant(
    case: tuple[str, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    within, beyond, limit = case
    for name, value in SMALL.items():
        monkeypatch.setattr(f"server.graph.{name}", value)
    nothing: Any = None
    caller = Caller("acct_x", None, None, "session")
    context = Context(nothing, nothing, nothing, "req_test", caller)
    schema = Schema(GraphqlSettings(cost_max=1000))

    passed = await schema.execute(within, context_value=context)
    refused = await schema.execute(beyond, context_value=context)

    assert "document_too_complex" not in {
        (error.extensions or {}).get("code") for error in passed.errors or ()
    }
    assert refused.errors is not None
    assert [error.extensions for error in refused.errors] == [
        {"code": "document_too_complex", "limit": limit}
    ]


# Introspection and suggestions.


async def test_authenticated_callers_may_introspect(client: Client) -> None:
    for document in (
        get_introspection_query(descriptions=True),
        get_introspection_query(input_value_deprecation=True, specified_by_url=True),
    ):
        assert (await graph(client, document))["__schema"]["queryType"]["name"] == "Query"


async def test_a_misspelt_field_gets_a_suggestion(client: Client) -> None:
    assert (
        "Did you mean 'viewer'?"
        in (await refusal(client, "{ viewr { account { id } } }"))["message"]
    )


UNAUTHENTICATED = {
    "no key": {},
    "no secret": {"Authorization": "Bearer"},
    "another scheme": {"Authorization": "Basic eDp4"},
    "a key of another service": {"Authorization": "Bearer sk-1234"},
    "an unknown key": {
        "Authorization": "Bearer tmk_0000000000000000000000000000000000000000000000"
    },
    "no session": {"Cookie": "tidemark_session=nonsense", "Sec-Fetch-Site": "same-origin"},
}


@pytest.mark.parametrize("headers", UNAUTHENTICATED.values(), ids=UNAUTHENTICATED)
@pytest.mark.parametrize(
    "document",
    ["{ __typename }", "{ viewr }", "{", get_introspection_query(), TOO_COMPLEX["50,000 aliases"]],
    ids=range(5),
)
async def test_unauthenticated_callers_get_no_details(
    document: str, headers: dict[str, str], tidemark: System
) -> None:
    async with Client(tidemark.web.url) as anonymous:
        response = await post(anonymous, document, headers=headers)

    [error] = errors_of(response)
    assert (response.status_code, error["extensions"]["code"]) == (401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Did you mean" not in response.text


async def test_non_ascii_documents_get_valid_json(client: Client) -> None:
    response = await client.http.post(
        "/graphql",
        content='{"query": "{ __type(name: \\"Run🏃Swim🏊\\") { name } }"}'.encode(),
        headers={"Content-Type": f"{JSON}; charset=UTF-8"},
    )

    assert orjson.loads(response.content) == {"data": {"__type": None}}
