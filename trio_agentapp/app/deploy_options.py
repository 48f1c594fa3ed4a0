"""Refuses options of `deploy` that a deploy manager does not take, and says where each one belongs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import attrs

from ..abc import DeployManager
from ..errors import ConfigurationError
from .settings import Settings, nearest_hint

__all__ = ["check_deploy_options", "refuse_deploy_options"]

ELSEWHERE = {
    "custom_endpoints": "register routes with @app.endpoint(path), @app.get(path) or @app.post(path)",
    "runner": "register the agent with @app.query() or AgentApp(agent=...)",
    "request_model": "the agent gets an AgentRequest; a route with a model of its own is @app.endpoint(path)",
    "requirements": "the service uses the packages of this Python; install them with pip",
    "extra_packages": "the service uses the modules of this Python; install them, or put them beside the app",
    "cmd": "the service runs `trio-agentapp run`; name the app's file: entrypoint='folder/agent.py'",
    "project_dir": "name the app's file in that folder: entrypoint='folder/agent.py'",
}
"""Options of similar products that do not exist here, with what to use instead."""


def check_deploy_options(manager: DeployManager, options: Mapping[str, Any]) -> None:
    """Refuse the options that `manager.deploy` does not take. One that takes all options checks them itself.

    Raises as `refuse_deploy_options` does.
    """
    parameters = inspect.signature(manager.deploy).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        refuse_deploy_options(manager, {name: options[name] for name in options if name not in parameters})


def refuse_deploy_options(manager: DeployManager, options: Mapping[str, Any]) -> None:
    """Refuse options that `manager.deploy` does not take, if there are any.

    Raises:
        ConfigurationError: the option is set elsewhere; the message says where.
        TypeError: there is no such option; the message names the nearest one.
    """
    kind = type(manager)
    for name in options:
        if name in attrs.fields_dict(Settings):
            raise ConfigurationError(f"{name} is set on the app, not on its deployment: AgentApp({name}=...)")
        if name in inspect.signature(kind).parameters:
            raise ConfigurationError(f"{name} is set on the manager: {kind.__name__}({name}=...)")
        if name in ELSEWHERE:
            raise ConfigurationError(f"{kind.__name__} has no option {name}: {ELSEWHERE[name]}")
        parameters = inspect.signature(manager.deploy).parameters.values()
        known = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
        raise TypeError(f"{kind.__name__}.deploy has no option {name!r}{nearest_hint(name, known)}")
