"""Serving anew when the code changes: the address stays ours, so that no request is refused meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trio

from ..app.loading import is_file, resolved
from ..errors import ConfigurationError
from ..server.loop import BindError, ServerConfig, bind_address
from ..server.signals import note_ignored, signals_to_take
from ..server.workers import READY, VARIABLE
from .environment import before_env_file
from .exits import ExitCode, say

__all__ = ["keep_reloading"]


def keep_reloading(app: str, host: str, port: int, *, tls: bool) -> ExitCode:
    """Serve `app` in a process of its own, which is replaced after each change.

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
        [listener] = config.create_sockets().insecure_sockets
        listener.listen(config.backlog)
    except BindError as error:
        say(f"trio-agentapp: {error}")
        return ExitCode.FAILED
    with ExitStack() as stack:
        stack.callback(config.close_sockets)
        pipes = [os.pipe() for _ in range(2)]
        for end in (end for pipe in pipes for end in pipe):
            stack.callback(os.close, end)
        url = f"{'https' if tls else 'http'}://{bind_address(*listener.getsockname()[:2])}"
        (ready, tell_ready), (life, _) = pipes
        reloader = _Reloader(app, url, _folder(app), watchfiles, ready, (listener.fileno(), tell_ready, life))
        trio.run(reloader.run)
    return ExitCode.OK


def _folder(app: str) -> Path:
    """What to watch: the folder of the file, or the current one."""
    place = resolved(app).partition(":")[0]
    return Path(place).resolve().parent if is_file(place) else Path.cwd()


class _Reloader:
    def __init__(
        self, app: str, url: str, folder: Path, watchfiles: Any, ready: int, handed: tuple[int, int, int]
    ) -> None:
        self._app = app
        self._url = url
        self._folder = folder
        self._watchfiles = watchfiles
        self._ready = ready
        self._handed = handed
        self._process: trio.Process | None = None
        self._changed = trio.Event()
        self._stopping = trio.Event()

    async def run(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *signals_to_take()) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._announce)
                while not self._stopping.is_set():
                    self._changed = trio.Event()
                    code = await self._serve_once()
                    if self._stopping.is_set():
                        break
                    if not self._changed.is_set():
                        say(f"{self._app} ended with code {code}; it is started again after the next change")
                        await self._changed.wait()
                nursery.cancel_scope.cancel(reason="told to stop")

    async def _serve_once(self) -> int:
        arguments = [word for word in sys.orig_argv[1:] if word != "--reload"]
        self._process = process = await trio.lowlevel.open_process(
            [sys.executable, *arguments],
            env={**before_env_file(), VARIABLE: ",".join(map(str, self._handed))},
            pass_fds=self._handed,
            stdin=subprocess.DEVNULL,
            # A group of its own: Ctrl-C in a terminal reaches us, and from here the server.
            process_group=0,
        )
        try:
            return await process.wait()
        finally:
            self._process = None
            if process.returncode is None:
                process.kill()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if note_ignored(number, stopping=self._stopping.is_set()):
                continue
            self._stopping.set()
            self._changed.set()
            self._end()

    async def _watch(self) -> None:
        """Each change ends the server; one that comes while it still drains hurries it."""
        wanted = self._watchfiles.PythonFilter(extra_extensions=(".env",))
        # Its thread looks at the event, and at a cancellation only every few seconds.
        watched = self._watchfiles.awatch(
            self._folder, watch_filter=wanted, debounce=400, stop_event=self._stopping
        )
        async for changes in watched:
            path = Path(sorted(path for _, path in changes)[0])
            say(f"{path.relative_to(self._folder)} has changed; {self._app} is started anew")
            self._changed.set()
            self._end()

    async def _announce(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._ready)
            if os.read(self._ready, 1) == READY:
                say(f"{self._app} is ready on {self._url} (Ctrl-C stops it; changes in {self._folder} reload it)")

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
