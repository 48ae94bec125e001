"""GraphQL reads rows without content, and content up to the limit of the response."""

import gc
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert
from sqlmodel import Session
from strawberry.dataloader import DataLoader
from strawberry.types import ExecutionResult

from server.graph.context import Context
from server.graph.executor import BoundedExecutor
from server.graph.schema import Schema
from server.history.database import in_transaction, open_database, sqlite_engine
from server.history.schema import _migrate_sqlite
from server.history.tables import (
    CONVERSATIONS,
    MESSAGES,
    Account,
    Conversation,
    Generation,
    Message,
    Role,
    now,
)
from server.identity.callers import Caller
from server.ids import Prefix, new_id
from server.settings import GraphqlSettings
from tests.waiting import condition

pytestmark = pytest.mark.quick

MIB = 1 << 20
ACCOUNT = new_id(Prefix.ACCOUNT)
LARGE_CHARS, LARGE_SIBLINGS = 700_000, 30
GROUPS, GROUP_SIZE, TEXT_CHARS = 10, 100, 20_000
PROMPT_CHARS = 100_000
MANY_SIBLINGS = 250
SCHEMA = Schema(GraphqlSettings())


def text(chars: int) -> list[dict[str, Any]]:
    return [{"type": "text", "text": "x" * chars}]


def question(conversation_id: str, position: int, chars: int) -> dict[str, Any]:
    return {
        "id": new_id(Prefix.MESSAGE),
        "conversation_id": conversation_id,
        "parent_id": None,
        "position": position,
        "role": Role.USER,
        "parts": text(chars),
        "metadata": {},
        "created_at": now(),
        "change": 1,
    }


def fill(session: Session) -> dict[str, str]:
    """Large siblings, conversations with 100 siblings each, and one with more siblings than a window."""
    session.add(Account(id=ACCOUNT))
    session.flush()

    def group(size: int, chars: int, **values: Any) -> list[str]:
        row = Conversation(id=new_id(Prefix.CONVERSATION), account_id=ACCOUNT, model="demo")
        rows = [question(row.id, n, chars) for n in range(size)]
        row.shown_message_id = rows[0]["id"]
        session.add(row)
        session.flush()
        session.execute(insert(MESSAGES), rows)
        session.execute(
            CONVERSATIONS.update().where(CONVERSATIONS.c.id == row.id).values(**values)
        ) if values else None
        return [row.id, *(each["id"] for each in rows)]

    large = group(LARGE_SIBLINGS, LARGE_CHARS, archived=True)
    for _ in range(GROUPS):
        group(GROUP_SIZE, TEXT_CHARS, system_prompt="y" * PROMPT_CHARS)
    many_siblings = group(MANY_SIBLINGS, 10, archived=True)
    return {
        "large": large[1],
        "many_siblings": many_siblings[MANY_SIBLINGS // 2],
        "conversation": large[0],
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    url = f"sqlite:///{tmp_path_factory.mktemp('reading') / 'reading.db'}"
    _migrate_sqlite(url)
    engine = sqlite_engine(url, begin="BEGIN IMMEDIATE")
    ids = in_transaction(engine, fill)
    engine.dispose()
    return url, ids


@pytest.fixture
def ids(filled: tuple[str, dict[str, str]]) -> dict[str, str]:
    return filled[1]


@pytest.fixture
async def context(filled: tuple[str, dict[str, str]]) -> AsyncIterator[Context]:
    async with open_database(filled[0]) as database:
        key_prefix = SimpleNamespace(redis=SimpleNamespace(key_prefix="test:"))
        services: Any = SimpleNamespace(database=database, redis=None, settings=key_prefix)
        nothing: Any = None
        caller = Caller(ACCOUNT, None, None, "session")
        yield Context(services, nothing, nothing, "req_test", caller)


async def run(context: Context, query: str, **variables: Any) -> ExecutionResult:
    values = variables if "$id" in query else None
    return await SCHEMA.execute(query, variable_values=values, context_value=context)


async def peak_bytes(context: Context, query: str, **variables: Any) -> int:
    """The peak memory that a query allocates."""
    await run(context, query, **variables | {"id": "msg_x"})  # fills the caches of statements
    gc.collect()
    tracemalloc.start()
    try:
        await run(context, query, **variables)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SIBLING_IDS = "query ($id: ID!) { message(id: $id) { siblings { id } } }"
SIBLING_TEXTS = "query ($id: ID!) { message(id: $id) { siblings { text } } }"
GROUP_IDS = """{ conversations(first: 10, filter: {archived: false}) {
    nodes { messages(last: 1) { nodes { siblings { id } } } } } }"""
ROWS = """{ conversations(first: 10, filter: {archived: false}) {
    nodes { title shownMessage { id } lastMessage { id } messages { nodes { id generation { id } } } } } }"""


@pytest.mark.parametrize("query", [SIBLING_IDS, GROUP_IDS, ROWS], ids=["large", "many", "rows"])
async def test_content_that_is_not_selected_is_not_read(
    query: str, context: Context, ids: dict[str, str]
) -> None:
    assert (await run(context, query, id=ids["large"])).errors is None

    assert await peak_bytes(context, query, id=ids["large"]) < 8 * MIB


async def test_content_is_read_only_up_to_the_limit_of_the_response(
    context: Context, ids: dict[str, str]
) -> None:
    peak = await peak_bytes(context, SIBLING_TEXTS, id=ids["large"])

    result = await run(context, SIBLING_TEXTS, id=ids["large"])
    assert result.data is None
    assert [each.extensions for each in result.errors or ()] == [
        {"code": "document_too_complex", "limit": 16 * MIB}
    ]
    assert LARGE_SIBLINGS * LARGE_CHARS > 20 * MIB
    assert peak < 40 * MIB  # the content, and a chunk of it as JSON


async def test_system_prompts_are_read_only_if_they_are_selected(context: Context) -> None:
    names = " ".join(f"a{n}: conversations {{ nodes {{ %s }} }}" for n in range(20))
    without = await peak_bytes(context, f"{{ {names} }}".replace("%s", "id lastMessage { id }"))

    whole = await run(context, f"{{ {names} }}".replace("%s", "systemPrompt"))

    assert without < 8 * MIB
    assert whole.data is None
    assert [each.extensions["code"] for each in whole.errors or () if each.extensions] == [
        "document_too_complex"
    ]


async def test_an_operation_reads_a_limited_number_of_rows(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedExecutor, "rows_max", 500)

    result = await run(context, GROUP_IDS)

    assert result.data is None
    [error] = result.errors or ()
    assert error.message == "The operation exceeds the limit of 500 objects."
    assert error.extensions == {"code": "document_too_complex", "limit": 500}


async def test_content_is_the_same_wherever_it_is_selected(
    context: Context, ids: dict[str, str]
) -> None:
    query = """query ($id: ID!) {
      message(id: $id) { text siblings { ...Whole } }
      node(id: $id) { ... on Message { text content { ... on TextPart { text } } } }
    }
    fragment Whole on Message { ... { words: text content { ... on TextPart { text } } } }"""

    result = await run(context, query, id=ids["many_siblings"])

    assert result.errors is None
    assert result.data is not None
    assert result.data["message"]["text"] == result.data["node"]["text"] == "x" * 10
    assert result.data["node"]["content"] == [{"text": "x" * 10}]
    assert {each["words"] for each in result.data["message"]["siblings"]} == {"x" * 10}


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("query", [SIBLING_IDS, SIBLING_TEXTS, GROUP_IDS, ROWS])
async def test_an_operation_frees_its_rows_when_it_ends(
    query: str, context: Context, ids: dict[str, str]
) -> None:
    await run(context, query, id=ids["many_siblings"])

    await condition(lambda: not any(isinstance(each, HELD) for each in gc.get_objects()), 10)


HELD = (Message, Generation, Conversation, DataLoader)
