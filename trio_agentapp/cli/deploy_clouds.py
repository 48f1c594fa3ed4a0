"""`deploy modelstudio`, `deploy agentrun` and `deploy fc`: an app in a serverless service of Alibaba Cloud."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .config import read_config
from .environment import given_variables
from .exits import ExitCode, say
from .options import Allow, App, AsJson, Entrypoint, Env, EnvFile, IndexUrl, Requirement, chosen
from .terminal import write, write_json

if TYPE_CHECKING:
    from ..abc import DeployManager

__all__ = ["agentrun", "fc", "modelstudio"]

COMMON: dict[str, type] = {"name": str, "entrypoint": str, "environment": dict}
INSTANCE: dict[str, type] = {**COMMON, "region": str, "cpu": float, "memory": int}
"""Keys of the file of `--config`, with the types of their values."""

Name = Annotated[
    str | None, typer.Option("--name", "--deploy-name", help="[default: the name of the app's file or folder]")
]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Some of these options as JSON, TOML or YAML; options win.")
]
SkipUpload = Annotated[bool, typer.Option("--skip-upload", help="Make the package, and send nothing.")]
Region = Annotated[str | None, typer.Option(help="[default: that of the environment, else cn-hangzhou]")]
Cpu = Annotated[float | None, typer.Option(help="Cores of an instance.  [default: 2]")]
Memory = Annotated[int | None, typer.Option(help="MiB of an instance.  [default: 2048]")]
Publish = Annotated[bool, typer.Option("--publish", help="Make the code an unchangeable version.")]
DeployTimeout = Annotated[float, typer.Option(min=0, help="Seconds to wait until the app is ready.")]


def modelstudio(
    app: App,
    entrypoint: Entrypoint = None,
    name: Name = None,
    env: Env = None,
    env_file: EnvFile = None,
    config: Config = None,
    requirement: Requirement = None,
    allow: Allow = None,
    agent_id: Annotated[str | None, typer.Option(help="Publish a new version of this agent.")] = None,
    description: Annotated[str | None, typer.Option("--description", "--desc", help="Of the agent.")] = None,
    telemetry: Annotated[bool, typer.Option(help="Let ModelStudio trace the app.")] = True,
    skip_upload: SkipUpload = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Publish APP, or a wheel of it, in ModelStudio. Access keys are read from the environment."""
    from ..deploy import ModelstudioDeployManager

    _, options = _read(app, entrypoint, name, env, env_file, config, COMMON)
    options |= {"agent_id": agent_id, "agent_desc": description, "telemetry_enabled": telemetry}
    manager = ModelstudioDeployManager(report=_say_step)
    return _deploy(manager, app, "modelstudio:", as_json, options, requirement, allow, skip_upload)


def agentrun(
    app: App,
    entrypoint: Entrypoint = None,
    name: Name = None,
    env: Env = None,
    env_file: EnvFile = None,
    config: Config = None,
    region: Region = None,
    cpu: Cpu = None,
    memory: Memory = None,
    requirement: Requirement = None,
    allow: Allow = None,
    index_url: IndexUrl = None,
    agentrun_id: Annotated[str | None, typer.Option(help="Update this agent runtime.")] = None,
    publish: Publish = False,
    deploy_timeout: DeployTimeout = 300.0,
    skip_upload: SkipUpload = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Run APP, or a wheel of it, in AgentRun. Access keys are read from the environment."""
    from ..deploy import AgentRunConfig, AgentRunDeployManager

    settings, options = _read(app, entrypoint, name, env, env_file, config, INSTANCE)
    complete = _evolved(AgentRunConfig.from_env(), settings, region=region, cpu=cpu, memory=memory)
    manager = AgentRunDeployManager(
        agentrun_config=complete, deploy_timeout=deploy_timeout, index_url=index_url, report=_say_step
    )
    options |= {"agentrun_id": agentrun_id, "publish": publish}
    prefix = f"agentrun:{complete.region_id}/"
    return _deploy(manager, app, prefix, as_json, options, requirement, allow, skip_upload)


def fc(
    app: App,
    entrypoint: Entrypoint = None,
    name: Name = None,
    env: Env = None,
    env_file: EnvFile = None,
    config: Config = None,
    region: Region = None,
    cpu: Cpu = None,
    memory: Memory = None,
    requirement: Requirement = None,
    allow: Allow = None,
    index_url: IndexUrl = None,
    function_name: Annotated[str | None, typer.Option(help="Update this function.")] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Let everybody call the URL, without a signature.")
    ] = False,
    publish: Publish = False,
    deploy_timeout: DeployTimeout = 300.0,
    skip_upload: SkipUpload = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Run APP, or a wheel of it, in Function Compute. Access keys are read from the environment."""
    from ..deploy import FCConfig, FCDeployManager

    settings, options = _read(app, entrypoint, name, env, env_file, config, INSTANCE)
    complete = _evolved(FCConfig.from_env(), settings, region=region, cpu=cpu, memory=memory)
    manager = FCDeployManager(
        fc_config=complete, deploy_timeout=deploy_timeout, index_url=index_url, report=_say_step
    )
    options |= {"function_name": function_name, "anonymous": anonymous, "publish": publish}
    prefix = f"fc:{complete.region_id}/"
    return _deploy(manager, app, prefix, as_json, options, requirement, allow, skip_upload)


def _read(
    app: str,
    entrypoint: str | None,
    name: str | None,
    env: list[str] | None,
    env_file: Path | None,
    config: Path | None,
    keys: dict[str, type],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file of `--config`, and the options of `deploy` that are the same everywhere."""
    settings = {} if config is None else read_config(config, keys)
    source = chosen(app, entrypoint or settings.get("entrypoint"))
    where = "external_whl_path" if source.endswith(".whl") else "entrypoint"
    variables = given_variables(env_file, env, settings.get("environment"))
    return settings, {where: source, "deploy_name": name or settings.get("name"), "environment": variables}


def _evolved(config: Any, settings: dict[str, Any], **options: Any) -> Any:
    """The configuration with what the file and then the options change."""
    import attrs

    given = {key: settings.get(key) if value is None else value for key, value in options.items()}
    fields = {"region_id" if key == "region" else key: value for key, value in given.items() if value is not None}
    return attrs.evolve(config, **fields)


def _deploy(
    manager: DeployManager,
    app: str,
    prefix: str,
    as_json: bool,
    options: dict[str, Any],
    requirement: list[str] | None,
    allow: list[str] | None,
    skip_upload: bool,
) -> ExitCode:
    import trio

    options |= {"requirements": requirement, "allowed": allow or (), "skip_upload": skip_upload}
    done = trio.run(partial(manager.deploy, **options))
    if as_json:
        write_json(done)
    elif skip_upload:
        say("The package was made. Nothing was sent.")
        write(str(getattr(done, "artifact_url", None) or getattr(done, "wheel_path", "")))
    else:
        target = f"{prefix}{done.deploy_id}"
        if prefix == "modelstudio:":
            say(f"{app} is published; see {done.url}")
        else:
            say(f"{app} is ready on {done.url} (trio-agentapp stop {target} stops it)")
        write(target)
    return ExitCode.OK


def _say_step(step: str) -> None:
    say(f"{step} ...")
