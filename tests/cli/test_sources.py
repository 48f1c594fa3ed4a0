"""Where an app may be: a folder, its file, and what stands in the file; the same for every command."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from .conftest import TIMEOUT, Shell

TOOLS = """
from trio_agentapp import AgentApp

def make(name):
    app = AgentApp(app_name=name)

    @app.query()
    async def query(msgs):
        yield f"{name}: {msgs[-1].text}"

    return app
"""
"""What stands beside each file, and is imported by it."""


def folder(shell: Shell, **files: str) -> Path:
    path = shell.folder / "project"
    path.mkdir()
    for name, code in {"tools": TOOLS, **files}.items():
        (path / f"{name}.py").write_text(f"from tools import make\n{code}\n" if name != "tools" else code)
    return path


APP, AGENT, MAIN = (f"app = make({name!r})" for name in ("of app.py", "of agent.py", "of main.py"))


@pytest.mark.parametrize(
    ("files", "words", "name"),
    [
        ({"app": APP, "agent": AGENT, "main": MAIN}, ("project",), "of app.py"),
        ({"agent": AGENT, "main": MAIN}, ("project/",), "of agent.py"),
        ({"main": MAIN, "other": APP}, ("project",), "of main.py"),
        ({"app": APP, "__init__": ""}, ("./project",), "of app.py"),
        ({"app": APP, "other": AGENT}, ("project", "-e", "other.py"), "of agent.py"),
        ({"app": f"{APP}\nsecond = make('second')"}, ("project:second",), "second"),
        ({"app": f"{APP}\nsecond = make('second')"}, ("project", "--entrypoint", "app.py:second"), "second"),
        ({"app": "agent_app = make('usual')\nother = make('other')"}, ("project/app.py",), "usual"),
        ({"app": "agent_app = app = make('both')\ndef create_app(): 1/0"}, ("project/app.py",), "both"),
        ({"app": "other = make('other')\ndef create_app(): return make('made')"}, ("project",), "made"),
        ({"app": "def create_app(x): 1/0\ndef get_app(x=1): return make('got')"}, ("project",), "got"),
        ({"app": "def create_agent_app(): return make('created')"}, ("project",), "created"),
        ({"app": "def get_agent_app(*a, **k): return make('any')"}, ("project",), "any"),
        ({"app": "only = make('only')"}, ("project",), "only"),
    ],
)
def test_what_is_found(shell: Shell, files: dict[str, str], words: tuple[str, ...], name: str) -> None:
    folder(shell, **files)
    assert shell.call("invoke", *words, "-q", "hello").stdout == f"{name}: hello\n"


SAYS = "project/app.py has several apps, {}; say which: project/app.py:"


@pytest.mark.parametrize(
    ("files", "words", "says"),
    [
        (
            {},
            ("project",),
            "the folder project has none of app.py, agent.py, main.py; write project/FILE.py, or --ent",
        ),
        ({"app": APP}, ("project", "-e", "b.py"), "there is no file "),
        ({"app": APP}, ("project/app.py", "-e", "b.py"), "names a file of a folder, and project/app.py is not"),
        ({"app": "agent_app = make('a')\napp = make('b')"}, ("project",), SAYS.format("agent_app, app")),
        ({"app": "a = make('a')\nb = make('b')"}, ("project",), SAYS.format("a, b") + "a"),
        ({"app": "def create_app(): 1/0\ndef get_app(): 1/0"}, ("project",), SAYS.format("create_app, get_app")),
        ({"app": "def create_app(): 1/0"}, ("project",), "project/app.py, line 2: ZeroDivisionError: "),
        (
            {"app": "def create_app(): return 1"},
            ("project",),
            "project/app.py:create_app is not an AgentApp but int",
        ),
        (
            {"app": "async def create_app(): 1"},
            ("project",),
            "create_app() is async, so the app cannot be made with it",
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "worker"])
def test_what_is_not(shell: Shell, command: str, files: dict[str, str], words: tuple[str, ...], says: str) -> None:
    folder(shell, **files)
    done = shell.call(command, *words, code=2)
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_run_and_reload(shell: Shell) -> None:
    file = folder(shell, app=APP, serve=AGENT) / "app.py"
    plain = shell.start("run", "project", "-e", "serve.py", "--port", "0")
    reloaded = shell.start("run", "project", "--port", "0", "--reload")
    for running, name in (plain, "of agent.py"), (reloaded, "of app.py"):
        assert httpx.get(f"{running.url()}/health", trust_env=False).json()["service"] == name
    file.write_text(file.read_text().replace("of app.py", "changed"))
    # The path is relative to the folder that is watched: the app's, not the current one.
    reloaded.wait_for("\napp.py has changed")
    reloaded.wait_for("ready on", 2)
    assert httpx.get(f"{reloaded.url()}/health", trust_env=False).json()["service"] == "changed"
    assert (plain.stop(), reloaded.stop()) == (0, 0)


def test_chat_and_worker(shell: Shell) -> None:
    folder(shell, serve=APP)
    done = shell.call("chat", "project", "-e", "serve.py", stdin="hello\nagain\n")
    assert done.stdout == "of app.py: hello\nof app.py: again\n"
    # It was found: what is missing is the broker.
    assert "broker_url and backend_url" in shell.call("worker", "project", "-e", "serve.py", code=2).stderr


def test_deploy(shell: Shell) -> None:
    path = folder(shell, app=APP, serve=AGENT)
    for words, file, name in ((), "app.py", "of app.py"), (("-e", "serve.py"), "serve.py", "of agent.py"):
        here = shell.call("deploy", "local", "project", *words, "--port", "0").stdout.strip()
        status = json.loads(shell.call("status", here, "--json").stdout)
        assert (status["entrypoint"], status["app_name"]) == (str(path / file), name)
        answer = httpx.get(f"{status['url']}/health", trust_env=False, timeout=TIMEOUT)
        assert answer.json()["service"] == name
        shell.call("stop", here)
    done = shell.call("deploy", "local", "home", code=2)
    assert "the folder home has none of app.py, agent.py, main.py" in done.stderr
