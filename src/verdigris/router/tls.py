"""The TLS that clients see, with a certificate made once for this machine's loopback names.

A client that checks certificates is given the file to trust; one that only wants encryption needs nothing.
"""

import ssl
from pathlib import Path

from verdigris.wire.postgres.startup import ALPN


def server_context(directory: Path) -> ssl.SSLContext:
    """A context with the certificate in ``directory``, which is made if it is not there."""
    certificate, key = directory / "server.crt", directory / "server.key"
    if not (certificate.exists() and key.exists()):
        # Here and not above: it is a fifth of the time that a router takes to come back, and needed once.
        from verdigris.router.certificate import make_certificate

        make_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols([ALPN])
    # As PostgreSQL does: its clients take no session up again, so that tickets are made, sent and kept for nothing.
    context.num_tickets = 0
    return context
