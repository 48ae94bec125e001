"""`tidemark doctor`: what it reports about an installation."""

import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.command_line.commands import Command, Result
from tests.system import System


def findings(result: Result) -> str:
    """The findings of the doctor on one line."""
    return " ".join(result.out.split())


@pytest.mark.quick
def test_the_doctor_creates_nothing_and_gives_advice(command: Command, tmp_path: Path) -> None:
    result = command("doctor")

    assert result.code == 0
    assert "`tidemark up` or `tidemark migrate` creates it" in findings(result)
    assert "the embedded Valkey is not running" in findings(result)
    assert "Set OPENAI_API_KEY" in findings(result)
    assert "Set ANTHROPIC_API_KEY" in findings(result)
    assert "the default is demo" in findings(result)
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_accepts_a_healthy_installation(tidemark: System, command: Command) -> None:
    result = command("doctor", "--config", str(tidemark.config))

    assert result.code == 0
    assert "database: sqlite, schema revision" in findings(result)
    assert "redis: valkey" in findings(result)


def test_the_doctor_requires_a_redis_with_noeviction(
    new_system: Callable[..., System], command: Command
) -> None:
    system = new_system()
    system.start_redis()
    with closing(system.redis()) as redis:
        redis.config_set("maxmemory", "100mb")
        redis.config_set("maxmemory-policy", "allkeys-lru")

    result = command("doctor", "--config", str(system.config))

    assert result.code == 1
    assert "allkeys-lru" in findings(result)
    assert "noeviction" in findings(result)


@pytest.mark.quick
def test_the_doctor_reports_unreachable_services(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("DATABASE_URL", "postgres://ada:pa55@127.0.0.1:1/x")

    result = command("doctor")

    assert result.code == 1
    assert "Check database.url" in findings(result)
    assert "Check redis.url" in findings(result)
    assert "pa55" not in result.out + result.err


@pytest.mark.quick
def test_the_doctor_reports_a_public_host_without_a_public_url(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_SERVER__HOST", "0.0.0.0")

    assert "Set server.public_url or server.allowed_hosts" in findings(command("doctor"))


class Refusing(BaseHTTPRequestHandler):
    """A provider that rejects every key."""

    def do_GET(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "finding"),
    [(401, "rejected the API key (401)"), (503, "answers with the server error 503")],
)
def test_the_doctor_tests_a_providers_key_and_never_shows_it(
    status: int, finding: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with HTTPServer(("127.0.0.1", 0), Refusing) as upstream:
        upstream.status = status  # type: ignore[attr-defined]
        monkeypatch.setenv(
            "TIDEMARK_PROVIDERS__OPENAI__BASE_URL", f"http://127.0.0.1:{upstream.server_port}/v1"
        )
        monkeypatch.setenv("TIDEMARK_PROVIDERS__OPENAI__API_KEY_ENV", "OPENAI_API_KEY")
        monkeypatch.setenv("TIDEMARK_PROVIDERS__OPENAI__MODELS", '["tiny"]')
        serving = threading.Thread(target=upstream.serve_forever)
        serving.start()
        result = command("doctor")
        upstream.shutdown()
        serving.join()

    assert finding in findings(result)
    assert "the default is openai/tiny" in findings(result)
    assert "sk-secret" not in result.out + result.err


class Listing(BaseHTTPRequestHandler):
    """A provider that lists its models and records the requests."""

    def do_GET(self) -> None:
        self.server.requests.append(
            (self.path, self.headers["Authorization"], self.headers["x-api-key"])
        )  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


def test_the_doctor_uses_the_credentials_header_of_each_kind_of_provider(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEY", "sk-secret\n")
    with HTTPServer(("127.0.0.1", 0), Listing) as upstream:
        upstream.requests = []  # type: ignore[attr-defined]
        provider = (
            f"base_url = 'http://127.0.0.1:{upstream.server_port}'\napi_key_env = "
            "'KEY'\nmodels = ['tiny']\n"
        )
        (tmp_path / "config.toml").write_text(
            f"[providers.one]\n{provider}[providers.two]\nkind = 'anthropic'\n{provider}"
        )
        serving = threading.Thread(target=upstream.serve_forever)
        serving.start()
        result = command("doctor")
        upstream.shutdown()
        serving.join()

    assert findings(result).count("reachable (200); models: tiny") == 2
    assert upstream.requests == [
        ("/v1/models", "Bearer sk-secret", None),
        ("/v1/models", None, "sk-secret"),
    ]  # type: ignore[attr-defined]
