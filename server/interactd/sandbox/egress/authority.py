"""The certificate authority of one sandbox: its key lives in this process's memory and dies with the proxy."""

from __future__ import annotations

import datetime
import os
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from interactd.sandbox.egress.policy.hosts import as_address
from interactd.sandbox.egress.roots import system_bundle

LIFE = datetime.timedelta(days=30)
MAX_CONTEXTS = 200


class Authority:
    """Makes certificates for the few hosts whose TLS the proxy ends. Methods block for about a millisecond."""

    def __init__(self, name: str) -> None:
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"interactd sandbox {name}"[:64])])
        public = self._ca_key.public_key()
        self._certificate = (
            _builder(self._subject, self._subject, public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._ca_key, hashes.SHA256())
        )
        self._contexts: dict[str, ssl.SSLContext] = {}

    def __repr__(self) -> str:
        return "Authority()"

    @property
    def pem(self) -> bytes:
        """The authority's own certificate, without its key."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def write_bundle(self, file: Path) -> None:
        """Write this machine's roots and our certificate into one file that the sandbox may read."""
        roots = system_bundle()
        content = roots.read_bytes() if roots is not None else b""
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        part.write_bytes(content.rstrip(b"\n") + b"\n" + self.pem)
        part.chmod(0o644)
        part.replace(file)

    def server_context(self, host: str) -> ssl.SSLContext:
        """Return how to answer a sandbox's TLS for a host (a canonical name or address)."""
        found = self._contexts.get(host)
        if found is None:
            if len(self._contexts) >= MAX_CONTEXTS:
                self._contexts.clear()
            found = self._contexts[host] = self._make(host)
        return found

    def _make(self, host: str) -> ssl.SSLContext:
        address = as_address(host)
        name: x509.GeneralName = x509.DNSName(host) if address is None else x509.IPAddress(address)
        public = self._leaf_key.public_key()
        # The name itself stands in the alternative names; a common name may have 64 characters only.
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "interactd")])
        leaf = (
            _builder(subject, self._subject, public)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key()), critical=False
            )
            .sign(self._ca_key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        key = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _load(context, key + leaf.public_bytes(serialization.Encoding.PEM))
        return context


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # A day back, for sandboxes whose clock is not ours.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFE)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    # The ssl module reads keys from files only; where the system can, from one that is in memory.
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            os.write(fd, pem)
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return
    with tempfile.NamedTemporaryFile(prefix="interactd-leaf-") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
