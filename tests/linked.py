"""An installation whose web and worker process reach Valkey through links that can fail, one for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from server.settings import embedded_socket
from tests.databases import Sql
from tests.proxy import Mode, Proxy
from tests.system import System


@dataclass(frozen=True)
class Linked:
    """The system, its links, and a key. Many tests share one: each leaves it as it found it."""

    system: System
    web_link: Proxy
    worker_link: Proxy
    key: str

    def be(self, mode: Mode, *links: Proxy) -> None:
        """All links from now on, or some of them."""
        for link in links or (self.web_link, self.worker_link):
            link.be(mode)


@contextmanager
def linked_system(system: System) -> Iterator[Linked]:
    """Starts one web process and one worker behind links."""
    socket = embedded_socket(system.settings.data_dir)
    with Proxy(socket) as web_link, Proxy(socket) as worker_link:
        try:
            system.start_redis()
            system.run("migrate")
            web = system.start_web(wait=False, TIDEMARK_REDIS__URL=url_of(web_link))
            system.start_worker(TIDEMARK_REDIS__URL=url_of(worker_link))
            system.wait_ready(web)
            yield Linked(system, web_link, worker_link, system.new_key())
        finally:
            system.close()


@pytest.fixture(scope="module")
def shared(sql: Sql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linked]:
    """One such installation for all tests of a file, on each database."""
    with linked_system(System(tmp_path_factory.mktemp("linked"), sql.settings())) as linked:
        yield linked


@pytest.fixture
def linked(shared: Linked) -> Iterator[Linked]:
    """The installation of this file, with links that pass everything, as they do again after the test."""
    yield shared
    for link in (shared.web_link, shared.worker_link):
        link.mend()


def url_of(link: Proxy) -> str:
    """What `redis.url` is to be."""
    return f"redis://127.0.0.1:{link.port}/0"
