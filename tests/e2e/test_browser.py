"""The guide for browsers in a real one: its code on a page of another origin, with a network that breaks off."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from .conftest import Start
from .harness import Server

CHROMIUM = shutil.which("chromium")
PAGE = Path(__file__).parents[2] / "docs/how-to/use-from-a-browser.md"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

TRY = """
const report = {};
try {
  {
    %s
    report.story = document.body.textContent;
    report.tries = performance.getEntriesByType("resource").filter(({name}) => name.includes("/stream")).length;
  }
  const run = await start("Another one");
  let receipt;
  await follow(run, (event) => {
    if (event.delta) receipt ??= stop(run);
    report.end = event.status;
  });
  report.receipt = await receipt;
  const error = await start(5).catch((error) => error);
  report.refusal = error.message;
} catch (error) {
  report.error = String(error);
}
const talked = talk("And one more", (event) => {
  if (event.delta) talked.stop();
});
report.socket = await talked.done.catch(String);
await fetch("/report", {method: "POST", body: JSON.stringify(report)});
"""


def write_page(site: Server, agent: str) -> None:
    """A page with the blocks of the guide: those that define, the one that uses them, and the rest of the test."""
    blocks = re.findall(r"(?s)```javascript\n(.*?)```", PAGE.read_text())
    definitions = [block for block in blocks if re.search(r"^(async )?function ", block, re.MULTILINE)]
    [usage] = [block for block in blocks if block not in definitions]
    script = "".join(definitions) + TRY % usage
    assert script.count("http://127.0.0.1:8090") == 1
    script = script.replace("http://127.0.0.1:8090", agent)
    # The text of the script is not to be the text of the page's body.
    head = f'<!doctype html><head><script type="module">{script}</script></head>'
    (site.folder / "page.html").write_text(f"{head}<body></body>")


async def visit(site: Server, host: str, profile: Path) -> dict[str, Any]:
    """Open the page, and return what it reports."""
    (site.folder / "marks").unlink(missing_ok=True)
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"http://{host}/page"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await site.wait_until(lambda: site.marks, "report of the page", seconds=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    told: dict[str, Any] = json.loads(site.marks[0])
    return told


@asynccontextmanager
async def breaking_once(server: Server, after: bytes) -> AsyncIterator[str]:
    """A way to the server that breaks off the first connection that has carried `after`."""
    left = [after]

    async def relay(source: trio.SocketStream, target: trio.SocketStream, cut: trio.CancelScope) -> None:
        seen = b""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await target.send_all(data)
                seen = seen[-len(after) :] + data
                if left and left[0] in seen:
                    left.clear()
                    break
        cut.cancel(reason="one side has ended")

    async def connection(stream: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as behind, trio.open_nursery() as nursery:
            nursery.start_soon(relay, stream, behind, nursery.cancel_scope)
            nursery.start_soon(relay, behind, stream, nursery.cancel_scope)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connection, 0)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_guide_in_a_browser(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    profiles = tmp_path_factory.mktemp("profiles")
    site = start("pages")
    agent = start("pages", cors_origins=[f"http://127.0.0.1:{site.port}"])
    async with breaking_once(agent, b'"text":"7 "') as url:
        write_page(site, url)
        told = await visit(site, f"127.0.0.1:{site.port}", profiles / "allowed")
        assert told["story"] == "".join(f"{number} " for number in range(40)), told
        assert told["tries"] == 1
        assert told["end"] == "canceled"
        assert (told["receipt"]["accepted"], told["receipt"]["state"]) == (True, "STOPPED")
        assert "content" in told["refusal"]
        assert told["socket"] == "STOPPED"
        # The same page by another name is of another origin.
        told = await visit(site, f"localhost:{site.port}", profiles / "refused")
        assert told == {
            "error": "TypeError: Failed to fetch",
            "socket": "Error: closed with 4403 this origin is not allowed",
        }
