"""The records of detached services: one small file each, which is always replaced as a whole.

A service, its supervisor and commands change the same record. A lock orders them, so that no change is lost, and a
record that was removed does not come back.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import attrs
import cattrs
import orjson

from ..errors import DeployError
from ..protocol.deployment import DeploymentMode, DeploymentState, DeploymentStatus
from .locks import locked, only_one
from .processes import Identity

__all__ = ["Record", "Records"]

logger = logging.getLogger(__name__)

KEPT = 7 * 24 * 3600.0
"""Seconds for which records and logs of dead services are kept."""

ID = re.compile(r"[0-9a-f]{8}")

LAST_LINES, LAST_BYTES = 20, 16 * 1024
MOST_BYTES = 1024 * 1024


@attrs.frozen(kw_only=True)
class Record:
    """One detached service. It does not hold the environment and arguments, which may contain secrets."""

    deploy_id: str
    entrypoint: str
    url: str
    host: str
    port: int
    log: str
    started_at: float
    launcher: Identity
    sys_path: list[str]
    certfile: str | None = None
    keyfile: str | None = None
    ca_certs: str | None = None
    cert_reqs: str | None = None
    workers: int = 1
    app_name: str = ""
    process: Identity | None = None
    """None until the process has written itself into the record."""
    supervisor: Identity | None = None
    """What starts the process again when it crashes; None if nothing does."""
    ready: bool = False
    """Whether the command that deployed it has seen it ready."""
    stop_within: float = 60.0
    """Seconds that it needs at most to end."""

    @property
    def state(self) -> DeploymentState | None:
        """STARTING or DEAD; None if its process is alive and has to be asked."""
        if self.supervised and (self.process is None or not self.process.alive):
            return DeploymentState.STARTING
        if self.process is None:
            return DeploymentState.STARTING if self.launcher.alive else DeploymentState.DEAD
        return None if self.process.alive else DeploymentState.DEAD

    @property
    def supervised(self) -> bool:
        return self.supervisor is not None and self.supervisor.alive

    def status(self, state: DeploymentState, reason: str | None = None) -> DeploymentStatus:
        return DeploymentStatus(
            deploy_id=self.deploy_id,
            state=state,
            url=self.url,
            mode=DeploymentMode.DETACHED_PROCESS.value,
            pid=None if self.process is None else self.process.pid,
            app_name=self.app_name,
            entrypoint=self.entrypoint,
            log=self.log,
            started_at=self.started_at,
            reason=reason,
        )

    def log_tail(self, lines: int | None = None) -> str:
        """The last `lines` of its log; by default some of them, as text for an error message."""
        try:
            with open(self.log, "rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - (LAST_BYTES if lines is None else MOST_BYTES)))
                found = log.read().decode(errors="replace").splitlines()
        except OSError:
            return "(it has no log)"
        if lines is not None:
            return "\n".join(found[-lines:])
        shown = [line for raw in found for line in _plain(raw)]
        return "\n".join(f"  {line}" for line in shown[-LAST_LINES:]) or "  (it wrote nothing)"


def _plain(line: str) -> list[str]:
    """A line of the log as text, also if it was logged as JSON."""
    try:
        record = orjson.loads(line)
        return [f"{record['level'].upper()}: {record['message']}", *record.get("traceback", "").splitlines()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [line]


class Records:
    """The folder `deployments` of `AGENTAPP_HOME`, else of `trio-agentapp` in the user's XDG state folder."""

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        chosen = home or os.environ.get("AGENTAPP_HOME") or os.path.join(state, "trio-agentapp")
        self.folder = Path(os.path.abspath(chosen)) / "deployments"

    def new_id(self) -> str:
        """Choose a free id, and create its log.

        Raises:
            DeployError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            while True:
                deploy_id = secrets.token_hex(4)
                with suppress(FileExistsError):
                    os.close(os.open(self.log(deploy_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                    return deploy_id
        except OSError as error:
            raise DeployError(
                f"cannot write to {self.folder}: {error.strerror}; AGENTAPP_HOME names another folder"
            ) from error

    def log(self, deploy_id: str) -> Path:
        return self.folder / f"{deploy_id}.log"

    def write(self, record: Record) -> None:
        """Write a new record."""
        with self._locked():
            self._write(record)

    def update(self, deploy_id: str, **changes: Any) -> Record:
        """Change some fields of a record; returns it.

        Raises:
            DeployError: it has been removed.
        """
        with self._locked():
            record = attrs.evolve(self.get(deploy_id), **changes)
            self._write(record)
        return record

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.folder / "lock")

    def only_one(self, name: str, what: str) -> AbstractContextManager[None]:
        """Hold a lock of this name, which is no record, during the block.

        Raises:
            DeployError: another process has it.
        """
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return only_one(self.folder / f"{digest}.busy", what)

    def _write(self, record: Record) -> None:
        path = self._path(record.deploy_id)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(orjson.dumps(cattrs.unstructure(record), option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)

    def forget(self, deploy_id: str) -> None:
        """Remove the record. `prune` removes the log later."""
        if not self.folder.is_dir():
            return
        with self._locked():
            self._path(deploy_id).unlink(missing_ok=True)

    def get(self, deploy_id: str) -> Record:
        """Find the record whose id is or starts with `deploy_id`.

        Raises:
            DeployError: there is none, or more than one.
        """
        found = [record for record in self if record.deploy_id.startswith(deploy_id)] if deploy_id else []
        if not found:
            raise DeployError(f"there is no deployment {deploy_id!r}")
        if len(found) > 1:
            raise DeployError(
                f"{deploy_id!r} is the beginning of several deployments: "
                + ", ".join(record.deploy_id for record in found)
            )
        return found[0]

    def __iter__(self) -> Iterator[Record]:
        """All records, the oldest first. A file that cannot be read is logged and skipped."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                found.append(cattrs.structure(orjson.loads(path.read_bytes()), Record))
            except FileNotFoundError:
                continue  # ended meanwhile
            except (OSError, ValueError, cattrs.BaseValidationError) as error:
                logger.warning("%s is not the record of a deployment (%s)", path, type(error).__name__)
        yield from sorted(found, key=lambda record: record.started_at)

    def prune(self) -> None:
        """Remove records of services that have been dead for a week, and logs without a record that are as old."""
        before = time.time() - KEPT
        for record in self:
            if record.state is DeploymentState.DEAD and _last_change(Path(record.log)) < before:
                self.forget(record.deploy_id)
        for path in self.folder.iterdir():
            deploy_id = path.name.partition(".")[0]
            orphan = path.suffix in (".log", ".1", ".draft") and not self._path(deploy_id).exists()
            if ID.fullmatch(deploy_id) and orphan and _last_change(path) < before:
                path.unlink(missing_ok=True)

    def _path(self, deploy_id: str) -> Path:
        return self.folder / f"{deploy_id}.json"


def _last_change(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
