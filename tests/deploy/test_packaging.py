"""Build contexts: what goes in, what is refused, and that they work where nothing else is."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import trio

from trio_agentapp.deploy import LocalDeployManager
from trio_agentapp.deploy.context_check import check_context
from trio_agentapp.deploy.packaging import BuildContext, build_context
from trio_agentapp.errors import ConfigurationError, DeployError

EXAMPLES = Path(__file__).parents[2] / "examples"

APP = "from trio_agentapp import AgentApp\napp = AgentApp()\n@app.query()\nasync def chat(msgs):\n    yield 'hi'\n"

# Put together at run time, so that no scanner takes this file for a leak.
KEYS = {
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "an access key of AWS": "AKIA" + "ABCDEFGHIJKLMNOP",
    "an access key of Alibaba Cloud": "LTAI" + "5tAbCdEfGhIjKlMnOpQr",
    "a token of GitHub": "ghp_" + "a1B2" * 9,
    "an API key of a model provider": "sk-" + "proj-" + "a1B2" * 8,
    "an API key of Google": "AIza" + "a1B2c" * 7,
    "a token of Slack": "xoxb-" + "123456789012",
    "a token of Hugging Face": "hf_" + "a1B2" * 9,
    "a key of a kubeconfig": "client-key-" + "data: " + "LS0t" * 10,
    "a URL with a password": "redis://" + "user:correct-horse" + "@redis.internal:6379/0",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project: an app with a module and a data file beside it."""
    root = tmp_path / "project"
    (root / "tools").mkdir(parents=True)
    (root / "agent.py").write_text(f"import tools.clock\n{APP}")
    (root / "tools/__init__.py").touch()
    (root / "tools/clock.py").write_text("import json\n")
    (root / "story.txt").write_text("once\n")
    return root


def code(context: BuildContext) -> set[str]:
    return {name.removeprefix("app/") for name in context.files if name.startswith("app/")}


def test_a_folder_becomes_a_context(folder: Path) -> None:
    context = build_context(str(folder))
    assert code(context) == {"agent.py", "tools/__init__.py", "tools/clock.py", "story.txt"}
    assert set(context.files) - {f"app/{name}" for name in code(context)} == {
        "Dockerfile",
        "requirements.txt",
        "wheels/trio_agentapp-0.1.0-py3-none-any.whl",
    }
    assert (context.entry, context.requirements.found_in) == ("agent.py", "imports")
    lines = context.requirements.lines
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in lines), lines
    assert {"trio", "hypercorn", "quart-trio", "redis"} <= {line.partition("==")[0] for line in lines}
    assert not any(line.startswith("trio-agentapp") for line in lines)


@pytest.mark.parametrize(
    ("source", "entry"), [("agent.py", "agent.py"), ("agent.py:app", "agent.py:app"), ("agent:app", "agent:app")]
)
def test_a_file_and_a_module_mean_their_folder(folder: Path, monkeypatch, source: str, entry: str) -> None:
    monkeypatch.chdir(folder)
    assert build_context(source).entry == entry
    assert code(build_context(source)) == code(build_context("."))


def test_an_app_object_is_found_where_it_is_assigned(folder: Path) -> None:
    program = (
        "import agent, trio_agentapp.deploy.packaging as p, json\n"
        "c = p.build_context(agent.app); print(json.dumps([c.entry, sorted(c.files)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    entry, files = json.loads(done.stdout)
    assert entry == "agent:app"
    assert "app/tools/clock.py" in files


def test_the_same_source_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    context = build_context(str(folder))
    copy = shutil.copytree(folder, tmp_path / "elsewhere/other")
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    again = build_context(str(copy))
    assert again.digest == context.digest
    assert again.archive() == context.archive()
    # And what changes it: content, a name, the executable bit, the port.
    (copy / "story.txt").write_text("twice\n")
    digests = {context.digest, build_context(str(copy)).digest}
    (copy / "story.txt").rename(copy / "tale.txt")
    digests.add(build_context(str(copy)).digest)
    (copy / "tale.txt").chmod(0o755)
    digests.add(build_context(str(copy)).digest)
    digests.add(build_context(str(copy), port=9000).digest)
    assert len(digests) == 5


def test_a_context_is_written_as_folder_and_archive(folder: Path, tmp_path: Path) -> None:
    (folder / "start.sh").write_text("#!/bin/sh\n")
    (folder / "start.sh").chmod(0o700)
    context = build_context(str(folder))
    context.write(tmp_path / "out")
    (tmp_path / "out/app/old.py").touch()
    context.write(tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.*")}
    assert {name for name, path in found.items() if path.is_file()} == set(context.files) - {"Dockerfile"}
    assert (tmp_path / "out/app/start.sh").stat().st_mode & 0o777 == 0o755
    context.write(tmp_path / "out.tar")
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "out.tar").read_bytes())) as archive:
        modes = {each.name: each.mode for each in archive}
        assert set(modes) == set(context.files)
        assert modes["app/start.sh"] == 0o755
        assert {each.mtime for each in archive} == {0}
    with pytest.raises(DeployError, match="has files that are no build context"):
        context.write(folder)


def test_what_is_left_out(folder: Path) -> None:
    for name in (".git/config", "__pycache__/agent.pyc", "env/bin/python", "data/big.bin", "notes.md", "keep.log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "env/pyvenv.cfg").touch()
    (folder / ".env").write_text(f"KEY={KEYS['a token of GitHub']}\n")
    (folder / ".gitignore").write_text("*.log\n/data\n")
    (folder / ".agentappignore").write_text("notes.md\n.gitignore\n.agentappignore\n!keep.log\n")
    context = build_context(str(folder))
    assert code(context) == {"agent.py", "tools/__init__.py", "tools/clock.py", "story.txt", "keep.log"}
    assert context.left_out == {
        ".git/": "always",
        "__pycache__/": "always",
        ".env": "always",
        "env/": "virtual environment",
        "data/": ".gitignore",
        "notes.md": ".agentappignore",
        ".gitignore": ".agentappignore",
        ".agentappignore": ".agentappignore",
    }


@pytest.mark.parametrize("kind", KEYS)
def test_a_planted_key_is_refused_by_name(folder: Path, kind: str) -> None:
    (folder / "tools/keys.py").write_text(f"\n\nKEY = '{KEYS[kind]}'\n")
    with pytest.raises(DeployError) as caught:
        build_context(str(folder))
    assert f"tools/keys.py, line 3, has what looks like {kind}" in str(caught.value)
    assert KEYS[kind] not in str(caught.value)
    assert "tools/keys.py" in code(build_context(str(folder), allowed=["tools/keys.py"]))
    (folder / ".agentappignore").write_text("tools/keys.py\n")
    assert "tools/keys.py" not in code(build_context(str(folder)))


@pytest.mark.parametrize("name", ["id_ed25519", "tls.key", "prod.env", "kubeconfig", "credentials.json"])
def test_a_file_with_the_name_of_a_secret_is_refused(folder: Path, name: str) -> None:
    (folder / "tools" / name).write_text("x")
    with pytest.raises(DeployError, match=re.escape(f"tools/{name} looks like a secret by its name")):
        build_context(str(folder))


def test_folders_of_credentials_and_links_to_the_outside_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / ".aws").mkdir()
    with pytest.raises(DeployError, match=r"\.aws/ is a folder for credentials"):
        build_context(str(folder))
    (folder / ".aws").rmdir()
    (tmp_path / "passwd").write_text("x")
    (folder / "data.txt").symlink_to(tmp_path / "passwd")
    with pytest.raises(DeployError, match=r"data\.txt is a link to .*passwd, outside of"):
        build_context(str(folder))
    (folder / "data.txt").unlink()
    (folder / "data").symlink_to(tmp_path)
    with pytest.raises(DeployError, match="data is a link to a folder"):
        build_context(str(folder))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (".env", "is a link to .env, which is left out (always)"),
        ("private/notes", "is a link to private/notes, which is left out (.gitignore)"),
        ("tools/tls.key", "is a link to tools/tls.key, which looks like a secret by its name"),
        ("data.txt", "is not a file that can be copied"),
    ],
)
def test_another_name_for_a_file_changes_nothing(folder: Path, target: str, says: str) -> None:
    (folder / "private").mkdir()
    (folder / ".gitignore").write_text("private/\n")
    for name in (".env", "private/notes"):
        (folder / name).write_text("PASSWORD=correct-horse\n")
    if target == "tools/tls.key":
        (folder / target).write_text("x")
    (folder / "data.txt").symlink_to(folder / target)
    with pytest.raises(DeployError, match=re.escape(f"data.txt {says}")):
        build_context(str(folder))


@pytest.mark.parametrize("name", [b"\xff.txt", b"a\nb.txt", b"\x1b[31m.txt"])
def test_a_name_that_cannot_be_shown_or_hashed_is_refused(folder: Path, name: bytes) -> None:
    (folder / os.fsdecode(name)).touch()
    with pytest.raises(DeployError, match="has characters in its name") as caught:
        build_context(str(folder))
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_a_context_within_its_source_is_no_part_of_the_next_one(folder: Path) -> None:
    first = build_context(str(folder))
    first.write(folder / "out")
    second = build_context(str(folder))
    assert (second.digest, second.left_out) == (first.digest, {"out/": "build context"})


def test_a_password_in_a_requirement_is_refused_and_not_shown(folder: Path) -> None:
    for text in ("tool @ https://me:correct-horse@host/tool.whl", "git+https://me:correct-horse@host/tool.git"):
        with pytest.raises(DeployError, match="has what looks like a URL with a password") as caught:
            build_context(str(folder), requirements=[text])
        assert "correct-horse" not in str(caught.value)


def test_ordinary_texts_are_no_secrets(folder: Path) -> None:
    (folder / "fine.py").write_text(
        "URL = 'redis://localhost:6379/0'\nOTHER = f'redis://{user}:{password}@host'\n"
        "TEXT = 'task-list-of-all-things'\n"
    )
    (folder / "example.env").write_text("PASSWORD=\n")
    build_context(str(folder))


def test_requirements_of_files_win_over_imports(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["trio-agentapp", "pyyaml>=5"]\n')
    assert build_context(str(folder)).requirements.found_in == "pyproject.toml"
    (folder / "more.txt").write_text("nowhere-to-be-found == 1.5 ; python_version >= '3'\n")
    (folder / "requirements.txt").write_text(
        "# what it needs\npyyaml>=5  # any\n-r more.txt\nother==1; python_version < '3'\n"
    )
    found = build_context(str(folder)).requirements
    assert found.found_in == "requirements.txt"
    assert any(re.fullmatch(r"pyyaml==\d\S+", line) for line in found.lines)
    assert "nowhere-to-be-found==1.5" in found.lines
    assert found.open_ended == ("nowhere-to-be-found",)
    assert build_context(str(folder), requirements=["pyyaml"]).requirements.found_in == "given"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "nowhere-to-be-found",
            "nowhere-to-be-found (requirements.txt) has no exact version, and it is not",
        ),
        ("pyyaml>=999", "pyyaml>=999 (requirements.txt) has no exact version, and version "),
        ("a b", "requirements.txt, line 1: 'a b' is not a requirement"),
        ("--index-url=https://x", "requirements.txt, line 1: the option --index-url cannot be used in an image"),
        ("-e .", "requirements.txt, line 1: the option -e cannot be used"),
        ("-r other.txt", "requirements.txt includes other.txt, which is not in the context"),
        ("-r requirements.txt", "requirements.txt includes itself"),
    ],
)
def test_requirements_that_cannot_be_used(folder: Path, text: str, says: str) -> None:
    (folder / "requirements.txt").write_text(f"{text}\n")
    with pytest.raises(DeployError) as caught:
        build_context(str(folder))
    assert says in str(caught.value)


def test_a_module_that_is_missing_is_named(folder: Path) -> None:
    (folder / "agent.py").write_text(f"import os\nimport no_such_module\n{APP}")
    with pytest.raises(DeployError, match=r"agent\.py, line 2, imports no_such_module, which is neither in"):
        build_context(str(folder))
    (folder / "agent.py").write_text(f"try:\n    import no_such_module\nexcept ImportError:\n    pass\n{APP}")
    build_context(str(folder))
    (folder / "agent.py").write_text(f"from tools import clock\n{APP}")
    (folder / ".gitignore").write_text("clock.py\n")
    with pytest.raises(DeployError, match=r"rules of \.gitignore leave tools/clock\.py out"):
        build_context(str(folder))
    (folder / ".gitignore").write_text("agent.py\n")
    with pytest.raises(DeployError, match=r"agent\.py, the file of the app, is not in the context: .*\.gitignore"):
        build_context(str(folder))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_image": "python:3.11\nRUN x"}, "is not the name of an image"),
        ({"port": 0}, "port must be a number from 1 to 65535"),
        ({"port": 65536}, "65536"),
    ],
)
def test_arguments_that_cannot_be_used(folder: Path, options, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        build_context(str(folder), **options)


def test_a_source_that_is_none() -> None:
    for source in ("nowhere.py", "nowhere_module"):
        with pytest.raises(ConfigurationError, match="there is no"):
            build_context(source)
    with pytest.raises(ConfigurationError, match="'quart' is installed, not source"):
        build_context("quart:Quart")


async def test_the_dockerfile_starts_python_without_a_shell_and_asks_the_app(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = build_context(str(folder), port=port).files["Dockerfile"].decode()
    assert "\nUSER 10001:10001\n" in text
    assert text.index("requirements.txt") < text.index("wheels/") < text.index("COPY app/")
    commands = [json.loads(found) for found in re.findall(r"CMD (\[.*\])$", text, re.MULTILINE)]
    health, start = commands
    assert start == ["trio-agentapp", "run", "agent.py"]
    command = [sys.executable, *health[1:]]
    manager = LocalDeployManager(port=port)
    here = await manager.deploy(entrypoint=str(folder / "agent.py"))
    try:
        await trio.run_process(command)
    finally:
        await manager.stop(here.deploy_id)
    assert (await trio.run_process(command, check=False, capture_stderr=True)).returncode == 1


PROJECT = {
    "requirements.txt": "pyyaml\n",
    "service/__init__.py": "",
    "service/words.py": "import yaml\nWORDS = yaml.safe_load('[a, b]')\n",
    "service/app.py": "from .words import WORDS\nfrom trio_agentapp import AgentApp\n"
    "def create_app():\n    made = AgentApp(app_name=WORDS[0])\n    return made\n",
}


installs = pytest.mark.skipif(
    "AGENTAPP_TEST_INSTALLS" not in os.environ, reason="it installs packages for minutes: make test-packaging"
)


@installs
@pytest.mark.parametrize("example", ["friday", "endpoints", "project"])
async def test_a_context_is_installed_and_served_in_an_empty_folder(example: str, tmp_path: Path) -> None:
    source = str(EXAMPLES / example)
    if example == "project":
        for name, text in PROJECT.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        source = str(tmp_path / "service/app.py")
    steps: list[str] = []
    await check_context(build_context(source), report=steps.append)
    assert steps[0] == "Making a virtual environment"
    assert steps[-1] == "Starting the app"


@installs
async def test_a_data_file_that_is_missing_is_found_and_named(folder: Path) -> None:
    (folder / "agent.py").write_text(f"open('story.txt')\n{APP}")
    (folder / ".gitignore").write_text("story.txt\n")
    with pytest.raises(DeployError) as caught:
        await check_context(build_context(str(folder)))
    assert "agent.py, line 1: FileNotFoundError" in str(caught.value)
    assert "story.txt was left out by the rules of .gitignore" in str(caught.value)
