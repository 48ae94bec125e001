"""Whether a request comes from this machine itself, and not through a proxy or a tunnel."""

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from server.settings import LOOPBACK_HOSTS

_FORWARDED: Final = ("forwarded", "via", "x-real-ip", "true-client-ip")
_FORWARDED_PREFIXES: Final = ("x-forwarded-", "cf-")


def from_this_machine(connection: HTTPConnection) -> bool:
    """Whether the connection is local, its Host is a loopback name, and nothing forwarded it.

    A proxy or tunnel on this machine connects from loopback, but it passes the public Host on or
    adds a header. A proxy that does neither cannot be recognized, see docs/operations.md.
    """
    client = connection.client
    is_local = client is None or client.host in LOOPBACK_HOSTS
    return is_local and _host(connection) in LOOPBACK_HOSTS and not _is_forwarded(connection)


def _host(connection: HTTPConnection) -> str:
    try:
        return urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_forwarded(connection: HTTPConnection) -> bool:
    names = connection.headers.keys()
    return any(name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES) for name in names)
