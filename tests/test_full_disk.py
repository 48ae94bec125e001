"""A disk that is full: here, a web process that may write no more to any file."""

import resource
import sys
from collections.abc import Callable

import httpx
import pytest

from tests.system import System
from tests.waiting import until

NOTHING_MORE = (1, resource.RLIM_INFINITY)
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes need Linux")
def test_a_web_process_that_cannot_write_is_not_ready(new_system: Callable[..., System]) -> None:
    system = new_system()
    system.start(workers=0)
    headers = {"Authorization": f"Bearer {system.new_key()}"}
    with httpx.Client(base_url=system.web.url, headers=headers, trust_env=False) as http:
        assert http.get("/readyz").status_code == 200
        resource.prlimit(system.web.pid, resource.RLIMIT_FSIZE, NOTHING_MORE)

        refused = http.post("/api/messages", json={"text": "x"})
        until(lambda: http.get("/readyz").status_code == 503, "not ready")
        not_ready, status = http.get("/readyz").json(), http.get("/status").json()

        resource.prlimit(system.web.pid, resource.RLIMIT_FSIZE, NO_LIMIT)
        until(lambda: http.get("/readyz").status_code == 200, "ready")
        accepted = http.post("/api/messages", json={"text": "x"})

    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert not_ready["reason"] == "database not writable"
    assert not status["database"]["ok"]
    assert accepted.status_code == 202
