"""Ways to a provider: proxies, certificates, Unix sockets and IPv6, and why they fail."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.command.doctor import _provider
from server.errors import SettingsError
from server.providers.base import ModelRequest, ProviderError, TextDelta, Turn
from server.providers.openai import OpenAI
from server.providers.way_out import UnusableProxy, proxy_of
from server.settings import ProviderSettings
from tests.certificates import Certificates, make_certificates
from tests.upstream import Upstream

GREETING = "Hello wörld 🌊"
PROXY = "http://proxy:3128"
CERTIFICATE_WANTED = re.compile("certificate required|the server closed the connection")
"""With TLS 1.3, the refusal follows the handshake and may be lost with the connection."""

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"), "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


def secure(certificates: Certificates, *, wants_client: bool = False) -> Upstream:
    return Upstream(tls=certificates.server_context(wants_client=wants_client))


async def ask(**values: Any) -> str:
    """The answer of a provider with these settings."""
    provider = OpenAI(ProviderSettings(models=["plain"], connect_timeout_s=5, **values), None)
    question = [Turn("user", [{"type": "text", "text": "hi"}])]
    try:
        deltas = provider.stream(ModelRequest("plain", question, None, 100, None, 0, []))
        return "".join([each.text async for each in deltas if isinstance(each, TextDelta)])
    finally:
        await provider.close()


async def failure(**values: Any) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        await ask(**values)
    return raised.value


async def examined(**values: Any) -> str:
    """What `tidemark doctor` reports."""
    return (await _provider("up", ProviderSettings(models=["plain"], **values))).fact


# Proxies


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://h/v1", {"http_proxy": "proxy:3128"}, PROXY),
        ("http://h/v1", {"HTTP_PROXY": PROXY}, PROXY),
        ("https://h/v1", {"http_proxy": PROXY}, None),
        ("https://h/v1", {"https_proxy": "https://proxy"}, "https://proxy"),
        ("https://h/v1", {"http_proxy": "http://other", "all_proxy": PROXY}, PROXY),
        ("https://h/v1", {"https_proxy": PROXY, "ALL_PROXY": "socks5://other"}, PROXY),
        ("https://h/v1", {"all_proxy": "socks5://other", "no_proxy": "h"}, None),
        ("http://h/v1", {"all_proxy": PROXY, "no_proxy": "*"}, None),
        ("http://[::1]:8000/v1", {"all_proxy": PROXY, "no_proxy": "::1"}, None),
        ("http://[::1]:8000/v1", {"all_proxy": PROXY, "no_proxy": "[::1]"}, None),
        ("http://u:p@localhost/v1", {"all_proxy": PROXY, "no_proxy": "localhost"}, None),
        ("http://api.example.org/v1", {"all_proxy": PROXY, "no_proxy": ".example.org"}, None),
        ("http://api.example.org/v1", {"all_proxy": PROXY, "NO_PROXY": "x, Example.org."}, None),
        ("http://badexample.org/v1", {"all_proxy": PROXY, "no_proxy": "example.org"}, PROXY),
        ("http://10.1.2.3:8000/v1", {"http_proxy": PROXY, "no_proxy": "10.0.0.0/8"}, None),
        ("http://11.1.2.3:8000/v1", {"http_proxy": PROXY, "no_proxy": "x 10.0.0.0/8"}, PROXY),
        ("http://10.1.2.3/v1", {"http_proxy": PROXY, "no_proxy": "10.1.2.3"}, None),
        ("http://[fd00::5]/v1", {"http_proxy": PROXY, "no_proxy": "fd00::/8"}, None),
        ("http://[2001:db8::5]/v1", {"http_proxy": PROXY, "no_proxy": "fd00::/8"}, PROXY),
    ],
)
def test_the_environment_is_read_as_curl_does(
    url: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert proxy_of(url) == proxy


def test_the_setting_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://other")
    monkeypatch.setenv("no_proxy", "h")

    assert proxy_of("http://h/v1", PROXY) == PROXY
    monkeypatch.delenv("no_proxy")
    assert proxy_of("http://h/v1", "none") is None


async def test_an_unsupported_proxy_of_the_environment_fails_in_words(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")

    with pytest.raises(UnusableProxy, match="socks5 proxy"):
        proxy_of("http://h/v1")
    refused = await failure(base_url=upstream.url)
    assert "socks5 proxy" in refused.message
    assert not refused.retryable
    assert "socks5 proxy" in await examined(base_url=upstream.url)
    assert await ask(base_url=upstream.url, proxy="none") == GREETING


async def test_the_proxy_of_the_settings_is_used(upstream: Upstream) -> None:
    name = upstream.url.removeprefix("http://")
    values = {"base_url": "http://model.invalid/v1", "proxy": f"http://u:secret@{name}"}

    assert await ask(**values) == GREETING

    sent = upstream.requests[-1]
    assert sent.path == "http://model.invalid/v1/chat/completions"
    assert sent.headers["proxy-authorization"].startswith("Basic ")
    assert await examined(**values) == (
        f"reachable through the proxy {upstream.url} (200); models: plain"
    )


@asynccontextmanager
async def connect_proxy(status: str, target: Upstream | None = None) -> AsyncIterator[str]:
    """A proxy that answers CONNECT with this status; its URL."""

    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            connections.add(task)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        if target is not None:
            address, port = target.url.removeprefix("https://").split(":")
            back, forth = await asyncio.open_connection(address, int(port))
            await asyncio.gather(copy(reader, forth), copy(back, writer))
        writer.close()
        await writer.wait_closed()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        await asyncio.wait_for(asyncio.gather(*connections), 5)


async def test_https_goes_through_a_proxy_with_connect(certificates: Certificates) -> None:
    with secure(certificates) as upstream:
        async with connect_proxy("200 OK", upstream) as proxy:
            values = {"base_url": "https://localhost/v1", "proxy": proxy}
            assert await ask(**values, ca_file=certificates.ca) == GREETING


async def test_a_proxy_that_refuses_is_named(upstream: Upstream) -> None:
    async with connect_proxy("407 Proxy Authentication Required") as proxy:
        for scheme, words in (("https", "refused to connect"), ("http", "refused the request")):
            values = {"base_url": f"{scheme}://model.invalid/v1", "proxy": proxy}
            refused = await failure(**values)
            expected = f"proxy {words}: 407 Proxy Authentication Required"
            assert expected in refused.message
            assert not refused.retryable
            assert expected in await examined(**values)

    gone = await failure(base_url="http://model.invalid/v1", proxy="http://127.0.0.1:9")
    assert "the proxy 127.0.0.1:9 cannot be reached: connection refused" in gone.message


# Certificates


async def test_the_certificates_of_the_settings_are_trusted_and_presented(
    certificates: Certificates,
) -> None:
    with secure(certificates, wants_client=True) as upstream:
        values = {
            "base_url": upstream.url,
            "ca_file": certificates.ca,
            "client_certificate": certificates.client,
            "client_key": certificates.client_key,
        }
        assert await ask(**values) == GREETING
        assert (await examined(**values)).startswith("reachable (200)")

        without = {"base_url": upstream.url, "ca_file": certificates.ca}
        assert CERTIFICATE_WANTED.search((await failure(**without)).message)
        assert CERTIFICATE_WANTED.search(await examined(**without))


async def test_an_untrusted_certificate_is_named_with_the_reason(
    certificates: Certificates,
) -> None:
    with secure(certificates) as upstream:
        untrusted = await failure(base_url=upstream.url)
        assert (
            "the certificate of 127.0.0.1 is not trusted: self-signed certificate"
            in untrusted.message
        )
        assert not untrusted.retryable
        assert "is not trusted: self-signed certificate" in await examined(base_url=upstream.url)

    with Upstream(address="::1", tls=certificates.server_context()) as upstream:
        wrong_name = await failure(base_url=upstream.url, ca_file=certificates.ca)
        assert "is not trusted: IP address mismatch" in wrong_name.message


@pytest.mark.parametrize("setting", ["ca_file", "client_certificate"])
async def test_a_file_that_is_no_certificate_is_named(setting: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.pem"
    for content in (None, "no certificate"):
        if content is not None:
            file.write_text(content)
        values: dict[str, Any] = {"base_url": "https://127.0.0.1:9/v1", setting: file}

        with pytest.raises(SettingsError, match=rf"wrong\.pem: cannot be used as {setting}"):
            await ask(**values)
        assert str(file) in await examined(**values)


# Addresses


async def test_a_server_on_a_unix_socket_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    file = tmp_path / "model.sock"
    values = {"base_url": "http://localhost/v1", "unix_socket": file}
    with Upstream(address=str(file)) as upstream:
        assert await ask(**values) == GREETING
        assert upstream.requests[-1].headers["host"] == "localhost"
        assert await examined(**values) == f"reachable over {file} (200); models: plain"

    file.unlink(missing_ok=True)
    gone = await failure(**values)
    assert f"the Unix socket {file} cannot be reached: no such file" in gone.message


async def test_a_server_with_an_ipv6_address_is_reached() -> None:
    with Upstream(address="::1") as upstream:
        assert upstream.url.startswith("http://[::1]:")
        assert await ask(base_url=f"{upstream.url}/v1") == GREETING
        assert (await examined(base_url=upstream.url)).startswith("reachable (200)")


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("http://127.0.0.1:9/v1", "127.0.0.1:9 cannot be reached: connection refused"),
        ("http://model.invalid/v1", "the name model.invalid is not known"),
    ],
)
async def test_a_server_that_cannot_be_reached_fails_in_words(base_url: str, words: str) -> None:
    assert words in (await failure(base_url=base_url)).message
    assert words in await examined(base_url=base_url)


async def test_tls_with_a_server_that_has_none_fails_in_words() -> None:
    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        expected = f"TLS with 127.0.0.1:{port} failed: wrong version number"
        assert expected in (await failure(base_url=f"https://127.0.0.1:{port}")).message
        assert expected in await examined(base_url=f"https://127.0.0.1:{port}")
