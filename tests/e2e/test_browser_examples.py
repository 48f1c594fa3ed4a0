"""The pages of examples/browser in a real browser, from another origin than the agent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .conftest import Start
from .test_chat_page import CHROMIUM, browser, context, expect

__all__ = ["browser", "context"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PAGES = Path(__file__).parents[2] / "examples/browser"
WHOLE = " ".join(map(str, range(40)))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(PAGES))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def ask(page: Any, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


@pytest.mark.parametrize("name", ["fetch", "eventsource", "websocket"])
def test_a_page_of_another_origin(start: Start, context: Any, origin: str, name: str) -> None:
    source = (PAGES / f"{name}.html").read_text()
    assert len(source.splitlines()) < 80
    server = start("page_agent", cors_origins=[origin])
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda entry: faults.append(entry.text) if entry.type in ("error", "warning") else None)
    page.goto(f"{origin}/{name}.html?agent=http://127.0.0.1:{server.port}")
    ask(page, "count")
    expect(page.locator("#answer")).to_contain_text("3 ")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    ask(page, "count")
    expect(page.locator("#answer")).to_have_text(WHOLE)
    expect(page.get_by_role("status")).to_have_text("completed")
    ask(page, "fail")
    expect(page.get_by_role("status")).not_to_have_text("completed")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    assert faults == []


@pytest.mark.parametrize("name", ["fetch", "eventsource", "websocket"])
def test_a_page_of_an_origin_that_is_not_listed(start: Start, context: Any, origin: str, name: str) -> None:
    server = start("page_agent", cors_origins=["http://127.0.0.1:1"])
    page = context.new_page()
    page.goto(f"{origin}/{name}.html?agent=http://127.0.0.1:{server.port}")
    ask(page, "count")
    fault = "closed with 4403" if name == "websocket" else "Failed to fetch"
    expect(page.get_by_role("status")).to_contain_text(fault)
    assert page.locator("#answer").text_content() == ""
