"""What the services need to know: access keys, regions, sizes. Read from the environment by `from_env`.

Secrets are not in the `repr` of a configuration, so that no log and no traceback shows them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs

from ...errors import ConfigurationError

__all__ = [
    "AccessKey",
    "AgentRunConfig",
    "FCConfig",
    "InstanceConfig",
    "LogConfig",
    "ModelstudioConfig",
    "NetworkConfig",
    "OSSConfig",
    "VPCConfig",
    "address_of",
]

REQUEST_TIMEOUT = 30.0
"""Seconds for the answer to one request."""

REGION = re.compile(r"[a-z0-9-]+")

KEY = ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN")


def _positive(_: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"{attribute.name} must be more than 0, not {value}")


def _region(_: Any, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and not REGION.fullmatch(value):
        raise ConfigurationError(f"{attribute.name} {value!r} is not a region such as cn-hangzhou")


@attrs.frozen(kw_only=True)
class AccessKey:
    """An access key of a RAM user, or with `security_token` a temporary one of STS."""

    access_key_id: str | None = attrs.field(default=None, repr=False)
    access_key_secret: str | None = attrs.field(default=None, repr=False)
    security_token: str | None = attrs.field(default=None, repr=False)
    request_timeout: float = attrs.field(default=REQUEST_TIMEOUT, validator=_positive)
    """Seconds. A cancelled deployment waits for the answer of the request under way."""

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.access_key_secret, self.security_token)))

    def ensure_valid(self) -> None:
        """Check that nothing is missing.

        Raises:
            ConfigurationError: a variable is not set; with all names that are missing.
        """
        missing = self._missing()
        if missing:
            raise ConfigurationError(
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set; the access keys of an "
                "account are made at https://ram.console.aliyun.com/"
            )

    def _missing(self) -> list[str]:
        return [
            name
            for name, value in zip(KEY, (self.access_key_id, self.access_key_secret), strict=False)
            if not value
        ]


@attrs.frozen(kw_only=True)
class OSSConfig(AccessKey):
    """The bucket for code archives. It is made if it does not exist."""

    bucket_name: str | None = None
    region: str | None = attrs.field(default=None, validator=_region)
    """By default that of the service, which can only read buckets of its own region."""
    endpoint: str | None = None
    """By default that of the region."""

    @classmethod
    def from_env(cls) -> OSSConfig:
        """Read the `OSS_` variables. Access keys of their own are optional."""
        own = os.environ.get("OSS_ACCESS_KEY_ID") and os.environ.get("OSS_ACCESS_KEY_SECRET")
        names = ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN") if own else KEY
        return cls(**_key(names), **_given("OSS_", "bucket_name", "region", "endpoint"))

    def _missing(self) -> list[str]:
        return super()._missing() + ([] if self.bucket_name else ["OSS_BUCKET_NAME"])


@attrs.frozen(kw_only=True)
class ModelstudioConfig(AccessKey):
    """A workspace of ModelStudio."""

    endpoint: str = "bailian.cn-beijing.aliyuncs.com"
    workspace_id: str = "default"
    dashscope_api_key: str | None = attrs.field(default=None, repr=False)
    """The app gets it as `DASHSCOPE_API_KEY`, if its environment has none."""

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*super().secrets, *filter(None, (self.dashscope_api_key,)))

    @classmethod
    def from_env(cls) -> ModelstudioConfig:
        """Read the `MODELSTUDIO_` variables and `DASHSCOPE_API_KEY`."""
        own = _given("MODELSTUDIO_", "endpoint", "workspace_id")
        return cls(**_key(KEY), **own, **_given("", "dashscope_api_key"))


@attrs.frozen(kw_only=True)
class LogConfig:
    """Where the service writes logs: a logstore of a project of Simple Log Service."""

    logstore: str
    project: str


@attrs.frozen(kw_only=True)
class NetworkConfig:
    """`PUBLIC`, `PRIVATE` or `PUBLIC_AND_PRIVATE`; the last two with a VPC."""

    network_mode: str = "PUBLIC"
    vpc_id: str | None = None
    security_group_id: str | None = None
    vswitch_ids: list[str] | None = None

    def __attrs_post_init__(self) -> None:
        if self.network_mode != "PUBLIC" and not (self.vpc_id and self.security_group_id and self.vswitch_ids):
            raise ConfigurationError(
                f"the network mode {self.network_mode} needs AGENT_RUN_VPC_ID, AGENT_RUN_SECURITY_GROUP_ID and "
                "AGENT_RUN_VSWITCH_IDS"
            )


@attrs.frozen(kw_only=True)
class VPCConfig:
    """A private network that a function reaches."""

    vpc_id: str
    security_group_id: str
    vswitch_ids: list[str]


@attrs.frozen(kw_only=True)
class InstanceConfig(AccessKey):
    """What instances of an app get."""

    region_id: str = attrs.field(default="cn-hangzhou", validator=_region)
    endpoint: str | None = None
    """Host of the API, by default that of the region."""
    log_config: LogConfig | None = None
    cpu: float = attrs.field(default=2.0, validator=_positive)
    """Cores."""
    memory: int = attrs.field(default=2048, validator=_positive)
    """MiB."""
    execution_role_arn: str | None = None
    """The role whose rights the app has in the cloud."""
    session_concurrency_limit: int = attrs.field(default=200, validator=_positive)
    """Sessions of one instance at the same time, at most 200."""
    session_idle_timeout_seconds: int = attrs.field(default=3600, validator=_positive)


@attrs.frozen(kw_only=True)
class AgentRunConfig(InstanceConfig):
    """A region of AgentRun, and what instances of an app get there."""

    network_config: NetworkConfig = attrs.field(factory=NetworkConfig)
    credential_name: str | None = None
    """The credential of AgentRun that callers of the app must present; without it the endpoint is public."""

    @classmethod
    def from_env(cls) -> AgentRunConfig:
        """Read the `AGENT_RUN_` variables.

        Raises:
            ConfigurationError: one of them is not a number, or no JSON list. The message names it.
        """
        prefix = "AGENT_RUN_"
        network = _given(prefix, "network_mode", "vpc_id", "security_group_id", vswitch_ids=_names)
        own = _given(prefix, "credential_name")
        return cls(**_instance(prefix), network_config=NetworkConfig(**network), **own)


@attrs.frozen(kw_only=True)
class FCConfig(InstanceConfig):
    """A region of Function Compute, and what instances of an app get there."""

    account_id: str | None = None
    """The number of the Alibaba Cloud account."""
    vpc_config: VPCConfig | None = None
    disk: int = attrs.field(default=512)
    """MiB: 512 or 10240."""
    timeout: int = attrs.field(default=3600, validator=_positive)
    """Seconds after which a request is cut, also a stream that is not finished."""

    @classmethod
    def from_env(cls) -> FCConfig:
        """Read the `FC_` variables.

        Raises:
            ConfigurationError: one of them is not a number, or no JSON list; or a part of the VPC is missing.
        """
        vpc = _given("FC_", "vpc_id", "security_group_id", vswitch_ids=_names)
        if vpc and len(vpc) < 3:
            raise ConfigurationError("a VPC needs all of FC_VPC_ID, FC_SECURITY_GROUP_ID and FC_VSWITCH_IDS")
        own = _given("FC_", "account_id", disk=int, timeout=int)
        return cls(**_instance("FC_"), vpc_config=VPCConfig(**vpc) if vpc else None, **own)

    @disk.validator
    def _check_disk(self, _: Any, value: int) -> None:
        if value not in (512, 10240):
            raise ConfigurationError(f"disk must be 512 or 10240 MiB, not {value}")

    def _missing(self) -> list[str]:
        return super()._missing() + ([] if self.account_id or self.endpoint else ["FC_ACCOUNT_ID"])


def address_of(endpoint: str) -> tuple[str, str]:
    """Split an endpoint into the protocol, `HTTPS` or `HTTP`, and host with port.

    Raises:
        ConfigurationError: it is no endpoint; or it is `http://` on another machine, where code and secrets could
            be read on the way.
    """
    parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.username:
        raise ConfigurationError("an endpoint must be a host such as fc.cn-hangzhou.aliyuncs.com, or https://HOST")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigurationError(f"http://{parts.netloc} would send code and secrets in the clear; use https://")
    return parts.scheme.upper(), parts.netloc


def _instance(prefix: str) -> dict[str, Any]:
    project, logstore = _text(f"{prefix}LOG_PROJECT"), _text(f"{prefix}LOG_STORE")
    if bool(project) != bool(logstore):
        raise ConfigurationError(f"set both {prefix}LOG_PROJECT and {prefix}LOG_STORE, or neither")
    return {
        **_key(KEY),
        **_given(
            prefix,
            "region_id",
            "endpoint",
            "execution_role_arn",
            cpu=float,
            memory=int,
            session_concurrency_limit=int,
            session_idle_timeout_seconds=int,
        ),
        "log_config": LogConfig(project=project, logstore=logstore) if project and logstore else None,
    }


def _key(names: tuple[str, str, str]) -> dict[str, Any]:
    fields = ("access_key_id", "access_key_secret", "security_token")
    return {field: _text(name) for field, name in zip(fields, names, strict=True)}


def _given(prefix: str, *texts: str, **others: Callable[[str], Any]) -> dict[str, Any]:
    """Those fields that the environment sets: the field `cpu` by the variable `FC_CPU`, with the prefix `FC_`.

    `others`: fields that are no texts, with what makes a value of a text or raises ValueError.
    """
    found = {}
    for field, kind in (dict.fromkeys(texts, str) | others).items():
        name = f"{prefix}{field.upper()}"
        if (text := _text(name)) is not None:
            try:
                found[field] = kind(text)
            except ValueError:
                raise ConfigurationError(
                    f'{name} must be a JSON list of names, such as ["vsw-1"]'
                    if kind is _names
                    else f"{name}={text} is not a number"
                ) from None
    return found


def _text(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _names(text: str) -> list[str]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError("no list of names")
    return found
