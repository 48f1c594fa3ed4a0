"""Certificates for tests: a CA, and what it signs."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

__all__ = ["Authority", "Issued"]

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@attrs.frozen
class Issued:
    """The files of a certificate: itself and its key, as PEM."""

    cert: Path
    key: Path


class Authority:
    """A CA in a folder. `parent`: the CA that has signed it, if it is an intermediate one."""

    def __init__(self, folder: Path, name: str = "ca", *, parent: Authority | None = None) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._parent = parent or self
        builder = self._builder(self._name, self._key, timedelta(days=2))
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.cert = folder / f"{name}.pem"
        self._write(self.cert, builder.add_extension(usage, critical=True))
        self._parent = self

    def issue(
        self,
        name: str,
        *alternatives: x509.GeneralName,
        common_names: Sequence[str] | None = None,
        lasts: float = 86400.0,
        usage: x509.ObjectIdentifier = CLIENT,
        unreadable: bool = False,
    ) -> Issued:
        """Sign a certificate that lasts for some seconds from now; it began before them.

        `unreadable`: its alternative name is a URI that is not UTF-8.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, each) for each in common_names or [name]]
        builder = self._builder(x509.Name(names), key, timedelta(seconds=lasts))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if unreadable:
            raw = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"0\x07\x86\x05urn:\xff")
            builder = builder.add_extension(raw, critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        issued = Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        self._write(issued.cert, builder)
        issued.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return issued

    def server(self, host: str = "localhost") -> Issued:
        return self.issue(host, x509.DNSName(host), usage=SERVER)

    def context(self, client: Issued | None = None) -> ssl.SSLContext:
        """What a client trusts, and what it presents. The server is always signed by this CA."""
        context = ssl.create_default_context(cafile=self.cert)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        authority = self._parent._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._parent._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + lasts)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
        )

    def _write(self, path: Path, builder: x509.CertificateBuilder) -> None:
        path.write_bytes(builder.sign(self._parent._key, hashes.SHA256()).public_bytes(Encoding.PEM))
