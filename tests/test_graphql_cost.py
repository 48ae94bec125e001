"""The cost of documents: subscriptions have a lower limit than queries, aliases are short."""

import pytest
from graphql import GraphQLSchema, parse

from server.graph.cost import SUBSCRIPTION_COST_MAX, check_cost, check_shape
from server.graph.schema import Schema
from server.settings import GraphqlSettings
from tests import test_graphql_clients, test_graphql_pages, test_subscriptions

pytestmark = pytest.mark.quick

COST_MAX = GraphqlSettings().cost_max
MESSAGES = "messages(first: 40) { nodes { id text siblings { id text } } }"


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return Schema(GraphqlSettings())._schema


def limit_of(schema: GraphQLSchema, document: str) -> int | None:
    """The cost limit that a document exceeds."""
    error = check_cost(schema, parse(document), {}, COST_MAX)
    return error.extensions["limit"] if error and error.extensions else None


def test_subscriptions_have_a_lower_cost_limit_than_queries(schema: GraphQLSchema) -> None:
    query = f'{{ conversation(id: "x") {{ {MESSAGES} }} }}'
    changed = f"... on ConversationChanged {{ conversation {{ {MESSAGES} }} }}"
    subscription = f'subscription {{ conversationEvents(id: "x") {{ {changed} }} }}'

    assert limit_of(schema, query) is None
    assert limit_of(schema, subscription) == SUBSCRIPTION_COST_MAX


@pytest.mark.parametrize(
    "document",
    [
        test_subscriptions.WHOLE,
        test_graphql_pages.CONVERSATION,
        test_graphql_pages.LIST,
        test_graphql_clients.QUERY,
    ],
)
def test_typical_subscriptions_cost_a_fraction_of_the_limit(
    schema: GraphQLSchema, document: str
) -> None:
    assert check_cost(schema, parse(document), {}, SUBSCRIPTION_COST_MAX // 5) is None


def test_long_aliases_are_refused() -> None:
    within = check_shape(parse("{ %s: __typename }" % ("a" * 128)))
    beyond = check_shape(parse("{ %s: __typename }" % ("a" * 129)))

    assert within is None
    assert beyond is not None
    assert beyond.extensions == {"code": "document_too_complex", "limit": 128}
    assert beyond.message == "An alias exceeds the limit of 128 characters."


@pytest.mark.parametrize("fragments", [2, 20])
def test_depth_is_counted_through_fragments(schema: GraphQLSchema, fragments: int) -> None:
    def chain(levels: int) -> str:
        """Fragments that each add this many levels, in a document that is not deep elsewhere."""
        below = [f"...F{n + 1}" for n in range(fragments - 1)] + ["id"]
        return '{ message(id: "x") { ...F0 } } ' + " ".join(
            f"fragment F{n} on Message {{ {'parent { ' * levels}{inner}{' }' * levels} }}"
            for n, inner in enumerate(below)
        )

    beyond = check_cost(schema, parse(chain(6)), {}, COST_MAX)

    assert check_shape(parse(chain(6))) is None
    assert beyond is not None
    assert beyond.extensions == {"code": "document_too_complex", "limit": 12}
    if fragments == 2:
        assert check_cost(schema, parse(chain(5)), {}, COST_MAX) is None
