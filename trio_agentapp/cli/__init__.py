"""The command line, `trio-agentapp`.

Each command has a module, which imports what it needs when it is called: `--help` loads no Trio and no web server.
"""

from .program import main, program

__all__ = ["main", "program"]
