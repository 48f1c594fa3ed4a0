"""Commands in pipes: what they print, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from trio_agentapp.cli import program

from .conftest import AGENT, TIMEOUT, Shell, environment


def get(url: str) -> dict:
    return httpx.get(url, trust_env=False, timeout=TIMEOUT).json()


# invoke


def test_invoke_prints_the_answer_alone(shell: Shell, parrot: str) -> None:
    done = shell.call("invoke", parrot, "hello there", "--session", "i1")
    assert (done.stdout, done.stderr) == ("turn 1: hello there\n", "")
    done = shell.call("invoke", parrot, "-", "--session", "i1", stdin="hello\nagain")
    assert done.stdout == "turn 2: hello\nagain\n"
    done = shell.call("invoke", parrot, "hello", "--session", "i1", "--user", "somebody else", "--json")
    response = json.loads(done.stdout)
    assert (response["status"], response["session_id"]) == ("completed", "i1")
    assert response["output"][-1]["content"][0]["text"] == "turn 1: hello"


def test_invoke_serves_an_app_meanwhile(shell: Shell) -> None:
    assert shell.call("invoke", str(AGENT), "hello").stdout == "turn 1: hello\n"


def test_a_run_that_fails(shell: Shell, parrot: str) -> None:
    done = shell.call("invoke", parrot, "fail", code=1)
    assert done.stderr.startswith("The run ended as failed: exception: ")
    assert json.loads(shell.call("invoke", parrot, "fail", "--json", code=1).stdout)["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("invoke", "nowhere.py", "x"), "there is no file "),
        (("invoke", "nowhere", "x"), "there is no module 'nowhere' here"),
        (("run", "ftp://host"), "there is no module 'ftp'"),
        (("chat", "ftp://host"), "is not a URL of HTTP"),
        (("stop", "http://127.0.0.1:1"), "name what to stop: --session SESSION"),
        (("stop", "nowhere", "--session", "s"), "is neither a URL (http://...) nor the id of a deployment"),
        (("run", "agent.py", "--port", "65536"), "65535"),
        (("run", "agent.py", "--workers", "2", "--reload"), "--reload serves with one worker"),
        (("--env-file", "nowhere", "list"), "nowhere cannot be read: No such file or directory"),
        (("deploy", "local", "agent.py", "--env", "A"), "--env takes NAME=VALUE, and one has no name or no ="),
        (("nothing",), "No such command 'nothing'"),
    ],
)
def test_what_cannot_mean_anything(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTAPP_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(program, words)
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert done.stdout == ""


def test_an_app_that_cannot_be_imported_is_one_line(shell: Shell) -> None:
    (shell.folder / "broken.py").write_text("import json\n\njson.loads('{')\n")
    done = shell.call("run", "broken.py", code=2)
    assert done.stderr.startswith(f"trio-agentapp: {shell.folder}/broken.py, line 3: JSONDecodeError: ")
    assert done.stderr.count("\n") == 1
    (shell.folder / "two.py").write_text("from trio_agentapp import AgentApp\none = AgentApp()\ntwo = AgentApp()\n")
    shell.call("run", "two.py:one", "--workers", "2", code=2)
    assert "has no 'three'; its apps are one, two" in shell.call("run", "two.py:three", code=2).stderr
    done = shell.call("run", "two.py", code=2)
    assert done.stderr == "trio-agentapp: two.py has several apps, one, two; say which: two.py:one\n"


@pytest.mark.parametrize("words", [("invoke", "x"), ("status",), ("stop", "--session", "s"), ("chat",)])
def test_nobody_there(shell: Shell, words: tuple[str, ...]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        done = shell.call(words[0], url, *words[1:], code=3)
    assert done.stderr == f"trio-agentapp: {url}: Connection refused\n"


def test_a_server_that_is_none_of_ours(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def answer() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        done = shell.call("invoke", f"http://127.0.0.1:{sock.getsockname()[1]}", "x", code=3)
        thread.join()
    assert "not with an event stream" in done.stderr


def test_a_refusal_and_a_stop(shell: Shell, parrot: str) -> None:
    first = shell.start("invoke", parrot, "count", "--session", "busy")
    first.wait_for("2 ")
    refused = shell.call("invoke", parrot, "count", "--session", "busy", code=4)
    assert "stop it or wait for its end" in refused.stderr
    stopped = shell.call("stop", parrot, "--session", "busy", "--json")
    receipt = json.loads(stopped.stdout)
    assert (receipt["stopped"], receipt["state"], receipt["cleanup"]) == (True, "STOPPED", "done")
    assert first.process.wait(TIMEOUT) == 5
    assert first.output.endswith("\nThe run ended as canceled: stopped: stopped\n")
    run = json.loads(shell.call("status", parrot, "--run", receipt["run_id"]).stdout)
    assert (run["state"], run["session_id"]) == ("STOPPED", "busy")
    # Once more is no error: it does not run, and that was wanted.
    assert "is running" in shell.call("stop", parrot, "--session", "busy").stderr
    assert "had been stopped already" in shell.call("stop", parrot, "--run", receipt["run_id"]).stderr
    shell.call("status", parrot, "--run", "unknown-run", code=4)


def test_ctrl_c_stops_an_invocation(shell: Shell, parrot: str) -> None:
    running = shell.start("invoke", parrot, "count", "--session", "interrupted")
    running.wait_for("2 ")
    assert running.stop(signal.SIGINT) == 130, running.output
    assert running.output.splitlines()[-1].startswith("Stopped run ")
    assert running.output.endswith(", cleanup done.\n")
    assert "No run" in shell.call("stop", parrot, "--session", "interrupted").stderr


# run


def test_run_serves_until_it_is_told_to_stop(shell: Shell) -> None:
    running = shell.start("run", f"{AGENT}:app", "--port", "0")
    url = running.url()
    assert get(f"{url}/health")["service"] == "Parrot"
    assert shell.call("status", url).stdout == f"Parrot at {url} is ready\n"
    told = json.loads(shell.call("status", url, "--json").stdout)
    assert told == {"url": url, "app_name": "Parrot", "ready": True, "reason": None}
    busy = shell.call("run", str(AGENT), "--port", url.rpartition(":")[2], code=1)
    assert "the port is in use" in busy.stderr
    assert running.stop(signal.SIGINT) == 0


def test_run_finds_a_module_and_the_address_of_the_environment(shell: Shell, agent: Path) -> None:
    (shell.folder / ".env").write_text("PORT=0\nHOST=127.0.0.1\nCOLOUR=blue\nSHAPE=round\n")
    running = shell.start("run", "agent", SHAPE="square")
    url = running.url()
    # The file is read, and what is set already wins.
    assert shell.call("invoke", url, "env COLOUR").stdout == "COLOUR=blue\n"
    assert shell.call("invoke", url, "env SHAPE").stdout == "SHAPE=square\n"
    assert running.stop() == 0


@pytest.mark.parametrize("more", [[], ["--reload"]])
def test_signals_that_end_a_process_by_default(shell: Shell, agent: Path, more: list[str]) -> None:
    running = shell.start("run", "agent.py", "--port", "0", *more)
    url = running.url()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        running.process.send_signal(number)
        running.wait_for(f"{number.name} does nothing here")
    assert get(f"{url}/health")["service"] == "Parrot"
    assert running.stop(signal.SIGHUP) == 0


def test_reload(shell: Shell, agent: Path) -> None:
    running = shell.start("run", "agent.py", "--port", "0", "--reload")
    url = running.url()
    code = agent.read_text()
    # A live run is drained; nobody is refused meanwhile.
    chat = shell.start("invoke", url, "count")
    chat.wait_for("2 ")
    agent.write_text(code.replace('"Parrot"', '"Ara"'))
    running.wait_for("ready on", 2)
    assert get(f"{url}/health")["service"] == "Ara"
    assert chat.process.wait(TIMEOUT) == 5
    assert "canceled: stopped: shutdown" in chat.output
    assert "agent.py has changed; agent.py is started anew" in running.output
    # What cannot be imported is told, and the next change is waited for.
    agent.write_text("import nothing_of_this_name\n")
    running.wait_for("agent.py ended with code 2; it is started again after the next change")
    assert "line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'" in running.output
    agent.write_text(code)
    running.wait_for("ready on", 3)
    assert get(f"{url}/health")["service"] == "Parrot"
    assert running.stop(signal.SIGINT) == 0


# deployments


def test_deploy_list_status_stop(shell: Shell, agent: Path) -> None:
    started = shell.call(
        "deploy", "local", "agent.py", "--port", "0", "--env", "COLOUR=red", "--json", "--", "-x", "1"
    )
    here = json.loads(started.stdout)
    assert (here["mode"], set(here)) == ("detached_process", {"deploy_id", "url", "mode", "pid"})
    there = shell.call("deploy", "local", "agent.py", "--port", "0", "--no-restart").stdout.strip()
    assert shell.call("invoke", here["deploy_id"], "env COLOUR").stdout == "COLOUR=red\n"
    deploy_ids = [here["deploy_id"], there]
    listed = shell.call("list").stdout.splitlines()
    assert listed[0].split() == ["ID", "STATE", "URL", "APP", "UP", "FOR", "ENTRYPOINT"]
    assert listed[1].startswith(f"{here['deploy_id']}  ready  {here['url']}  Parrot ")
    assert [line.split()[0] for line in listed[1:]] == deploy_ids
    status = json.loads(shell.call("status", there[:6], "--json").stdout)
    assert (status["state"], status["app_name"]) == ("ready", "Parrot")
    stopped = shell.call("stop", here["deploy_id"])
    assert stopped.stderr == f"{here['deploy_id']} (Parrot) at {here['url']} is stopped\n"
    assert "there is no deployment" in shell.call("status", here["deploy_id"], code=1).stderr
    assert completed(shell, "trio-agentapp stop ") == [there]
    # The other one is killed.
    import os

    os.kill(status["pid"], signal.SIGKILL)
    assert " is dead: it ended by itself; its log is " in shell.call("status", there, code=3).stdout
    assert "had died before" in shell.call("stop", there).stderr
    assert shell.call("list").stderr == "Nothing is deployed.\n"
    assert shell.call("list", "--json").stdout == "[]\n"


def test_a_deployment_that_fails(shell: Shell) -> None:
    (shell.folder / "broken.py").write_text("raise OSError('no disk')\n")
    done = shell.call("deploy", "local", "broken.py", "--port", "0", code=1)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("trio-agentapp: the service ended before it was ready (exit code 1). Its log, ")
    assert lines[1].endswith("broken.py, line 1: OSError: no disk")
    assert done.stdout == ""


# worker, completion, start-up


def test_worker_without_its_extra_names_the_install_line() -> None:
    program = (
        "import sys; sys.modules['trio_agentapp.tasks.celery'] = None; from trio_agentapp.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "worker", str(AGENT), "-Q", "mail", "--concurrency", "2"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "trio-agentapp: worker needs an extra: pip install 'trio-agentapp[celery]'\n"


def test_worker_needs_a_broker(shell: Shell) -> None:
    done = shell.call("worker", str(AGENT), code=2)
    assert "broker_url and backend_url" in done.stderr


def completed(shell: Shell, line: str) -> list[str]:
    """What bash offers for the last word, with the script that `--show-completion` gives."""
    script = shell.call("--show-completion", "bash").stdout
    words = line.split(" ")
    program = (
        f"{script}\nCOMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words) - 1};"
        f" {script.split('(')[0].strip()} trio-agentapp; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    environment = shell.environment(PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin")
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environment, check=True)
    return sorted(done.stdout.split())


def test_completion(shell: Shell) -> None:
    assert completed(shell, "trio-agentapp st") == ["status", "stop"]
    assert completed(shell, "trio-agentapp run --rel") == ["--reload"]


def test_it_is_a_module_too(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trio_agentapp", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == shell.call("--version").stdout


def test_the_settings_are_printed_without_secrets(shell: Shell) -> None:
    token = "correct-horse-battery"
    done = shell.call("run", str(AGENT), "--print-config", AGENTAPP_ADMIN_TOKEN=token, AGENTAPP_READ_TIMEOUT="7")
    settings = json.loads(done.stdout)
    assert (settings["admin_token"], settings["read_timeout"]) == ("***", 7)
    assert token not in done.stdout + done.stderr
