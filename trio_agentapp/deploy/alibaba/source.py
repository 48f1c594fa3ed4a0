"""What is deployed: an app, a file or folder, or a finished wheel."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from ...errors import ConfigurationError
from ..whole_file import whole_file
from .bundle import bundle_of, default_name

if TYPE_CHECKING:
    from ...app import AgentApp

__all__ = ["Source"]


class Source:
    """The source of a deployment.

    Raises:
        ConfigurationError: there is none, or the wheel does not exist.
    """

    def __init__(
        self,
        app: AgentApp | None,
        entrypoint: str | None,
        project_dir: str | os.PathLike[str] | None,
        wheel: str | os.PathLike[str] | None,
    ) -> None:
        folder = None if project_dir is None else os.fspath(project_dir)
        if folder is not None and entrypoint is not None:
            entrypoint, folder = os.path.join(folder, entrypoint), None
        source = entrypoint or folder or app
        self.wheel_path = None if wheel is None else Path(wheel)
        if self.wheel_path is not None and not self.wheel_path.is_file():
            raise ConfigurationError(f"there is no wheel {self.wheel_path}")
        if self.wheel_path is None and source is None:
            raise ConfigurationError("there is nothing to deploy: give an app or an entrypoint")
        self.source = source or ""
        if self.wheel_path is not None:
            self.name = self.wheel_path.name.partition("-")[0].removeprefix("agentapp_")
        else:
            self.name = default_name(self.source)

    async def wheel(self, folder: Path, report: Callable[[str], object], **options: Any) -> Path:
        if self.wheel_path is not None:
            return self.wheel_path
        report("Making a wheel of the app")
        name, content = await trio.to_thread.run_sync(partial(bundle_of, self.source, **options))
        with whole_file(folder / name) as file:
            file.write(content)
        return folder / name
