"""An app as a workload of a cluster: what its settings and the options of its deployment ask for."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import ConfigurationError
from .images import ImageBuild, ImageOptions, RegistryConfig, image_name

if TYPE_CHECKING:
    from ..app import AgentApp

__all__ = ["Workload", "environment_secret", "workload_of"]

REDIS_VARIABLE = "AGENTAPP_INTERRUPT_REDIS_URL"

PRE_STOP = 5
"""Seconds between the begin of a pod's end and SIGTERM, in which balancers see that it ends."""

WATCHDOG = 11
"""Seconds beyond drain and two cleanups after which the launcher ends a process that hangs."""

MARGIN = 5
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = 50
"""A Service allows 63 characters, and names of pods and of the Secret of the environment are longer than this."""

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
UNITS = {"m": 1e-3, "k": 1e3, "Ki": 2**10, "M": 1e6, "Mi": 2**20, "G": 1e9, "Gi": 2**30, "T": 1e12, "Ti": 2**40}

IMAGE = re.compile(r"[^\s@]+(@sha256:[0-9a-f]{64})?")
"""Only what is surely wrong is refused: a blank, and the name or password of a user."""

DNS = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""Names of hosts and of Secrets: "DNS subdomain" in the documentation of Kubernetes."""

VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
"""What both a key of a Secret and the name of a variable may be."""


@attrs.frozen(kw_only=True)
class Workload:
    """One app in a cluster. Checked when it is made.

    Raises:
        ConfigurationError: a value cannot be used.
    """

    name: str
    image: str
    namespace: str = "default"
    port: int = 8090
    replicas: int = 1
    max_replicas: int | None = None
    """With it, a HorizontalPodAutoscaler keeps the number between `replicas` and this, by CPU."""
    shared: bool = False
    """Whether nodes share their sessions, so that there may be several."""
    drain_timeout: float = 30.0
    cleanup_budget: float = 30.0
    redis_secret: str | None = None
    """Name and key of the Secret with the URL of Redis, as `name` or `name:key`; the key is `url` by default."""
    secrets: Sequence[str] = ()
    """Names of Secrets whose keys become environment variables."""
    environment_digest: str | None = None
    """Changes when the environment changes, so that pods are replaced."""
    cpu_request: str = "200m"
    cpu_limit: str | None = None
    memory_request: str = "512Mi"
    memory_limit: str = "2Gi"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secret: str | None = None
    node_selector: Mapping[str, str] | None = None
    """Labels of the machines on which pods may run."""
    scale_to_zero: bool = False
    """Knative alone: end the last pod while nobody asks."""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    """More labels and annotations of all objects."""
    tolerations: Sequence[Mapping[str, Any]] = ()
    """Taints of machines that pods tolerate, spelt as in a pod."""
    ingress_host: str | None = None
    ingress_class: str = "nginx"
    tls_secret: str | None = None

    def __attrs_post_init__(self) -> None:
        for what, name in (("name", self.name), ("namespace", self.namespace)):
            if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
                raise ConfigurationError(
                    f"{what} {name!r} cannot be used in Kubernetes: use at most {LONGEST_NAME} small letters, "
                    "digits and -, beginning with a letter and not ending with -"
                )
        for what in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
            value = getattr(self, what)
            if value is not None and not QUANTITY.fullmatch(value):
                raise ConfigurationError(f"{what} {value!r} is not a quantity such as 500m or 2Gi")
        for what in ("cpu", "memory"):
            request, limit = getattr(self, f"{what}_request"), getattr(self, f"{what}_limit")
            if limit is not None and _amount(request) > _amount(limit):
                raise ConfigurationError(
                    f"{what}_request {request} is more than {what}_limit {limit}; raise the limit, too"
                )
        if not IMAGE.fullmatch(self.image):
            raise ConfigurationError("image is not the name of an image, such as registry.example.com/team/name:1")
        for what, name in self._dns_names():
            if not DNS.fullmatch(name):
                raise ConfigurationError(
                    f"{what} {name!r} cannot be used in Kubernetes: use small letters, digits, - and ., beginning "
                    "and ending with a letter or digit"
                )
        if not 1024 <= self.port <= 65535:
            raise ConfigurationError(
                f"port must be a number from 1024 to 65535, not {self.port}: the app is not root"
            )
        if self.replicas < 1 or (self.max_replicas or self.replicas) < self.replicas:
            raise ConfigurationError(
                f"replicas must be 1 or more, and max_replicas not less; not {self.replicas} and "
                f"{self.max_replicas}"
            )
        if (self.max_replicas or self.replicas) > 1 and not self.shared and self.redis_secret is None:
            raise ConfigurationError(
                "several pods would not know of each other's runs, and a stop could reach the wrong one; name the "
                "Secret with the URL of Redis: --redis-secret NAME"
            )
        if self.image_pull_policy not in ("Always", "IfNotPresent", "Never"):
            raise ConfigurationError(
                f"image_pull_policy {self.image_pull_policy!r} is not one of Always, IfNotPresent and Never"
            )

    def _dns_names(self) -> list[tuple[str, str]]:
        names = [
            ("ingress_host", self.ingress_host and self.ingress_host.removeprefix("*.")),
            ("redis_secret", self.redis_secret and self.redis_secret.partition(":")[0]),
            ("tls_secret", self.tls_secret),
            ("image_pull_secret", self.image_pull_secret),
            *(("secret", name) for name in self.secrets),
        ]
        return [(what, name) for what, name in names if name is not None]

    @property
    def several(self) -> bool:
        return self.shared or self.redis_secret is not None

    @property
    def grace_period(self) -> int:
        """Seconds from the begin of a pod's end to SIGKILL: longer than the watchdog of the launcher waits."""
        return PRE_STOP + math.ceil(self.drain_timeout + 2 * self.cleanup_budget) + WATCHDOG + MARGIN

    @property
    def selector(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": self.name, "app.kubernetes.io/instance": self.name}


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


def _amount(quantity: str) -> float:
    found = QUANTITY.fullmatch(quantity)
    return float(found[1]) * UNITS.get(found[2], 1) if found else 0.0
