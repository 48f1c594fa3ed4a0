"""Images: built and pushed by the tools that are installed, to a registry that the tests start."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from trio_agentapp.deploy.images import TOOLS, ImageBuild, RegistryConfig, find_tool, image_name
from trio_agentapp.deploy.packaging import BuildContext, build_context
from trio_agentapp.deploy.requirements import listed
from trio_agentapp.errors import ConfigurationError, DeployError

PASSWORD = "right"
HTPASSWD = "tester:$2b$04$6efsRBCId0qZelgzcRXy5.i4I9esQV4I6KvWgHh5W2bosho6Cdudq\n"

REAL = pytest.mark.parametrize("tool", ["podman", "buildah"])

PASSES = "#!/bin/sh\nexit 0\n"
SLOW = "#!/bin/sh\nexec sleep 4321\n"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    folder = tmp_path_factory.mktemp("app")
    (folder / "agent.py").write_text("from trio_agentapp import AgentApp\napp = AgentApp()\n")
    return build_context(str(folder), base_image="localhost/base:1")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Storage of their own for the tools, with an image of Python in which nothing is real but its shell."""
    if not (shutil.which("buildah") and shutil.which("busybox")):
        pytest.skip("buildah and busybox are not installed (apt-get install buildah podman busybox-static)")
    folder = tmp_path_factory.mktemp("containers")
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
        patch.setenv("STORAGE_DRIVER", "vfs")
        patch.setenv("BUILDAH_ISOLATION", "chroot")
        for name, pip in (("base", PASSES), ("slow", SLOW)):
            made = _base(folder / name, pip, f"localhost/{name}:1")
            if made.returncode:
                pytest.skip(f"buildah makes no images here: {made.stderr.strip()}")
        yield


def _base(folder: Path, pip: str, image: str) -> subprocess.CompletedProcess[str]:
    (folder / "bin").mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), folder / "bin" / "busybox")
    for name, text in (("useradd", PASSES), ("pip", pip)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    for link in ("sh", "sleep"):
        (folder / "bin" / link).symlink_to("busybox")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY bin/ /bin/\nENV PATH=/bin\n")
    command = ["buildah", "build", "--tag", image, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that lets one user in."""
    if not shutil.which("docker-registry"):
        pytest.skip("no registry is installed (apt-get install docker-registry)")
    folder = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    (folder / "htpasswd").write_text(HTPASSWD)
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": host},
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        for _ in range(1000):
            try:
                httpx.get(f"http://{host}/v2/", trust_env=False)
                break
            except httpx.ConnectError:
                assert process.poll() is None, (folder / "log").read_text()
        yield host
    finally:
        process.kill()
        process.wait()


def pushed(host: str, name: str, tag: str) -> dict[str, Any]:
    """The settings of an image in the registry."""
    with httpx.Client(base_url=f"http://{host}/v2/{name}", auth=("tester", PASSWORD), trust_env=False) as client:
        accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
        manifest = client.get(f"/manifests/{tag}", headers={"Accept": accept}).raise_for_status().json()
        found = client.get(f"/blobs/{manifest['config']['digest']}").raise_for_status().json()["config"]
    assert isinstance(found, dict)
    return found


def login(host: str) -> RegistryConfig:
    return RegistryConfig(registry_url=host, username="tester", password=PASSWORD)


def needs(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (apt-get install {tool})")


@REAL
async def test_an_image_is_built_and_pushed_and_not_built_again(
    tools: None, registry: str, context: BuildContext, tool: str
) -> None:
    needs(tool)
    build = ImageBuild(
        context=context, image=f"{registry}/team/{tool}:1", push=True, registry=login(registry), tool=tool
    )
    steps: list[str] = []
    assert await build.run(steps.append) == tool
    assert steps[0] == f"Building {build.image} with {tool}"
    assert f"Building {build.image} with {tool} (2 of " in "\n".join(steps)
    assert steps[-1] == f"Pushing {build.image}"
    found = pushed(registry, f"team/{tool}", "1")
    assert (found["User"], found["Cmd"]) == ("10001:10001", ["trio-agentapp", "run", "agent.py"])

    steps.clear()
    await build.run(steps.append)
    assert steps == [f"Using {build.image}, which was built from the same files", f"Pushing {build.image}"]
    more = attrs.evolve(context, files={**context.files, "app/more": b"x"})
    steps.clear()
    await attrs.evolve(build, push=False, context=more).run(steps.append)
    assert steps[0].startswith("Building ")


@REAL
async def test_a_push_without_a_login_is_explained(
    tools: None, registry: str, context: BuildContext, tool: str
) -> None:
    needs(tool)
    image = f"{registry}/team/refused:1"
    wrong = attrs.evolve(login(registry), password="wrong")
    for config in (RegistryConfig(), wrong):
        build = ImageBuild(context=context, image=image, push=True, registry=config, tool=tool)
        with pytest.raises(DeployError) as caught:
            await build.run()
        assert str(caught.value).startswith(f"{registry} refuses {image} (")
        assert f"log in with an account that may write there: {tool} login {registry}" in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert PASSWORD not in repr(login(registry))


@REAL
async def test_a_base_image_that_does_not_exist(
    tools: None, registry: str, context: BuildContext, tool: str
) -> None:
    needs(tool)
    text = context.files["Dockerfile"].replace(b"localhost/base:1", f"{registry}/nothing:3".encode())
    wrong = attrs.evolve(context, files={**context.files, "Dockerfile": text})
    with pytest.raises(DeployError, match=f"the base image {registry}/nothing:3 cannot be got") as caught:
        await ImageBuild(context=wrong, image="localhost/x:1", tool=tool).run()
    assert "--base-image NAME" in str(caught.value)


async def test_a_cancelled_build_leaves_no_process(tools: None, context: BuildContext) -> None:
    text = context.files["Dockerfile"].replace(b"localhost/base:1", b"localhost/slow:1")
    slow = attrs.evolve(context, files={**context.files, "Dockerfile": text})
    scope = trio.CancelScope()
    steps: list[str] = []

    def report(step: str) -> None:
        steps.append(step)
        if "(6 of " in step:  # pip
            scope.cancel()

    with scope:
        await ImageBuild(context=slow, image="localhost/slow-app:1", tool="buildah").run(report)
    assert scope.cancelled_caught, steps
    with trio.fail_after(10):
        while "agentapp-build-" in (commands := _commands()) or "sleep 4321" in commands:
            await trio.sleep(0.05)


def _commands() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


# docker has no daemon where tests run, so a program of its name plays it.

Docker = Callable[[str], Path]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    def make(script: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "docker").write_text(
            f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$1" = image ] && exit 1\n{script}\n'
        )
        (folder / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return tmp_path / "calls"

    return make


async def test_docker_gets_these_words(docker: Docker, context: BuildContext, monkeypatch, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "contexts").mkdir()
    (own / "config.json").write_text(json.dumps({"credsStore": "desktop", "currentContext": "far"}))
    monkeypatch.setenv("DOCKER_CONFIG", str(own))
    seen = tmp_path / "seen"
    calls = docker(
        f'[ "$1" = --config ] && cp -r "$2" {seen}\necho "#7 [stage-0 3/8] RUN pip"\necho "Step 4/9 : RUN"'
    )
    build = ImageBuild(
        context=context,
        image="registry.example.com/friday:1",
        push=True,
        registry=login("registry.example.com"),
        index_url="https://index.example.com/simple",
        platform="linux/arm64",
    )
    steps: list[str] = []
    assert await build.run(steps.append) == "docker"
    assert steps[1:3] == [f"{steps[0]} (3 of 8)", f"{steps[0]} (4 of 9)"]
    changed = [attrs.evolve(build, **each) for each in ({"platform": None}, {"index_url": None})]
    assert len({each.digest for each in (build, *changed)}) == 3
    _, made, sent = calls.read_text().splitlines()
    assert made.startswith("build --tag registry.example.com/friday:1 --label trio-agentapp.build=")
    assert "--build-arg PIP_INDEX_URL=https://index.example.com/simple --platform linux/arm64 /" in made
    assert sent.endswith(" push registry.example.com/friday:1")
    assert PASSWORD not in made + sent
    config = json.loads((seen / "config.json").read_text())
    assert config["currentContext"] == "far"
    assert config["credHelpers"] == {"registry.example.com": ""}
    assert config["auths"] == {"registry.example.com": {"auth": "dGVzdGVyOnJpZ2h0"}}
    assert (seen / "contexts").exists()
    assert not await trio.Path(sent.split()[1]).exists()


@pytest.mark.parametrize(
    ("says", "means"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "the daemon of docker does not run; start it, for instance with systemctl start docker, or choose "
            "another tool: --builder podman|buildah",
        ),
        (
            "ERROR: failed to connect to the docker API at unix:///var/run/docker.sock; check if it is correct",
            "the daemon of docker does not run",
        ),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "this user may not use docker; add it to the group docker",
        ),
        (
            "pull access denied for localhost/base, repository does not exist or may require 'docker login'",
            "the base image localhost/base:1 cannot be got (pull access denied",
        ),
        (
            "ERROR: failed to resolve source metadata for docker.io/library/python:3.0: no such host",
            "the base image localhost/base:1 cannot be got",
        ),
        ("ERROR: No matching distribution found for nothing==1", "pip finds no nothing==1 in the package index"),
        ("one\ntwo", "docker cannot build localhost:5000/friday:1: one\n  two"),
        ("", "docker cannot build localhost:5000/friday:1: it says nothing"),
    ],
)
async def test_builds_that_fail(docker: Docker, context: BuildContext, says: str, means: str) -> None:
    docker(f"cat <<'END'\n{says}\nEND\nexit 1")
    with pytest.raises(DeployError) as caught:
        await ImageBuild(context=context, image="localhost:5000/friday:1").run()
    assert means in str(caught.value)


@pytest.mark.parametrize(
    ("says", "means"),
    [
        ("denied: requested access to the resource is denied", "docker login localhost:5000"),
        ("no basic auth credentials", "localhost:5000 refuses localhost:5000/friday:1 (no basic auth credentials)"),
        ("http: server gave HTTP response to HTTPS client", "localhost:5000 speaks no TLS"),
        ("dial tcp: lookup localhost: no such host", "the registry localhost:5000 does not answer"),
        ("disk full", "docker cannot push localhost:5000/friday:1: disk full"),
    ],
)
async def test_pushes_that_fail(docker: Docker, context: BuildContext, says: str, means: str) -> None:
    docker(f'[ "$1" = push ] && echo "{says}" && exit 1\nexit 0')
    with pytest.raises(DeployError) as caught:
        await ImageBuild(context=context, image="localhost:5000/friday:1", push=True).run()
    assert means in str(caught.value)


async def test_the_real_docker_without_its_daemon(context: BuildContext, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("docker")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(DeployError, match="the daemon of docker does not run"):
        await ImageBuild(context=context, image="localhost/x:1", tool="docker").run()


def test_which_tool_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeployError, match="no tool that builds images is installed; install docker, podman or"):
        find_tool()
    for tool in reversed(TOOLS):
        (tmp_path / tool).write_text("")
        (tmp_path / tool).chmod(0o755)
        assert find_tool() == tool
    (tmp_path / "podman").unlink()
    with pytest.raises(DeployError, match="podman is not installed; install it, or choose another one of"):
        find_tool("podman")
    with pytest.raises(ConfigurationError, match="'kaniko' cannot build images; known are docker, podman, buildah"):
        find_tool("kaniko")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "Friday:1"}, "'Friday:1' is not the name of an image"),
        ({"image": "friday"}, "'friday' is not the name of an image"),
        ({"image": "a/-b:1"}, "is not the name of an image"),
        ({"image": "friday:1", "push": True}, "friday:1 names no registry to push to"),
        ({"image": "friday:1", "index_url": "https://me:secret@index/simple"}, "the package index has a name or a"),
    ],
)
def test_values_that_cannot_be_used(context: BuildContext, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        ImageBuild(context=context, **options)
    assert "secret@" not in str(caught.value)


async def test_an_image_is_built_again_on_request(docker: Docker, context: BuildContext) -> None:
    build = ImageBuild(context=context, image="localhost/friday:1", use_cache=False)
    calls = docker("exit 0")
    await build.run()
    [made] = calls.read_text().splitlines()
    assert " --no-cache " in made


def test_names_of_images() -> None:
    with pytest.raises(ConfigurationError, match="give the host alone") as caught:
        RegistryConfig(registry_url="https://me:secret@r.example.com")
    assert "secret" not in str(caught.value)
    registry = RegistryConfig(registry_url="https://r.example.com:5000/", namespace="team/a")
    assert image_name("friday", "1", registry) == "r.example.com:5000/team/a/friday:1"
    assert image_name("friday", "1", RegistryConfig()) == "friday:1"


def test_requirements_as_old_scripts_give_them(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("# comment\nanyio==4 # why\n\n")
    assert listed("httpx>=0.2,<1, redis[hiredis,ocsp]==5,attrs") == [
        "httpx>=0.2,<1",
        "redis[hiredis,ocsp]==5",
        "attrs",
    ]
    assert listed(["a==1", str(tmp_path / "more.txt")]) == ["a==1", "anyio==4"]
    assert listed(None) is None
    with pytest.raises(ConfigurationError, match=r"nowhere\.txt cannot be read"):
        listed("nowhere.txt")
