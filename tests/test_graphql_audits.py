"""GraphQL over HTTP: the audits of the npm package graphql-http against the running server."""

import json

import pytest

from tests.javascript import run
from tests.system import System

# Optional and not supported: queries by GET, because documents and variables would end up in the
# logs and caches of every proxy.
NOT_SUPPORTED = {
    "5A70": "MAY accept application/x-www-form-urlencoded formatted GET requests",
    "D6D5": "MAY allow URL-encoded JSON string {variables} parameter in GETs when accepting "
    "application/graphql-response+json",
    "6A70": "MAY allow URL-encoded JSON string {variables} parameter in GETs when accepting "
    "application/json",
}


@pytest.mark.slow
def test_graphql_over_http_passes_the_audits(tidemark: System, key: str) -> None:
    results = json.loads(run("audits.mjs", f"{tidemark.web.url}/graphql", TIDEMARK_KEY=key))

    assert len(results) >= 60
    assert [result for result in results if result["status"] in ("error", "warn")] == []
    assert {
        result["id"]: result["name"] for result in results if result["status"] == "notice"
    } == NOT_SUPPORTED
