"""Reading one answer: live, late, interrupted, on two processes, from every cursor."""

import asyncio

import httpx
import pytest

from tests.client import Client, check_agreement, check_law, parse, text_of
from tests.system import System


async def test_a_message_can_be_sent_and_its_answer_streamed_in_one_request(client: Client) -> None:
    body = {"text": "/demo tokens=20 rate=200\nhello"}

    async with client.http.stream(
        "POST", "/api/messages", json=body, headers={"Accept": "text/event-stream"}
    ) as response:
        events = [event async for event in parse(response)]

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [event.type for event in events[:2]] == ["queued", "started"]
    assert events[0].data["generation_id"] == response.headers["Tidemark-Generation"]
    check_law(events, await client.snapshot(response.headers["Tidemark-Generation"]))
    assert len(text_of(events).split(" ")) == 20


async def test_a_reader_that_resumes_at_any_cursor_receives_every_event_once(
    client: Client,
) -> None:
    sent = await client.send("/demo tokens=30 rate=0\nall the marks")
    whole = await client.read(sent["generation_id"])

    for cursor in range(whole[-1].seq):
        assert await client.read(sent["generation_id"], after=cursor) == whole[cursor:]

    check_law(whole, await client.snapshot(sent["generation_id"]))


async def test_an_interrupted_stream_resumes_live(client: Client) -> None:
    sent = await client.send("/demo tokens=60 rate=100\ncut me")
    seen = await client.read(sent["generation_id"], stop_after=5)
    for _ in range(5):
        seen += await client.read(sent["generation_id"], after=seen[-1].seq, stop_after=5)

    seen += await client.read(sent["generation_id"], after=seen[-1].seq)

    check_law(seen, await client.snapshot(sent["generation_id"]))


async def test_a_cursor_at_the_end_gets_204(client: Client) -> None:
    sent = await client.send("/demo tokens=3 rate=0")
    events = await client.read(sent["generation_id"])

    response = await client.http.get(
        sent["events_url"], headers={"Last-Event-ID": str(events[-1].seq)}
    )

    assert response.status_code == 204


async def test_readers_on_two_web_processes_receive_the_same_events(
    tidemark: System, key: str
) -> None:
    first, second = (Client(web.url, key) for web in tidemark.of("web"))
    async with first, second:
        sent = await first.send("/demo tokens=100 rate=200\ntwo readers")

        readers = await asyncio.gather(
            first.read(sent["generation_id"]), second.read(sent["generation_id"])
        )

        check_agreement(readers)
        for events in readers:
            check_law(events, await first.snapshot(sent["generation_id"]))


async def test_a_stream_may_start_with_a_snapshot(client: Client) -> None:
    sent = await client.send("/demo tokens=80 rate=100\nsnapshot")
    await client.read(sent["generation_id"], stop_after=20)

    events = await client.read(sent["generation_id"], snapshot="1")

    assert events[0].type == "snapshot"
    assert events[0].data["text"]
    check_law(events, await client.snapshot(sent["generation_id"]))


async def test_a_settled_answer_may_start_with_its_snapshot(client: Client) -> None:
    sent = await client.send("/demo tokens=5 rate=0")
    whole = await client.read(sent["generation_id"])

    events = await client.read(sent["generation_id"], snapshot="1")

    assert [event.type for event in events] == ["snapshot", "completed"]
    assert events[0].seq == whole[-1].seq - 1
    check_law(events, await client.snapshot(sent["generation_id"]))


async def test_a_cursor_ahead_of_a_running_answer_waits(client: Client) -> None:
    sent = await client.send("/demo tokens=80 rate=100\nbeyond")

    events = await client.read(sent["generation_id"], after=15)

    assert [event.seq for event in events] == list(range(16, events[-1].seq + 1))


@pytest.mark.parametrize(
    "cursor",
    [
        "abc",
        "-1",
        "1.5",
        "١",
        "1e3",
        "01",
        "12345678901234567",
        "1,2",
        "+1",
        "00",
        "0x10",
        "1_0",
        "-0",
        "1 2",
        "½",
        "NaN",
    ],
)
async def test_a_cursor_that_is_not_a_number_is_refused(client: Client, cursor: str) -> None:
    sent = await client.send("/demo tokens=2 rate=0")
    await client.read(sent["generation_id"])

    by_header = await client.http.get(
        sent["events_url"], headers={"Last-Event-ID": cursor.encode()}
    )
    by_query = await client.http.get(sent["events_url"], params={"after": cursor})

    for response in (by_header, by_query):
        assert response.status_code == 400
        assert response.json()["code"] == "invalid_cursor"


async def test_a_cursor_beyond_the_end_is_refused(client: Client) -> None:
    sent = await client.send("/demo tokens=2 rate=0")
    events = await client.read(sent["generation_id"])

    by_query = await client.http.get(sent["events_url"], params={"after": events[-1].seq + 1})
    by_header = await client.http.get(
        sent["events_url"], headers={"Last-Event-ID": str(events[-1].seq + 1)}
    )

    for response in (by_query, by_header):
        assert (response.status_code, response.json()["code"]) == (400, "invalid_cursor")


async def test_reasoning_and_tool_calls_are_separate_parts(client: Client) -> None:
    sent = await client.send("/demo tokens=4 rate=0 reasoning=3 tool=1\nthink")

    events = await client.read(sent["generation_id"])

    message = await client.message(sent["message_id"])
    assert [part["type"] for part in message["content"]] == ["reasoning", "text", "tool_call"]
    assert events[-1].data["finish_reason"] == "tool_calls"
    check_law(events, await client.snapshot(sent["generation_id"]))


async def test_a_failed_answer_keeps_its_text_and_has_an_error_code(
    client: Client,
) -> None:
    sent = await client.send("/demo tokens=9 rate=0 fail_after=4\nfail")

    events = await client.read(sent["generation_id"])

    assert events[-1].type == "failed"
    assert events[-1].data["code"] == "provider_unavailable"
    check_law(events, await client.snapshot(sent["generation_id"]))
    assert len(text_of(events).split(" ")) == 4


async def test_an_unknown_demo_option_fails_the_answer(client: Client) -> None:
    sent = await client.send("/demo nonsense=1")

    events = await client.read(sent["generation_id"])

    assert events[-1].data["code"] == "invalid_request"
    assert "nonsense" in events[-1].data["message"]


async def test_events_are_streamed_before_the_answer_ends(client: Client) -> None:
    sent = await client.send("/demo tokens=10 rate=0 stall_after=5\nstall")

    seen = await client.read(sent["generation_id"], stop_after=3)

    assert seen[-1].type == "text_delta"
    assert (await client.snapshot(sent["generation_id"]))["status"] == "running"
    await client.cancel(sent["generation_id"])


async def test_streams_forbid_caching_and_buffering(client: Client) -> None:
    sent = await client.send("/demo tokens=1 rate=0")

    async with client.http.stream("GET", sent["events_url"]) as response:
        raw = (await response.aread()).decode()

    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert raw.startswith(": open\nretry: 1000\n\n")


async def test_a_disconnected_client_leaves_no_open_stream(tidemark: System, key: str) -> None:
    async with Client(tidemark.web.url, key) as client:
        sent = await client.send("/demo tokens=10 rate=0 stall_after=5\nleave")
        await client.read(sent["generation_id"], stop_after=3)

        async def no_stream_is_open() -> bool:
            return (await client.get("/status"))["web"]["open_streams"] == 0

        async with asyncio.timeout(10):
            while not await no_stream_is_open():
                await asyncio.sleep(0.02)
        await client.cancel(sent["generation_id"])


async def test_head_opens_no_stream(client: Client) -> None:
    sent = await client.send("/demo tokens=1 rate=0")

    response = await client.http.head(sent["events_url"])

    assert response.status_code in (200, 204)
    assert isinstance(response, httpx.Response)
