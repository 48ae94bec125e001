"""Responses have a byte limit, whatever their fields; subscription events have one each."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import strawberry
from graphql import parse
from graphql.execution import execute_subscription_event
from strawberry.scalars import JSON

from server.graph.budget import ResponseBudget
from server.graph.executor import BoundedExecutor
from tests.client import Client
from tests.graph import graph, mutate, post

TEXT_BYTES = 1_000


class SmallExecutor(BoundedExecutor):
    response_max_bytes = 10 * TEXT_BYTES + 100


@strawberry.type
class Thing:
    text: str = "x" * TEXT_BYTES
    maybe: str | None = "\u0001" * (TEXT_BYTES // 6 + 1)  # six bytes per character in JSON
    labels: JSON = strawberry.field(  # type: ignore[assignment]
        default_factory=lambda: {"name": "x" * TEXT_BYTES}
    )
    number: int = 1

    @strawberry.field
    async def later(self) -> str:
        return self.text


@strawberry.type
class Query:
    @strawberry.field
    def things(self, count: int) -> list[Thing]:
        return [Thing() for _ in range(count)]


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def things(self, count: int) -> AsyncGenerator[list[Thing], None]:
        yield [Thing() for _ in range(count)]


SCHEMA = strawberry.Schema(Query, subscription=Subscription, execution_context_class=SmallExecutor)


def test_a_budget_raises_once_it_is_exceeded() -> None:
    budget = ResponseBudget(10)
    budget.charge(4)
    budget.charge(6)
    assert not budget.exceeded

    with pytest.raises(Exception, match="limit of 10 bytes") as refused:
        budget.charge(1)

    assert budget.exceeded
    error: Any = refused.value
    assert error.extensions == {"code": "document_too_complex", "limit": 10}


@pytest.mark.parametrize("field", ["text", "maybe", "labels", "later"])
async def test_a_response_beyond_the_limit_is_a_single_error(field: str) -> None:
    query = f"query ($n: Int!) {{ things(count: $n) {{ number {field} }} }}"

    within = await SCHEMA.execute(query, variable_values={"n": 9})
    beyond = await SCHEMA.execute(query, variable_values={"n": 50})

    assert within.errors is None
    assert beyond.data is None
    assert beyond.errors is not None
    [error] = beyond.errors
    assert error.extensions == {"code": "document_too_complex", "limit": 10_100}


async def test_every_alias_of_a_field_counts() -> None:
    query = "{" + " ".join(f"a{n}: things(count: 1) {{ text }}" for n in range(11)) + "}"

    result = await SCHEMA.execute(query)

    assert [each.extensions["code"] for each in result.errors or ()] == ["document_too_complex"]


async def test_every_event_of_a_subscription_has_the_whole_budget() -> None:
    document = parse("subscription { things(count: 1) { text } }")
    executor: Any = SmallExecutor.build(SCHEMA._schema, document)

    def event(count: int) -> Any:
        root = [Thing() for _ in range(count)]
        return execute_subscription_event(executor.build_per_event_executor(root))

    results = [event(9), event(9), event(50), event(9)]

    assert [bool(result.errors) for result in results] == [False, False, True, False]
    assert len(results[2].errors) == 1


async def test_siblings_of_siblings_cannot_exceed_the_limit(
    client: Client,
) -> None:
    long = "/demo tokens=1 rate=0\n" + "x" * 900_000
    sent = await client.send(long)
    for _ in range(4):
        await mutate(client, "editMessage", id=sent["question_id"], text=long)
    siblings = "query ($id: ID!) { message(id: $id) { siblings { text } } }"
    twice = "query ($id: ID!) { message(id: $id) { siblings { siblings { text } } } }"

    message = (await graph(client, siblings, id=sent["question_id"]))["message"]
    response = await post(client, twice, {"id": sent["question_id"]})

    assert [len(each["text"]) for each in message["siblings"]] == [len(long)] * 5
    assert len(response.content) < 1_000
    assert response.json()["data"] is None
    [error] = response.json()["errors"]
    assert error["extensions"] == {"code": "document_too_complex", "limit": 16 * 1024 * 1024}
