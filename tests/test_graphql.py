"""GraphQL: what is read and changed over HTTP is what the HTTP interface shows."""

from tests.client import Client
from tests.graph import errors, graph


async def test_the_viewer_is_who_asks(client: Client) -> None:
    data = await graph(client, "{ viewer { account { id } user { email } } }")

    assert data["viewer"]["account"]["id"].startswith("acct_")


async def test_a_generation_is_what_http_shows(client: Client) -> None:
    asked = await client.send("/demo tokens=20 rate=0")
    await client.read(asked["generation_id"])

    data = await graph(
        client, "query ($id: ID!) { generation(id: $id) { id status seq text finishReason createdAt } }", id=asked["generation_id"]
    )

    snapshot = await client.snapshot(asked["generation_id"])
    assert data["generation"] == {
        "id": snapshot["id"],
        "status": snapshot["status"].upper(),
        "seq": snapshot["seq"],
        "text": snapshot["text"],
        "finishReason": snapshot["finish_reason"].upper(),
        "createdAt": snapshot["created_at"],
    }


async def test_a_subscription_over_sse_tells_every_event_once_and_in_order(client: Client) -> None:
    asked = await client.send("/demo tokens=20 rate=0")
    query = "subscription ($id: ID!) { generationEvents(id: $id) { __typename cursor seq ... on GenerationTextDelta { text } } }"

    answer = await client.http.post(
        "/graphql", json={"query": query, "variables": {"id": asked["generation_id"]}}, headers={"Accept": "text/event-stream"}
    )

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.count("event: next") >= 4
    assert answer.text.rstrip().endswith("event: complete\r\ndata:")
    assert "GenerationCompleted" in answer.text


async def test_a_bad_cursor_is_an_error_of_the_subscription(client: Client) -> None:
    asked = await client.send("/demo tokens=1 rate=0")

    [error] = await errors_of_stream(client, asked["generation_id"])

    assert error == "invalid_cursor"


async def errors_of_stream(client: Client, generation_id: str) -> list[str]:
    query = f'subscription {{ generationEvents(id: "{generation_id}", after: "x") {{ seq }} }}'
    answer = await client.http.post("/graphql", json={"query": query}, headers={"Accept": "text/event-stream"})
    return ["invalid_cursor"] if '"code":"invalid_cursor"' in answer.text else [answer.text]


async def test_an_unknown_field_is_an_invalid_document(client: Client) -> None:
    [error] = await errors(client, "{ nothing }")

    assert error["extensions"]["code"] == "invalid_document"
