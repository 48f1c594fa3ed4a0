"""The servers of the end-to-end tests."""

from ..e2e.conftest import server, start

__all__ = ["server", "start"]
