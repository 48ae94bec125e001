"""A client of the GraphQL interface."""

from typing import Any

import httpx

from tests.client import Client


async def post(client: Client, query: str, variables: dict[str, Any] | None = None, **request: Any) -> httpx.Response:
    """One operation over HTTP, as it was answered."""
    return await client.http.post("/graphql", json={"query": query, "variables": variables or {}}, **request)


async def graph(client: Client, query: str, **variables: Any) -> dict[str, Any]:
    """The data of an operation that has to succeed."""
    answer = await post(client, query, variables)
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert "errors" not in body, answer.text
    return dict(body["data"])


async def errors(client: Client, query: str, **variables: Any) -> list[dict[str, Any]]:
    """The errors of an operation that must not succeed."""
    body = (await post(client, query, variables)).json()
    assert body.get("errors"), body
    return list(body["errors"])
