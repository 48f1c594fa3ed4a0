"""Checks the files of TLS before the server starts: its certificate and key, and the CA of its clients."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ..errors import ConfigurationError

__all__ = ["CERT_REQS", "TLS", "tls_files", "tls_of_environment"]

StrPath = str | os.PathLike[str]

CERT_REQS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL}
"""Whether a client must present a certificate. A certificate that it presents is verified in both cases."""


@attrs.frozen
class TLS:
    """Checked files, as absolute paths.

    `ca_certs`: the CA of clients; None: no client certificates are requested.
    """

    certfile: str
    keyfile: str
    ca_certs: str | None = None
    cert_reqs: str | None = None


def tls_of_environment(given: Mapping[str, StrPath | None]) -> dict[str, Any]:
    """Return the arguments of `tls_files`. Those that are None come from `AGENTAPP_CERTFILE` and so on."""
    return {
        name: os.environ.get(f"AGENTAPP_{name.upper()}") if each is None else each for name, each in given.items()
    }


def tls_files(
    certfile: StrPath | None,
    keyfile: StrPath | None,
    ca_certs: StrPath | None = None,
    cert_reqs: str | None = None,
) -> TLS | None:
    """Check a certificate chain, its key, and the CA of clients, all in PEM. Returns None for no TLS.

    `cert_reqs`: a key of `CERT_REQS`; None is "required" if there are `ca_certs`.

    Raises:
        ConfigurationError: a file is missing, cannot be read, or does not hold what it should.
    """
    if cert_reqs is not None and cert_reqs not in CERT_REQS:
        raise ConfigurationError(f"cert_reqs must be {' or '.join(CERT_REQS)}, not {cert_reqs!r}")
    if cert_reqs is not None and ca_certs is None:
        raise ConfigurationError(
            "cert_reqs was given without ca_certs: that is the file of the CA whose certificates clients present"
        )
    if certfile is None and keyfile is None and ca_certs is not None:
        raise ConfigurationError(
            "ca_certs was given without certfile and keyfile: clients present certificates over TLS only"
        )
    if certfile is None and keyfile is None:
        return None
    if certfile is None or keyfile is None:
        given, other = ("certfile", "keyfile") if keyfile is None else ("keyfile", "certfile")
        raise ConfigurationError(
            f"{given} was given without {other}: TLS needs both. If one file holds both, give it twice"
        )
    texts = {name: _read(name, path) for name, path in (("certfile", certfile), ("keyfile", keyfile))}
    has_certificate = {name: b"-----BEGIN CERTIFICATE-----" in text for name, text in texts.items()}
    has_key = {name: b"PRIVATE KEY-----" in text for name, text in texts.items()}
    certificate, key = os.fspath(certfile), os.fspath(keyfile)
    if has_key["certfile"] and has_certificate["keyfile"] and not has_certificate["certfile"]:
        raise ConfigurationError(f"certfile and keyfile are swapped: {certificate!r} holds a key")
    if not has_certificate["certfile"]:
        raise ConfigurationError(f"certfile: {certificate!r} holds no certificate in PEM")
    if not has_key["keyfile"]:
        raise ConfigurationError(f"keyfile: {key!r} holds no private key in PEM")
    _load(certificate, key)
    certificate, key = os.path.abspath(certificate), os.path.abspath(key)
    if ca_certs is None:
        return TLS(certificate, key)
    _check_authority(os.fspath(ca_certs))
    return TLS(certificate, key, os.path.abspath(ca_certs), cert_reqs or "required")


def _read(name: str, path: StrPath) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}: {os.fspath(path)!r} cannot be read: {error.strerror}") from None


def _load(certificate: str, key: str) -> None:
    def refuse_password() -> str:
        raise ConfigurationError(f"keyfile: {key!r} is protected by a password; give a key without one")

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"keyfile: {key!r} is not the key of the certificate {certificate!r}"
            ) from None
        raise ConfigurationError(
            f"certfile {certificate!r} and keyfile {key!r} cannot be used: {error.reason or error}"
        ) from None


def _check_authority(path: str) -> None:
    _read("ca_certs", path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"ca_certs: {path!r} cannot be used: {error.reason or error}; it must hold certificates in PEM"
        ) from None
    if not context.cert_store_stats()["x509_ca"]:
        raise ConfigurationError(f"ca_certs: {path!r} holds no certificate of a CA, only of servers or clients")
