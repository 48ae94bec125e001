"""Redis's addresses: one server, or Sentinels that know which server is the primary.

The options are those of redis-py that make sense for every connection of this program.
https://redis.readthedocs.io/en/stable/connections.html
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
SENTINEL_PORT: Final = 26_379

_CERT_REQS: Final = {"none": "none", "optional": "optional", "required": "required"} | {
    "CERT_NONE": "none",  # as Python and Celery spell them
    "CERT_OPTIONAL": "optional",
    "CERT_REQUIRED": "required",
}


class RedisUrl(NamedTuple):
    """An address. `options` are the arguments of redis-py's connections."""

    secure: bool
    options: dict[str, Any]
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    """The name that the Sentinels have for the primary and its replicas."""


def parse_redis_url(url: str) -> RedisUrl:
    """Parses an address. Raises ValueError, with what was expected."""
    try:
        parts = urlsplit(url)
        query = dict(
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        )
    except ValueError as error:
        raise ValueError(f"expected a valid URL: {error}") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"expected a URL that begins with one of {', '.join(SCHEMES)}")
    secure = parts.scheme.startswith("rediss")
    options = _options(query, secure=secure)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    options |= {"username": unquote(user)} if user else {}
    options |= {"password": unquote(password)} if password else {}
    if parts.scheme == "unix":
        return RedisUrl(secure, options | {"path": unquote(parts.path)})
    hosts = [_host(each) for each in parts.netloc.rpartition("@")[2].split(",")]
    service, _, db = parts.path.lstrip("/").rpartition("/")
    if not parts.scheme.endswith("+sentinel"):
        if len(hosts) > 1:
            raise ValueError("expected one host; with several, use redis+sentinel://")
        host, port = hosts[0]
        _set_db(options, parts.path.strip("/"))
        return RedisUrl(secure, options | {"host": host or "localhost", "port": port or 6379})
    if not service:
        service, db = db, ""
    if not service or not all(host for host, _ in hosts):
        raise ValueError("expected redis+sentinel://HOST[:PORT][,HOST…]/NAME[/DATABASE]")
    _set_db(options, db)
    sentinels = tuple((host, port or SENTINEL_PORT) for host, port in hosts)
    return RedisUrl(secure, options, sentinels, unquote(service))


def _options(query: dict[str, str], *, secure: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in query.items():
        if name not in _PARSERS:
            raise ValueError(f"expected an option of Redis instead of {name!r}")
        if name.startswith("ssl_") and not secure:
            raise ValueError(f"expected rediss:// with {name}")
        options[name] = _PARSERS[name](name, value)
    if secure:  # redis-py checks the certificate, but not whether it is for this host
        options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs") != "none")
    return options


def _set_db(options: dict[str, Any], path: str) -> None:
    if path:
        options.setdefault("db", _integer("the database", path))


def _host(address: str) -> tuple[str, int]:
    """The host, and the port or 0."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = address.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"expected a port number instead of {port!r}")
    return unquote(host), int(port or 0)


def _text(_name: str, value: str) -> str:
    return value


def _integer(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"expected {name} to be a number")
    return int(value)


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise ValueError(f"expected {name} to be a number of seconds")
    return seconds


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("true", "1", "yes", "false", "0", "no"):
        raise ValueError(f"expected {name} to be true or false")
    return value.lower() in ("true", "1", "yes")


def _file(name: str, value: str) -> str:
    try:
        with open(value, "rb"):  # noqa: PTH123  nothing else of Path is needed
            return value
    except OSError as error:
        raise ValueError(f"expected {name} to be a readable file: {error.strerror}") from None


def _cert_reqs(name: str, value: str) -> str:
    if value not in _CERT_REQS:
        raise ValueError(f"expected {name} to be required, optional or none")
    return _CERT_REQS[value]


_PARSERS: Final[dict[str, Callable[[str, str], Any]]] = {
    "db": _integer,
    "username": _text,
    "password": _text,
    "client_name": _text,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_check_hostname": _truth,
    "ssl_ciphers": _text,
    "sentinel_username": _text,
    "sentinel_password": _text,
}
