"""Describes an app as a `Workload`: reads its settings, and names its image."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import ConfigurationError
from .images import ImageBuild, ImageOptions, RegistryConfig, image_name
from .manifests import LONGEST_NAME, REDIS_VARIABLE, Workload

if TYPE_CHECKING:
    from ..app import AgentApp

__all__ = ["environment_secret", "workload_of"]


VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
"""What both a key of a Secret and the name of a variable may be."""


def environment_secret(name: str) -> str:
    """The name of the Secret with the environment of an app."""
    return f"{name}-env"


def workload_of(
    app: AgentApp | None,
    entrypoint: str | None,
    environment: Mapping[str, str],
    options: Mapping[str, Any],
    registry: RegistryConfig | None = None,
) -> tuple[Workload, ImageBuild | None]:
    """Make the workload of an app, and the build of its image. The app is loaded if it is an entrypoint.

    `options` are those of `Workload` and `ImageOptions`, and `runtime_config` of the replaced product. With `image`
    and no `push_to_registry` there is nothing to build: the image exists. Without `image` it is
    `registry/namespace/name:tag`, and its tag is that of the build context.

    Raises:
        ConfigurationError: the app cannot be found, or an option cannot be used.
        DeployError: there is an image to build, and its build context is refused.
        TypeError: there is no such option.
    """
    from ..app.loading import load_app
    from ..app.serving import shares_sessions

    if app is None and entrypoint is None:
        raise ConfigurationError("there is nothing to deploy: give an app or an entrypoint")
    loaded = app or load_app(str(entrypoint))
    registry = registry or RegistryConfig()
    given = {"image_pull_secret": registry.image_pull_secret, **_of_runtime(options.get("runtime_config"))}
    given |= {name: value for name, value in options.items() if value is not None and name != "runtime_config"}
    given = {name: value for name, value in given.items() if value is not None}
    known = attrs.fields_dict(Workload)
    of_image = {name: given.pop(name) for name in attrs.fields_dict(ImageOptions) if name in given}
    for option in given:
        if option not in known:
            raise TypeError(f"KubernetesDeployManager.deploy has no option {option!r}")
    name = given.pop("name", None) or _as_name(loaded.app_name)
    secrets = list(given.pop("secrets", ()))
    versions: list[Any] = []
    if environment:
        _check_names(environment)
        secrets.append(environment_secret(name))
        versions.append(sorted(environment.items()))
    source = entrypoint if entrypoint is not None else loaded
    build = _build(source, name, given.get("image"), given.get("port", 8090), ImageOptions(**of_image), registry)
    if build is not None:
        given["image"] = build.image
        if not build.image.endswith(f":{build.context.tag}"):
            # A tag of the user's stays the same when the image changes; pods have to be replaced then, too.
            versions.append(build.digest)
            given.setdefault("image_pull_policy", "Always" if build.push else "IfNotPresent")
    work = Workload(
        name=name,
        secrets=tuple(secrets),
        environment_digest=_digest(versions, name) if versions else None,
        shared=shares_sessions(loaded.settings) or REDIS_VARIABLE in environment,
        drain_timeout=_longest(loaded.settings.drain_timeout, environment.get("AGENTAPP_DRAIN_TIMEOUT")),
        cleanup_budget=_longest(loaded.settings.cleanup_budget, environment.get("AGENTAPP_CLEANUP_BUDGET")),
        **given,
    )
    return work, build


def _check_names(environment: Mapping[str, str]) -> None:
    for name in environment:
        if not VARIABLE.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot be the name of a variable in Kubernetes: use letters, digits and _, beginning "
                "with a letter"
            )


def _digest(versions: list[Any], name: str) -> str:
    """A digest for all who see the manifests. It is slow to compute, so that short values are hard to guess."""
    return hashlib.scrypt(json.dumps(versions).encode(), salt=name.encode(), n=2**14, r=8, p=1, dklen=8).hex()


def _build(
    source: AgentApp | str, name: str, image: str | None, port: int, options: ImageOptions, registry: RegistryConfig
) -> ImageBuild | None:
    """The build of the image; None if there is nothing to build."""
    from .packaging import build_context
    from .requirements import listed

    if image is not None and not options.push_to_registry:
        return None
    context = build_context(
        source,
        requirements=listed(options.requirements),
        base_image=options.base_image,
        port=port,
        allowed=options.allowed,
    )
    if image is None:
        image = image_name(options.image_name or name, options.image_tag or context.tag, registry)
    return ImageBuild(
        context=context,
        image=image,
        push=options.push_to_registry,
        registry=registry,
        index_url=options.pypi_mirror,
        platform=options.platform,
        tool=options.builder,
        use_cache=options.use_cache,
    )


def _of_runtime(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Translate `runtime_config` of the replaced product, whose values are spelt as in a pod.

    Raises:
        ConfigurationError: it has a key that this manager decides itself, or does not know.
    """
    left = dict(config or {})
    made: dict[str, Any] = {
        name: left.pop(name, None) for name in ("image_pull_policy", "node_selector", "tolerations")
    }
    if pull := left.pop("image_pull_secrets", None):
        if len(pull) > 1:
            raise ConfigurationError("runtime_config has several image_pull_secrets; one is possible")
        made["image_pull_secret"] = pull[0] if isinstance(pull[0], str) else pull[0]["name"]
    resources = left.pop("resources", {})
    for what, end in (("requests", "request"), ("limits", "limit")):
        for unit in ("cpu", "memory"):
            made[f"{unit}_{end}"] = resources.get(what, {}).get(unit)
    if left.get("restart_policy") == "Always":
        del left["restart_policy"]
    if left:
        raise ConfigurationError(
            f"runtime_config cannot have {', '.join(map(repr, left))}: pods always restart, and always have the "
            "security context that the image is made for; leave it out"
        )
    return made


def _as_name(app_name: str) -> str:
    """Turn the name of an app into one for Kubernetes: small letters, digits and `-`."""
    name = re.sub(r"[^a-z0-9]+", "-", app_name.lower()).strip("-")
    return f"agent-{name}".rstrip("-")[:LONGEST_NAME] if not name[:1].isalpha() else name[:LONGEST_NAME].rstrip("-")


def _longest(setting: float, variable: str | None) -> float:
    """The longer one, because an argument in the code wins over the variable."""
    try:
        return max(setting, float(variable or 0))
    except ValueError:
        return setting
