"""The usual mistakes on the way to a server: each is answered by one line that says what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from trio_agentapp.cli.exits import ExitCode, exits

from .conftest import Shell

PYTHON = (sys.executable,)
AGENT = """
from trio_agentapp import AgentApp

app = AgentApp(app_name="Friday")

@app.query()
async def chat(msgs):
    yield "hello"

"""


def script(shell: Shell, end: str, name: str = "agent.py") -> str:
    (shell.folder / name).write_text(AGENT + end + "\n")
    return name


MISTAKES = [
    ("app.run(certfile='agent.py')", {}, "certfile was given without keyfile: TLS needs both."),
    ("app.run(keyfile='agent.py')", {}, "keyfile was given without certfile: TLS needs both."),
    ("app.run(workers=2)", {}, "set interrupt_redis_url"),
    ("app.run(host='')", {}, "host must not be empty"),
    ("app.run(port=99999)", {}, "port must be a number from 0 to 65535, not 99999"),
    ("app.run(port='80')", {}, "port must be a number from 0 to 65535, not '80'"),
    ("app.run()", {"HOST": ""}, "HOST='' of the environment cannot be listened on: it is empty."),
    ("app.run()", {"HOST": "x86_64-conda-linux-gnu"}, "HOST='x86_64-conda-linux-gnu' of the environment"),
    ("app.run()", {"PORT": "http"}, "PORT must be a number from 0 to 65535, not 'http'"),
]


@pytest.mark.parametrize(("end", "environment", "says"), MISTAKES)
def test_app_run_says_it_in_one_line(shell: Shell, end: str, environment: dict[str, str], says: str) -> None:
    done = shell.call(script(shell, end), command=PYTHON, code=1, **environment)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Friday cannot start: ")
    assert says in line


@pytest.mark.parametrize(("options", "environment"), [((), {"HOST": ""}), (("--certfile", "agent.py"), {})])
def test_the_command_line_does_so_too(shell: Shell, options: tuple[str, ...], environment: dict[str, str]) -> None:
    name = script(shell, "")
    for command in (("run", name), ("deploy", "local", name)):
        done = shell.call(*command, *options, code=2, **environment)
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("Starting")]
        assert line.startswith(("trio-agentapp: HOST=''", "trio-agentapp: certfile was given without keyfile"))


def test_a_variable_that_cannot_be_used(shell: Shell) -> None:
    name = script(shell, "app.run()")
    done = shell.call("run", name, code=2, AGENTAPP_INTERRUPT_REDIS_URL="localhost:6379")
    assert "agent.py, line 4: " in done.stderr
    assert "AGENTAPP_INTERRUPT_REDIS_URL cannot be 'localhost:6379': A Redis URL begins with" in done.stderr
    # In a script of one's own the traceback is Python's: one line of the user's, one of ours.
    command = [sys.executable, name]
    environment = shell.environment(AGENTAPP_DRAIN_TIMEOUT="soon")
    run = subprocess.run(command, cwd=shell.folder, env=environment, capture_output=True, text=True, check=False)
    assert run.stderr.count('  File "') == 2
    assert run.stderr.endswith("ConfigurationError: AGENTAPP_DRAIN_TIMEOUT must be a number, not 'soon'\n")


def test_a_busy_port_names_the_ways_to_another(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = shell.call(script(shell, "app.run()"), command=PYTHON, code=1, PORT=port)
    (line,) = done.stderr.splitlines()
    assert "the port is in use; choose another one with app.run(port=...), --port or PORT" in line


def test_a_script_that_forgot_to_run(shell: Shell) -> None:
    done = shell.call(script(shell, ""), command=PYTHON)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Friday was not started: ")
    assert line.endswith("or start it with: trio-agentapp run agent.py")


USES = [
    "import trio\nasync def main():\n    async with app.runtime(): pass\ntrio.run(main)",
    "import trio\nasync def main():\n    async with app.stream_query('hi') as events:\n"
    "        async for _ in events: pass\ntrio.run(main)",
]


@pytest.mark.parametrize("end", USES)
def test_a_script_that_uses_its_app_otherwise(shell: Shell, end: str) -> None:
    assert shell.call(script(shell, end), command=PYTHON).stderr == ""


def test_what_only_imports_the_app_is_not_told(shell: Shell, tmp_path: Path) -> None:
    script(shell, "")
    (tmp_path / "test_agent.py").write_text("import agent\n\ndef test_it():\n    assert agent.app\n")
    assert shell.call("-c", "import agent", command=PYTHON).stderr == ""
    assert shell.call("-m", "pytest", "-q", "test_agent.py", command=PYTHON).stderr == ""
    spawned = "import multiprocessing as m\nif __name__ == '__main__':\n    p = m.get_context('spawn').Process"
    (tmp_path / "main.py").write_text(f"import agent\n{spawned}(target=print)\n    p.start()\n    p.join()\n")
    assert shell.call("main.py", command=PYTHON).stderr == ""


def test_a_script_that_fails_tells_its_own_trouble_only(shell: Shell) -> None:
    run = subprocess.run(
        [sys.executable, script(shell, "raise LookupError")],
        cwd=shell.folder,
        env=shell.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr.endswith("LookupError\n")
    assert "was not started" not in run.stderr


def test_a_second_ctrl_c_is_one_too() -> None:
    """Trio reports both in a group: one has stopped the work, the other one its cleanup."""

    def command() -> ExitCode:
        raise BaseExceptionGroup("two", [KeyboardInterrupt(), BaseExceptionGroup("one", [KeyboardInterrupt()])])

    with pytest.raises(typer.Exit) as caught:
        exits(command)()
    assert caught.value.exit_code == ExitCode.INTERRUPTED

    def broken() -> ExitCode:
        raise ExceptionGroup("other", [ValueError()])

    with pytest.raises(ExceptionGroup):
        exits(broken)()
