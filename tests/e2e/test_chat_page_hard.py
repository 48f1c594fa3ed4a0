"""The chat page under what is hard for it: much text, many messages, a keyboard only, prefixes, restarts, axe."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.node_packages import node_package

from .conftest import Start
from .test_chat_page import CHROMIUM, Line, browser, context, expect, opened, send

__all__ = ["browser", "context"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

AXE = "4.14.1"
COMPLETE = "The answer is complete."


def answered(page: Any, text: str) -> None:
    send(page, text)
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text(COMPLETE)


def is_at_end(page: Any) -> None:
    page.wait_for_function(
        "(() => { const log = document.querySelector('#log');"
        " return log.scrollHeight - log.scrollTop - log.clientHeight < 80; })()"
    )


def test_very_long_answers(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    answered(page, "long")
    expect(page.locator("article.agent h4")).to_have_count(300)
    is_at_end(page)
    # Marks without an end: looking for it took the square of the length.
    answered(page, "one line")
    text = page.locator("article.agent .markdown").last.text_content()
    assert text == ("word *a **b `c [d](e " * 144 * 300)
    answered(page, "code")
    assert page.locator(".code pre").text_content().endswith("x = 9999  # a line of code\n")
    is_at_end(page)
    page.reload()
    expect(page.locator("article")).to_have_count(6)
    is_at_end(page)
    assert page.faults == []


def test_texts_that_would_keep_the_page_busy(start: Start, context: Any) -> None:
    server = start("page_agent")
    knots = [
        "x" + "`" * 19_000,  # The third power of the length, where a pattern can begin anywhere in it.
        "x" + " ".join("`" * length for length in range(1, 190)),
        "# " + "#" * 200_000 + "x",
        "```" + "a" * 200_000 + "`",
        "a|b\n" + " " * 200_000 + "x",
        "|".join("a" * 100_000) + "\n-|-\n",
        "> ***\n" * 130_000,  # More blocks than a call can have arguments.
        "- one\r\n- two\r\n\r\n## Title ##\r\n",
    ]
    (server.folder / "hostile.json").write_text(json.dumps(knots))
    page = opened(context, server)
    answered(page, "hostile")
    expect(page.locator("article.agent li")).to_have_text(["one", "two"])
    expect(page.locator("article.agent h4")).to_have_text("Title")
    expect(page.locator("article.agent hr")).to_have_count(130_000)
    assert page.faults == []


def test_a_picture_of_another_server(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    answered(page, "http://example.invalid/a.png")
    # Its policy keeps the page from loading it, so it is no broken picture.
    expect(page.locator("article.agent a")).to_have_attribute("href", "http://example.invalid/a.png")
    assert page.faults == []
    answered(page, "/chat/own.png")
    expect(page.locator("img")).to_have_attribute("src", f"http://127.0.0.1:{server.port}/chat/own.png")


def test_many_tool_calls_and_a_large_picture(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    answered(page, "calls")
    expect(page.locator("details.call[data-state=done]")).to_have_count(200)
    is_at_end(page)
    answered(page, "picture")
    page.wait_for_function("document.querySelector('img')?.naturalWidth === 3000")
    is_at_end(page)
    assert page.locator("img").bounding_box()["height"] <= 420
    assert page.faults == []


COUNT_DRAWN = """
window.drawn = 0;
new MutationObserver((changes) => {
  for (const {addedNodes} of changes) for (const node of addedNodes) window.drawn += node.textContent.length;
}).observe(document.querySelector("#log"), {subtree: true, childList: true});
"""


def test_long_arguments_of_a_call(start: Start, context: Any) -> None:
    """Each piece of them is drawn once, as it comes, and all of them again when they are complete."""
    server = start("page_agent")
    page = opened(context, server)
    page.evaluate(COUNT_DRAWN)
    answered(page, "long call")
    shown = page.locator("details.call pre").text_content()
    assert json.loads(shown) == {"text": "word " * 20_000}
    assert 2 * len(shown) <= page.evaluate("window.drawn") < 3 * len(shown)
    assert page.faults == []


def test_five_hundred_messages(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.evaluate("location.hash = 'much'")
    user = page.evaluate("localStorage.getItem('agentapp.user')")
    request = {"input": [{"role": "user", "content": "history"}], "session_id": "much", "user_id": user}
    assert context.request.post(f"http://127.0.0.1:{server.port}/process", data=request).ok
    page.reload()
    expect(page.locator("article.agent")).to_have_count(500)
    is_at_end(page)
    assert page.faults == []


def test_the_chat_of_another_user(start: Start, context: Any, browser: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    answered(page, "a secret")
    fragment = page.evaluate("location.hash")
    other_context = browser.new_context()
    other = opened(other_context, server, fragment)
    expect(other.get_by_role("heading", name="New chat")).to_be_visible()
    answered(other, "hello")
    assert other.locator("article.user .markdown").all_inner_texts() == ["hello"]
    page.reload()
    expect(page.locator("article.user")).to_have_count(1)
    assert page.faults == other.faults == []
    other_context.close()


def test_a_server_that_restarts(start: Start, context: Any, tmp_path: Any) -> None:
    state = {"state_url": f"sqlite:///{tmp_path}/state.db"}
    server = start("page_agent", **state)
    page = opened(context, server)
    answered(page, "before")
    send(page, "count")
    expect(page.locator(".markdown").last).to_contain_text("3 ")
    server.kill()
    expect(page.get_by_role("status")).to_contain_text("The connection is lost. Trying again")
    start("page_agent", env={"PORT": str(server.port)}, **state)
    expect(page.locator("article.error")).to_have_text(re.compile("This answer is not known any more."))
    answered(page, "after")
    page.reload()
    expect(page.locator("article.user").first).to_contain_text("before")
    expect(page.locator("article.user").last).to_contain_text("after")


class PrefixLine(Line):
    """A proxy that takes the prefix `/api/agent` off."""

    def _carry(self, source: Any, target: Any) -> None:
        class Rewriting:
            def recv(self, size: int) -> bytes:
                return re.sub(rb"^([A-Z]+) /api/agent/", rb"\1 /", source.recv(size))

        super()._carry(Rewriting() if source.getsockname()[1] == self.port else source, target)  # type: ignore[arg-type]


@pytest.mark.parametrize("guarded", [False, True])
def test_behind_a_prefix(start: Start, context: Any, guarded: bool) -> None:
    server = start("page_agent", guarded=guarded)
    line = PrefixLine(server.port)
    try:
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"http://127.0.0.1:{line.port}/api/agent/chat")
        if guarded:
            expect(page.get_by_role("dialog")).to_be_visible()
            page.locator("#token").fill("ann")
            page.get_by_role("button", name="Use it").click()
            expect(page.get_by_role("dialog")).to_be_hidden()
        answered(page, "tool")
        expect(page.locator("details.call .state")).to_have_text("done")
        page.reload()
        expect(page.locator("article.user")).to_have_count(1)
        assert all("/api/agent/" in url or url.startswith("data:") for url in requests), requests
    finally:
        line.close()


def test_a_keyboard_only(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("tool")
    page.keyboard.press("Enter")
    expect(page.locator("h3", has_text="Stars")).to_be_visible()
    focused = "document.activeElement.textContent.trim() || document.activeElement.id"
    reached = []
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        reached.append(page.evaluate(focused))
    assert "Copy" in reached
    assert any(each.startswith("look_at_the_sky") for each in reached)
    page.locator("details.call summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("details.call pre").first).to_be_visible()
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("ask")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    while page.evaluate(focused) != "Approve":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.locator("article.agent").last).to_contain_text("deleted")
    page.keyboard.press("Escape")
    assert page.faults == []


def test_a_message_is_replaced_while_it_is_answered(start: Start, context: Any) -> None:
    server = start("page_agent")
    page = opened(context, server)
    answered(page, "hello")
    send(page, "count")
    expect(page.locator(".markdown").last).to_contain_text("3 ")
    send(page, "too early")
    expect(page.get_by_role("status")).to_contain_text("still being written")
    assert page.get_by_label("Message", exact=True).input_value() == "too early"
    page.get_by_role("button", name="Edit").last.click()
    page.get_by_label("Message", exact=True).fill("rather this")
    page.get_by_role("button", name="Replace").click()
    expect(page.locator("article.agent").last).to_contain_text("You said rather this")
    for _ in range(2):
        expect(page.locator("article.user .markdown")).to_have_text(["hello", "rather this"])
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        page.reload()
    assert page.faults == []


def test_an_earlier_message_is_edited(start: Start, context: Any) -> None:
    """What is sent begins a new chat with the messages before it. The old chat stays."""
    server = start("page_agent")
    page = opened(context, server)
    answered(page, "hello")
    answered(page, "second")
    field, texts = page.get_by_label("Message", exact=True), page.locator("article.user .markdown")
    page.get_by_role("button", name="Edit").last.click()
    assert field.input_value() == "second"
    expect(page.get_by_role("button", name="Send in a new chat")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    page.get_by_role("button", name="Edit").last.click()
    field.fill("")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    page.get_by_role("button", name="Edit").last.click()
    field.fill("how many")
    page.get_by_role("button", name="Send in a new chat").click()
    for _ in range(2):
        expect(page.locator("article.agent").last).to_contain_text("3 messages")
        expect(texts).to_have_text(["hello", "how many"])
        expect(page.locator("article.agent")).to_have_count(2)
        page.reload()
    page.locator(".session", has_text="hello").click()
    expect(texts).to_have_text(["hello", "second"])
    page.get_by_role("button", name="Edit").first.click()
    field.fill("count")
    page.keyboard.press("Enter")
    expect(page.locator(".markdown").last).to_contain_text("3 ")
    page.reload()
    expect(texts).to_have_text(["count"])
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".session")).to_have_count(3)
    assert page.faults == []


def test_an_address_that_is_spelt_wrong(start: Start, context: Any) -> None:
    page = opened(context, start("page_agent"), "#%E0%A4%A")
    answered(page, "hello")
    expect(page.locator("article.agent")).to_contain_text("You said hello")
    assert page.faults == []


def test_chats_of_another_browser_have_titles(start: Start, browser: Any) -> None:
    server = start("page_agent", guarded=True)
    for first in (True, False):
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/chat")
        page.locator("#token").fill("ann")
        page.get_by_role("button", name="Use it").click()
        if first:
            answered(page, "Plan a trip to Rome")
        expect(page.locator(".session")).to_have_text(["Plan a trip to Rome"])
        page.locator(".session").click()
        expect(page.get_by_role("heading", name="Plan a trip to Rome")).to_be_visible()
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_axe_is_violated(start: Start, browser: Any, scheme: str) -> None:
    axe = (node_package("axe-core", AXE) / "axe.min.js").read_text()
    server = start("page_agent")
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    context.set_default_timeout(20_000)
    page = opened(context, server)

    def check() -> None:
        page.evaluate(axe)
        found = page.evaluate("axe.run()")["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []

    check()
    answered(page, "tool")
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Tasks").click()
    check()
    send(page, "ask")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    expect(page.locator("#tree")).to_contain_text("chat")
    check()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    send(page, "fail")
    expect(page.locator("article.error")).to_be_visible()
    check()
    page.get_by_role("button", name="Token").click()
    check()
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 360, "height": 640})
    page.get_by_role("button", name="Show the list of chats").click()
    check()
    context.close()
