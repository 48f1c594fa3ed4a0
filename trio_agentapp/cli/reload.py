"""Serves an app anew whenever its code changes. The socket stays open, so that no request is refused meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import trio

from ..app.loading import is_file, resolved
from ..errors import ConfigurationError
from ..server.config import BindError, ServerConfig, bind_address
from ..server.workers import READY, Master
from .environment import before_env_file
from .exits import ExitCode, say

__all__ = ["keep_reloading"]


def keep_reloading(app: str, host: str, port: int, *, tls: bool) -> ExitCode:
    """Serve `app` in a worker process, which is replaced after each change.

    Raises:
        ConfigurationError: the extra is missing.
    """
    try:
        import watchfiles
    except ImportError:
        raise ConfigurationError("--reload needs an extra: pip install 'trio-agentapp[reload]'") from None
    config = ServerConfig()
    config.bind = [bind_address(host, port)]
    try:
        listener = config.listen()
    except BindError as error:
        say(f"trio-agentapp: {error}")
        return ExitCode.FAILED
    url = f"{'https' if tls else 'http'}://{bind_address(*listener.getsockname()[:2])}"
    try:
        with Master.open(listener) as master:
            trio.run(_Reloader(master, app, url, _folder(app), watchfiles).run)
    finally:
        config.close_sockets()
    return ExitCode.OK


def _folder(app: str) -> Path:
    """The folder to watch: that of the file, or the current one."""
    place = resolved(app).partition(":")[0]
    return Path(place).resolve().parent if is_file(place) else Path.cwd()


class _Reloader:
    def __init__(self, master: Master, app: str, url: str, folder: Path, watchfiles: Any) -> None:
        self._master = master
        self._app = app
        self._url = url
        self._folder = folder
        self._watchfiles = watchfiles
        self._changed = trio.Event()

    async def run(self) -> None:
        arguments = [word for word in sys.orig_argv[1:] if word != "--reload"]
        async with trio.open_nursery() as nursery:
            await nursery.start(self._master.pass_signals_on)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._announce)
            while not self._master.stopping.is_set():
                self._changed = trio.Event()
                code = await self._master.run_worker(arguments, before_env_file())
                if not self._master.stopping.is_set() and not self._changed.is_set():
                    say(f"{self._app} ended with code {code}; it is started again after the next change")
                    await self._changed.wait()
            nursery.cancel_scope.cancel(reason="stopped by a signal")

    async def _watch(self) -> None:
        """Stop the worker at each change. A change during its drain hurries it."""
        wanted = self._watchfiles.PythonFilter(extra_extensions=(".env",))
        # The thread of watchfiles checks this event often, and a cancellation only every few seconds.
        stop = self._master.stopping
        async for changes in self._watchfiles.awatch(
            self._folder, watch_filter=wanted, debounce=400, stop_event=stop
        ):
            path = Path(sorted(path for _, path in changes)[0])
            say(f"{path.relative_to(self._folder)} has changed; {self._app} is started anew")
            self._changed.set()
            self._master.terminate()
        self._changed.set()

    async def _announce(self) -> None:
        while True:
            if await self._master.next_report() == READY:
                say(f"{self._app} is ready on {self._url} (Ctrl-C stops it; changes in {self._folder} reload it)")
