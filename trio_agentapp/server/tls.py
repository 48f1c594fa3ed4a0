"""Checks the certificate and key files of TLS before the server starts."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from ..errors import ConfigurationError

__all__ = ["tls_files"]

StrPath = str | os.PathLike[str]


def tls_files(certfile: StrPath | None, keyfile: StrPath | None) -> tuple[str, str] | tuple[None, None]:
    """Return the absolute paths of a certificate chain and of its key, both in PEM, or None twice for no TLS.

    Raises:
        ConfigurationError: a file is missing, cannot be read, or does not hold what it should.
    """
    if certfile is None and keyfile is None:
        return None, None
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
    return os.path.abspath(certificate), os.path.abspath(key)


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
