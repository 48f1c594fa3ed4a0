"""Keys of an app's clients: how they are made, hashed, and written into a file.

A line of the file is a JSON object:

    {"name": "laptop", "user": "anna", "sha256": "<64 hex digits>", "scopes": ["read"], "expires": "2030-01-31"}

`scopes` and `expires` may be missing. Empty lines and lines that begin with `#` are comments. The key itself is in
no file. It has 256 random bits, so it cannot be guessed from its hash. Passwords need a slow hash, and this hash is
fast: do not put hashes of passwords there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import orjson

from ..errors import ConfigurationError, CredentialsExpired, InvalidCredentials
from ..protocol.ids import identifier_fault

__all__ = ["KeyRecord", "KeyRing", "hash_of", "line_of", "new_key", "parse_expiry", "parse_keys"]

PREFIX = "agk_"
"""The beginning of every key, by which people and scanners for secrets recognize it."""

INDEX = 16
"""Hexadecimal digits of a hash by which its record is found."""

MAX_KEYS = 100_000
"""Keys of a file; each takes about 1 KB of memory."""

_HASH = re.compile("[0-9a-f]{64}")
_FIELDS = ("name", "user", "sha256", "scopes", "expires")


@attrs.frozen(kw_only=True)
class KeyRecord:
    """A key, without its secret."""

    name: str
    user: str
    sha256: str = attrs.field(repr=False)
    scopes: tuple[str, ...] = ()
    expires: datetime | None = None
    """The time from which on the key is refused, with a time zone. None: it does not expire."""


class KeyRing:
    """The keys of a file."""

    def __init__(self, records: tuple[KeyRecord, ...]) -> None:
        self._records = {record.sha256[:INDEX]: record for record in records}

    def check(self, key: str, now: datetime) -> KeyRecord:
        """Return the record of a key.

        The time that this takes reveals nothing about a key. The record is found by a part of the hash, from which
        the key cannot be computed, and the whole hash is compared in constant time.

        Raises:
            InvalidCredentials: there is no such key.
            CredentialsExpired: there is, and it has expired.
        """
        digest = hash_of(key)
        record = self._records.get(digest[:INDEX])
        if not hmac.compare_digest(digest, "" if record is None else record.sha256) or record is None:
            raise InvalidCredentials
        if record.expires is not None and record.expires <= now:
            raise CredentialsExpired
        return record


def new_key() -> str:
    """Make a key."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """Return the hash by which a key is stored: SHA-256, as 64 hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def line_of(record: KeyRecord) -> str:
    """Return the line of a record, without its newline."""
    fields: dict[str, Any] = {"name": record.name, "user": record.user, "sha256": record.sha256}
    if record.scopes:
        fields["scopes"] = record.scopes
    if record.expires is not None:
        fields["expires"] = record.expires.astimezone(UTC).isoformat(timespec="seconds")
    return orjson.dumps(fields).decode()


def parse_keys(text: bytes) -> KeyRing:
    """Read a file of keys. Raises ConfigurationError, with the number of the line and what is wrong with it."""
    records: dict[str, KeyRecord] = {}
    names: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not (line := line.strip()) or line.startswith(b"#"):
            continue
        try:
            record = _parse_line(line)
        except ValueError as error:
            raise ConfigurationError(f"line {number} {error}") from error
        if record.name in names:
            raise ConfigurationError(f"line {number} has the name {record.name!r} again; names must be unique")
        if record.sha256[:INDEX] in records:
            raise ConfigurationError(f"line {number} has the key of another line")
        names.add(record.name)
        records[record.sha256[:INDEX]] = record
        if len(records) > MAX_KEYS:
            raise ConfigurationError(f"there are more than {MAX_KEYS:,} keys; remove some, or use JWT")
    return KeyRing(tuple(records.values()))


def _parse_line(line: bytes) -> KeyRecord:
    """Parse a line. Raises ValueError, with a text that follows the number of the line."""
    try:
        fields = orjson.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ValueError("is not a JSON object; `trio-agentapp token` prints lines of this file")  # noqa: TRY004
    for name in fields:
        if name not in _FIELDS:
            raise ValueError(f"has the field {name!r}; known are {', '.join(_FIELDS)}")
    return KeyRecord(
        name=_text(fields, "name"),
        user=_text(fields, "user"),
        sha256=_hash(fields),
        scopes=_scopes(fields),
        expires=None if fields.get("expires") is None else parse_expiry(fields["expires"]),
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    fault = identifier_fault(value) if isinstance(value, str) else "must be a text"
    if fault is not None:
        raise ValueError(f"has a {name} that cannot be used: it {fault}")
    return str(value)


def _hash(fields: Mapping[str, Any]) -> str:
    value = fields.get("sha256")
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError("has no hash: sha256 must have 64 hexadecimal digits, a-f in lower case")
    return value


def _scopes(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = fields.get("scopes", [])
    if not isinstance(value, list) or not all(isinstance(scope, str) and scope for scope in value):
        raise ValueError("has scopes that are not a list of texts")
    return tuple(value)


def parse_expiry(value: object) -> datetime:
    """Read a date or a time (ISO 8601); without a zone it is UTC. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(
            f"has the expiry {value!r}; it must be a date or time such as 2030-01-31 or 2030-01-31T12:00:00Z"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
