"""This machine's root certificates: as a file for sandboxes, as a context for our own connections."""

from __future__ import annotations

import ssl
from pathlib import Path

# Where distributions and macOS keep their roots; Python's own idea comes first (SSL_CERT_FILE moves it).
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/opt/homebrew/etc/openssl@3/cert.pem",
)


def system_bundle() -> Path | None:
    """Return the file with this machine's root certificates, None where there is none."""
    found = ssl.get_default_verify_paths().cafile
    candidates = ([found] if found else []) + list(_BUNDLES)
    return next((Path(name) for name in candidates if Path(name).is_file()), None)


def client_context() -> ssl.SSLContext:
    """Return how upstream servers are verified: with this machine's roots, TLS 1.2 or newer, HTTP/1.1."""
    context = ssl.create_default_context()
    bundle = system_bundle()
    if bundle is not None and not context.cert_store_stats()["x509_ca"]:
        context.load_verify_locations(bundle)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
