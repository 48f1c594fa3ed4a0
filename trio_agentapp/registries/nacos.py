"""A registry in Nacos 3.1 and newer, over its HTTP APIs.

Two APIs are used. The admin API (`/v3/admin/ai/a2a`) publishes the card as a version of an agent; the card is not
removed. The client API (`/v3/client/ns/instance`) registers each transport as an ephemeral instance of the service
in which Nacos looks for that version. It is renewed every 5 s, and Nacos removes it 30 s after the last renewal.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import orjson

from ..abc import A2ATransportsProperties, AgentCard, AgentDirectory, AgentRegistry, RegisteredAgent
from ..errors import ConfigurationError, RegistryError
from .card import json_of, name_of
from .nacos_http import NacosHTTP, NacosLogin, NacosRefusal
from .watching import MAX_LISTED, Snapshots, Wakeup

__all__ = ["NacosRegistry"]

logger = logging.getLogger("trio_agentapp.registries")

AGENTS = "/v3/admin/ai/a2a"
INSTANCES = "/v3/client/ns/instance"
GROUP = "agent-endpoints"
"""The group of the services in which Nacos looks for endpoints of agents."""

EXPIRED = 21003
"""Nacos' answer code to the renewal of an instance that it has removed."""

MAX_NAME = 64
"""Limit of characters of an agent's name in Nacos. They must be printable ASCII."""

PAGE = 100
"""Number of agents on one page of a list."""

METADATA = "__nacos.agent.endpoint.{}__"
"""The form of metadata names from which Nacos makes the URL of an endpoint."""


class NacosRegistry(AgentRegistry, AgentDirectory):
    """Registers agents in Nacos, and finds them there. All arguments default to environment variables.

    Args:
        server_addr: `host:port`, a URL, or several of a cluster, separated by commas. `NACOS_SERVER_ADDR`, else
            `localhost:8848`.
        username, password: `NACOS_USERNAME`, `NACOS_PASSWORD`.
        namespace_id: `NACOS_NAMESPACE_ID`, else `public`.
        access_key, secret_key: for Alibaba Cloud. `NACOS_ACCESS_KEY`, `NACOS_SECRET_KEY`.
        context_path: path of the server's API, used if its URL has no path.
        nacos_client_config: a `ClientConfig` of Nacos' own SDK, in place of the arguments above; it may also be the
            first argument. Servers, namespace, log-in and access key are read; its other fields are about gRPC.
        poll: seconds between two reads while watching. Nacos requires HTTP clients to poll.

    Raises:
        ConfigurationError: an address is wrong, or only one half of a log-in is given.
    """

    def __init__(
        self,
        server_addr: str | object | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        namespace_id: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        context_path: str = "/nacos",
        nacos_client_config: object | None = None,
        poll: float = 5.0,
    ) -> None:
        if not 0 < poll <= 3600:
            raise ConfigurationError(f"NacosRegistry: poll must be above 0 and at most 3600 seconds, not {poll!r}")
        given = {
            "NACOS_SERVER_ADDR": server_addr,
            "NACOS_USERNAME": username,
            "NACOS_PASSWORD": password,
            "NACOS_NAMESPACE_ID": namespace_id,
            "NACOS_ACCESS_KEY": access_key,
            "NACOS_SECRET_KEY": secret_key,
        }
        if server_addr is not None and not isinstance(server_addr, str):
            nacos_client_config, given["NACOS_SERVER_ADDR"] = server_addr, None
        if nacos_client_config is not None:
            if any(value is not None for value in given.values()):
                raise ConfigurationError("NacosRegistry: give nacos_client_config or the other arguments, not both")
            given = _settings_of(nacos_client_config)
        settings = {
            variable: str(os.environ.get(variable, "") if value is None else value)
            for variable, value in given.items()
        }
        address, username, password, namespace, access_key, secret_key = settings.values()
        login = NacosLogin(username=username, password=password, access_key=access_key, secret_key=secret_key)
        self._namespace = namespace or "public"
        self._http = NacosHTTP(address or "localhost:8848", login, context_path=context_path)
        self._poll = poll
        self._endpoints: list[dict[str, str]] = []
        """The parameters of each endpoint that is registered. The answer to its registration may have been lost."""

    def __repr__(self) -> str:
        return f"NacosRegistry({str(self._http)!r})"

    @property
    def renew_every(self) -> float:
        """Nacos' own interval, in seconds. It reports an instance as unhealthy 15 s after its last renewal."""
        return 5.0

    def registry_name(self) -> str:
        return "nacos"

    def open(self) -> AbstractAsyncContextManager[None]:
        return self._http.open()

    async def register(
        self, agent_card: AgentCard, a2a_transports_properties: Sequence[A2ATransportsProperties]
    ) -> None:
        card = _complete(agent_card, a2a_transports_properties)
        await self._publish(card)
        service = _service_name(card["name"], card["version"])
        endpoints = [self._endpoint(service, properties) for properties in a2a_transports_properties]
        for former in self._endpoints:
            if _place_of(former) not in map(_place_of, endpoints):
                await self._instance("DELETE", former)
        self._endpoints = endpoints
        for endpoint in endpoints:
            await self._instance("POST", endpoint)

    async def renew(self) -> None:
        for endpoint in self._endpoints:
            try:
                await self._instance("POST", {**endpoint, "heartBeat": "true"})
            except NacosRefusal as refusal:
                if refusal.code != EXPIRED:
                    raise
                await self._instance("POST", endpoint)

    async def deregister(self) -> None:
        """Remove the endpoints. The card stays, because other instances may use it."""
        for endpoint in tuple(self._endpoints):
            await self._instance("DELETE", endpoint)
            self._endpoints.remove(endpoint)

    async def list(self) -> Sequence[RegisteredAgent]:
        """Return all live instances, at most `MAX_LISTED`. It takes two calls for each agent."""
        found: list[RegisteredAgent] = []
        for name in await self._names():
            found += await self.resolve(name)
            if len(found) >= MAX_LISTED:
                break
        return found[:MAX_LISTED]

    async def resolve(self, name: str) -> Sequence[RegisteredAgent]:
        """Return the live instances of the latest version, at most `MAX_LISTED`, with its card as published."""
        if not _is_valid(name):
            return []
        query = {"agentName": name, "namespaceId": self._namespace, "registrationType": "URL"}
        try:
            card = await self._call("GET", AGENTS, query)
        except NacosRefusal as refusal:
            if refusal.status == 404:
                return []
            raise
        with _expecting_answer(AGENTS):
            service = _service_name(card["name"], card["version"])
            query = {"namespaceId": self._namespace, "groupName": GROUP, "serviceName": service}
            instances = await self._call("GET", f"{INSTANCES}/list", query, service=f"{GROUP}@@{service}")
            return _agents_of(card, instances)

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Sequence[RegisteredAgent]]]:
        """See AgentDirectory. It reads the instances every `poll` seconds."""
        yield Snapshots(self.list if name is None else partial(self.resolve, name), Wakeup(), poll=self._poll)

    async def _publish(self, card: Mapping[str, Any]) -> None:
        form = {
            "namespaceId": self._namespace,
            "agentName": card["name"],
            "agentCard": json_of(card).decode(),
            "registrationType": "SERVICE",
        }
        try:
            await self._call("POST", AGENTS, form)
        except NacosRefusal as refusal:
            if refusal.status != 409:
                raise
            await self._call("PUT", AGENTS, {**form, "setAsLatest": "true"})

    async def _names(self) -> Sequence[str]:
        names: list[str] = []
        for page in range(1, MAX_LISTED // PAGE + 1):
            query = {"namespaceId": self._namespace, "search": "blur", "agentName": ""}
            answer = await self._call(
                "GET", f"{AGENTS}/list", {**query, "pageNo": str(page), "pageSize": str(PAGE)}
            )
            with _expecting_answer(f"{AGENTS}/list"):
                names += [item["name"] for item in answer["pageItems"]]
                if page >= answer["pagesAvailable"]:
                    break
        return names

    def _endpoint(self, service: str, properties: A2ATransportsProperties) -> dict[str, str]:
        metadata = {
            METADATA.format("path"): properties.path,
            METADATA.format("transport"): properties.transport_type,
            METADATA.format("supportTls"): str(properties.support_tls).lower(),
            METADATA.format("protocol"): "",
            METADATA.format("query"): "",
            **{str(key): str(value) for key, value in properties.extra.items()},
        }
        return {
            "namespaceId": self._namespace,
            "groupName": GROUP,
            "serviceName": service,
            # An address has one instance in a cluster, so each transport of an address gets its own cluster.
            "clusterName": "".join(sign if sign.isalnum() else "-" for sign in properties.transport_type),
            "ip": properties.host,
            "port": str(properties.port),
            "ephemeral": "true",
            "metadata": orjson.dumps(metadata).decode(),
        }

    async def _instance(self, method: str, endpoint: Mapping[str, str]) -> None:
        await self._call(method, INSTANCES, endpoint, service=f"{GROUP}@@{endpoint['serviceName']}")

    async def _call(self, method: str, path: str, parameters: Mapping[str, str], *, service: str = "") -> Any:
        return await self._http.call(method, path, parameters, namespace=self._namespace, service=service)


def _settings_of(config: Any) -> dict[str, Any]:
    """Return the settings of a `ClientConfig` of nacos-sdk-python. Unset ones are empty text."""
    try:
        credentials = config.credentials_provider.get_credentials() if config.credentials_provider else None
        found = {
            "NACOS_SERVER_ADDR": ",".join(config.server_list),
            "NACOS_USERNAME": config.username,
            "NACOS_PASSWORD": config.password,
            "NACOS_NAMESPACE_ID": config.namespace_id,
            "NACOS_ACCESS_KEY": credentials and credentials.get_access_key_id(),
            "NACOS_SECRET_KEY": credentials and credentials.get_access_key_secret(),
        }
    except (AttributeError, TypeError) as exc:
        raise ConfigurationError(
            f"NacosRegistry: {config!r:.100} is neither an address nor a ClientConfig of nacos-sdk-python: {exc}"
        ) from exc
    return {variable: value or "" for variable, value in found.items()}


def _is_valid(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name.isascii() and name.isprintable()


def _complete(agent_card: AgentCard, transports: Sequence[A2ATransportsProperties]) -> dict[str, Any]:
    """Return the card with the fields of A2A 0.3 that Nacos 3.1 requires. Defaults replace missing ones.

    Raises:
        ConfigurationError: Nacos does not accept the name, or there is no transport.
    """
    name = name_of(agent_card)
    if not transports:
        raise ConfigurationError(f"Nacos finds agents by their transports, and {name!r} has none")
    if not _is_valid(name):
        raise ConfigurationError(
            f"Nacos takes names of 1 to {MAX_NAME} printable ASCII characters; {name!r} cannot be registered there"
        )
    needed = {
        "description": name,
        "version": "1.0.0",
        "protocolVersion": "0.3.0",
        "url": transports[0].url,
        "preferredTransport": transports[0].transport_type,
    }
    card = {**agent_card, **{key: value for key, value in needed.items() if not agent_card.get(key)}}
    card["version"] = str(card["version"])  # it is part of the service's name
    return card


def _service_name(name: str, version: str) -> str:
    """Return the name of the service with an agent's endpoints.

    Nacos keeps letters, `-`, `.` and `:`, and writes any other character as `_` and its number.
    """
    if all(sign.isalpha() or sign in "-.:" for sign in name):
        return f"{name}::{version}"
    coded = (sign if sign.isalpha() or sign in "-.:" else f"_{ord(sign):03d}" for sign in name)
    return f"____:{''.join(coded)}::{version}"


def _place_of(endpoint: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(endpoint[key] for key in ("serviceName", "clusterName", "ip", "port"))


@contextmanager
def _expecting_answer(path: str) -> Iterator[None]:
    """Raise RegistryError if the answer does not have the documented shape."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise RegistryError(f"the answer of Nacos to {path} has another shape than documented: {exc!r}") from exc


def _agents_of(card: Mapping[str, Any], instances: Sequence[Mapping[str, Any]]) -> Sequence[RegisteredAgent]:
    """Return the instances of an agent. Transports with the same address and port belong to one instance."""
    found: dict[str, list[A2ATransportsProperties]] = {}
    for instance in instances:
        if instance.get("healthy", True) and instance.get("enabled", True):
            try:
                transport = _transport_of(instance)
            except ConfigurationError as exc:  # a faulty entry of another client must not hide the others
                logger.debug("an endpoint of %r in Nacos is left out: %s", card["name"], exc)
                continue
            found.setdefault(f"{transport.host}:{transport.port}", []).append(transport)
    return [
        RegisteredAgent(
            name=card["name"], instance_id=f"{card['name']}@{place}", agent_card=card, transports=transports
        )
        for place, transports in islice(found.items(), MAX_LISTED)
    ]


def _transport_of(instance: Mapping[str, Any]) -> A2ATransportsProperties:
    metadata = dict(instance.get("metadata") or {})
    path, transport, tls, *_ = (
        metadata.pop(METADATA.format(key), "") for key in ("path", "transport", "supportTls", "protocol", "query")
    )
    return A2ATransportsProperties(
        host=instance["ip"],
        port=instance["port"],
        path=path,
        support_tls=tls == "true",
        extra=metadata,
        transport_type=transport or "JSONRPC",
    )
