"""Certificates made by the openssl command: an authority, a server's, a client's."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificates(NamedTuple):
    """Files in PEM. Both certificates were signed by `ca`."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    def server_context(self, *, wants_client: bool = False) -> ssl.SSLContext:
        """What a server presents and, with `wants_client`, requires."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(self.server, self.server_key)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_certificates(folder: Path) -> Certificates:
    """A server's certificate for localhost and 127.0.0.1, and a client's."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = Certificates(
        *(folder / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key"))
    )
    ca_key = folder / "ca-key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    usage = "keyUsage=critical,keyCertSign"
    _openssl(*new, "-keyout", ca_key, "-out", made.ca, "-subj", "/CN=Test CA", "-addext", usage)
    signed = ["-CA", made.ca, "-CAkey", ca_key, "-addext", "basicConstraints=critical,CA:FALSE"]
    server = ["-keyout", made.server_key, "-out", made.server, "-subj", "/CN=localhost"]
    _openssl(*new, *server, "-addext", names, *signed)
    client = ["-keyout", made.client_key, "-out", made.client, "-subj", "/CN=worker"]
    _openssl(*new, *client, *signed)
    return made


def _openssl(*arguments: object) -> None:
    command = ["openssl", *map(str, arguments), "-days", "2"]
    subprocess.run(command, check=True, capture_output=True)
