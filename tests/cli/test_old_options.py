"""Options as scripts for the FastAPI-based runtime spell them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from .conftest import AGENT, Shell

SECRET = "the-secret-of-this-test"
"""A value that must appear in no message, file or process list."""


def test_run(shell: Shell) -> None:
    running = shell.start("run", str(AGENT), "-h", "127.0.0.1", "-p", "0", "-v")
    assert shell.call("status", running.url(), "-f", "json").stdout.startswith('{"url":')
    assert running.stop() == 0


@pytest.mark.parametrize("command", ["chat", "invoke"])
def test_one_question(shell: Shell, parrot: str, command: str) -> None:
    whose = (f"session of {command}", "somebody")
    done = shell.call(command, parrot, "-q", "hello", "--session-id", whose[0], "--user-id", whose[1])
    assert (done.stdout, done.stderr) == ("turn 1: hello\n", "")
    done = shell.call(command, parrot, "--query", "hello", "--session", whose[0], "--user", whose[1])
    assert done.stdout == "turn 2: hello\n"
    assert "the agent failed" in shell.call(command, parrot, "-q", "fail", code=1).stderr.lower()
    for words in ((), ("one", "-q", "two")):
        assert "give one message" in shell.call("invoke", parrot, *words, code=2).stderr
    assert "the message is empty" in shell.call("invoke", parrot, " ", code=2).stderr


def test_stop_a_session(shell: Shell, parrot: str) -> None:
    running = shell.start("invoke", parrot, "count", "--session-id", "old", "--user-id", "me")
    running.wait_for("2 ")
    shell.call("stop", parrot, "--session-id", "old", "--user-id", "me", "-y")
    assert running.process.wait() == 5


def test_chat_shows_the_log(shell: Shell) -> None:
    words = ("chat", str(AGENT), "-q", "hello")
    assert "has started" not in shell.call(*words).stderr
    assert "has started" in shell.call(*words, "-v").stderr


def test_deployments(shell: Shell) -> None:
    here = shell.call("deploy", "local", str(AGENT), "-p", "0", "--name", "Old name").stdout.strip()
    for words, found in (
        ((), [here]),
        (("-s", "ready", "-p", "local"), [here]),
        (("--status", "dead", "--platform", "local"), []),
    ):
        listed = json.loads(shell.call("list", "-f", "json", *words).stdout)
        assert [each["deploy_id"] for each in listed] == found
    assert " Old name " in shell.call("list", "-f", "table").stdout
    assert shell.call("list", "-s", "dead").stderr == "No deployment is dead.\n"
    assert json.loads(shell.call("status", here, "--output-format", "json").stdout)["app_name"] == "Old name"
    assert "(Old name)" in shell.call("status", here, "-f", "text").stdout
    assert "is stopped" in shell.call("stop", here, "--yes").stderr


CONFIGS = {
    "json": '{"host": "127.0.0.1", "port": 0, "entrypoint": "serve.py",'
    ' "environment": {"A": "file", "B": 1, "C": "x"}}',
    "toml": 'host = "127.0.0.1"\nport = 0\nentrypoint = "serve.py"\nenvironment = {A = "file", B = 1, C = "x"}',
    "yaml": "host: 127.0.0.1\nport: 0\nentrypoint: serve.py\nenvironment:\n  A: file\n  B: 1\n  C: x\n",
}
SERVE = """
import os
from trio_agentapp import AgentApp
app = AgentApp()

@app.query()
async def query(msgs):
    yield " ".join(os.environ[name] for name in "ABCDE")
"""


@pytest.mark.parametrize("kind", CONFIGS)
def test_deploy_with_files(shell: Shell, kind: str) -> None:
    (shell.folder / f"config.{kind}").write_text(CONFIGS[kind])
    (shell.folder / "more.env").write_text("B=env\nC=env\nD=env\n")
    (shell.folder / "serve.py").write_text(SERVE)
    words = ("-c", f"config.{kind}", "--env-file", "more.env", "-E", "C=option", "--env", f"E={SECRET}", "--json")
    done = shell.call("deploy", "local", ".", *words, D="inherited")
    here = json.loads(done.stdout)
    assert shell.call("invoke", here["deploy_id"], "-q", "x").stdout == f"file env option env {SECRET}\n"
    seen = done.stdout + done.stderr + Path(f"/proc/{here['pid']}/cmdline").read_text()
    seen += "".join(file.read_text() for file in shell.home.glob("*/*"))
    assert here["deploy_id"] in seen
    assert SECRET not in seen


def test_options_win_over_the_file(shell: Shell) -> None:
    (shell.folder / "config.json").write_text('{"host": "no such host", "port": 1, "entrypoint": "nowhere.py"}')
    words = ("-c", "config.json", "--host", "127.0.0.1", "-p", "0", "-e", str(AGENT))
    here = json.loads(shell.call("deploy", "local", ".", *words, "--json").stdout)
    assert not here["url"].endswith(":1")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("nowhere.json", None, "nowhere.json cannot be read: No such file"),
        ("c.ini", "", "c.ini must end in .json, .toml, .yaml or .yml"),
        ("c.json", f'{{"environment": {SECRET}}}', "c.json is not valid JSON"),
        ("c.toml", f"environment = {SECRET}", "c.toml is not valid TOML"),
        ("c.yml", f"environment: *{SECRET}", "c.yml is not valid YML"),
        ("c.json", "[]", "c.json must hold keys and values: host, port, entrypoint, environment"),
        ("c.json", '{"ports": 1}', "unknown key 'ports'; the keys are host, port, entrypoint, environment"),
        ("c.json", '{"port": "1"}', "c.json: port must be a number"),
        ("c.json", '{"port": true}', "c.json: port must be a number"),
        ("c.json", '{"port": 65536}', "port must be a number from 0 to 65535, not 65536"),
        ("c.yaml", "environment: {A: yes}", "c.yaml: the value of A must be a text or a number"),
        ("c.json", f'{{"environment": {{"A": ["{SECRET}"]}}}}', "the value of A must be a text or a number"),
        ("c.json", '{"environment": {"A": "\\u0000"}}', "the value of A must be a text or a number"),
        ("c.json", '{"environment": {"A=B": "x"}}', "'A=B' is not the name of a variable"),
        ("c.yaml", "environment: {1: x}", "1 is not the name of a variable"),
    ],
)
def test_a_file_that_cannot_be_used(shell: Shell, name: str, text: str | None, says: str) -> None:
    if text is not None:
        (shell.folder / name).write_text(text)
    done = shell.call("deploy", "local", str(AGENT), "-c", name, code=2)
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert SECRET not in done.stderr


def test_yaml_without_its_library(shell: Shell) -> None:
    (shell.folder / "c.yaml").write_text("port: 0")
    program = "import sys; sys.modules['yaml'] = None; from trio_agentapp.cli import main; main()"
    words = ("deploy", "local", str(AGENT), "-c", "c.yaml")
    done = shell.call(*words, command=(sys.executable, "-c", program), code=2)
    assert done.stderr == "trio-agentapp: c.yaml needs a library: pip install pyyaml; or write JSON or TOML\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("list", "-p", "pai"), "'pai' is not "),
        (("list", "-s", "running"), "--status running is not a state; states are starting, ready, unready, dead"),
        (("list", "-f", "xml"), "'xml' is not "),
        (("deploy", "local", ".", "-E", f"={SECRET}"), "--env takes NAME=VALUE"),
        (("deploy", "local", ".", "-E", SECRET), "--env takes NAME=VALUE"),
        (("deploy", "local", ".", "--env-file", "nowhere"), "nowhere cannot be read: No such file or directory"),
        (("run", "-h"), "Option '-h' requires an argument"),
    ],
)
def test_what_has_no_meaning_here(shell: Shell, words: tuple[str, ...], says: str) -> None:
    done = shell.call(*words, code=2)
    assert says in done.stderr
    assert SECRET not in done.stderr
