"""Describes an app as a `Workload`: reads its settings, and names its image."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import ConfigurationError
from .manifests import LONGEST_NAME, REDIS_VARIABLE, Workload

if TYPE_CHECKING:
    from ..app import AgentApp

__all__ = ["environment_secret", "workload_of"]


def environment_secret(name: str) -> str:
    """The name of the Secret with the environment of an app."""
    return f"{name}-env"


def workload_of(
    app: AgentApp | None, entrypoint: str | None, environment: Mapping[str, str], options: Mapping[str, Any]
) -> Workload:
    """Make the workload of an app. It is loaded if it is an entrypoint; `options` are those of `Workload`.

    Without `image` in the options the image is `name:tag`, and its tag is that of the build context.

    Raises:
        ConfigurationError: the app cannot be found, or an option cannot be used.
        DeployError: no image is named, and the build context is refused.
    """
    from ..app.loading import load_app
    from ..app.serving import shares_sessions
    from .packaging import build_context

    if app is None and entrypoint is None:
        raise ConfigurationError("there is nothing to deploy: give an app or an entrypoint")
    loaded = app or load_app(str(entrypoint))
    given = {name: value for name, value in options.items() if value is not None}
    known = attrs.fields_dict(Workload)
    for option in given:
        if option not in known:
            raise TypeError(f"KubernetesDeployManager.deploy has no option {option!r}")
    name = given.pop("name", None) or _as_name(loaded.app_name)
    secrets = list(given.pop("secrets", ()))
    digest = None
    if environment:
        secrets.append(environment_secret(name))
        digest = hashlib.sha256(json.dumps(sorted(environment.items())).encode()).hexdigest()[:16]
    if "image" not in given:
        source = entrypoint if entrypoint is not None else loaded
        given["image"] = f"{name}:{build_context(source, port=given.get('port', 8090)).tag}"
    return Workload(
        name=name,
        secrets=tuple(secrets),
        environment_digest=digest,
        shared=shares_sessions(loaded.settings) or REDIS_VARIABLE in environment,
        drain_timeout=_longest(loaded.settings.drain_timeout, environment.get("AGENTAPP_DRAIN_TIMEOUT")),
        cleanup_budget=_longest(loaded.settings.cleanup_budget, environment.get("AGENTAPP_CLEANUP_BUDGET")),
        **given,
    )


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
