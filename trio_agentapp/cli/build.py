"""`build`: makes the build context of an image, prints what goes in; on request checks, builds and pushes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError
from .environment import given_variables
from .exits import ExitCode, say
from .options import (
    Allow,
    App,
    AsJson,
    BaseImage,
    Builder,
    Cache,
    Entrypoint,
    Env,
    EnvFile,
    IndexUrl,
    Platform,
    Requirement,
    chosen,
)
from .progress import steps
from .terminal import write, write_json

if TYPE_CHECKING:
    from ..deploy.packaging import BuildContext

__all__ = ["build"]


def build(
    app: App,
    entrypoint: Entrypoint = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the context: a folder, or a file that ends in .tar."),
    ] = None,
    requirement: Requirement = None,
    base_image: BaseImage = None,
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="In the container.")] = 8090,
    allow: Allow = None,
    check: Annotated[
        bool, typer.Option("--check", help="Install the context into a fresh environment, and start the app there.")
    ] = False,
    index_url: IndexUrl = None,
    image: Annotated[
        str | None,
        typer.Option(help="Build the image, as REGISTRY/NAME:TAG.  [default tag: the first digits of the digest]"),
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Push it to its registry.")] = False,
    builder: Builder = None,
    platform: Platform = None,
    cache: Cache = True,
    env: Env = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Make the build context of an image of APP, and print what goes in; with --image, build the image."""
    import trio

    from ..deploy.context_check import check_context
    from ..deploy.images import ImageBuild
    from ..deploy.packaging import build_context
    from ..deploy.requirements import listed

    if push and image is None:
        raise ConfigurationError("--push needs a name: --image REGISTRY/NAME:TAG")
    environment = given_variables(env_file, env)
    context = build_context(
        chosen(app, entrypoint),
        requirements=listed(requirement),
        base_image=base_image,
        port=port,
        allowed=allow or (),
    )
    build = None
    if image is not None:
        tagged = image if ":" in image.rpartition("/")[2] else f"{image}:{context.tag}"
        build = ImageBuild(
            context=context,
            image=tagged,
            push=push,
            index_url=index_url,
            platform=platform,
            tool=builder,
            use_cache=cache,
        )

    async def work(report: Callable[[str], object]) -> None:
        if check:
            await check_context(context, environment=environment, index_url=index_url, report=report)
        if build is not None:
            await build.run(report)

    with steps(silent=as_json) as report:
        trio.run(work, report)
    if output is not None:
        context.write(output)
    if as_json:
        write_json({**_summary(context), "image": None if build is None else build.image})
    else:
        _show(context)
    if check:
        say("The app starts from this context.")
    if output is not None:
        say(f"Written to {output}; for instance: docker build -t agent:{context.tag} {output}")
    if build is not None:
        say(f"{build.image} is {'pushed' if push else 'built'}.")
    return ExitCode.OK


def _summary(context: BuildContext) -> dict[str, Any]:
    return {
        "digest": context.digest,
        "tag": context.tag,
        "entry": context.entry,
        "port": context.port,
        "files": {name: len(content) for name, content in sorted(context.files.items())},
        "requirements": context.requirements.lines,
        "requirements_from": context.requirements.found_in,
        "not_pinned_below": context.requirements.open_ended,
        "left_out": context.left_out,
    }


def _show(context: BuildContext) -> None:
    for name, content in sorted(context.files.items()):
        write(f"{len(content):>10,}  {name}")
    for name, rule in sorted(context.left_out.items()):
        write(f"  left out  {name} ({rule})")
    found = context.requirements
    write(f"{len(found.lines)} requirements, from {found.found_in}; {context.entry} on port {context.port}")
    for name in found.open_ended:
        write(f"{name} is not installed here in that version, so pip chooses the versions of its dependencies")
    write(f"sha256:{context.digest}")
