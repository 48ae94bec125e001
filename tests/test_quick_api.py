"""The HTTP and GraphQL API end to end, inside the test's own process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.client import Client, check_law, content_of, parse, text_of
from tests.graph import code, graph, mutate
from tests.in_process import InProcess
from tests.page_client import Page

pytestmark = pytest.mark.quick

INSTANT = "/demo tokens=5 rate=0"
PACED = "/demo tokens=40 rate=400"
STALLED = "/demo tokens=10 rate=0 stall_after=5"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, valkey: str) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("quick"), valkey) as installation:
        yield installation


@pytest.fixture
async def person(installation: InProcess) -> AsyncIterator[Client]:
    """A caller with an account that only this test uses."""
    key = installation.new_key(account=f"{uuid4().hex}@example.org")
    async with Client(installation.url, key) as person:
        yield person


async def ask(person: Client, text: str = INSTANT, **body: Any) -> dict[str, Any]:
    """Send a message and read its answer to the end."""
    sent = await person.send(text, **body)
    await person.read_through(sent["generation_id"])
    return sent


async def post(person: Client, path: str, **body: Any) -> dict[str, Any]:
    """Send a request that starts an answer; return its response."""
    response = await person.http.post(path, json=body)
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/api/generations/{response.json()['generation_id']}"
    return dict(response.json())


async def stalled(person: Client, **body: Any) -> dict[str, Any]:
    """An answer that has some text and does not end by itself."""
    sent = await person.send(STALLED, **body)
    await person.read(sent["generation_id"], stop_after=3)
    return sent


# Sending and reading


async def test_a_message_is_answered_and_its_stream_equals_what_is_stored(person: Client) -> None:
    sent = await person.send(PACED)

    events = await person.read(sent["generation_id"])

    snapshot = await person.snapshot(sent["generation_id"])
    check_law(events, snapshot)
    assert [event.type for event in events[:2]] == ["queued", "started"]
    assert snapshot["status"] == "completed"
    assert len(snapshot["text"].split(" ")) == 40
    message = await person.message(sent["message_id"])
    assert (message["content"], message["role"]) == (content_of(events), "assistant")


async def test_a_message_can_be_sent_and_streamed_in_one_request(person: Client) -> None:
    async with person.http.stream(
        "POST", "/api/messages", json={"text": PACED}, headers={"Accept": "text/event-stream"}
    ) as response:
        events = [event async for event in parse(response)]

    assert response.status_code == 200
    check_law(events, await person.snapshot(response.headers["Tidemark-Generation"]))


async def test_a_reader_resumes_at_any_event(person: Client) -> None:
    sent = await person.send(INSTANT)
    whole = await person.read(sent["generation_id"])

    for event in whole[:-1]:
        rest = await person.read(sent["generation_id"], after=event.seq)
        assert [each.seq for each in rest] == list(range(event.seq + 1, whole[-1].seq + 1))
    assert await person.read(sent["generation_id"], after=whole[-1].seq) == []


async def test_two_readers_of_a_paced_answer_see_the_same_text(person: Client) -> None:
    sent = await person.send(PACED)

    one, other = await asyncio.gather(
        person.read(sent["generation_id"]), person.read_through(sent["generation_id"])
    )

    assert text_of(one) == text_of(other)


async def test_the_same_idempotency_key_gives_the_same_answer(person: Client) -> None:
    first = await person.send(INSTANT, key="once")
    again = await person.send(INSTANT, key="once")
    other = await person.http.post(
        "/api/messages", json={"text": "something else"}, headers={"Idempotency-Key": "once"}
    )

    assert first == again
    assert other.status_code == 422


# The tree of messages


async def test_an_edited_question_becomes_a_sibling_with_its_own_answer(person: Client) -> None:
    first = await ask(person)

    edited = await post(person, f"/api/messages/{first['question_id']}/edit", text=PACED)
    await person.read_through(edited["generation_id"])

    question = await person.message(edited["question_id"])
    assert question["text"] == PACED
    assert question["siblings"] == [first["question_id"], edited["question_id"]]
    page = await person.get(f"/api/conversations/{first['conversation_id']}/messages")
    assert [each["id"] for each in page["data"]] == [edited["question_id"], edited["message_id"]]


async def test_a_regenerated_answer_becomes_a_sibling_and_is_shown(person: Client) -> None:
    first = await ask(person)

    again = await post(person, f"/api/messages/{first['message_id']}/regenerate")
    await person.read_through(again["generation_id"])

    answer = await person.message(again["message_id"])
    assert again["question_id"] == first["question_id"]
    assert answer["siblings"] == [first["message_id"], again["message_id"]]
    conversation = await person.get(f"/api/conversations/{first['conversation_id']}")
    assert conversation["shown_message_id"] == again["message_id"]


async def test_a_continued_answer_starts_over_after_a_failure(person: Client) -> None:
    failed = await ask(person, "/demo tokens=10 rate=0 fail_after=3")
    assert (await person.message(failed["message_id"]))["status"] == "failed"

    again = await post(person, f"/api/messages/{failed['message_id']}/continue")
    events = await person.read_through(again["generation_id"])

    assert again["message_id"] == failed["message_id"]
    check_law(events, await person.snapshot(again["generation_id"]))


async def test_an_answer_that_was_cut_at_its_length_is_continued(person: Client) -> None:
    cut = await ask(person, "/demo tokens=20 rate=0", max_output_tokens=5)
    beginning = (await person.message(cut["message_id"]))["text"]

    more = await post(person, f"/api/messages/{cut['message_id']}/continue")
    await person.read_through(more["generation_id"])

    text = (await person.message(cut["message_id"]))["text"]
    assert text.startswith(beginning)
    assert len(text) > len(beginning)


async def test_a_followup_must_follow_a_finished_answer(person: Client) -> None:
    sent = await stalled(person)

    response = await person.http.post(
        "/api/messages", json={"text": "next", "conversation_id": sent["conversation_id"]}
    )

    assert (response.status_code, response.json()["code"]) == (409, "answer_in_progress")
    await person.cancel(sent["generation_id"])


# Stopping and deleting


async def test_a_cancelled_answer_keeps_its_text_and_ends_its_streams(person: Client) -> None:
    sent = await person.send(STALLED)
    reader = asyncio.create_task(person.read(sent["generation_id"]))
    await person.read(sent["generation_id"], stop_after=3)

    snapshot = await person.cancel(sent["generation_id"], wait_s=20)

    events = await reader
    check_law(events, snapshot)
    assert snapshot["status"] == "cancelled"
    assert snapshot["text"]
    assert await person.cancel(sent["generation_id"]) == snapshot


async def test_deleting_a_conversation_ends_its_answer_and_hides_everything(
    person: Client,
) -> None:
    sent = await person.send(STALLED)
    reader = asyncio.create_task(person.read(sent["generation_id"]))
    await person.read(sent["generation_id"], stop_after=3)
    path = f"/api/conversations/{sent['conversation_id']}"

    response = await person.http.delete(path)

    assert response.status_code == 204
    assert (await reader)[-1].type == "cancelled"
    for gone in (path, f"/api/messages/{sent['message_id']}"):
        assert (await person.http.get(gone)).status_code == 404
    assert (await person.get("/api/conversations"))["data"] == []


# Conversations


async def test_a_conversation_can_be_changed_and_is_listed(person: Client) -> None:
    sent = await ask(person)
    path = f"/api/conversations/{sent['conversation_id']}"

    changed = await person.http.patch(path, json={"title": "Tides", "pinned": True})

    assert changed.status_code == 200
    [listed] = (await person.get("/api/conversations"))["data"]
    assert (listed["id"], listed["title"], listed["pinned"]) == (
        sent["conversation_id"],
        "Tides",
        True,
    )


async def test_a_conversation_is_exported(person: Client) -> None:
    sent = await ask(person)
    path = f"/api/conversations/{sent['conversation_id']}/export"

    exported = await person.get(path, format="json")
    markdown = await person.http.get(path, params={"format": "markdown"})

    assert sent["message_id"] in str(exported)
    assert (await person.message(sent["message_id"]))["text"] in markdown.text


# Access


async def test_unauthenticated_requests_are_refused_in_process(installation: InProcess) -> None:
    async with Client(installation.url) as nobody:
        response = await nobody.http.get("/api/conversations")

    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"


async def test_objects_of_another_account_are_not_found(
    installation: InProcess, person: Client
) -> None:
    sent = await ask(person)
    async with Client(installation.url, installation.new_key(account="other@example.org")) as other:
        for path in (
            f"/api/conversations/{sent['conversation_id']}",
            f"/api/messages/{sent['message_id']}",
            f"/api/generations/{sent['generation_id']}",
            f"/api/generations/{sent['generation_id']}/events",
        ):
            assert (await other.http.get(path)).status_code == 404, path


async def test_a_guest_session_sends_with_its_cookie(installation: InProcess) -> None:
    async with Client(installation.url) as guest:
        opened = await guest.http.post("/api/session", json={}, headers=SAME_ORIGIN)
        assert opened.status_code == 201
        assert (await guest.http.post("/api/messages", json={"text": "x"})).status_code == 403

        sent = await guest.http.post("/api/messages", json={"text": INSTANT}, headers=SAME_ORIGIN)

        assert sent.status_code == 202
        events = await guest.read_through(sent.json()["generation_id"])
        assert events[-1].type == "completed"


async def test_a_mistyped_key_opens_no_guest_session(installation: InProcess) -> None:
    async with Client(installation.url, "tmk_mistyped") as mistyped:
        answer = await mistyped.http.post("/api/session", json={})

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("list_", ["/api/conversations", "{conversation}/messages"])
@pytest.mark.parametrize("cursor", ["nonsense", "msg_01K00000000000000000000000"])
async def test_a_bad_cursor_of_a_list_is_refused_alike(
    person: Client, list_: str, cursor: str
) -> None:
    sent = await ask(person)
    path = list_.format(conversation=f"/api/conversations/{sent['conversation_id']}")

    answer = await person.http.get(path, params={"before": cursor})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"text": "x", "content": []}, 422),
        ({"text": "x", "model": "no/such"}, 422),
        ({"text": "x", "conversation_id": "conv_unknown"}, 404),
    ],
)
async def test_an_invalid_message_is_refused_with_a_problem(
    person: Client, body: dict[str, Any], status: int
) -> None:
    response = await person.http.post("/api/messages", json=body)

    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert {"type", "title", "detail", "code", "request_id"} <= set(problem)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"text": 1}, "must be a valid string"),
        ({"content": []}, "must have at least 1 item"),
        ({"content": [{"type": "text"}]}, "is required"),
        ({"text": "x", "temperature": 3}, "must be less than or equal to 2"),
    ],
)
async def test_a_refusal_says_what_a_value_must_be(
    person: Client, body: dict[str, Any], detail: str
) -> None:
    response = await person.http.post("/api/messages", json=body)

    assert response.json()["errors"][0]["detail"] == detail


async def test_the_process_reports_that_it_is_alive_and_ready(installation: InProcess) -> None:
    async with Client(installation.url) as nobody:
        for path in ("/healthz", "/readyz", "/api/openapi.json"):
            assert (await nobody.http.get(path)).status_code == 200, path


# GraphQL


async def test_graphql_reads_what_http_wrote(person: Client) -> None:
    sent = await ask(person)
    query = """query ($id: ID!) { conversation(id: $id) {
      id messages(first: 10) { edges { node { id role text status } } } } }"""

    read = (await graph(person, query, id=sent["conversation_id"]))["conversation"]

    nodes = [edge["node"] for edge in read["messages"]["edges"]]
    assert [node["id"] for node in nodes] == [sent["question_id"], sent["message_id"]]
    answer = await person.message(sent["message_id"])
    assert (nodes[1]["text"], nodes[1]["status"]) == (answer["text"], "COMPLETED")


async def test_graphql_mutations_send_edit_and_delete(person: Client) -> None:
    selection = "conversation { id } question { id } answer { id } generation { id }"
    sent = await mutate(person, "sendMessage", selection, text=INSTANT)
    await person.read_through(sent["generation"]["id"])
    edited = await mutate(person, "editMessage", selection, id=sent["question"]["id"], text=INSTANT)
    await person.read_through(edited["generation"]["id"])
    conversation_id = sent["conversation"]["id"]

    await mutate(person, "deleteConversation", id=conversation_id)

    query = "query ($id: ID!) { conversation(id: $id) { id } }"
    assert await graph(person, query, id=conversation_id) == {"conversation": None}
    mutation = "mutation ($id: ID!) { deleteConversation(input: {id: $id}) { __typename } }"
    assert await code(person, mutation, id="conv_unknown") == "not_found"


async def test_graphql_search_finds_what_was_sent(person: Client) -> None:
    sent = await ask(person, f"{INSTANT}\nhigh water at Dover")

    query = '{ search(query: "dover", first: 5) { nodes { message { id } } } }'
    hits = (await graph(person, query))["search"]["nodes"]

    assert sent["question_id"] in [hit["message"]["id"] for hit in hits if hit["message"]]


async def test_graphql_subscriptions_deliver_an_answer_over_sse(person: Client) -> None:
    sent = await person.send(PACED)
    query = "subscription ($id: ID!) { generationEvents(id: $id) { __typename seq } }"
    body = {"query": query, "variables": {"id": sent["generation_id"]}}

    async with person.http.stream(
        "POST", "/graphql", json=body, headers={"Accept": "text/event-stream"}
    ) as response:
        text = (await response.aread()).decode()

    assert response.status_code == 200
    assert "GenerationQueued" in text
    assert "GenerationCompleted" in text


# The stream of a page


async def test_a_page_follows_answers_changes_and_deletions(person: Client) -> None:
    first = await ask(person)
    conversation_id = first["conversation_id"]
    page = Page(conversation_id)
    await page.read(person, events=1)
    assert page.seen == ["opened"]

    second = await person.send(PACED, conversation_id=conversation_id)
    await page.read(
        person,
        until=lambda page: page.messages.get(second["message_id"], {}).get("status") == "completed",
    )
    page.check_answers()

    path = f"/api/conversations/{conversation_id}"
    assert (await person.http.patch(path, json={"title": "Tides"})).status_code == 200
    await page.read(
        person, until=lambda page: page.conversations[conversation_id]["title"] == "Tides"
    )
    assert (await person.http.delete(path)).status_code == 204
    await page.read(person, until=lambda page: "conversation_removed" in page.seen)
    assert page.conversations == {}


async def test_a_snapshot_does_not_excuse_a_bad_cursor(person: Client) -> None:
    sent = await ask(person)

    response = await person.http.get(
        f"/api/generations/{sent['generation_id']}/events",
        params={"snapshot": "true"},
        headers={"Last-Event-ID": "x"},
    )

    assert (response.status_code, response.json()["code"]) == (400, "invalid_cursor")
