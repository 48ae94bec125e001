"""Requests generated from openapi.json and the GraphQL schema: every response is documented.

Schemas do not describe which ids, cursors and models exist, so generated ones are rarely valid; in
half of the cases real ids are filled in.
"""

import re
from typing import Any, NamedTuple

import httpx
import pytest
import requests
import schemathesis
from graphql import build_schema
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Config, GenerationMode

from server.api.operations import OPERATIONS, Operation
from server.graph.schema import schema_text
from tests.system import System

BOUNDED = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
SCHEMA = build_schema(schema_text())
FIELDS = [
    (root.name, name)
    for root in (SCHEMA.query_type, SCHEMA.mutation_type)
    if root
    for name in root.fields
]

PAGE = "/api/events"
"""This stream never ends, so only the beginning of its response is checked."""

# A schema does not describe which ids, cursors and model names exist: the server may refuse a
# request that matches the schema.
CONFIG = {
    "checks": {
        "positive_data_acceptance": {"enabled": False},
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "413", "422", "429"]
        },
    }
}
VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CALLS = [(each, VALID) for each in OPERATIONS] + [
    (each, INVALID) for each in OPERATIONS if each.parameters or each.body or "{id}" in each.path
]

pytestmark = pytest.mark.slow


class Robot(NamedTuple):
    """An account that only these tests use."""

    headers: dict[str, str]
    url: str

    def ids(self) -> list[str]:
        """The ids of a new settled turn: conversation, question, answer, generation."""
        response = httpx.post(
            f"{self.url}/api/messages",
            json={"text": "/demo tokens=3 rate=0"},
            headers=self.headers | {"Accept": "text/event-stream"},
            trust_env=False,
        )
        return [
            response.headers[f"tidemark-{name}"]
            for name in ("conversation", "question", "message", "generation")
        ]


@pytest.fixture(scope="module")
def robot(tidemark: System) -> Robot:
    return Robot(
        {"Authorization": f"Bearer {tidemark.new_key(account='robot@example.org')}"},
        tidemark.web.url,
    )


@pytest.fixture(scope="module")
def over_http(tidemark: System) -> Any:
    return schemathesis.openapi.from_url(
        f"{tidemark.web.url}/api/openapi.json", config=Config.from_dict(CONFIG)
    )


@pytest.fixture(scope="module")
def over_graphql(robot: Robot) -> Any:
    return schemathesis.graphql.from_url(f"{robot.url}/graphql", headers=robot.headers)


@pytest.mark.parametrize(
    ("operation", "mode"),
    CALLS,
    ids=[
        f"{each.method} {each.path} {'right' if mode is VALID else 'wrong'}" for each, mode in CALLS
    ],
)
def test_http_responses_match_openapi_json(
    operation: Operation, mode: GenerationMode, over_http: Any, robot: Robot
) -> None:
    requests, ids = (
        over_http[operation.path][operation.method].as_strategy(generation_mode=mode),
        robot.ids(),
    )

    @BOUNDED
    @given(case=requests, id=st.sampled_from([*ids, *[""] * len(ids)]))
    def check(case: Any, id: str) -> None:
        if id and "id" in case.path_parameters:
            case.path_parameters["id"] = id
        if operation.path == PAGE:
            case.validate_response(beginning_of(case, robot), headers=robot.headers)
        else:
            case.call_and_validate(headers=robot.headers)

    check()


def beginning_of(case: Any, robot: Robot) -> requests.Response:
    """The status and headers of a response, and its body if it is a refusal."""
    with requests.request(
        **case.as_transport_kwargs(headers=robot.headers), stream=True, timeout=60
    ) as response:
        if not response.headers["content-type"].startswith("text/event-stream"):
            response.content  # noqa: B018 (reads it)
        return response


@pytest.mark.parametrize("field", FIELDS, ids=".".join)
def test_graphql_responses_match_the_schema(
    field: tuple[str, str], over_graphql: Any, robot: Robot
) -> None:
    ids = robot.ids()

    @BOUNDED
    @given(
        case=over_graphql[field[0]][field[1]].as_strategy(),
        id=st.sampled_from([*ids, *[""] * len(ids)]),
    )
    def check(case: Any, id: str) -> None:
        if id:
            case.body = re.sub(
                r'\b(id|conversationId|parentId|leaf): "[^"\\]*"', rf'\1: "{id}"', case.body
            )
        response = case.call(headers=robot.headers)
        assert response.status_code in (200, 400), response.text
        result = response.json()
        errors = result.get("errors", [])
        assert errors or result["data"], response.text
        assert all(
            error["extensions"]["code"] not in ("internal", "unavailable") for error in errors
        ), response.text
        assert response.status_code == 200 or [error["extensions"]["code"] for error in errors] == [
            "document_too_complex"
        ], response.text

    check()
