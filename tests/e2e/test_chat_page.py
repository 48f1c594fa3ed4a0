"""The chat page in a real browser: what a person sees, does, and what a hostile message cannot do."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .conftest import Start
from .harness import Server

playwright_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")

playwright_api.expect.set_options(timeout=20_000)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

SCRIPT = "window.executed = true"
PAYLOADS = (
    "<script>{js}</script>",
    "<img src=x onerror='{js}'>",
    "<svg onload='{js}'><animate onbegin='{js}' attributeName=x dur=1s></svg>",
    '<iframe srcdoc="<script>parent.{js}</script>"></iframe>',
    "<a href='javascript:{js}'>click</a>",
    "<details open ontoggle='{js}'>x</details>",
    "<math><mtext><table><mglyph><style><img src=x onerror='{js}'>",
    "<base href='https://example.invalid/'>",
    "<style>@import 'https://example.invalid/a.css';</style>",
    "<object data='javascript:{js}'></object>",
    "<form action='javascript:{js}'><button>x</button></form>",
    "[click](javascript:{js})",
    "[click](JaVaScRiPt:{js})",
    "[click]( javascript:{js})",
    "[click](\tjava\nscript:{js})",
    "[click](data:text/html,<script>{js}</script>)",
    "[click](vbscript:{js})",
    "![x](javascript:{js})",
    '![x](https://example.invalid/x.png" onerror="{js})',
    "<javascript:{js}>",
    "[x]: javascript:{js}\n\n[x]",
    "`<img src=x onerror='{js}'>`",
    "```html\n<img src=x onerror='{js}'>\n```",
    '```" onmouseover="{js}\nx\n```',
    "| <img src=x onerror='{js}'> |\n|---|\n| <svg onload='{js}'> |",
    "> <img src=x onerror='{js}'>",
    "- <img src=x onerror='{js}'>",
    "# <img src=x onerror='{js}'>",
    "**<img src=x onerror='{js}'>**",
    "&lt;img src=x onerror='{js}'&gt;",
    "\\<img src=x onerror='{js}'>",
    "{{{{constructor.constructor('{js}')()}}}}",
    "${{{js}}}",
    "\u202e<img src=x onerror='{js}'>",
    "<img\x0csrc=x\x0conerror='{js}'>",
    "<IMG SRC=x ONERROR='{js}'>",
    "<x onclick='{js}' style='position:fixed;inset:0'>x</x>",
    "[a](https://example.invalid/?q=\"><img src=x onerror='{js}'>)",
    'https://example.invalid/"onmouseover="{js}',
    "<!--<img src=\"--><img src=x onerror='{js}'>",
)
ALLOWED = {
    *(
        "A",
        "BLOCKQUOTE",
        "BUTTON",
        "CODE",
        "DEL",
        "DIV",
        "EM",
        "H3",
        "H4",
        "H5",
        "H6",
        "HR",
        "LI",
        "OL",
        "P",
        "PRE",
    ),
    *("SPAN", "STRONG", "TABLE", "TBODY", "TD", "TH", "THEAD", "TR", "UL"),
}
AROUND = ("{}", "Text before {} and after", "> {}", "1. {}", "**{}**")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    context.set_default_timeout(20_000)
    yield context
    context.close()


def opened(context: Any, server: Server | Line, fragment: str = "") -> Any:
    """The page, with every violation and error that it reports."""
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda entry: page.faults.append(entry.text) if entry.type == "error" else None)
    page.goto(f"http://127.0.0.1:{server.port}/chat{fragment}")
    return page


def send(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def expect(locator: Any) -> Any:
    return playwright_api.expect(locator)


def test_a_chat(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    assert page.title() == "Friday <b>"
    send(page, "tool")
    expect(page.locator("h3", has_text="Stars")).to_be_visible()
    expect(page.locator("strong", has_text="seven")).to_be_visible()
    assert page.locator(".markdown td").all_inner_texts() == ["1", "2"]
    assert page.locator(".code pre").inner_text() == "x = 1"
    assert page.locator("details.reasoning").get_attribute("open") is None
    card = page.locator("details.call")
    expect(card.locator(".state")).to_have_text("done")
    card.locator("summary").click()
    assert json.loads(card.locator("pre").nth(0).inner_text()) == {"direction": "up"}
    assert json.loads(card.locator("pre").nth(1).inner_text()) == {"stars": 7}
    expect(page.locator(".session")).to_have_text("tool")
    page.reload()
    expect(page.locator("article.user .markdown")).to_have_text("tool")
    expect(page.locator("h3", has_text="Stars")).to_be_visible()
    expect(page.locator("details.call .state")).to_have_text("done")
    page.get_by_role("button", name="Edit").click()
    assert page.get_by_label("Message", exact=True).input_value() == "tool"
    assert page.faults == []


def test_a_stop_with_escape_and_with_the_button(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    for way in ("key", "button"):
        send(page, "count")
        expect(page.locator(".markdown").last).to_contain_text("3 ")
        if way == "key":
            page.keyboard.press("Escape")
        else:
            page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("status")).to_contain_text(re.compile(r"Stopped after \d+ ms"))
        expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert page.faults == []


def test_a_reload_in_mid_stream_and_a_second_tab(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    send(page, "count")
    expect(page.locator(".markdown").last).to_contain_text("3 ")
    other = opened(context, server, page.evaluate("location.hash"))
    expect(other.locator(".markdown").last).to_contain_text("3 ")
    assert other.get_by_role("button", name="Stop").is_visible()
    page.reload()
    whole = " ".join(map(str, range(40)))
    for each in (page, other):
        expect(each.locator("article.agent .markdown")).to_have_text(whole)
        expect(each.locator("article.user")).to_have_count(1)
    # What one tab begins, the other one shows.
    send(other, "hello")
    expect(page.locator("article.agent .markdown").last).to_have_text("You said hello with 1 parts")
    assert page.faults == other.faults == []


class Line:
    """A way to a server that can be cut."""

    def __init__(self, target: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._target = target
        self._ends: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with ThreadPoolExecutor(64) as pool, contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                pool.submit(self._carry, near, far)
                pool.submit(self._carry, far, near)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join()


def test_a_message_before_the_page_is_ready(start: Start, context: Any) -> None:
    server = start("page_agent")
    held: list[Any] = []
    context.route("**/runs?limit=100*", lambda route: held.append(route), times=1)
    page = opened(context, server)
    send(page, "hello")
    page.keyboard.press("Enter")
    held[0].continue_()
    expect(page.locator(".session[aria-current]")).to_have_text("hello")
    expect(page.locator("article.agent").last).to_contain_text("You said hello")
    expect(page.locator("article.user .markdown")).to_have_text(["hello"])
    assert page.faults == []


def test_a_connection_that_breaks_off(start: Start, context: Any) -> None:
    server = start("page_agent")
    line = Line(server.port)
    try:
        page = opened(context, line)
        send(page, "count")
        for seen in ("3 ", "15 "):
            expect(page.locator(".markdown").last).to_contain_text(seen)
            line.cut()
        expect(page.locator("article.agent .markdown")).to_have_text(" ".join(map(str, range(40))))
        # The page says so in its console, too.
        assert any("ERR_" in fault for fault in page.faults)
    finally:
        line.close()


@pytest.mark.parametrize(("button", "end"), [("Approve", "deleted"), ("Deny", "kept")])
def test_an_approval(start: Start, context: Any, button: str, end: str) -> None:
    server = start("page_agent")
    page = opened(context, server)
    send(page, "ask")
    expect(page.locator(".question")).to_contain_text("Delete all files?")
    page.reload()
    page.get_by_role("button", name=button).dblclick()
    expect(page.locator("article.agent").last).to_contain_text(end)
    expect(page.locator("article.error")).to_have_count(0)
    expect(page.locator(".question")).to_contain_text("Answered: " + ("yes" if end == "deleted" else "no"))
    assert page.faults == []


def test_errors_that_a_person_understands(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    send(page, "fail")
    expect(page.locator("article.error")).to_contain_text("The agent failed.")
    page.set_input_files("#attach", {"name": "a.bin", "mimeType": "x/y", "buffer": b"0" * 800_000})
    expect(page.locator("article.error").last).to_contain_text("a.bin is larger than 700 KiB")
    page.set_input_files("#attach", {"name": "note.txt", "mimeType": "text/plain", "buffer": b"hello"})
    send(page, "with a file")
    expect(page.locator("article.agent").last).to_contain_text("with 2 parts")
    server.kill()
    send(page, "anybody?")
    expect(page.get_by_role("status")).to_contain_text("The connection is lost")


def test_a_token(start: Start, context: Any) -> None:
    server = start("page_agent", guarded=True)
    page = opened(context, server)
    page.locator("#token").fill("ann")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    send(page, "hello")
    expect(page.locator("article.agent").last).to_contain_text("You said hello")


def test_nothing_of_a_hostile_message_executes(start: Start, context: Any) -> None:
    server = start("page_agent")
    texts = [around.format(payload.format(js=SCRIPT)) for payload in PAYLOADS for around in AROUND]
    assert len(texts) == 200
    (server.folder / "hostile.json").write_text(json.dumps(texts))
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page = opened(context, server)
    send(page, "hostile")
    expect(page.get_by_role("status")).to_have_text("The answer is complete.")
    expect(page.locator("article.agent")).to_have_count(200)
    expect(page.locator("article.agent .markdown").last).not_to_be_empty()
    for _ in range(2):
        assert page.evaluate("window.executed") is None
        links = page.evaluate("[...document.querySelectorAll('#log a')].map((link) => link.href)")
        assert all(re.match("https?:|mailto:", link) for link in links), links
        made = page.evaluate(
            "[...new Set([...document.querySelectorAll('#log .markdown *')].map((node) => node.tagName))]"
        )
        assert set(made) <= ALLOWED
        page.reload()
        expect(page.locator("article.agent")).to_have_count(200)
    assert [url for url in requests if not url.startswith(f"http://127.0.0.1:{server.port}/")] == []
    assert page.faults == []


def test_a_phone_and_both_themes(start: Start, browser: Any, tmp_path: Path) -> None:
    server = start("page_agent")
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 360, "height": 640}, color_scheme=scheme)
        page = opened(context, server)
        send(page, "tool")
        expect(page.locator("h3", has_text="Stars")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        page.get_by_role("button", name="Show the list of chats").click()
        expect(page.get_by_role("button", name="New chat")).to_be_visible()
        page.screenshot(path=tmp_path / f"phone-{scheme}.png")
        context.close()


def test_the_tree_of_a_run(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    page.get_by_role("button", name="Tasks").click()
    expect(page.locator("#tree")).to_contain_text("Nothing runs.")
    send(page, "ask")
    expect(page.locator("#tree")).to_contain_text("chat")
    page.get_by_role("button", name="Deny").click()
    expect(page.locator("#tree")).to_contain_text("Nothing runs.")
