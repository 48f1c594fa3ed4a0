"""The page at /docs in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from .conftest import Start

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """A session of a Chromium under its driver. Skips where one is missing, or they do not fit each other."""
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None or shutil.which("chromedriver") is None:
        pytest.skip("there is no Chromium with its chromedriver here")
    with browser(program, tmp_path) as client:
        yield client


@contextlib.contextmanager
def browser(program: str, folder: Path) -> Iterator[httpx.Client]:
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert driver.stdout is not None
        port = next(
            int(found[1])
            for line in driver.stdout
            if (found := re.search(rb"started successfully on port (\d+)", line)) is not None
        )
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags, "binary": program},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            made = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
            if "error" in made:
                pytest.skip(f"the browser does not start: {made['message'].splitlines()[-1]}")
            client.base_url = f"http://127.0.0.1:{port}/session/{made['sessionId']}"
            try:
                yield client
            finally:
                # The end of a session does not always end its browser.
                os.kill(made["capabilities"]["goog:processID"], signal.SIGKILL)
    finally:
        driver.terminate()
        driver.wait()
        if driver.stdout is not None:
            # Not read to its end: the browser has it, too.
            driver.stdout.close()


TRY = """
const [card, fields] = arguments;
const form = document.querySelector(card + " form");
for (const [name, value] of Object.entries(fields)) form.querySelector("[data-name=" + name + "]").value = value;
form.requestSubmit();
"""
SHOWN = """
const card = document.querySelector(arguments[0]);
return [card.querySelector(".status").textContent, card.querySelector("pre").textContent];
"""


async def test_the_docs_page_in_a_browser(start: Start, client: httpx.Client) -> None:
    """It lists, tries, streams and hangs up, and its own policy stops nothing of it."""
    server = start("endpoints")
    url = f"http://127.0.0.1:{server.port}/docs"

    def look() -> None:
        def run(script: str, *args: Any) -> Any:
            return client.post("/execute/sync", json={"script": script, "args": args}).json()["value"]

        def wait_for(card: str, text: str) -> list[str]:
            shown: list[str] = []
            for _ in range(200):
                shown = run(SHOWN, card)
                if text in shown[0] + shown[1]:
                    return shown
                trio.from_thread.run(trio.sleep, 0.05)
            raise AssertionError(f"no {text!r} in {shown}")

        client.post("/url", json={"url": url})
        for _ in range(200):
            if run("return document.querySelectorAll('details.card').length"):
                break
            trio.from_thread.run(trio.sleep, 0.05)
        assert run("return document.title") == "Endpoints"
        paths = run("return [...document.querySelectorAll('#side a')].map((link) => link.textContent)")
        assert "POST/items/{number}" in paths
        run(TRY, "#post_items_by_number", {"number": "7", "words": "a, b"})
        status, answer = wait_for("#post_items_by_number", '"name": "text"')
        assert status.startswith("200")
        assert json.loads(answer) == [7, ["a", "b"], {"name": "text"}]
        run(TRY, "#post_items_by_number", {"number": "x"})
        wait_for("#post_items_by_number", "must be a whole number")
        run(TRY, "#get_ticks", {})
        wait_for("#get_ticks", "data: 2")
        run("document.querySelector('#get_ticks button.quiet').click()")
        wait_for("#get_ticks", "(hung up)")
        asked = run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(each.startswith(f"http://127.0.0.1:{server.port}/") for each in asked)
        logged = client.post("/se/log", json={"type": "browser"}).json()["value"]
        assert not [entry for entry in logged if "422" not in entry["message"]]

    await trio.to_thread.run_sync(look)
    await server.wait_mark("ticks closed")
