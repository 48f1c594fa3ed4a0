"""Builds images and pushes them to a registry, with docker, podman or buildah."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import trio

from ..errors import ConfigurationError, DeployError
from ..nursery import nursery_around
from .packaging import BuildContext

__all__ = ["TOOLS", "ImageBuild", "ImageOptions", "RegistryConfig", "find_tool", "image_name"]

TOOLS = ("docker", "podman", "buildah")
"""In this order the first one that is installed is used."""

LABEL = "trio-agentapp.build"
"""Label of an image with the digest of what it was built from. An image that has it is not built again."""

NAME = re.compile(
    r"(?:(?:[a-zA-Z0-9.-]+(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?)/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*:\w[\w.-]{0,127}"
)
"""Registry, repository and tag, as the specification of OCI's distribution allows them."""

LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")

DOCKER_HUB = "docker.io"

LAST_LINES = 8
"""Lines of the tool's output in an error."""

LONGEST_LINE = 64 * 1024

STEP = re.compile(r"STEP (\d+)/(\d+)|Step (\d+)/(\d+) :|#\d+ \[(?:\S+ )?(\d+)/(\d+)\]")
"""How podman and buildah, docker's old builder, and BuildKit write the number of a step."""

# What the tools write, and what it means. The words are those of docker 28 and podman 4; the last group is for
# pushes alone, because a build installs packages, whose errors are similar.
NO_DAEMON = re.compile(r"cannot connect to the docker daemon|connect to the docker api|connect to podman", re.I)
NO_RIGHT = re.compile(r"permission denied while trying to connect to the docker", re.I)
NO_PACKAGE = re.compile(r"(?:No matching distribution found for|satisfies the requirement) ([^\s(]+)")
NO_BASE = re.compile(
    r"initializing source docker://|pull access denied|failed to resolve source metadata|manifest for \S+ not found"
    r"|error pulling image|short-name|manifest unknown|from daemon: Get \"|from daemon: Head \"|image not known"
)
REFUSED = re.compile(r"unauthorized|denied|authentication required|no basic auth|insufficient_scope|\b401\b", re.I)
PLAIN_HTTP = re.compile(r"server gave HTTP response to HTTPS client|first record does not look like a TLS")
NO_REGISTRY = re.compile(
    r"no such host|connection refused|i/o timeout|network is unreachable|name resolution", re.I
)


@attrs.frozen(kw_only=True)
class RegistryConfig:
    """Where images go. Without `username` the tool's own login is used, which `docker login` makes."""

    registry_url: str = ""
    """Host and port, such as `registry.example.com:5000`; empty: Docker Hub."""
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    namespace: str = ""
    """The part between registry and name."""
    image_pull_secret: str | None = None
    """The Secret of the cluster with which pods pull the image."""

    def __attrs_post_init__(self) -> None:
        if "@" in self.registry_url:
            raise ConfigurationError(
                "the URL of the registry has a name or a password; give the host alone, and log in: docker login "
                "HOST"
            )


@attrs.frozen(kw_only=True)
class ImageOptions:
    """How the image of a deployment is named and built. The names are those of the replaced product."""

    image_name: str | None = None
    """By default the name of the deployment."""
    image_tag: str | None = None
    """By default the digest of the build context, so that another content has another tag."""
    push_to_registry: bool = False
    requirements: Sequence[str] | str | None = None
    """Packages, the path of a file of them, or a text with commas; by default those that are found."""
    base_image: str | None = None
    pypi_mirror: str | None = None
    platform: str | None = None
    builder: str | None = None
    use_cache: bool = True
    allowed: Sequence[str] = ()
    """Files of the app that are not searched for secrets."""


def image_name(name: str, tag: str, registry: RegistryConfig) -> str:
    """Join the parts of the name of an image: `registry/namespace/name:tag`."""
    host = re.sub(r"^https?://", "", registry.registry_url)
    parts = [part for part in (host.strip("/"), registry.namespace.strip("/"), name) if part]
    return f"{'/'.join(parts)}:{tag}"


def find_tool(chosen: str | None = None) -> str:
    """Return the tool to use: `chosen`, else the first of `TOOLS` that is installed.

    Raises:
        ConfigurationError: `chosen` is no such tool.
        DeployError: it is not installed, or none is.
    """
    if chosen is not None and chosen not in TOOLS:
        raise ConfigurationError(f"{chosen!r} cannot build images; known are {', '.join(TOOLS)}")
    for tool in TOOLS if chosen is None else (chosen,):
        if shutil.which(tool) is not None:
            return tool
    if chosen is not None:
        raise DeployError(f"{chosen} is not installed; install it, or choose another one of {', '.join(TOOLS)}")
    raise DeployError(
        "no tool that builds images is installed; install docker, podman or buildah, or write the context with "
        "trio-agentapp build --output FOLDER, and build it elsewhere"
    )


@attrs.frozen(kw_only=True)
class ImageBuild:
    """One image to build, and to push on request. Checked when it is made.

    Raises:
        ConfigurationError: the name cannot be used, or the index has a password.
    """

    context: BuildContext
    image: str
    """Name with tag."""
    push: bool = False
    registry: RegistryConfig = RegistryConfig()
    index_url: str | None = None
    """The package index from which pip installs."""
    platform: str | None = None
    """Such as `linux/arm64`; by default that of this machine."""
    tool: str | None = None
    use_cache: bool = True

    def __attrs_post_init__(self) -> None:
        if not NAME.fullmatch(self.image):
            raise ConfigurationError(
                f"{self.image!r} is not the name of an image: use registry/name:tag, with small letters, digits, "
                "., _ and - in the name"
            )
        if self.push and "/" not in self.image:
            raise ConfigurationError(f"{self.image} names no registry to push to; name one: registry/{self.image}")
        if self.index_url is not None and "@" in self.index_url.partition("//")[2].partition("/")[0]:
            raise ConfigurationError(
                "the URL of the package index has a name or a password, which would stay in the history of the "
                "image; use an index without them, or build with a secret of your own Dockerfile"
            )

    @property
    def digest(self) -> str:
        """Changes when the image has to be built again."""
        parts = [self.context.digest, self.platform, self.index_url]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def host(self) -> str:
        """The host of the image's registry.

        As for docker it is the part before the first `/`, if that has a dot or a port or is localhost.
        """
        first, slash, _ = self.image.partition("/")
        return first if slash and (set(".:") & set(first) or first == "localhost") else DOCKER_HUB

    async def run(self, report: Callable[[str], object] = lambda _: None) -> str:
        """Build the image, unless it has been built from the same context, and push it; returns the tool's name.

        `report` is called with the name of each step. Layers that the registry has are not sent again. When this is
        cancelled, the tool is ended; its finished layers stay in its cache.

        Raises:
            ConfigurationError: there is no such tool.
            DeployError: no tool is installed, it does not work, or it fails; with what to do.
        """
        tool = find_tool(self.tool)
        if self.use_cache and await self._built(tool):
            report(f"Using {self.image}, which was built from the same files")
        else:
            await self._build(tool, report)
        if self.push:
            await self._push(tool, report)
        return tool

    async def _built(self, tool: str) -> bool:
        labels = ".OCIv1.Config.Labels" if tool == "buildah" else ".Config.Labels"
        inspect = ["inspect", "--type", "image"] if tool == "buildah" else ["image", "inspect"]
        command = [tool, *inspect, "--format", f'{{{{index {labels} "{LABEL}"}}}}', self.image]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        return done.returncode == 0 and done.stdout.decode(errors="replace").strip() == self.digest

    async def _build(self, tool: str, report: Callable[[str], object]) -> None:
        words = ["--tag", self.image, "--label", f"{LABEL}={self.digest}"]
        if self.index_url is not None:
            words += ["--build-arg", f"PIP_INDEX_URL={self.index_url}"]
        if self.platform is not None:
            words += ["--platform", self.platform]
        if not self.use_cache:
            words += ["--no-cache"]
        if tool == "buildah":
            words += ["--layers"]  # as the others do by default
        step = f"Building {self.image} with {tool}"
        report(step)

        def on_line(line: str) -> None:
            if found := STEP.match(line):
                done, total = filter(None, found.groups())
                report(f"{step} ({done} of {total})")

        with tempfile.TemporaryDirectory(prefix="agentapp-build-") as folder:
            self.context.write(folder)
            try:
                await _execute(tool, "build", *words, folder, on_line=on_line)
            except _Failed as error:
                raise DeployError(self._meaning_of_build(tool, error)) from None

    async def _push(self, tool: str, report: Callable[[str], object]) -> None:
        report(f"Pushing {self.image}")
        with _credentials(tool, self.registry, self.host) as (before, after):
            # docker itself allows HTTP for the addresses of this machine.
            plain = ["--tls-verify=false"] if tool != "docker" and LOOPBACK.fullmatch(self.host) else []
            try:
                await _execute(tool, *before, "push", *after, *plain, self.image)
            except _Failed as error:
                raise DeployError(self._meaning_of_push(tool, error)) from None

    def _meaning_of_build(self, tool: str, error: _Failed) -> str:
        if said := _tool_fault(tool, error.output):
            return said
        if found := NO_PACKAGE.search(error.output):
            return (
                f"the image cannot be built: pip finds no {found[1]} in the package index; check the version, or "
                "name the index that has it: --index-url URL"
            )
        if NO_BASE.search(error.output):
            base = re.search(rb"^FROM (\S+)", self.context.files["Dockerfile"], re.MULTILINE)
            name = base[1].decode() if base else "it"
            return (
                f"the base image {name} cannot be got ({error.last}); check its name and the network, log in to "
                "its registry, or name another one: --base-image NAME"
            )
        return f"{tool} cannot build {self.image}: {error.tail}"

    def _meaning_of_push(self, tool: str, error: _Failed) -> str:
        if said := _tool_fault(tool, error.output):
            return said
        if PLAIN_HTTP.search(error.output):
            return f"{self.host} speaks no TLS; give it a certificate, or allow it in the settings of {tool}"
        if REFUSED.search(error.output):
            return (
                f"{self.host} refuses {self.image} ({error.last}); log in with an account that may write there: "
                f"{tool} login {self.host}"
            )
        if NO_REGISTRY.search(error.output):
            return f"the registry {self.host} does not answer ({error.last}); check its name, and that it runs"
        return f"{tool} cannot push {self.image}: {error.tail}"


class _Failed(Exception):
    """The tool ended with an error."""

    def __init__(self, lines: deque[str]) -> None:
        self.output = "\n".join(lines)
        self.tail = "\n  ".join(list(lines)[-LAST_LINES:]) or "it says nothing"
        self.last = lines[-1] if lines else "it says nothing"


def _tool_fault(tool: str, output: str) -> str | None:
    others = f", or choose another tool: --builder {'|'.join(each for each in TOOLS if each != tool)}"
    if NO_RIGHT.search(output):
        return f"this user may not use {tool}; add it to the group docker{others}"
    if NO_DAEMON.search(output):
        start = "systemctl start docker" if tool == "docker" else "podman machine start"
        return f"the daemon of {tool} does not run; start it, for instance with {start}{others}"
    return None


async def _execute(tool: str, *words: str, on_line: Callable[[str], object] = lambda _: None) -> None:
    """Run the tool to its end; `on_line` is called with each line that it writes.

    Raises:
        _Failed: it ended with another code than 0.
        DeployError: it cannot be started.
    """
    lines: deque[str] = deque(maxlen=200)
    start = partial(
        trio.run_process,
        [tool, *words],
        stdin=b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env={**os.environ, "LC_ALL": "C"},  # its messages are looked at
    )
    try:
        async with nursery_around() as nursery:
            process: trio.Process = await nursery.start(start)
            pending = b""
            async for piece in cast(trio.abc.ReceiveStream, process.stdout):
                *whole, pending = re.split(rb"[\r\n]+", pending + piece)
                for line in (each.decode(errors="replace") for each in whole if each.strip()):
                    lines.append(line)
                    on_line(line)
                pending = pending[-LONGEST_LINE:]
    except OSError as error:
        raise DeployError(f"{tool} cannot be started: {error.strerror}") from error
    if pending.strip():
        lines.append(pending.decode(errors="replace"))
    if process.returncode:
        raise _Failed(lines)


@contextmanager
def _credentials(tool: str, registry: RegistryConfig, host: str) -> Iterator[tuple[list[str], list[str]]]:
    """The options before and after `push` with which the tool logs in: a file that is gone after the block.

    Nothing is on the command line, which other users of the machine can read, and nothing stays in the home folder.
    """
    if registry.username is None:
        yield [], []
        return
    pair = f"{registry.username}:{registry.password or ''}"
    auth = {"auth": base64.b64encode(pair.encode()).decode()}
    with tempfile.TemporaryDirectory(prefix="agentapp-login-") as name:
        folder = Path(name)
        config: dict[str, Any] = {}
        if tool == "docker":
            own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
            config = _own_settings(own, folder)
            host = "https://index.docker.io/v1/" if host == DOCKER_HUB else host
            # The empty name of a helper: look into this file, and not into the store of the user's own logins.
            config["credHelpers"] = {**config.get("credHelpers", {}), host: ""}
        (folder / "config.json").write_text(json.dumps({**config, "auths": {host: auth}}))
        yield (["--config", name], []) if tool == "docker" else ([], ["--authfile", str(folder / "config.json")])


def _own_settings(own: Path, folder: Path) -> dict[str, Any]:
    """Make docker's other settings, such as how to reach its daemon, visible in `folder`."""
    if not own.is_dir():
        return {}
    for path in own.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path)
    try:
        found = json.loads((own / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
