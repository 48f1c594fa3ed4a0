"""The push notification configs of tasks, and what is wrong with one."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs

from ...errors import ValidationError
from .public_address import is_public
from .versions import Version

__all__ = ["PushConfigs", "Pushed"]

MAX_CONFIGS = 10
"""Configs of one task."""

MAX_TASKS = 1000
"""Tasks with configs on one node. The configs of the oldest task are dropped."""
MAX_URL = 2048

NAME = re.compile(r"(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
"""A host name (RFC 1123, section 2.1), with the underscore that resolvers accept."""
PRIVATE = "must not lead to a private address (the app allows single hosts in push_hosts)"


@attrs.frozen(kw_only=True)
class Pushed:
    """One config of a task, and the version of A2A that its receiver speaks."""

    config: Mapping[str, Any]
    version: Version


class PushConfigs:
    """The configs of the tasks that this node delivers for."""

    def __init__(self, allowed_hosts: Sequence[str]) -> None:
        self._allowed = frozenset(host.lower().strip("[]") for host in allowed_hosts)
        self._tasks: OrderedDict[str, dict[str, Pushed]] = OrderedDict()

    def add(self, task_id: str, config: Mapping[str, Any], version: Version) -> Mapping[str, Any]:
        """Keep a config, or replace the one of the same id. Returns it with its id. Raises ValidationError."""
        self.check(config)
        known = self._tasks.setdefault(task_id, {})
        config_id = config.get("id") or (task_id if version.legacy else secrets.token_hex(16))
        if config_id not in known and len(known) >= MAX_CONFIGS:
            fault = f"the task has {MAX_CONFIGS} configs, which is the limit; delete one first"
            raise ValidationError([("id", fault)])
        kept = {**config, "id": config_id, "taskId": task_id}
        known[config_id] = Pushed(config=kept, version=version)
        while len(self._tasks) > MAX_TASKS:
            self._tasks.popitem(last=False)
        return kept

    def check(self, config: Mapping[str, Any], path: str = "") -> None:
        """Raises ValidationError: nothing could be delivered with the config. `path`: before its fields."""
        fault = self._url_fault(config["url"])
        if fault is not None:
            raise ValidationError([(f"{path}url", fault)])
        for name, value in _header_values(config):
            if not value.isascii() or not value.isprintable():
                fault = "must be printable ASCII, because it is sent in a header"
                raise ValidationError([(f"{path}{name}", fault)])

    def of(self, task_id: str) -> Mapping[str, Pushed]:
        return self._tasks.get(task_id, {})

    def remove(self, task_id: str, config_id: str) -> None:
        known = self._tasks.get(task_id, {})
        known.pop(config_id, None)
        if not known:
            self._tasks.pop(task_id, None)

    def _url_fault(self, url: str) -> str | None:
        """What is wrong with the URL of a receiver, as far as one sees it without a lookup."""
        if len(url) > MAX_URL:
            return f"must have at most {MAX_URL} characters"
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname, parts.port
        except ValueError:
            return "must be a URL"
        if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable():
            return "must be an absolute URL that begins with https:// or http://"
        if parts.username is not None or parts.password is not None:
            return "must not have a user and password; give them in authentication"
        if host.lower().rstrip(".") == "localhost" and not self.allows(host):
            return PRIVATE
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None if NAME.fullmatch(host) else "must have the name of a host, or an IP address"
        return None if self.allows(host) or is_public(address) else PRIVATE

    def allows(self, host: str) -> bool:
        """Whether the app allows this host by its name."""
        return host.lower() in self._allowed


def _header_values(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    how = config.get("authentication") or {}
    named = [("token", config.get("token")), ("authentication.scheme", how.get("scheme"))]
    named.append(("authentication.credentials", how.get("credentials")))
    return [(name, value) for name, value in named if value]
