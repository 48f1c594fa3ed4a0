"""`deploy modelstudio`, `deploy agentrun` and `deploy fc`: an app in a serverless service of Alibaba Cloud."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .config import read_config
from .deployers import cloud_manager
from .environment import given_variables
from .exits import ExitCode, say
from .options import Allow, App, AsJson, Entrypoint, Env, EnvFile, IndexUrl, Requirement, chosen, variant
from .status import show_ready
from .terminal import write

__all__ = ["agentrun", "fc", "modelstudio"]

COMMON: dict[str, type] = {"name": str, "entrypoint": str, "environment": dict}
INSTANCE: dict[str, type] = {"region": str, "cpu": float, "memory": int}
"""Keys of the file of `--config`, with the types of their values; those of an instance not for ModelStudio."""


def _options(
    app: App,
    entrypoint: Entrypoint = None,
    deploy_name: Annotated[
        str | None, typer.Option("--name", "--deploy-name", help="[default: the name of the app's file or folder]")
    ] = None,
    env: Env = None,
    env_file: EnvFile = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Some of these options as JSON, TOML or YAML; options win."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="[default: that of the environment, else cn-hangzhou]")] = None,
    cpu: Annotated[float | None, typer.Option(help="Cores of an instance.  [default: 2]")] = None,
    memory: Annotated[int | None, typer.Option(help="MiB of an instance.  [default: 2048]")] = None,
    requirements: Requirement = None,
    allowed: Allow = None,
    index_url: IndexUrl = None,
    agent_id: Annotated[str | None, typer.Option(help="Publish a new version of this agent.")] = None,
    agent_desc: Annotated[str | None, typer.Option("--description", "--desc", help="Of the agent.")] = None,
    telemetry_enabled: Annotated[
        bool, typer.Option("--telemetry/--no-telemetry", help="Let ModelStudio trace the app.")
    ] = True,
    agentrun_id: Annotated[str | None, typer.Option(help="Update this agent runtime.")] = None,
    function_name: Annotated[str | None, typer.Option(help="Update this function.")] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Let everybody call the URL, without a signature.")
    ] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Make the code an unchangeable version.")] = False,
    deploy_timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until the app is ready.")] = 300.0,
    skip_upload: Annotated[bool, typer.Option("--skip-upload", help="Make the package, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Declare the options of the three commands, in the order of their help. Each leaves some out."""


def _deploy(
    cloud: str,
    app: str,
    entrypoint: str | None,
    deploy_name: str | None,
    env: list[str] | None,
    env_file: Path | None,
    config: Path | None,
    requirements: list[str] | None,
    allowed: list[str] | None,
    skip_upload: bool,
    as_json: bool,
    **options: Any,
) -> ExitCode:
    import trio

    from ..deploy.requirements import listed

    keys = COMMON if cloud == "modelstudio" else {**COMMON, **INSTANCE}
    settings = {} if config is None else read_config(config, keys)
    source = chosen(app, entrypoint or settings.get("entrypoint"))
    environment = given_variables(env_file, env, settings.get("environment"))
    # What is not given is left to the variables of the environment.
    given = {name: options.pop(name, None) for name in INSTANCE}
    given = {name: settings.get(name) if value is None else value for name, value in given.items()}
    of_manager = {name: options.pop(name) for name in ("deploy_timeout", "index_url") if name in options}
    manager, place = cloud_manager(cloud, report=_say_step, **given, **of_manager)
    deploying = partial(
        manager.deploy,
        **{"external_whl_path" if source.endswith(".whl") else "entrypoint": source},
        deploy_name=deploy_name or settings.get("name"),
        environment=environment,
        requirements=listed(requirements),
        allowed=allowed or (),
        skip_upload=skip_upload,
        **options,
    )
    done = trio.run(deploying)
    target = f"{place}{done.deploy_id}"
    if as_json or not (skip_upload or cloud == "modelstudio"):
        show_ready(app, done, target, as_json=as_json)
    elif skip_upload:
        say("The package was made. Nothing was sent.")
        write(str(getattr(done, "artifact_url", None) or getattr(done, "wheel_path", "")))
    else:
        say(f"{app} is published; see {done.url}")
        write(target)
    return ExitCode.OK


def _say_step(step: str) -> None:
    # Lines that stay: the steps of a deployment that failed say what it has left.
    say(f"{step} ...")


MODELSTUDIO = ("agent_id", "agent_desc", "telemetry_enabled")
ARCHIVES = (*INSTANCE, "index_url", "publish", "deploy_timeout")
FC = ("function_name", "anonymous")
KEYS = "Access keys are read from the environment."

modelstudio = variant(
    _options,
    partial(_deploy, "modelstudio"),
    f"Publish APP, or a wheel of it, in ModelStudio. {KEYS}",
    (*ARCHIVES, "agentrun_id", *FC),
)
agentrun = variant(
    _options, partial(_deploy, "agentrun"), f"Run APP, or a wheel of it, in AgentRun. {KEYS}", (*MODELSTUDIO, *FC)
)
fc = variant(
    _options,
    partial(_deploy, "fc"),
    f"Run APP, or a wheel of it, in Function Compute. {KEYS}",
    (*MODELSTUDIO, "agentrun_id"),
)
