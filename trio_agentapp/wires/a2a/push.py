"""Push notifications: the configs of tasks, and the deliveries.

A config belongs to the node that got it. That node reads the events of the task, wherever it runs, and sends them.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
import orjson
import trio

from ...protocol.text import safe_text
from ...runs.runner import Watched
from .faults import invalid
from .task import Task
from .versions import Version

if TYPE_CHECKING:
    import httpx

__all__ = ["PushConfigs", "PushSender", "Pushed"]

logger = logging.getLogger("trio_agentapp.wires.a2a")

MAX_CONFIGS = 10
"""Configs of one task."""

MAX_TASKS = 1000
"""Tasks with configs on one node. The configs of the oldest task are dropped."""

MAX_WAITING = 64
"""Notifications that wait for one receiver. If there are more, the oldest is dropped."""

TRIES = 5
"""Attempts to deliver a notification."""

FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each further pause is twice as long."""

TIMEOUT = 10.0
"""Seconds for one attempt: specification 1.0, section 4.3.3, recommends 10 to 30."""

MAX_ATTEMPTS = 100
"""Attempts at once on one node: each has a socket, and a client may name many receivers that never answer."""

MAX_LOOKUPS = 8
"""Lookups of receivers at once: each has a thread, until the name server has answered or was given up."""

MAX_URL = 2048

NAME = re.compile(r"(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
"""A host name (RFC 1123, section 2.1), with the underscore that resolvers accept."""


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

    def add(
        self, task_id: str, config: Mapping[str, Any], version: Version, *, path: str = ""
    ) -> Mapping[str, Any]:
        """Keep a config, or replace the one of the same id. Returns it with its id. Raises A2AError."""
        self.check(config, path)
        known = self._tasks.setdefault(task_id, {})
        config_id = config.get("id") or (task_id if version.legacy else secrets.token_hex(16))
        if config_id not in known and len(known) >= MAX_CONFIGS:
            raise invalid(f"{path}id", f"the task has {MAX_CONFIGS} configs, which is the limit; delete one first")
        kept = {**config, "id": config_id, "taskId": task_id}
        known[config_id] = Pushed(config=kept, version=version)
        while len(self._tasks) > MAX_TASKS:
            self._tasks.popitem(last=False)
        return kept

    def check(self, config: Mapping[str, Any], path: str) -> None:
        """Raises A2AError: nothing could be delivered with the config. `path`: of the config in the parameters."""
        fault = self.url_fault(config["url"])
        if fault is not None:
            raise invalid(f"{path}url", fault)
        for name, value in _header_values(config):
            if not value.isascii() or not value.isprintable():
                raise invalid(f"{path}{name}", "must be printable ASCII, because it is sent in a header")

    def of(self, task_id: str) -> Mapping[str, Pushed]:
        return self._tasks.get(task_id, {})

    def remove(self, task_id: str, config_id: str) -> None:
        known = self._tasks.get(task_id, {})
        known.pop(config_id, None)
        if not known:
            self._tasks.pop(task_id, None)

    def url_fault(self, url: str) -> str | None:
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


PRIVATE = "must not lead to a private address (the app allows single hosts in push_hosts)"


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the internet. IPv6 forms of IPv4 addresses are looked through.

    Of IPv6 only 2000::/3 is allocated for the internet (IANA, "IPv6 Global Unicast Address Assignments"). Python's
    `is_global` is true for others, too: ::127.0.0.1, the site-local fec0::/10, the translations 64:ff9b:1::/48.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None and not is_public(inner):
            return False
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast


GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _header_values(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    how = config.get("authentication") or {}
    named = [("token", config.get("token")), ("authentication.scheme", how.get("scheme"))]
    named.append(("authentication.credentials", how.get("credentials")))
    return [(name, value) for name, value in named if value]


@cache
def _tls_context() -> ssl.SSLContext:
    """Made once, and not in the event loop: it reads all certificates, which takes some 50 ms."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


class _PrivateAddress(Exception):
    """The host of a receiver leads to an address that is not public."""


class _Slots:
    """How much is done at once for all receivers of a node."""

    def __init__(self) -> None:
        self.attempts = trio.CapacityLimiter(MAX_ATTEMPTS)
        self.lookups = trio.CapacityLimiter(MAX_LOOKUPS)


class PushSender:
    """Reads the events of tasks with configs, and delivers them. Runs in the nursery of the adapter."""

    def __init__(self, configs: PushConfigs, nursery: trio.Nursery) -> None:
        self._configs = configs
        self._nursery = nursery
        self._slots = _Slots()
        self._followed: set[str] = set()
        self._idle = trio.Event()
        self._idle.set()

    def follow(self, watched: Watched, task: Task) -> None:
        """Deliver what happens to a task from now on. Takes the reader over, and closes it at the end.

        `task` has all events that were read.
        """
        if watched.run_id in self._followed:
            watched.subscriber.close()
            return
        if not self._followed:
            self._idle = trio.Event()
        self._followed.add(watched.run_id)
        task.live = True
        self._nursery.start_soon(self._follow, watched, task, name=f"push of task {watched.run_id}")

    async def wait_idle(self) -> None:
        """Wait until nothing is left to deliver."""
        await self._idle.wait()

    def follows(self, task_id: str) -> bool:
        return task_id in self._followed

    async def _follow(self, watched: Watched, task: Task) -> None:
        try:
            async with trio.open_nursery() as nursery:
                receivers: dict[str, _Receiver] = {}
                try:
                    with watched.subscriber as subscriber:
                        await self._read(subscriber.receive, task, receivers, nursery)
                finally:
                    for receiver in receivers.values():
                        receiver.close()
        except Exception:
            # A receiver is named by a client: whatever fails there, the app and its other tasks go on.
            logger.exception("task %s: its push notifications have ended", task.id)
        finally:
            self._followed.discard(watched.run_id)
            if not self._followed:
                self._idle.set()

    async def _read(
        self,
        receive: Callable[[], Any],
        task: Task,
        receivers: dict[str, _Receiver],
        nursery: trio.Nursery,
    ) -> None:
        while True:
            try:
                batch = await receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return
            for event in batch:
                for kind, update in task.apply(event):
                    body = self._notice(kind, update, task)
                    if body is not None:
                        self._offer(task, kind, body, receivers, nursery)

    def _notice(self, kind: str, update: dict[str, Any], task: Task) -> dict[str, Any] | None:
        """What is sent of an update: each status, and each artifact when it is complete."""
        if kind == "statusUpdate":
            return update
        if not update["lastChunk"]:
            return None
        whole = task.artifacts[update["artifact"]["artifactId"]].whole()
        return None if whole is None else {**update, "artifact": whole, "append": False}

    def _offer(
        self,
        task: Task,
        kind: str,
        body: dict[str, Any],
        receivers: dict[str, _Receiver],
        nursery: trio.Nursery,
    ) -> None:
        for config_id, pushed in self._configs.of(task.id).items():
            receiver = receivers.get(config_id)
            if receiver is None:
                receiver = receivers[config_id] = _Receiver(self._configs, task.id, config_id, self._slots)
                nursery.start_soon(receiver.run)
            if not pushed.version.legacy:
                receiver.put({kind: body})
            elif kind == "statusUpdate":
                # 0.3 sends the task (section 9.5 of its specification).
                receiver.put(pushed.version.task(task.as_object()))


class _Receiver:
    """One config: what waits for its receiver, and the task that sends it."""

    def __init__(self, configs: PushConfigs, task_id: str, config_id: str, slots: _Slots) -> None:
        self._slots = slots
        self._configs = configs
        self._task_id = task_id
        self._config_id = config_id
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._changed = trio.Event()
        self._closed = False

    def put(self, body: dict[str, Any]) -> None:
        self._waiting.append(orjson.dumps(body))
        self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed = trio.Event()
            while self._waiting:
                await self._deliver(self._waiting.popleft())
            if self._closed:
                return
            await self._changed.wait()

    async def _deliver(self, body: bytes) -> None:
        """Send one notification, again after failures, unless the config was deleted meanwhile."""
        for attempt in range(TRIES):
            if attempt:
                await trio.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            pushed = self._configs.of(self._task_id).get(self._config_id)
            if pushed is None:
                return
            try:
                fault = await self._try(pushed.config, body)
            except _PrivateAddress:
                logger.warning(
                    "task %s: a push notification was not delivered: its receiver has a private address; "
                    "push_hosts may allow it",
                    self._task_id,
                )
                return
            if fault is None:
                return
        logger.warning(
            "task %s: a push notification was not delivered after %d attempts: %s", self._task_id, TRIES, fault
        )

    async def _try(self, config: Mapping[str, Any], body: bytes) -> str | None:
        """Send once. Returns what went wrong."""
        async with self._slots.attempts:
            # httpx counts its own time-outs from each byte that arrives.
            with trio.move_on_after(TIMEOUT):
                return await self._send(config, body)
        return f"no answer in {TIMEOUT:g} s"

    async def _send(self, config: Mapping[str, Any], body: bytes) -> str | None:
        import httpx  # it takes long to load, and few apps send notifications

        try:
            url = httpx.URL(config["url"])
            address = await self._address(url)
            headers = {"Content-Type": "application/json", "Host": url.netloc.decode("ascii")}
            if config.get("token"):
                headers["X-A2A-Notification-Token"] = config["token"]
            how = config.get("authentication") or {}
            if how.get("credentials"):
                headers["Authorization"] = f"{how['scheme']} {how['credentials']}"
            tls = await trio.to_thread.run_sync(_tls_context)
            # The connection goes to the address that was checked: another lookup might give another one.
            async with httpx.AsyncClient(
                timeout=TIMEOUT, follow_redirects=False, trust_env=False, verify=tls
            ) as client:
                request = client.build_request(
                    "POST",
                    url.copy_with(host=address),
                    content=body,
                    headers=headers,
                    extensions={"sni_hostname": url.host},
                )
                response = await client.send(request, stream=True)
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            # UnicodeError: what looks like a name is none in IDNA.
            return f"{type(error).__name__}: {safe_text(error)[:200]}"
        return None if response.is_success else f"status {response.status_code}"

    async def _address(self, url: httpx.URL) -> str:
        """The address of the host. Raises _PrivateAddress: it is not public, and the host is not allowed."""
        # A lookup cannot be stopped. It keeps its slot after its time limit; Trio's threads stay free for the app.
        lookup = partial(socket.getaddrinfo, url.host, url.port or 443, type=socket.SOCK_STREAM)
        found = await trio.to_thread.run_sync(lookup, abandon_on_cancel=True, limiter=self._slots.lookups)
        addresses = [str(each[4][0]) for each in found]
        if self._configs.allows(url.host):
            return addresses[0]
        if all(is_public(ipaddress.ip_address(each.split("%")[0])) for each in addresses):
            return addresses[0]
        raise _PrivateAddress
