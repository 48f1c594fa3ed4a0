"""`top`: nodes and their runs, from the admin routes of real servers."""

from __future__ import annotations

import json

from .conftest import AGENT, Shell

TOKEN = "correct-horse-battery"


def url_of(shell: Shell) -> str:
    return shell.start("run", str(AGENT), "--port", "0", AGENTAPP_ADMIN_TOKEN=TOKEN).url()


def test_a_node_is_shown(shell: Shell) -> None:
    url = url_of(shell)
    done = shell.call("top", url, "--once", "--interval", "0.2", AGENTAPP_ADMIN_TOKEN=TOKEN)
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "NODE",
        "STATE",
        "RUNS",
        "QUEUED",
        "STUCK",
        "ENDED/S",
        "EVENTS/S",
        "READERS",
        "CPU",
        "LAG",
        "TASKS",
    ]
    assert lines[1].split()[:5] == [url, "ready", "0", "0", "0"]


def test_it_is_json_for_scripts(shell: Shell) -> None:
    url = url_of(shell)
    [node] = json.loads(shell.call("top", url, "--json", "--token", TOKEN).stdout)
    assert (node["url"], node["trouble"], node["runs"]) == (url, None, [])
    assert node["status"]["ready"]


def test_what_is_wrong_with_a_node_is_in_its_line(shell: Shell) -> None:
    url = url_of(shell)
    options = ("--once", "--interval", "0.2")
    assert "the admin token is wrong" in shell.call("top", url, *options, "--token", "x", code=3).stdout
    done = shell.call("top", url, "127.0.0.1:1", *options, "--token", TOKEN)
    assert "ready" in done.stdout
    [dead] = [line for line in done.stdout.splitlines() if line.startswith("http://127.0.0.1:1 ")]
    assert dead.endswith("  it does not answer: Connection refused")


def test_it_follows_the_runs_in_a_terminal(shell: Shell) -> None:
    url = url_of(shell)
    terminal = shell.terminal("top", url, "--interval", "0.2", "--token", TOKEN)
    terminal.wait_for("EVENTS/S")
    terminal.wait_for("ready")
    terminal.type(terminal.CTRL_C)
    assert terminal.wait_exit() == 130


def test_without_a_token_it_says_what_is_missing(shell: Shell) -> None:
    assert "AGENTAPP_ADMIN_TOKEN" in shell.call("top", "127.0.0.1:1", code=2).stderr
