"""How requests to a provider leave this machine, and why they do not: proxies, TLS, sockets.

`tidemark doctor` uses the same way as workers.
"""

import errno
import ipaddress
import os
import re
import ssl
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError

from server.errors import SettingsError, TidemarkError
from server.settings import ProviderSettings

NO_PROXY_SETTING: Final = "none"
PROXY_SCHEMES: Final = ("http", "https")
PROXY_REFUSED: Final = (403, 407)
"""What a proxy refuses with: the same request would be refused again."""


class UnusableProxy(TidemarkError):
    """The environment names a proxy of an unsupported kind."""


def open_session(
    url: str, settings: ProviderSettings, headers: dict[str, str], **options: Any
) -> aiohttp.ClientSession:
    """A session for requests to `url`. Raises SettingsError and UnusableProxy."""
    over_socket = settings.unix_socket is not None
    proxy = None if over_socket else proxy_of(url, settings.proxy)
    connector = _connector(url, settings)
    return aiohttp.ClientSession(headers=headers, connector=connector, proxy=proxy, **options)


def proxy_of(url: str, setting: str = "") -> str | None:
    """The proxy for a URL: the one in the setting, else the environment's, as curl reads it.

    aiohttp's own `trust_env` also sends passwords from ~/.netrc, and knows neither ALL_PROXY nor
    networks in NO_PROXY. Raises UnusableProxy.
    """
    if setting:
        return None if setting == NO_PROXY_SETTING else setting
    parts, environment = urlsplit(url), getproxies_environment()
    proxy = environment.get(parts.scheme) or environment.get("all")
    if not proxy or _bypasses(parts.hostname or "", environment.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if (scheme := urlsplit(proxy).scheme) not in PROXY_SCHEMES:
        raise UnusableProxy(
            f"a {scheme} proxy of the environment is not supported, only http and https proxies: "
            f'set the provider\'s proxy, or proxy = "{NO_PROXY_SETTING}"'
        )
    return proxy


def shown(proxy: str) -> str:
    """A proxy without its user and password."""
    return re.sub(r"//[^/]*@", "//", proxy)


def _bypasses(host: str, no_proxy: str) -> bool:
    """Whether `NO_PROXY` has this host: a name with its subdomains, an address, or a network."""
    if no_proxy.strip() == "*":
        return True
    entries = [entry for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry]
    host = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        names = [entry.strip(".") for entry in entries]
        return any(host == name or host.endswith(f".{name}") for name in names)
    return any(_has(entry, address) for entry in entries)


def _has(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(re.sub(r"[\[\]]", "", entry), strict=False)
    except ValueError:
        return False


def _connector(url: str, settings: ProviderSettings) -> aiohttp.BaseConnector:
    options: dict[str, Any] = {"limit": 0, "keepalive_timeout": 30}
    if settings.unix_socket is not None:
        if urlsplit(url).scheme != "http":
            raise SettingsError(f"{url}: unix_socket needs a base_url that begins with http://.")
        return aiohttp.UnixConnector(str(settings.unix_socket), **options)
    context = _tls(settings)
    return aiohttp.TCPConnector(ssl=True if context is None else context, **options)


def _tls(settings: ProviderSettings) -> ssl.SSLContext | None:
    """The certificates to trust and to present, unless they are the usual ones."""
    if settings.ca_file is None and settings.client_certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise _unreadable("ca_file", settings.ca_file, error) from None
    if settings.client_certificate is not None:
        try:
            context.load_cert_chain(
                settings.client_certificate,
                settings.client_key,
                password="",  # without one, OpenSSL asks for it on the terminal
            )
        except OSError as error:
            files = settings.client_certificate, settings.client_key
            raise _unreadable("client_certificate or client_key", files, error) from None
    return context


def _unreadable(setting: str, files: Any, error: OSError) -> SettingsError:
    names = ", ".join(
        str(file) for file in (files if isinstance(files, tuple) else (files,)) if file
    )
    reason = _of_tls(error) if isinstance(error, ssl.SSLError) else _of_system(error)
    return SettingsError(f"{names}: cannot be used as {setting}: {reason}.")


def cause_of(error: Exception) -> str:
    """Why a connection failed, in words."""
    match error:
        case aiohttp.ClientConnectorError():
            return _of_connecting(error)
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused to connect: {error.status} {error.message}".rstrip()
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "the server closed the connection"
        case OSError(errno=errno.ECONNRESET | errno.EPIPE):
            return "the server closed the connection"
        case ssl.SSLError():
            return f"TLS failed: {_of_tls(error)}"
        case TimeoutError():
            return "no response in time"
        case OSError():
            return _of_system(error)
    return str(error) or type(error).__name__


def _of_connecting(error: aiohttp.ClientConnectorError) -> str:
    reason, address = _of_system(error.os_error), f"{error.host}:{error.port}"
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} is not known ({reason})"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {error.host} is not trusted: {_verification(error)}"
        case aiohttp.ClientSSLError():
            return f"TLS with {address} failed: {_of_tls(error.os_error)}"
        case UnixClientConnectorError():
            return f"the Unix socket {error.path} cannot be reached: {reason}"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy {address} cannot be reached: {reason}"
    return f"{address} cannot be reached: {reason}"


def is_permanent(error: Exception) -> bool:
    """Whether the same request would fail again until someone changes something."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status in PROXY_REFUSED
    return isinstance(error, aiohttp.ClientConnectorCertificateError | UnusableProxy)


def _verification(error: aiohttp.ClientConnectorCertificateError) -> str:
    reason = error.certificate_error
    return getattr(reason, "verify_message", "") or str(reason)


def _of_system(error: OSError) -> str:
    # asyncio joins the errors of several addresses, and has its own words for one.
    text = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return text[:1].lower() + text[1:]


def _of_tls(error: Any) -> str:
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error)
