"""Malformed and invalid HTTP requests are refused with a problem document and change nothing."""

import asyncio
import json
import sqlite3
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import httpx
import pytest

from server.api.operations import OPERATIONS
from server.ids import Prefix, new_id
from tests.client import Client
from tests.system import System

PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "request_id"}
BIG_BYTES = 50 * 1024 * 1024
BODY_MAX_BYTES = 1_048_576

ANSWER_PATHS = {
    "send": "/api/messages",
    "edit": "/api/messages/{question}/edit",
    "regenerate": "/api/messages/{answer}/regenerate",
    "continue": "/api/messages/{answer}/continue",
}
WITH_A_BODY = {name: ("POST", path) for name, path in ANSWER_PATHS.items()} | {
    "change": ("PATCH", "/api/conversations/{conversation}"),
    "sign in": ("POST", "/api/session"),
}


class Ids(NamedTuple):
    """A settled turn of a conversation."""

    conversation: str
    question: str
    answer: str
    generation: str


Refused = Callable[..., Awaitable[dict[str, Any]]]


def rows_of(system: System) -> dict[str, int]:
    """The number of rows in every table."""
    file = system.settings.data_dir / "tidemark.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        tables = [
            name
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        return {
            table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in tables
        }


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == "application/problem+json"
    problem = dict(response.json())
    assert set(problem) >= PROBLEM_KEYS
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["tidemark-request-id"]
    return problem


def settled_turn(url: str, key: str) -> Ids:
    """A question with its finished answer."""

    async def ask() -> Ids:
        async with Client(url, key) as client:
            sent = await client.send("/demo tokens=3 rate=0")
            await client.read(sent["generation_id"])
        return Ids(
            sent["conversation_id"], sent["question_id"], sent["message_id"], sent["generation_id"]
        )

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def mine(tidemark: System, key: str) -> Ids:
    """A turn of the caller."""
    return settled_turn(tidemark.web.url, key)


@pytest.fixture(scope="module")
def mine_too(tidemark: System, key: str) -> Ids:
    """A turn of the caller, in another conversation."""
    return settled_turn(tidemark.web.url, key)


@pytest.fixture(scope="module")
def foreign(tidemark: System) -> Ids:
    """A turn of another account."""
    return settled_turn(tidemark.web.url, tidemark.new_key(account="stranger@example.org"))


@pytest.fixture
async def refused(tidemark: System, client: Client) -> Refused:
    """Send a request that must be refused with `status` and change nothing; return the problem."""

    async def send(status: int, method: str, path: str, **request: Any) -> dict[str, Any]:
        before = rows_of(tidemark)
        problem = problem_of(await client.http.request(method, path, **request))
        assert problem["status"] == status, problem
        assert rows_of(tidemark) == before
        return problem

    return send


def named(table: dict[str, Any]) -> Any:
    """Parametrize a test with a table whose keys are the ids of the cases."""
    return pytest.mark.parametrize(
        "case", [pytest.param(value, id=name) for name, value in table.items()]
    )


with_a_body = pytest.mark.parametrize(("method", "path"), WITH_A_BODY.values(), ids=WITH_A_BODY)

UNREADABLE = {
    "not JSON": b"hello",
    "cut short": b'{"text": "x"',
    "trailing data": b'{"text": "x"} {}',
    "single quotes": b"{'text': 'x'}",
    "not UTF-8": b'{"text": "\xff\xfe"}',
    "UTF-16": '{"text": "x"}'.encode("utf-16"),
    "a raw NUL": b'{"text": "a\0b"}',
    "not a number": b'{"text": "x", "temperature": NaN}',
    "a lone surrogate": rb'{"text": "\ud800"}',
    "a lone low surrogate as a key": rb'{"text": "x", "metadata": {"\udc00": "x"}}',
    "lists 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "lists that are not closed": b"[" * 100_000,
    "objects 100,000 deep": b'{"text":' * 100_000 + b"1" + b"}" * 100_000,
    "deep inside a known field": b'{"text": "x", "metadata": '
    + b'{"a":' * 100_000
    + b"1"
    + b"}" * 100_001,
}


@with_a_body
@named(UNREADABLE)
async def test_invalid_json_is_refused(
    case: bytes, method: str, path: str, mine: Ids, refused: Refused
) -> None:
    problem = await refused(400, method, path.format(**mine._asdict()), content=case)

    assert problem["code"] == "invalid_json"


@with_a_body
@named({"a list": b"[]", "a number": b"1", "null": b"null", "a string": b'"x"', "true": b"true"})
async def test_a_body_must_be_an_object(
    case: bytes, method: str, path: str, mine: Ids, refused: Refused
) -> None:
    problem = await refused(422, method, path.format(**mine._asdict()), content=case)

    assert problem["errors"][0]["pointer"] == ""


@with_a_body
async def test_an_unknown_key_is_named_in_the_problem(
    method: str, path: str, mine: Ids, refused: Refused
) -> None:
    body = (
        {"text": "x", "nonsense": 1}
        if path in (ANSWER_PATHS["send"], ANSWER_PATHS["edit"])
        else {"nonsense": 1}
    )

    problem = await refused(422, method, path.format(**mine._asdict()), json=body)

    assert "nonsense" in problem["detail"]
    assert [error["pointer"] for error in problem["errors"]] == ["/nonsense"]


async def test_pointers_escape_keys_as_json_pointers(refused: Refused) -> None:
    problem = await refused(422, "POST", "/api/messages", json={"text": "x", "a/b~c": 1})

    assert problem["errors"][0]["pointer"] == "/a~1b~0c"


@with_a_body
async def test_a_body_with_too_large_a_content_length_is_refused(
    method: str, path: str, mine: Ids, refused: Refused
) -> None:
    problem = await refused(413, method, path.format(**mine._asdict()), content=b" " * BIG_BYTES)

    assert (problem["code"], problem["limit"]) == ("body_too_large", BODY_MAX_BYTES)


@with_a_body
async def test_a_chunked_body_beyond_the_limit_is_refused(
    method: str, path: str, mine: Ids, refused: Refused
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(BIG_BYTES // 65_536):
            yield b" " * 65_536

    problem = await refused(413, method, path.format(**mine._asdict()), content=chunks())

    assert (problem["code"], problem["limit"]) == ("body_too_large", BODY_MAX_BYTES)


async def test_a_body_at_the_limit_is_accepted_and_one_byte_more_is_refused(
    client: Client, refused: Refused
) -> None:
    body = json.dumps({"text": "/demo tokens=1 rate=0\n"}).encode()
    body = body.removesuffix(b'"}') + b"x" * (BODY_MAX_BYTES - len(body)) + b'"}'

    await refused(413, "POST", "/api/messages", content=body + b" ")

    accepted = await client.http.post("/api/messages", content=body)
    assert accepted.status_code == 202
    # The next test compares row counts, so nothing may be running.
    await client.read(accepted.json()["generation_id"])


TEXT = {"text": "x"}
INVALID_QUESTIONS = {
    "nothing": ({}, ""),
    "text and content": ({"text": "x", "content": [{"type": "text", "text": "x"}]}, ""),
    "both null": ({"text": None, "content": None}, ""),
    "empty": ({"text": ""}, ""),
    "only spaces": ({"text": "   "}, ""),
    "only white space": ({"text": "\n\t\u00a0\u2003 "}, ""),
    "NUL": ({"text": "a\0b"}, "/text"),
    "only NUL": ({"text": "\0"}, "/text"),
    "a number": ({"text": 1}, "/text"),
    "a boolean": ({"text": True}, "/text"),
    "a list": ({"text": ["x"]}, "/text"),
    "an object": ({"text": {}}, "/text"),
    "content a string": ({"content": "x"}, "/content"),
    "content an object": ({"content": {}}, "/content"),
    "content empty": ({"content": []}, "/content"),
    "content of numbers": ({"content": [1]}, "/content/0"),
    "content of strings": ({"content": ["x"]}, "/content/0"),
    "an empty part": ({"content": [{}]}, "/content/0/type"),
    "a part of no type": ({"content": [{"text": "x"}]}, "/content/0/type"),
    "a part of an unknown type": ({"content": [{"type": "song", "text": "x"}]}, "/content/0/type"),
    "a part that only answers have": (
        {"content": [{"type": "reasoning", "text": "x"}]},
        "/content/0/type",
    ),
    "a part without its text": ({"content": [{"type": "text"}]}, "/content/0/text"),
    "a part whose text is a number": (
        {"content": [{"type": "text", "text": 1}]},
        "/content/0/text",
    ),
    "a part whose text has a NUL": (
        {"content": [{"type": "text", "text": "\0"}]},
        "/content/0/text",
    ),
    "a part with an unknown key": (
        {"content": [{"type": "text", "text": "x", "extra": 1}]},
        "/content/0/extra",
    ),
    "parts of white space": (
        {"content": [{"type": "text", "text": " "}, {"type": "text", "text": "\n"}]},
        "",
    ),
    "a good part and a bad one": (
        {"content": [{"type": "text", "text": "x"}, {"type": "text", "text": None}]},
        "/content/1/text",
    ),
    "too many parts": ({"content": [{"type": "text", "text": "x"}] * 101}, "/content"),
}


@pytest.mark.parametrize("path", [ANSWER_PATHS["send"], ANSWER_PATHS["edit"]], ids=["send", "edit"])
@named(INVALID_QUESTIONS)
async def test_an_empty_or_invalid_question_is_refused(
    case: tuple[Any, str], path: str, mine: Ids, refused: Refused
) -> None:
    body, pointer = case

    problem = await refused(422, "POST", path.format(**mine._asdict()), json=body)

    assert problem["errors"][0]["pointer"] == pointer


INVALID_OPTIONS = {
    "model a number": ({"model": 1}, "/model"),
    "model empty": ({"model": ""}, "/model"),
    "model too long": ({"model": "x" * 201}, "/model"),
    "model with a NUL": ({"model": "demo\0"}, "/model"),
    "system_prompt a number": ({"system_prompt": 1}, "/system_prompt"),
    "system_prompt a list": ({"system_prompt": []}, "/system_prompt"),
    "system_prompt too long": ({"system_prompt": "x" * 100_001}, "/system_prompt"),
    "system_prompt with a NUL": ({"system_prompt": "a\0"}, "/system_prompt"),
    "max_output_tokens a string": ({"max_output_tokens": "5"}, "/max_output_tokens"),
    "max_output_tokens a fraction": ({"max_output_tokens": 1.5}, "/max_output_tokens"),
    "max_output_tokens a boolean": ({"max_output_tokens": True}, "/max_output_tokens"),
    "max_output_tokens zero": ({"max_output_tokens": 0}, "/max_output_tokens"),
    "max_output_tokens negative": ({"max_output_tokens": -1}, "/max_output_tokens"),
    "max_output_tokens too large": ({"max_output_tokens": 10_000_000}, "/max_output_tokens"),
    "max_output_tokens far too large": ({"max_output_tokens": 10**30}, "/max_output_tokens"),
    "temperature a string": ({"temperature": "0.5"}, "/temperature"),
    "temperature a boolean": ({"temperature": True}, "/temperature"),
    "temperature a list": ({"temperature": [1]}, "/temperature"),
    "temperature negative": ({"temperature": -0.1}, "/temperature"),
    "temperature too high": ({"temperature": 2.1}, "/temperature"),
    "temperature far too high": ({"temperature": 1e300}, "/temperature"),
    "metadata a list": ({"metadata": []}, "/metadata"),
    "metadata a string": ({"metadata": "x"}, "/metadata"),
    "metadata null": ({"metadata": None}, "/metadata"),
    "metadata of 17": ({"metadata": {str(n): "x" for n in range(17)}}, "/metadata"),
    "metadata with a number": ({"metadata": {"a": 1}}, "/metadata/a"),
    "metadata with null": ({"metadata": {"a": None}}, "/metadata/a"),
    "metadata with an object": ({"metadata": {"a": {"b": "c"}}}, "/metadata/a"),
    "metadata with a long value": ({"metadata": {"a": "x" * 513}}, "/metadata/a"),
    "metadata with a NUL": ({"metadata": {"a": "\0"}}, "/metadata/a"),
    "metadata with a long key": ({"metadata": {"k" * 65: "x"}}, "/metadata/" + "k" * 65),
    "metadata with an empty key": ({"metadata": {"": "x"}}, "/metadata/"),
    "metadata with a NUL in a key": ({"metadata": {"a\0": "x"}}, "/metadata/a\0"),
}


@pytest.mark.parametrize("path", ANSWER_PATHS.values(), ids=ANSWER_PATHS)
@named(INVALID_OPTIONS)
async def test_an_invalid_option_is_refused(
    case: tuple[Any, str], path: str, mine: Ids, refused: Refused
) -> None:
    body, pointer = case
    body = body | TEXT if path in (ANSWER_PATHS["send"], ANSWER_PATHS["edit"]) else body

    problem = await refused(422, "POST", path.format(**mine._asdict()), json=body)

    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "path", [ANSWER_PATHS["send"], ANSWER_PATHS["edit"], ANSWER_PATHS["regenerate"]]
)
async def test_an_unknown_model_is_refused(path: str, mine: Ids, refused: Refused) -> None:
    body = TEXT if path != ANSWER_PATHS["regenerate"] else {}

    problem = await refused(
        422, "POST", path.format(**mine._asdict()), json=body | {"model": "nobody/nothing"}
    )

    assert (problem["code"], problem["errors"][0]["pointer"]) == ("unknown_model", "/model")


async def test_a_number_too_large_for_a_float_is_refused(refused: Refused) -> None:
    await refused(400, "POST", "/api/messages", content=b'{"text": "x", "temperature": 1e999}')


INVALID_CHANGES = {
    "title a number": ({"title": 1}, "/title"),
    "title null": ({"title": None}, "/title"),
    "title empty": ({"title": ""}, "/title"),
    "title too long": ({"title": "x" * 201}, "/title"),
    "title with a NUL": ({"title": "\0"}, "/title"),
    "pinned a string": ({"pinned": "yes"}, "/pinned"),
    "pinned a number": ({"pinned": 1}, "/pinned"),
    "pinned null": ({"pinned": None}, "/pinned"),
    "archived a string": ({"archived": "true"}, "/archived"),
    "model null": ({"model": None}, "/model"),
    "model empty": ({"model": ""}, "/model"),
    "model unknown": ({"model": "nobody/nothing"}, "/model"),
    "system_prompt a number": ({"system_prompt": 1}, "/system_prompt"),
    "system_prompt too long": ({"system_prompt": "x" * 100_001}, "/system_prompt"),
    "shown_message_id null": ({"shown_message_id": None}, "/shown_message_id"),
    "shown_message_id a number": ({"shown_message_id": 1}, "/shown_message_id"),
    "shown_message_id no id": ({"shown_message_id": "nonsense"}, "/shown_message_id"),
    "shown_message_id with a NUL": ({"shown_message_id": "msg_\0"}, "/shown_message_id"),
    "shown_message_id unknown": ({"shown_message_id": new_id(Prefix.MESSAGE)}, "/shown_message_id"),
    "metadata null": ({"metadata": None}, "/metadata"),
    "metadata with a number": ({"metadata": {"a": 1}}, "/metadata/a"),
    "one good, one bad": ({"title": "a new title", "pinned": 1}, "/pinned"),
    "a read-only field": ({"id": "conv_x"}, "/id"),
}


@named(INVALID_CHANGES)
async def test_an_invalid_change_changes_nothing(
    case: tuple[Any, str], mine: Ids, client: Client, refused: Refused
) -> None:
    body, pointer = case
    path = f"/api/conversations/{mine.conversation}"
    before = await client.get(path)

    problem = await refused(422, "PATCH", path, json=body)

    assert problem["errors"][0]["pointer"] == pointer
    assert await client.get(path) == before


@named(
    {
        "a number": {"token": 1},
        "empty": {"token": ""},
        "too long": {"token": "x" * 201},
        "a list": {"token": []},
    }
)
async def test_a_malformed_sign_in_token_is_refused(case: dict[str, Any], refused: Refused) -> None:
    problem = await refused(422, "POST", "/api/session", json=case)

    assert problem["errors"][0]["pointer"] == "/token"


INVALID_LIMITS = ("0", "-1", "101", "abc", "1.5", "", "１", "1e1", "9" * 5000)
INVALID_CURSORS = ("x", "ü", "\0", "MjAyNg", "!!!", "a" * 10_000)
FORGED_CURSORS = (
    "2026-01-01|conv_1",
    "2026-01-01T00:00:00+00:00|conv_\0",
    "2026-01-01T00:00:00+00:00|",
    "2026-01-01T00:00:00|" + "conv_x",
)
INVALID_QUERIES = [
    *(("GET", "/api/conversations", "limit", text) for text in INVALID_LIMITS),
    *(("GET", "/api/conversations", "before", text) for text in INVALID_CURSORS),
    *(
        ("GET", "/api/conversations", "before", urlsafe_b64encode(text.encode()).decode())
        for text in FORGED_CURSORS
    ),
    *(("GET", "/api/conversations", "archived", text) for text in ("yes", "", "2", "TRUE")),
    *(
        ("GET", "/api/conversations/{conversation}/messages", "limit", text)
        for text in INVALID_LIMITS
    ),
    *(
        ("GET", "/api/conversations/{conversation}/messages", name, text)
        for name in ("before", "leaf")
        for text in INVALID_CURSORS
    ),
    *(
        ("POST", "/api/generations/{generation}/cancel", "wait_s", text)
        for text in ("-1", "31", "nan", "inf", "x", "", "1e9")
    ),
    *(
        ("GET", "/api/generations/{generation}/events", "snapshot", text)
        for text in ("2", "yes", "")
    ),
    *(
        ("GET", "/api/generations/{generation}/events", "after", text)
        for text in ("-1", "x", "\0", "9" * 17)
    ),
]


@pytest.mark.parametrize(
    ("method", "path", "name", "text"), INVALID_QUERIES, ids=lambda value: repr(value[-20:])
)
async def test_an_invalid_query_parameter_is_refused(
    method: str, path: str, name: str, text: str, mine: Ids, tidemark: System, client: Client
) -> None:
    before = rows_of(tidemark)

    problem_of(
        await client.http.request(method, path.format(**mine._asdict()), params={name: text})
    )

    assert rows_of(tidemark) == before


@pytest.mark.parametrize("name", ["before", "leaf"])
async def test_an_empty_cursor_or_leaf_is_ignored(name: str, mine: Ids, client: Client) -> None:
    path = f"/api/conversations/{mine.conversation}/messages"

    assert await client.get(path, **{name: ""}) == await client.get(path)


@named(
    {
        "empty": b"",
        "too long": b"k" * 256,
        "not ASCII": "ключ".encode(),
        "Latin": b"\xe9",
        "a tab": b"a\tb",
    }
)
@pytest.mark.parametrize("path", ANSWER_PATHS.values(), ids=ANSWER_PATHS)
async def test_a_malformed_idempotency_key_is_refused(
    case: bytes, path: str, mine: Ids, refused: Refused
) -> None:
    body = TEXT if path in (ANSWER_PATHS["send"], ANSWER_PATHS["edit"]) else {}

    await refused(
        422, "POST", path.format(**mine._asdict()), json=body, headers={"Idempotency-Key": case}
    )


async def test_a_client_that_accepts_only_a_stream_gets_a_problem_when_refused(
    refused: Refused,
) -> None:
    problem = await refused(
        422, "POST", "/api/messages", json={"text": ""}, headers={"Accept": "text/event-stream"}
    )

    assert problem["code"] == "invalid_request"


REQUESTS_WITH_IDS = {
    "send to a conversation": (
        "POST",
        "/api/messages",
        {"text": "x", "conversation_id": "{conversation}"},
    ),
    "send after a message": (
        "POST",
        "/api/messages",
        {"text": "x", "conversation_id": "{mine.conversation}", "parent_id": "{answer}"},
    ),
    "send after a question": (
        "POST",
        "/api/messages",
        {"text": "x", "conversation_id": "{mine.conversation}", "parent_id": "{question}"},
    ),
    "send after a message of both": (
        "POST",
        "/api/messages",
        {"text": "x", "conversation_id": "{conversation}", "parent_id": "{answer}"},
    ),
    "edit": ("POST", "/api/messages/{question}/edit", {"text": "x"}),
    "edit an answer": ("POST", "/api/messages/{answer}/edit", {"text": "x"}),
    "regenerate": ("POST", "/api/messages/{answer}/regenerate", {}),
    "continue": ("POST", "/api/messages/{answer}/continue", {}),
    "read a message": ("GET", "/api/messages/{answer}", None),
    "read a generation": ("GET", "/api/generations/{generation}", None),
    "follow": ("GET", "/api/generations/{generation}/events", None),
    "follow from a cursor": ("GET", "/api/generations/{generation}/events?after=3", None),
    "follow from a snapshot": ("GET", "/api/generations/{generation}/events?snapshot=1", None),
    "cancel": ("POST", "/api/generations/{generation}/cancel", None),
    "read a conversation": ("GET", "/api/conversations/{conversation}", None),
    "change a conversation": ("PATCH", "/api/conversations/{conversation}", {"title": "x"}),
    "show a message in it": (
        "PATCH",
        "/api/conversations/{conversation}",
        {"shown_message_id": "{answer}"},
    ),
    "show a message": (
        "PATCH",
        "/api/conversations/{mine.conversation}",
        {"shown_message_id": "{answer}"},
    ),
    "delete": ("DELETE", "/api/conversations/{conversation}", None),
    "read messages": ("GET", "/api/conversations/{conversation}/messages", None),
    "read a branch": ("GET", "/api/conversations/{mine.conversation}/messages?leaf={answer}", None),
    "read a page": ("GET", "/api/conversations/{mine.conversation}/messages?before={answer}", None),
}


def request_for(case: tuple[str, str, Any], ids: Ids, mine: Ids) -> tuple[str, str, dict[str, Any]]:
    """The method, path and body of a case with these ids filled in."""
    method, path, body = case
    values = {**ids._asdict(), "mine": mine}
    filled = (
        {key: value.format(**values) for key, value in body.items()} if body is not None else None
    )
    return method, path.format(**values), {"json": filled} if filled is not None else {}


def visible_parts(response: httpx.Response) -> Any:
    """Everything by which a caller could distinguish two refusals."""
    varying = ("tidemark-request-id", "date", "content-length")
    headers = {name: value for name, value in response.headers.items() if name not in varying}
    return headers, problem_of(response) | {"request_id": ""}


@named(REQUESTS_WITH_IDS)
async def test_an_id_of_another_account_is_indistinguishable_from_an_unknown_id(
    case: tuple[str, str, Any], mine: Ids, foreign: Ids, tidemark: System, client: Client
) -> None:
    unknown = Ids(
        *(
            new_id(prefix)
            for prefix in (Prefix.CONVERSATION, Prefix.MESSAGE, Prefix.MESSAGE, Prefix.GENERATION)
        )
    )
    before = rows_of(tidemark)
    responses = []

    for ids in (foreign, unknown):
        method, path, request = request_for(case, ids, mine)
        responses.append(await client.http.request(method, path, **request))

    assert visible_parts(responses[0]) == visible_parts(responses[1])
    assert responses[0].status_code in (400, 404, 422)
    assert rows_of(tidemark) == before


@named({name: case for name, case in REQUESTS_WITH_IDS.items() if "{mine" in str(case)})
async def test_a_message_of_another_conversation_is_refused(
    case: tuple[str, str, Any], mine: Ids, mine_too: Ids, tidemark: System, client: Client
) -> None:
    method, path, request = request_for(case, mine_too, mine)
    before = rows_of(tidemark)

    problem_of(await client.http.request(method, path, **request))

    assert rows_of(tidemark) == before


MALFORMED_IDS = {
    "a word": "nonsense",
    "NUL": "%00",
    "NUL in an id": "conv_%00",
    "a slash": "a%2Fb",
    "dots": "%2e%2e",
    "a percent sign": "%25",
    "spaces": "%20",
    "10,000 characters": "x" * 10_000,
    "not ASCII": "%C3%BC",
    "not UTF-8": "%FF%FE",
    "a quote": "'%20OR%201=1--",
    "an id in lower case": new_id(Prefix.MESSAGE).lower(),
    "an id and more": new_id(Prefix.MESSAGE) + "0",
    "an id and a new line": new_id(Prefix.MESSAGE) + "%0A",
    "an account": new_id(Prefix.ACCOUNT),
}
OPERATIONS_WITH_AN_ID = {
    f"{each.method} {each.path}": each for each in OPERATIONS if "{id}" in each.path
}


@pytest.mark.parametrize("operation", OPERATIONS_WITH_AN_ID.values(), ids=OPERATIONS_WITH_AN_ID)
@named(MALFORMED_IDS)
async def test_a_malformed_id_in_a_path_is_not_found(
    case: str, operation: Any, refused: Refused
) -> None:
    body = {"POST": TEXT if operation.path.endswith("/edit") else {}, "PATCH": {"title": "x"}}.get(
        operation.method
    )

    problem = await refused(
        404,
        operation.method,
        operation.path.format(id=case),
        **({"json": body} if body is not None else {}),
    )

    assert problem["code"] == "not_found"


@named(
    {
        "a word": "x",
        "empty": "",
        "NUL": "\0",
        "long": "x" * 10_000,
        "not ASCII": "ü",
        "a path": "../x",
        "unknown": new_id(Prefix.MESSAGE),
    }
)
@pytest.mark.parametrize("field", ["conversation_id", "parent_id"])
async def test_a_malformed_or_unknown_id_in_a_body_is_refused(
    case: str, field: str, mine: Ids, tidemark: System, client: Client
) -> None:
    before = rows_of(tidemark)
    body = TEXT | {"conversation_id": mine.conversation} | {field: case}

    problem = problem_of(await client.http.post("/api/messages", json=body))

    assert problem["status"] in (404, 422)
    assert rows_of(tidemark) == before


@named({"a number": 1, "a list": [], "a boolean": True, "an object": {}})
@pytest.mark.parametrize("field", ["conversation_id", "parent_id"])
async def test_an_id_in_a_body_must_be_a_string(case: Any, field: str, refused: Refused) -> None:
    problem = await refused(422, "POST", "/api/messages", json=TEXT | {field: case})

    assert problem["errors"][0]["pointer"] == f"/{field}"


async def test_a_parent_id_requires_a_conversation_id(mine: Ids, refused: Refused) -> None:
    problem = await refused(422, "POST", "/api/messages", json=TEXT | {"parent_id": mine.answer})

    assert problem["code"] == "invalid_parent"


UNKNOWN_PATHS = [
    *(
        "/api",
        "/api/",
        "/api/nothing",
        "/nothing",
        "/api/messages/x/nothing",
        "/api/%00",
        "/v1/models",
        "/c/",
        "/c/a/b",
        "//",
    ),
    *("/assets/no.js", "/assets/%00", "/assets/..%2f..%2fapp.py", "/assets/" + "a" * 5000),
]


@pytest.mark.parametrize("path", UNKNOWN_PATHS, ids=lambda path: path[:40])
async def test_an_unknown_path_is_not_found(path: str, tidemark: System, client: Client) -> None:
    response = await client.http.get(f"{tidemark.web.url}{path}")

    assert (response.status_code, problem_of(response)["code"]) == (404, "not_found")


def methods_by_path() -> Iterator[tuple[str, set[str]]]:
    """The allowed methods of every path."""
    for path in {operation.path for operation in OPERATIONS}:
        methods = {operation.method for operation in OPERATIONS if operation.path == path}
        yield path, methods | ({"HEAD"} if "GET" in methods else set())


@pytest.mark.parametrize(
    ("path", "methods"),
    sorted(methods_by_path()),
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_method_is_refused_with_the_allowed_ones(
    path: str, methods: set[str], client: Client
) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - methods:
        response = await client.http.request(method, path.format(id="x"))

        assert (response.status_code, problem_of(response)["code"]) == (405, "method_not_allowed")
        assert {each.strip() for each in response.headers["allow"].split(",")} == methods
