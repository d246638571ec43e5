"""TLS towards charge points: the server's side of security profiles 2 and 3, and its faults."""

from __future__ import annotations

import ssl

from ..domain.exceptions import first_cause


def tls_context(cert: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """Server side of security profile 2, or 3 with `client_ca`.  Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def tls_fault(group: BaseExceptionGroup[BaseException]) -> str | None:
    """What OpenSSL found wrong, where it was that."""
    cause = first_cause(group).__cause__
    return cause.reason or str(cause) if isinstance(cause, ssl.SSLError) else None
