"""The schema as a document: it is kept, everything in it is described, and one name means one thing."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
)
from structlog.testing import capture_logs

from server.graph.context import Context
from server.graph.encoding import OperationRequest
from server.graph.operations import OperationRefused, Operations
from server.graph.schema import Schema, schema_text
from server.identity.callers import Caller
from server.settings import GraphqlSettings
from server.stream.events import EventType

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parent.parent
SPECIFIED = {"String", "Int", "Float", "Boolean", "ID"}


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema(schema_text())


@pytest.fixture(scope="module")
def operations() -> Operations:
    return Operations(Schema(GraphqlSettings()))


def own_types(schema: GraphQLSchema) -> list[GraphQLNamedType]:
    return [
        type
        for name, type in schema.type_map.items()
        if not name.startswith("__") and name not in SPECIFIED
    ]


def test_the_schema_is_the_one_in_the_documents() -> None:
    kept = (ROOT / "docs" / "schema.graphql").read_text()

    assert kept == schema_text(), (
        "the schema has changed: run `uv run python -m server.graph.schema > docs/schema.graphql`"
    )


def examples() -> list[dict[str, Any]]:
    """The bodies of the requests in the documents."""
    text = (ROOT / "docs" / "graphql.md").read_text() + (ROOT / "README.md").read_text()
    return [json.loads(body) for body in re.findall(r"'\s*(\{\"query\".*?\})'", text, re.DOTALL)]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example["query"][:40])
async def test_the_examples_of_the_documents_are_valid(
    example: dict[str, Any], operations: Operations
) -> None:
    nothing: Any = None
    context = Context(
        nothing,
        nothing,
        nothing,
        "req_test",
        Caller("acct_x", None, None, "session"),
    )
    asked = OperationRequest(example["query"], example.get("variables"), None)
    answers: list[Any] = []
    try:
        # The default log would render a traceback with all local variables.
        with capture_logs():
            async for payloads in operations.results(asked, context, list):
                answers += [json.loads(payload) for payload in payloads or ()]
    except OperationRefused as refused:
        answers.append({"errors": json.loads(refused.errors)})

    codes = {
        error["extensions"]["code"] for answer in answers for error in answer.get("errors", ())
    }
    assert codes <= {"internal"}  # there is nothing behind it to read


def test_there_are_ten_calls_and_a_first_one() -> None:
    assert len(examples()) >= 11


def undescribed(schema: GraphQLSchema) -> Iterator[str]:
    """Everything that nobody explains."""
    for type in own_types(schema):
        if not type.description:
            yield type.name
        if isinstance(type, GraphQLEnumType):
            yield from (
                f"{type.name}.{name}"
                for name, value in type.values.items()
                if not value.description
            )
        if isinstance(type, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            for name, field in type.fields.items():
                if not field.description:
                    yield f"{type.name}.{name}"
                for argument, definition in getattr(field, "args", {}).items():
                    if not definition.description:
                        yield f"{type.name}.{name}({argument})"


def test_everything_is_described(schema: GraphQLSchema) -> None:
    assert list(undescribed(schema)) == []


@pytest.mark.parametrize("interface", ["GenerationEvent", "ContentPart", "RequestedAnswerPayload"])
def test_one_field_name_has_one_type_in_all_kinds(interface: str, schema: GraphQLSchema) -> None:
    implementing = schema.get_implementations(schema.type_map[interface]).objects  # type: ignore[arg-type]
    types = defaultdict(set)
    for kind in implementing:
        for name, field in kind.fields.items():
            types[name].add(str(field.type))

    assert implementing
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


def test_every_event_has_a_type(schema: GraphQLSchema) -> None:
    told = {
        kind.name for kind in schema.get_implementations(schema.type_map["GenerationEvent"]).objects
    }  # type: ignore[arg-type]

    assert told == {
        "Generation" + "".join(word.capitalize() for word in event.split("_"))
        for event in EventType
    }


def test_every_mutation_takes_one_input_and_gives_one_payload(schema: GraphQLSchema) -> None:
    assert schema.mutation_type is not None
    for name, field in schema.mutation_type.fields.items():
        title = name[0].upper() + name[1:]
        assert ({key: str(each.type) for key, each in field.args.items()}, str(field.type)) == (
            {"input": f"{title}Input!"},
            f"{title}Payload!",
        )


def test_every_list_is_a_page_or_bounded(schema: GraphQLSchema) -> None:
    """A connection takes all four arguments of a page, none of them required or with a default."""
    for type in own_types(schema):
        for name, field in getattr(type, "fields", {}).items():
            if str(field.type).endswith("Connection!"):
                page = {
                    key: str(field.args[key].type) for key in ("first", "after", "last", "before")
                }
                assert page == {
                    "first": "Int",
                    "after": "String",
                    "last": "Int",
                    "before": "String",
                }, f"{type.name}.{name}"
                assert all(repr(field.args[key].default_value) == "Undefined" for key in page), (
                    f"{type.name}.{name}"
                )
            elif str(field.type).startswith("["):
                bounded = {
                    "excerpt",
                    "messages",
                    "generations",
                    "edges",
                    "nodes",
                    "content",
                    "siblings",
                    "activeGenerations",
                    "apiKeys",
                    "models",
                }
                assert name in bounded, f"{type.name}.{name}"


def test_names_are_spelled_as_graphql_spells_them(schema: GraphQLSchema) -> None:
    for type in own_types(schema):
        if isinstance(type, GraphQLEnumType):
            assert all(name == name.upper() for name in type.values)
        assert all("_" not in name for name in getattr(type, "fields", {}))
