"""nginx with the configuration that docs/deploy has, in front of two web processes."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.bench.processes import free_port
from tests.waiting import until

SHIPPED = Path(__file__).parent.parent / "docs" / "deploy" / "nginx.conf"
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
    text = SHIPPED.read_text()
    for old, new in (
        *(
            (address, f"127.0.0.1:{upstream}")
            for address, upstream in zip(UPSTREAMS, ports, strict=True)
        ),
        ("listen 80;", f"listen 127.0.0.1:{listening};"),
        *changes,
    ):
        assert old in text
        text = text.replace(old, new)
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
