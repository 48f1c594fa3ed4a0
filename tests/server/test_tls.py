"""The files of TLS: what cannot be served with is refused by name, and never served without."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.certificates import Authority
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.server.tls import TLS, tls_files, tls_of_environment

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name, protection in (("a", ["-nodes"]), ("b", ["-nodes"]), ("locked", ["-passout", "pass:secret"])):
        target = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", "/CN=agent.test"]
        try:
            command = ["openssl", "req", "-x509", *NEW_KEY, *protection, *target]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("needs the openssl command")
    (folder / "both.pem").write_bytes((folder / "a.pem").read_bytes() + (folder / "a.key").read_bytes())
    (folder / "text.pem").write_text("hello")
    Authority(folder).issue("leaf")
    (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return folder


def test_files_that_fit(files: Path) -> None:
    assert tls_files(None, None) is None
    assert tls_files(files / "a.pem", str(files / "a.key")) == TLS(str(files / "a.pem"), str(files / "a.key"))
    both = str(files / "both.pem")
    assert tls_files(both, both) == TLS(both, both)
    assert tls_files(both, both, files / "a.pem") == TLS(both, both, str(files / "a.pem"), "required")
    assert tls_files(both, both, both, "optional") == TLS(both, both, both, "optional")


def test_relative_paths_become_absolute(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    whole = TLS(str(files / "a.pem"), str(files / "a.key"), str(files / "b.pem"), "required")
    assert tls_files("a.pem", "a.key", "b.pem") == whole


@pytest.mark.parametrize(
    ("certfile", "keyfile", "says"),
    [
        ("a.pem", None, "certfile was given without keyfile"),
        (None, "a.key", "keyfile was given without certfile"),
        ("a.key", "a.pem", "certfile and keyfile are swapped"),
        ("nowhere", "a.key", "certfile: 'nowhere' cannot be read: No such file or directory"),
        ("a.pem", "nowhere", "keyfile: 'nowhere' cannot be read: No such file or directory"),
        (".", "a.key", "certfile: '.' cannot be read: Is a directory"),
        ("a.pem", "b.key", "keyfile: 'b.key' is not the key of the certificate 'a.pem'"),
        ("text.pem", "a.key", "certfile: 'text.pem' holds no certificate in PEM"),
        ("a.pem", "text.pem", "keyfile: 'text.pem' holds no private key in PEM"),
        ("a.pem", "a.pem", "keyfile: 'a.pem' holds no private key in PEM"),
        ("broken.pem", "a.key", "certfile 'broken.pem' and keyfile 'a.key' cannot be used"),
        ("locked.pem", "locked.key", "keyfile: 'locked.key' is protected by a password"),
    ],
)
def test_files_that_do_not(
    files: Path, monkeypatch: pytest.MonkeyPatch, certfile: str | None, keyfile: str | None, says: str
) -> None:
    monkeypatch.chdir(files)
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        tls_files(certfile, keyfile)


@pytest.mark.parametrize(
    ("ca_certs", "cert_reqs", "says"),
    [
        ("nowhere", None, "ca_certs: 'nowhere' cannot be read: No such file or directory"),
        (".", None, "ca_certs: '.' cannot be read: Is a directory"),
        ("text.pem", None, "ca_certs: 'text.pem' cannot be used: NO_CERTIFICATE_OR_CRL_FOUND; it must hold"),
        ("broken.pem", None, "ca_certs: 'broken.pem' cannot be used"),
        ("leaf.pem", None, "ca_certs: 'leaf.pem' holds no certificate of a CA"),
        (None, "required", "cert_reqs was given without ca_certs"),
        ("b.pem", "maybe", "cert_reqs must be required or optional, not 'maybe'"),
    ],
)
def test_a_ca_that_cannot_be_used(
    files: Path, monkeypatch: pytest.MonkeyPatch, ca_certs: str | None, cert_reqs: str | None, says: str
) -> None:
    monkeypatch.chdir(files)
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        tls_files("a.pem", "a.key", ca_certs, cert_reqs)


def test_a_ca_without_tls(files: Path) -> None:
    with pytest.raises(ConfigurationError, match="ca_certs was given without certfile and keyfile"):
        tls_files(None, None, files / "a.pem")


def test_the_environment_counts_for_each_that_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERTFILE", "KEYFILE", "CA_CERTS", "CERT_REQS"):
        monkeypatch.delenv(f"AGENTAPP_{name}", raising=False)
    given = {"certfile": "a.pem", "keyfile": None, "ca_certs": None, "cert_reqs": None}
    assert tls_of_environment(given) == given
    monkeypatch.setenv("AGENTAPP_CERTFILE", "b.pem")
    monkeypatch.setenv("AGENTAPP_CA_CERTS", "ca.pem")
    assert tls_of_environment(given) == {**given, "ca_certs": "ca.pem"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_key_that_others_own(files: Path) -> None:
    (files / "b.key").chmod(0)
    with pytest.raises(ConfigurationError, match=r"keyfile: .* cannot be read: Permission denied"):
        tls_files(files / "b.pem", files / "b.key")
