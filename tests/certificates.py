"""Certificates: an authority's, a server's for this machine, a client's."""

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme


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


def make_certificates(folder: Path, *hosts: str) -> Certificates:
    """A server's certificate for these hosts, and a client's."""
    authority = trustme.CA()
    made = Certificates(
        *(folder / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key"))
    )
    authority.cert_pem.write_to_path(made.ca)
    for issued, certificate, key in (
        (authority.issue_cert(*hosts), made.server, made.server_key),
        (authority.issue_cert(common_name="worker"), made.client, made.client_key),
    ):
        issued.private_key_pem.write_to_path(key)
        for pem in issued.cert_chain_pems:
            pem.write_to_path(certificate, append=True)
    return made
