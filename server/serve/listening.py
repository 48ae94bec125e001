"""The listening socket of a web process; the kernel drops clients that stop reading."""

import errno
import socket
import sys

from server.errors import StartError

USER_TIMEOUT_MS = 20_000
SEND_BUFFER_BYTES = 128 * 1024
BACKLOG = 2048
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", 18 if sys.platform == "linux" else None)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on this address; connections inherit its options. Raises StartError."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if _TCP_USER_TIMEOUT is not None:
            listening.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        listening.bind(address)
        listening.listen(BACKLOG)
    except socket.gaierror as error:
        raise StartError(f"server.host = {host!r}: {error.strerror}.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} on {host} is in use: stop the program that listens there, "
                "or choose another port with --port or server.port."
            ) from None
        raise StartError(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
    listening.setblocking(False)  # noqa: FBT003  of the standard library
    return listening


def address_of(listening: socket.socket) -> str:
    """The address of this socket to type into a browser."""
    host, port = listening.getsockname()[:2]
    return shown_address(host, port)


def shown_address(host: str, port: int) -> str:
    """An address to type into a browser, e.g. `http://127.0.0.1:8000` for `0.0.0.0`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  only displayed
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
