"""Servers of local models with tiny random weights: transformers serve, llama-cpp-python.

They take minutes or gigabytes to install, so these tests run only with REAL_SERVERS=1.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.bench.processes import free_port
from tests.client import Client
from tests.in_process import InProcess
from tests.real_server import install, running
from tests.scripted_models import ask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.environ.get("REAL_SERVERS") != "1", reason="installing takes minutes: REAL_SERVERS=1"
    ),
]

HERE = Path(__file__).parent


def transformers_serve(folder: Path, servers: ExitStack) -> tuple[str, str]:
    """Its URL, and the name of its model."""
    programs = install(folder, "transformers[serving]==5.24.0", "torch")
    model = folder / "tiny"
    subprocess.run([programs / "python", HERE / "tiny_transformer.py", model], check=True)
    port = free_port()
    command = [str(programs / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    servers.enter_context(running(command, f"{url}/health", folder / "log", HF_HUB_OFFLINE="1"))
    return url, str(model)


def llama_cpp_python(folder: Path, servers: ExitStack) -> tuple[str, str]:
    """Its URL, and the name of its model."""
    programs = install(folder, "llama-cpp-python[server]==0.3.36", "gguf")
    model = folder / "tiny.gguf"
    subprocess.run([programs / "python", HERE / "tiny_gguf.py", model], check=True)
    port = free_port()
    program = [str(programs / "python"), "-m", "llama_cpp.server"]
    command = [*program, "--model", str(model), "--port", str(port), "--n_ctx", "1024"]
    url = f"http://127.0.0.1:{port}"
    servers.enter_context(running(command, f"{url}/v1/models", folder / "log"))
    return url, "tiny"


@pytest.fixture(scope="module", params=[transformers_serve, llama_cpp_python])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    with ExitStack() as servers:
        yield request.param(tmp_path_factory.mktemp("server"), servers)


@pytest.fixture(scope="module")
def installation(
    served: tuple[str, str], tmp_path_factory: pytest.TempPathFactory, valkey: str
) -> Iterator[InProcess]:
    url, model = served
    up = {"base_url": url, "models": [model], "context_tokens": 1024, "reasoning_effort": "low"}
    folder = tmp_path_factory.mktemp("local")
    with InProcess(folder, valkey, {"providers": {"up": up}}) as installation:
        yield installation


async def test_an_answer_is_streamed_and_counted(caller: Client, served: tuple[str, str]) -> None:
    events, snapshot = await ask(
        caller, f"up/{served[1]}", max_output_tokens=20, temperature=0.5, system_prompt="Be brief."
    )

    assert (snapshot["status"], snapshot["error"]) == ("completed", None)
    assert snapshot["text"].strip()
    assert sum(event.type == "text_delta" for event in events) >= 1
    assert snapshot["usage"]["output_tokens"] > 0


async def test_a_cut_answer_is_continued(caller: Client, served: tuple[str, str]) -> None:
    _, first = await ask(caller, f"up/{served[1]}", max_output_tokens=10)
    assert first["finish_reason"] == "length"

    more = await caller.http.post(
        f"/api/messages/{first['message_id']}/continue", json={"max_output_tokens": 10}
    )
    await caller.read_through(more.json()["generation_id"])

    message = await caller.message(first["message_id"])
    assert message["status"] == "completed"
    assert message["text"].startswith(first["text"])
    assert len(message["text"]) > len(first["text"])


async def test_an_answer_can_be_stopped_and_the_next_one_begins(
    caller: Client, served: tuple[str, str]
) -> None:
    sent = await caller.send("hello", model=f"up/{served[1]}", max_output_tokens=900)
    await caller.read(sent["generation_id"], stop_after=3)

    stopped = await caller.cancel(sent["generation_id"], wait_s=20)

    assert stopped["status"] in ("cancelled", "completed")  # a tiny model is fast
    _, snapshot = await ask(caller, f"up/{served[1]}", max_output_tokens=5)
    assert snapshot["status"] == "completed"


async def test_a_prompt_that_is_too_long_ends_in_words_or_is_cut_by_the_server(
    caller: Client, served: tuple[str, str]
) -> None:
    _, snapshot = await ask(caller, f"up/{served[1]}", "word " * 700, max_output_tokens=5)

    assert snapshot["status"] == "completed" or snapshot["error"]["message"]
