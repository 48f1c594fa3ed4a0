"""The services that run in threads of this process, by id. Apart, so that a look at it loads no web server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .thread import ThreadService

__all__ = ["SERVICES"]

SERVICES: dict[str, ThreadService] = {}
