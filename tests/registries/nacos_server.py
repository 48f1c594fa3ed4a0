"""A server that answers the two APIs of Nacos 3.1 which the registry uses, as Nacos' documentation describes them.

It is no Nacos: it shows that requests have the documented form, and how the registry treats the documented answers.
Times are shorter than Nacos' own 15 s and 30 s.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import h11
import trio

from trio_agentapp.nursery import nursery_around

EXPIRES_AFTER = 1.0
"""Seconds after the last renewal until an instance is forgotten."""


class Refused(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@attrs.define
class NacosServer:
    port: int = 0
    users: dict[str, str] = attrs.field(factory=dict)
    """Passwords by user; no log-in is needed without users."""
    cards: dict[tuple[str, str], dict[str, Any]] = attrs.field(factory=dict)
    instances: dict[tuple[str, ...], dict[str, Any]] = attrs.field(factory=dict)
    tokens: set[str] = attrs.field(factory=set)
    requests: list[tuple[str, str, dict[str, str], dict[str, str]]] = attrs.field(factory=list)
    hangs: bool = False
    status: int = 0
    """Answer everything with this status, in place of an answer."""
    expires_after: float = EXPIRES_AFTER
    token_ttl: int = 18000

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.requests]

    def answer(self, method: str, target: str, form: Mapping[str, str], headers: dict[str, str]) -> Any:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        parameters = {**query, **form}
        self.requests.append((method, parts.path, parameters, headers))
        if parts.path == "/nacos/v3/auth/user/login":
            return self.log_in(parameters)
        if self.users and headers.get("accesstoken") not in self.tokens:
            raise Refused(403, 403, "token invalid!")
        match method, parts.path:
            case ("POST" | "PUT", "/nacos/v3/admin/ai/a2a"):
                return self.publish(method, parameters)
            case "GET", "/nacos/v3/admin/ai/a2a":
                return self.card(parameters)
            case "GET", "/nacos/v3/admin/ai/a2a/list":
                return self.page(parameters)
            case ("POST" | "DELETE", "/nacos/v3/client/ns/instance"):
                return self.change(method, parameters)
            case "GET", "/nacos/v3/client/ns/instance/list":
                return self.list(parameters)
        raise Refused(404, 404, f"no such path: {target}")

    def log_in(self, parameters: Mapping[str, str]) -> Any:
        if self.users.get(parameters["username"]) != parameters["password"]:
            raise Refused(403, 403, "User not found! Please check user exist or password is right!")
        token = f"token-{len(self.tokens)}"
        self.tokens.add(token)
        return {"accessToken": token, "tokenTtl": self.token_ttl, "globalAdmin": True, "username": "nacos"}

    def publish(self, method: str, parameters: Mapping[str, str]) -> str:
        card = json.loads(parameters["agentCard"])
        for field in ("name", "description", "version", "protocolVersion", "preferredTransport", "url"):
            if not card.get(field):
                raise Refused(400, 10000, f"Required parameter `agentCard.{field}` not present")
        key = parameters["namespaceId"], card["name"]
        if method == "POST" and key in self.cards:
            raise Refused(409, 20006, f"AgentCard name {card['name']} already exist")
        if method == "PUT" and key not in self.cards:
            raise Refused(404, 20004, "Agent not found")
        self.cards[key] = card
        return "ok"

    def card(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        key = parameters["namespaceId"], parameters["agentName"]
        if key not in self.cards:
            raise Refused(404, 20004, f"Agent not found: {key[1]}")
        return {**self.cards[key], "registrationType": "SERVICE", "latestVersion": True}

    def page(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        number, size = int(parameters["pageNo"]), int(parameters["pageSize"])
        cards = [card for (space, _), card in sorted(self.cards.items()) if space == parameters["namespaceId"]]
        items = cards[(number - 1) * size : number * size]
        pages = -(-len(cards) // size)
        return {"totalCount": len(cards), "pageNumber": number, "pagesAvailable": pages, "pageItems": items}

    def change(self, method: str, parameters: Mapping[str, str]) -> str:
        key = tuple(parameters[k] for k in ("namespaceId", "groupName", "serviceName", "clusterName", "ip", "port"))
        self.forget()
        if method == "DELETE":
            self.instances.pop(key, None)
        elif parameters.get("heartBeat") == "true":
            if key not in self.instances:
                raise Refused(404, 21003, "instance not found")
            self.instances[key]["seen"] = trio.current_time()
        else:
            self.instances[key] = {
                "ip": parameters["ip"],
                "port": int(parameters["port"]),
                "clusterName": parameters["clusterName"],
                "healthy": True,
                "enabled": True,
                "ephemeral": True,
                "metadata": json.loads(parameters.get("metadata", "{}")),
                "seen": trio.current_time(),
            }
        return "ok"

    def list(self, parameters: Mapping[str, str]) -> Any:
        self.forget()
        wanted = parameters["namespaceId"], parameters["groupName"], parameters["serviceName"]
        return [instance for key, instance in self.instances.items() if key[:3] == wanted]

    def forget(self) -> None:
        limit = trio.current_time() - self.expires_after
        self.instances = {key: each for key, each in self.instances.items() if each["seen"] >= limit}

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            connection = h11.Connection(h11.SERVER)
            while (request := await receive(connection, stream)) is not None:
                if self.hangs:
                    await trio.sleep_forever()
                method, target, form, headers = request
                status, body = 200, b""
                if self.status:
                    status, body = self.status, b"<html>An error page</html>"
                else:
                    try:
                        data = self.answer(method, target, form, headers)
                        envelope = data if "login" in target else {"code": 0, "message": "success", "data": data}
                        body = json.dumps(envelope).encode()
                    except Refused as refused:
                        status = refused.status
                        answer = {"code": refused.code, "message": "refused", "data": refused.message}
                        body = json.dumps(answer).encode()
                head = h11.Response(status_code=status, headers=[("content-length", str(len(body)))])
                for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                    await stream.send_all(connection.send(event) or b"")
                connection.start_next_cycle()


async def receive(
    connection: h11.Connection, stream: trio.SocketStream
) -> tuple[str, str, dict[str, str], dict[str, str]] | None:
    request: h11.Request | None = None
    body = b""
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                try:
                    connection.receive_data(await stream.receive_some())
                except trio.BrokenResourceError:
                    return None
            case h11.Request() as request:
                pass
            case h11.Data(data=data):
                body += bytes(data)
            case h11.EndOfMessage():
                assert request is not None
                form = {key: values[0] for key, values in parse_qs(body.decode(), keep_blank_values=True).items()}
                headers = {name.decode(): value.decode() for name, value in request.headers}
                return request.method.decode(), request.target.decode(), form, headers
            case _:
                return None


@asynccontextmanager
async def nacos_server(port: int = 0, **fields: Any) -> AsyncIterator[NacosServer]:
    """Serve inside the block. At its end all connections are cut."""
    server = NacosServer(**fields)
    async with nursery_around() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()
