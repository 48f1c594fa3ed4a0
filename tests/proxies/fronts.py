"""Proxies with the configurations of `examples/proxies`, in front of a node that the test has started."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio

from ..e2e.harness import free_port

EXAMPLES = Path(__file__).parents[2] / "examples" / "proxies"
SITE = "agents.example.com"
CLIENT = "127.0.0.2"
"""Where the tests' clients connect from. 127.0.0.1 is the address of the proxies, which the app trusts."""
UNLIMITED = httpx.Limits(max_connections=None)
NAMES = ("nginx", "caddy", "traefik", "envoy")


class Front:
    """One running proxy. `url` is the address of the app behind it."""

    def __init__(self, name: str, folder: Path, nodes: tuple[int, int], *, h2c: bool = False) -> None:
        """`h2c`: speak HTTP/2 to the nodes also where the example does not."""
        self.name = name
        self.folder = folder
        self.port = free_port()
        self.admin = free_port()
        self.url = f"https://{SITE}:{self.port}/agents"
        self._nodes = nodes
        self._h2c = h2c
        self._binary = binary_of(name)
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def start(self) -> None:
        await _make_certificate(self.folder)
        commands = {"nginx": self._nginx, "caddy": self._caddy, "traefik": self._traefik, "envoy": self._envoy}
        self._run(commands[self.name]())
        with trio.fail_after(30):
            while True:
                assert self._processes[0].poll() is None, self.log
                async with self.client() as client:
                    try:
                        if (await client.get("/readiness")).status_code == 200:
                            return
                    except httpx.HTTPError:
                        pass
                await trio.sleep(0.05)

    async def reload(self) -> None:
        """Read the configuration again, as an operator does it, and wait until it is in use."""
        before = len(self.log)
        match self.name:
            case "nginx":
                self._processes[0].send_signal(signal.SIGHUP)
            case "caddy":
                command = [self._binary, "reload", "--force", "--config", "Caddyfile", "--adapter", "caddyfile"]
                await trio.run_process(
                    [*command, "--address", f"127.0.0.1:{self.admin}"], cwd=self.folder, capture_stderr=True
                )
            case "traefik":
                path = self.folder / "traefik-routes.yml"
                path.write_text(path.read_text().replace("interval: 2s", "interval: 1s"))
            case "envoy":
                self._run([*self._envoy(), "--restart-epoch", "1"])
        done = {
            "nginx": "start worker process ",
            "caddy": "load complete",
            "traefik": "Configuration received",
            "envoy": "starting workers",
        }[self.name]
        with trio.fail_after(20):
            while done not in self.log[before:]:
                await trio.sleep(0.02)

    def close(self) -> None:
        for process in self._processes:
            # With the processes that nginx has started.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def client(self, *, http2: bool = False) -> httpx.AsyncClient:
        """A client for which the name of the site leads to the proxy."""
        transport = _ToThisMachine(verify=False, http2=http2, local_address=CLIENT, limits=UNLIMITED)
        return httpx.AsyncClient(base_url=self.url, transport=transport, timeout=20)

    # The configurations, with what has to be other here: addresses and files.

    def _adapted(self, file: str, *changes: tuple[str, str]) -> str:
        text = (EXAMPLES / file).read_text()
        known = (
            ("10.0.0.1:8090", f"127.0.0.1:{self._nodes[0]}"),
            ("10.0.0.2:8090", f"localhost:{self._nodes[1]}"),
            ("/etc/ssl/", f"{self.folder}/"),
        )
        for before, after in (*known, *changes):
            assert before in text or (before, after) in known, before
            text = text.replace(before, after)
        (self.folder / file).write_text(text)
        return text

    def _nginx(self) -> list[str]:
        self._adapted("nginx.conf", ("listen 443 ", f"listen 127.0.0.1:{self.port} "))
        places = "".join(
            f"{name}_temp_path {self.folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "main.conf").write_text(
            f"user {getpass.getuser()}; pid {self.folder}/pid; error_log stderr notice; daemon off;\n"
            "worker_processes 1; events {}\n"
            f"http {{ access_log off;\n{places} include {self.folder}/nginx.conf; }}"
        )
        return [self._binary, "-p", str(self.folder), "-c", f"{self.folder}/main.conf", "-e", "stderr"]

    def _caddy(self) -> list[str]:
        text = self._adapted(
            "Caddyfile",
            (f"{SITE} {{", f"{SITE}:{self.port} {{\n\tbind 127.0.0.1\n"),
            *([("keepalive 60s", "versions h2c\n\t\t\t\tkeepalive 60s")] if self._h2c else []),
        )
        options = f"{{\n\tadmin 127.0.0.1:{self.admin}\n\tauto_https off\n}}\n"
        (self.folder / "Caddyfile").write_text(options + text)
        return [self._binary, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]

    def _traefik(self) -> list[str]:
        self._adapted("traefik-routes.yml", *([("http://", "h2c://")] if self._h2c else []))
        text = self._adapted(
            "traefik.yml",
            ('":443"', f'"127.0.0.1:{self.port}"'),
            ("/etc/traefik/", f"{self.folder}/"),
        )
        options = "log: { level: DEBUG }\nglobal: { checkNewVersion: false, sendAnonymousUsage: false }\n"
        (self.folder / "traefik.yml").write_text(text + options)
        return [self._binary, "--configFile=traefik.yml"]

    def _envoy(self) -> list[str]:
        first, second = (f"address: 127.0.0.1, port_value: {node}" for node in self._nodes)
        self._adapted(
            "envoy.yaml",
            ("address: 0.0.0.0, port_value: 443", f"address: 127.0.0.1, port_value: {self.port}"),
            ("address: 10.0.0.1, port_value: 8090", first),
            ("address: 10.0.0.2, port_value: 8090", second),
        )
        own = ["--base-id", str(self.port), "--concurrency", "1", "--drain-time-s", "600"]
        return [self._binary, "-c", "envoy.yaml", "--log-level", "info", *own]

    def _run(self, command: list[str]) -> None:
        environment = {"HOME": str(self.folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
        with (self.folder / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command, cwd=self.folder, stdout=log, stderr=log, env=environment, start_new_session=True
                )
            )


class _ToThisMachine(httpx.AsyncHTTPTransport):
    """Connects to 127.0.0.1, whatever the host of the URL; TLS and `Host` have the name."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": request.url.host}
        request.url = request.url.copy_with(host="127.0.0.1")
        return await super().handle_async_request(request)


def binary_of(name: str) -> str:
    """The program of a proxy; skips the test where it is not installed."""
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    found = shutil.which(name, path=path)
    if name == "envoy" and (package := importlib.util.find_spec("envoy")) and package.origin:
        # The command of the package is a Python program that starts this one.
        found = str(Path(package.origin).parent / "_bin" / "envoy")
    if found is None:
        pytest.skip(f"{name} is not installed; `make test-proxies` installs all but nginx")
    return found


async def _make_certificate(folder: Path) -> None:
    made = ("-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={SITE}", "-days", "2")
    names = ("-addext", f"subjectAltName=DNS:{SITE}")
    command = ["openssl", "req", *made, *names, "-keyout", "agents.key", "-out", "agents.pem"]
    await trio.run_process(command, cwd=folder, capture_stdout=True, capture_stderr=True)


@asynccontextmanager
async def running(name: str, folder: Path, *nodes: int, h2c: bool = False) -> AsyncIterator[Front]:
    """A proxy before two nodes, by their ports. One node may stand for both."""
    front = Front(name, folder, (nodes[0], nodes[-1]), h2c=h2c)
    try:
        await front.start()
        yield front
    finally:
        front.close()
