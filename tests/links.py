"""An installation whose web and worker process each reach Valkey through a faulty link."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from server.settings import embedded_socket
from tests.proxy import Mode, Proxy
from tests.system import System


@dataclass(frozen=True)
class Linked:
    """The system, its links, and an API key. Tests share one and restore its links."""

    system: System
    web_link: Proxy
    worker_link: Proxy
    key: str

    def be(self, mode: Mode, *links: Proxy) -> None:
        """Set the mode of all links, or of some."""
        for link in links or (self.web_link, self.worker_link):
            link.be(mode)


@contextmanager
def linked_system(system: System) -> Iterator[Linked]:
    """Start one web process and one worker behind links."""
    socket = embedded_socket(system.settings.data_dir)
    with Proxy(socket) as web_link, Proxy(socket) as worker_link:
        try:
            system.start_redis()
            system.migrate()
            web = system.start_web(wait=False, TIDEMARK_REDIS__URL=url_of(web_link))
            system.start_worker(TIDEMARK_REDIS__URL=url_of(worker_link))
            system.wait_ready(web)
            yield Linked(system, web_link, worker_link, system.new_key())
        finally:
            system.close()


def url_of(link: Proxy) -> str:
    """The `redis.url` of a process behind this link."""
    return f"redis://127.0.0.1:{link.port}/0"
