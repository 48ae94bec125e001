"""A client of the GraphQL interface."""

from typing import Any

import httpx

from tests.client import Client


async def post(
    client: Client, query: str, variables: dict[str, Any] | None = None, **request: Any
) -> httpx.Response:
    """The response to one operation over HTTP."""
    return await client.http.post(
        "/graphql", json={"query": query, "variables": variables or {}}, **request
    )


async def graph(client: Client, query: str, **variables: Any) -> dict[str, Any]:
    """The data of an operation that must succeed."""
    response = await post(client, query, variables)
    body = response.json()
    assert response.status_code == 200, response.text
    assert "errors" not in body, response.text
    return dict(body["data"])


async def refusal(client: Client, query: str, **variables: Any) -> dict[str, Any]:
    """The only error of an operation that must fail."""
    body = (await post(client, query, variables)).json()
    [error] = body["errors"]
    assert error["extensions"]["code"], error
    assert not body.get("data") or None in body["data"].values(), body
    return dict(error)


async def code(client: Client, query: str, **variables: Any) -> str:
    """The code of that error."""
    return str((await refusal(client, query, **variables))["extensions"]["code"])


def mutation(name: str, selection: str = "__typename") -> str:
    """A mutation with its input as a variable."""
    type = f"{name[0].upper()}{name[1:]}Input"
    return f"mutation ($input: {type}!) {{ {name}(input: $input) {{ {selection} }} }}"


async def mutate(
    client: Client, name: str, selection: str = "__typename", /, **input: Any
) -> dict[str, Any]:
    """The payload of a mutation that must succeed."""
    return dict((await graph(client, mutation(name, selection), input=input))[name])
