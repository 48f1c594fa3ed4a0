"""The pages about the client are true: their functions are called, against a server in a process of its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_agentapp import AgentClient
from trio_agentapp.client import EventStream, Retries
from trio_agentapp.web import websocket
from trio_agentapp.web.websocket import messages

from ..e2e.harness import Server

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "docs/how-to/use-the-client.md"
SOCKET = ROOT / "docs/how-to/stream-over-websocket.md"
REFERENCE = (ROOT / "docs/reference/websocket.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ALL = "".join(f"{number} " for number in range(20))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Server("counter", "run", tmp_path_factory.mktemp("agent"), {})
    server.wait_ready()
    yield f"http://127.0.0.1:{server.port}"
    server.close()


def functions_of(page: Path) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), namespace)
    return namespace


async def test_the_guide_to_the_client(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = functions_of(CLIENT)
    assert await page["ask"](url) == ALL == capsys.readouterr().out
    receipt, end = await page["first_words"](url)
    assert (receipt.stopped, receipt.run_id) == (True, end["id"].removeprefix("response_"))
    assert end["status"] == "canceled"
    assert await page["patiently"](url) == "completed"
    assert await page["with_several_nodes"](url, url) == "completed"
    async with AgentClient(url) as client, client.run("Go") as events:
        run_id = events.run_id
        await events.wait()
    numbers, record, response = await page["come_back"](run_id, url)
    assert numbers == list(range(2, response["sequence_number"] + 1))
    assert (record["state"], response["status"]) == ("FINISHED", "completed")
    running, told = await page["two_at_once"](url)
    assert told == f"{running} is still running"
    async with AgentClient("http://127.0.0.1:9", retries=Retries(attempts=1)) as client:
        assert await page["politely"](client, "Hi", "s1") == "nobody answers"


async def test_the_guide_to_the_socket(url: str) -> None:
    assert await functions_of(SOCKET)["ask_many"](["a", "b", "c"], url) == {"a": ALL, "b": ALL, "c": ALL}


def test_everything_of_the_client_is_in_its_guide() -> None:
    text = CLIENT.read_text()
    for cls, told_of in ((AgentClient, "client."), (EventStream, "")):
        for name in vars(cls):
            if not name.startswith("_") and name != "aclose":
                assert re.search(rf"`(await )?{re.escape(told_of)}{name}\b|client\.{name}\(", text), name
    for name, default in (AgentClient.__init__.__kwdefaults__ or {}).items():
        assert f"`{name}`" in text, name
        assert default is None or repr(default).strip("'").removesuffix(".0") in text, name
    for field in attrs.fields(Retries):
        assert f"`{field.name}` {field.default:g}" in text


def table(heading: str) -> dict[str, list[str]]:
    part = REFERENCE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if "|" in line][2:]
    return {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows}


def test_every_message_is_in_the_reference() -> None:
    assert table("What the client sends") == {kind: list(fields) for kind, fields in messages.FIELDS.items()}
    source = "".join(path.read_text() for path in Path(websocket.__file__).parent.glob("*.py"))
    sent = set(re.findall(r'"?type"?[\'"]?: ?"(\w+)"', source))
    assert sent == set(table("What the server sends"))
    closed = {
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Close"
        and isinstance(node.args[0], ast.Constant)
    }
    documented = {int(code) for row in table("How it closes") for code in row.split(", ")}
    assert closed | {1002, 1007, 1011} == documented
