"""`chat` at a real terminal."""

from __future__ import annotations

import re

import httpx

from .conftest import AGENT, Shell, Terminal


def test_the_second_ctrl_c_leaves_while_the_first_is_at_work(shell: Shell, parrot: str) -> None:
    chat = shell.terminal("chat", parrot, "--session", "held")
    chat.wait_for("> ")
    chat.type("hold\n")
    chat.wait_for("3 4 ")
    chat.type(Terminal.CTRL_C)
    chat.wait_for("Stopping: its cleanup is still running. Ctrl-C again exits")
    # Its cleanup takes seconds; nobody has to wait for it.
    chat.type(Terminal.CTRL_C)
    assert chat.wait_exit() == 130
    assert "Traceback" not in chat.seen


def test_a_conversation(shell: Shell, parrot: str) -> None:
    chat = shell.terminal("chat", parrot)
    assert re.search(rf"Parrot at {parrot}, session \S+. Ctrl-C stops an answer", chat.wait_for("> "))
    chat.type("hello\n")
    # Its reasoning is shown, and one session is kept.
    shown = chat.wait_for("> ")
    assert "what was that?\r\n" in shown
    assert "turn 1: hello\r\n" in shown
    chat.type("fail\n")
    assert "The run ended as failed: exception: " in chat.wait_for("> ")
    chat.type("hello again\n")
    assert "turn 2: hello again\r\n" in chat.wait_for("> ")
    chat.type(Terminal.CTRL_D)
    assert chat.wait_exit() == 0


def test_ctrl_c_stops_the_run_and_the_second_one_leaves(shell: Shell) -> None:
    """Here with an app that is served meanwhile."""
    chat = shell.terminal("chat", str(AGENT))
    chat.wait_for("> ")
    chat.type("count\n")
    chat.wait_for("3 4 ")
    chat.type(Terminal.CTRL_C)
    assert re.search(r"\r\nStopped run \w+ in \d+ ms, cleanup done\.\r\n", chat.wait_for("> "))
    chat.type("hello\n")
    assert "turn 1: hello" in chat.wait_for("> ")
    assert chat.leave_the_prompt() == 130
    assert "Traceback" not in chat.seen


def test_lines_from_a_pipe(shell: Shell, parrot: str) -> None:
    done = shell.call("chat", parrot, stdin="one\n\ntwo\n")
    assert done.stdout == "turn 1: one\nturn 2: two\n"


def test_a_question_is_answered_at_the_terminal(shell: Shell, parrot: str) -> None:
    chat = shell.terminal("chat", parrot)
    chat.wait_for("> ")
    chat.type("ask\n")
    chat.wait_for(r"\? Delete it\? \[yes/no\] ")
    chat.type("yes\n")
    chat.wait_for(r"\? How many\? ")
    chat.type("many\n")
    assert "The answer was not accepted: " in chat.wait_for(r"\? How many\? ")
    chat.type("7\n")
    assert "approved: True, number: 7\r\n" in chat.wait_for("> ")
    chat.type("ask\n")
    chat.wait_for(r"\? Delete it\? \[yes/no\] ")
    chat.type(Terminal.CTRL_C)
    assert re.search(r"\r\nStopped run \w+ in \d+ ms", chat.wait_for("> "))
    chat.type("hello\n")
    assert "turn 1: hello\r\n" in chat.wait_for("> ")
    chat.type(Terminal.CTRL_D)
    assert chat.wait_exit() == 0


def test_a_question_is_answered_from_a_pipe(shell: Shell, parrot: str) -> None:
    done = shell.call("chat", parrot, stdin="ask\nno\n7\nhello\n")
    assert done.stdout == "approved: False, number: 7\nturn 1: hello\n"
    assert "? Delete it? [yes/no]\n" in done.stderr


def test_a_question_that_nobody_can_answer_stops_the_run(shell: Shell, parrot: str) -> None:
    done = shell.call("chat", parrot, stdin="ask\n")
    assert "Nobody can answer: the input has ended." in done.stderr
    assert "The run ended as canceled" in done.stderr


def test_a_question_that_is_answered_elsewhere(shell: Shell, parrot: str) -> None:
    chat = shell.terminal("chat", parrot, "--session", "shared")
    chat.wait_for("> ")
    chat.type("ask\n")
    chat.wait_for(r"\? Delete it\? \[yes/no\] ")
    [question] = httpx.get(f"{parrot}/questions", params={"user_id": "shared"}).json()["questions"]
    for value in (True, 3):
        data = {"approval_request_id": question["id"], "answer": value}
        message = {"role": "user", "type": "mcp_approval_response", "content": [{"type": "data", "data": data}]}
        assert httpx.post(f"{parrot}/runs/{question['run_id']}/input", json=message).status_code == 202
        if value is True:
            assert "The question was closed." in chat.wait_for(r"\? How many\? ")
            [question] = httpx.get(f"{parrot}/questions", params={"user_id": "shared"}).json()["questions"]
    assert "approved: True, number: 3" in chat.wait_for("> ")
