"""nginx and Caddy with the configurations that docs/deploy has, before two web processes."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.bench.processes import free_port
from tests.waiting import until

SHIPPED = Path(__file__).parent.parent / "docs" / "deploy"
UPSTREAMS = ("127.0.0.1:8001", "127.0.0.1:8002")


@contextmanager
def running_nginx(
    ports: tuple[int, int], *changes: tuple[str, str], port: int | None = None
) -> Iterator[str]:
    """Run nginx before web processes on these ports; its URL. `changes` are of its configuration."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no nginx")
        pytest.skip("no nginx here")
    listening = port or free_port()
    text = changed("nginx.conf", ports, ("listen 80;", f"listen 127.0.0.1:{listening};"), *changes)
    with tempfile.TemporaryDirectory(prefix="tidemark-nginx-") as folder:
        shipped, main = Path(folder) / "tidemark.conf", Path(folder) / "nginx.conf"
        shipped.write_text(text)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        main.write_text(f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    {temporary}
    include {shipped};
}}
""")
        process = subprocess.Popen([program, "-e", f"{folder}/error.log", "-c", main])
        try:
            until((Path(folder) / "nginx.pid").is_file, "nginx")
            yield f"http://127.0.0.1:{listening}"
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def running_caddy(ports: tuple[int, int]) -> Iterator[str]:
    """Run Caddy before web processes on these ports, without TLS; its URL."""
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("no Caddy here")
    url = f"http://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="tidemark-caddy-") as folder:
        file = Path(folder) / "Caddyfile"
        file.write_text(
            "{\n\tadmin off\n}\n" + changed("Caddyfile", ports, ("chat.example.org", url))
        )
        command = [program, "run", "--adapter", "caddyfile", "--config", file]
        environment = os.environ | {"XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            until(lambda: _listens(url), "Caddy")
            yield url
        finally:
            process.terminate()
            process.wait(10)


def changed(name: str, ports: tuple[int, int], *changes: tuple[str, str]) -> str:
    """A shipped configuration with these ports of the web processes, and other changes."""
    text = (SHIPPED / name).read_text()
    upstreams = zip(UPSTREAMS, (f"127.0.0.1:{port}" for port in ports), strict=True)
    for old, new in (*upstreams, *changes):
        assert old in text
        text = text.replace(old, new)
    return text


def _listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port)).close()
    except ConnectionRefusedError:
        return False
    return True
