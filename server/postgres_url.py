"""PostgreSQL's addresses, as libpq takes them and hosts hand them out.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

SCHEMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_DRIVER: Final = frozenset(
    {"host", "port", "user", "password", "dbname", "passfile", "service", "target_session_attrs"}
    | {"krbsrvname", "gsslib", "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl"}
    | {"sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"}
)
_SERVER: Final = frozenset({"application_name", "options", "client_encoding"})
_WITHOUT_EFFECT: Final = frozenset(
    {"channel_binding", "fallback_application_name", "gssencmode", "gssdelegation", "keepalives"}
    | {"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
    | {"sslcompression", "sslsni", "require_auth", "requirepeer", "load_balance_hosts"}
)
"""Options of libpq that the driver does not have; the connection is made without them."""

_POOLER: Final = frozenset({"pgbouncer", "pooler"})


class PostgresUrl(NamedTuple):
    """An address for the driver, and what of it the driver does not take from a URL."""

    dsn: str
    connect_timeout_s: float | None
    system_ca: bool
    """Whether the server's certificate is checked against the system's authorities."""
    pooled: bool
    """Whether a pooler in transaction mode is in between: no statement may outlive its use."""


def parse_postgres_url(url: str) -> PostgresUrl:
    """Parses an address. Raises ValueError, with what was expected."""
    try:
        scheme, host, path, query, _ = urlsplit(url)
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise ValueError(f"expected a valid URL: {error}") from None
    if scheme not in SCHEMES:
        raise ValueError("expected a URL that begins with postgresql://")
    _check_ports(host)
    if (ssl := options.pop("ssl", None)) is not None:  # of JDBC, which libpq takes, and of asyncpg
        options.setdefault("sslmode", "require" if ssl == "true" else ssl)
    known = _DRIVER | _SERVER | _WITHOUT_EFFECT | _POOLER | {"connect_timeout"}
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"expected an option of PostgreSQL instead of {unknown[0]!r}")
    mode = options.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise ValueError(f"expected sslmode to be one of {', '.join(_SSL_MODES)}")
    timeout_s = _seconds(options.pop("connect_timeout", ""))
    pooled = any(options.pop(name, "") in ("true", "1", "transaction") for name in sorted(_POOLER))
    system_ca = options.get("sslrootcert") == "system"
    if system_ca:
        del options["sslrootcert"]
        options.pop("sslmode", None)  # only verify-full makes sense with it
    kept = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    dsn = urlunsplit(("postgresql", host, path, urlencode(kept), ""))
    return PostgresUrl(dsn, timeout_s, system_ca, pooled)


def _check_ports(netloc: str) -> None:
    for host in netloc.rpartition("@")[2].split(","):
        port = host.rpartition("]")[2].partition(":")[2]
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise ValueError(f"expected a port number instead of {port!r}")


def _seconds(value: str) -> float | None:
    """The connect timeout; libpq takes 0 and less as none."""
    if not value:
        return None
    try:
        seconds = int(value)
    except ValueError:
        raise ValueError("expected connect_timeout to be a number of seconds") from None
    return float(max(seconds, 2)) if seconds > 0 else None
