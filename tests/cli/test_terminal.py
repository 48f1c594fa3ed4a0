"""What others wrote is shown and not obeyed, on terminals of every encoding; and what the environment is set to."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from .conftest import COMMAND, Shell

EVIL = "red \x1b[31m bell\x07 title \x1b]0;mine\x07 bidi \u202e c1 \x9b31m"
SHOWN = r"red \u001b[31m bell\u0007 title \u001b]0;mine\u0007 bidi \u202e c1 \u009b31m"


def test_a_terminal_obeys_no_answer(shell: Shell, parrot: str) -> None:
    terminal = shell.terminal("invoke", parrot, EVIL)
    assert terminal.wait_exit() == 0
    assert SHOWN in terminal.seen
    terminal = shell.terminal("invoke", parrot, EVIL, "--json")
    assert terminal.wait_exit() == 0
    response = json.loads(terminal.seen[terminal.seen.index('{"sequence_number"') :])
    assert response["output"][-1]["content"][0]["text"] == f"turn 1: {EVIL}"
    assert "\x9b" not in terminal.seen
    assert "\u202e" not in terminal.seen


def test_nor_an_error(shell: Shell) -> None:
    terminal = shell.terminal("run", "a\x1b[31m\x07.py")
    assert terminal.wait_exit() == 2
    assert r"a\u001b[31m\u0007.py" in terminal.seen


def test_a_pipe_gets_what_was_said(shell: Shell, parrot: str) -> None:
    assert shell.call("invoke", parrot, EVIL).stdout == f"turn 1: {EVIL}\n"


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_any_terminal_shows_any_answer(shell: Shell, parrot: str, locale: dict[str, str]) -> None:
    def call(*words: str) -> bytes:
        done = subprocess.run(
            [COMMAND, "invoke", parrot, *words], capture_output=True, env=shell.environment(**locale), check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    assert call("grin \U0001f600") in (b"turn 1: grin \\U0001f600\n", "turn 1: grin \U0001f600\n".encode())
    assert json.loads(call("grin \U0001f600", "--json").decode())["status"] == "completed"


def test_bytes_that_are_no_text(shell: Shell, parrot: str) -> None:
    done = subprocess.run(
        [COMMAND, "invoke", parrot, "-"],
        input=b"a\xffb\xed\xa0\xbd",
        capture_output=True,
        env=shell.environment(),
        check=True,
    )
    assert re.fullmatch("turn 1: a\ufffdb\ufffd+\n", done.stdout.decode())
    done = subprocess.run(
        [COMMAND.encode(), b"invoke", parrot.encode(), b"a\xffb"],
        capture_output=True,
        env=shell.environment(),
        check=True,
    )
    assert done.stdout.decode() == "turn 1: a\ufffdb\n"


def test_a_proxy_is_not_asked_for_this_machine(shell: Shell, parrot: str) -> None:
    nobody = "http://127.0.0.1:1"
    for names in (("http_proxy",), ("ALL_PROXY",), ("HTTP_PROXY", "HTTPS_PROXY", "no_proxy")):
        done = shell.call("invoke", parrot, "hello", **dict.fromkeys(names, nobody))
        assert done.stdout == "turn 1: hello\n"
    assert shell.call("invoke", parrot, "hello", ALL_PROXY="socks5://127.0.0.1:1").stdout == "turn 1: hello\n"
    assert shell.call("invoke", parrot, "hello", SSL_CERT_FILE="/nowhere").stdout == "turn 1: hello\n"


@pytest.mark.parametrize(
    ("url", "setting", "says"),
    [
        ("http://192.0.2.1", {"ALL_PROXY": "socks5://127.0.0.1:1"}, "the proxies that the environment names"),
        ("http://192.0.2.1", {"ALL_PROXY": "gopher://127.0.0.1:1"}, "the proxies that the environment names"),
        ("http://192.0.2.1", {"http_proxy": "http://127.0.0.1:1", "no_proxy": "[::1"}, "the proxies that the"),
        ("https://192.0.2.1", {"SSL_CERT_FILE": "/nowhere"}, "the certificates of SSL_CERT_FILE=/nowhere"),
    ],
)
def test_an_environment_that_cannot_be_used_is_told_in_a_line(
    shell: Shell, url: str, setting: dict[str, str], says: str
) -> None:
    done = shell.call("invoke", url, "hello", code=2, **setting)
    [line] = done.stderr.splitlines()
    assert says in line


def test_a_host_and_a_port_are_a_url(shell: Shell, parrot: str) -> None:
    place = parrot.removeprefix("http://")
    assert shell.call("invoke", place, "hello").stdout == "turn 1: hello\n"
    assert shell.call("status", place).stdout == f"Parrot at {parrot} is ready\n"
    assert "name what to stop" in shell.call("stop", place, code=2).stderr


def test_a_stop_that_finds_no_run_tells_of_users(shell: Shell, parrot: str) -> None:
    done = shell.call("stop", parrot, "--session", "of somebody else")
    assert done.stderr == (
        "No run of this session is running.\nIf the session belongs to a user, name the user: --user USER.\n"
    )
    assert "--user" not in shell.call("stop", parrot, "--session", "s", "--user", "ann").stderr
