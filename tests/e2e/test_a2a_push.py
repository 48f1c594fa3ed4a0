"""Push notifications of A2A: to a receiver on a real socket, which may fail, redirect or hang up."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import h11
import pytest
import trio

from trio_agentapp.wires.a2a import receiver as receivers
from trio_agentapp.wires.a2a.push_configs import PushConfigs

from .a2a_client import NEW, OLD, error, result, saying, send
from .harness import Server, fresh

Start = Callable[..., Server]
LOCAL = {"PUSH_HOSTS": "127.0.0.1"}


class Receiver:
    """Answers each notification with the next of `statuses`, or 200."""

    def __init__(self) -> None:
        self.port = 0
        self.got: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._answer, 0)
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    async def _answer(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        request, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        if request is None:
            return
        status = self.statuses.pop(0) if self.statuses else 200
        headers = [("Content-Length", "0")]
        if status in (302, 307):
            headers.append(("Location", self.url("/elsewhere")))
        answer = connection.send(h11.Response(status_code=status, headers=headers))
        await stream.send_all((answer or b"") + (connection.send(h11.EndOfMessage()) or b""))
        self.paths.append(request.target.decode())
        self.got.append(({name.decode(): value.decode() for name, value in request.headers}, json.loads(body)))

    async def until(self, condition: Callable[[Any], bool], what: str) -> None:
        with trio.fail_after(20):
            while not any(condition(body) for _, body in self.got):
                await trio.sleep(0.01)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.serve)
        yield receiver
        nursery.cancel_scope.cancel()


def completed(body: dict[str, Any]) -> bool:
    return body.get("statusUpdate", {}).get("status", {}).get("state") == "TASK_STATE_COMPLETED"


async def test_notifications_of_a_send(start: Start) -> None:
    server = start("a2a_agent", env=LOCAL)
    async with receiving() as receiver:
        config = {
            "url": receiver.url(),
            "token": "a-token",
            "authentication": {"scheme": "Bearer", "credentials": "a-secret"},
        }
        gate = fresh("gate")
        task = await send(
            server,
            f"gate {gate}",
            configuration={"returnImmediately": True, "taskPushNotificationConfig": config},
        )
        (server.folder / gate).touch()
        await receiver.until(completed, "the end")
        for headers, _ in receiver.got:
            assert headers["x-a2a-notification-token"] == "a-token"
            assert headers["authorization"] == "Bearer a-secret"
            assert headers["content-type"] == "application/json"
            assert headers["host"] == f"127.0.0.1:{receiver.port}"
        bodies = [body for _, body in receiver.got]
        [artifact] = [body["artifactUpdate"] for body in bodies if "artifactUpdate" in body]
        assert artifact["artifact"]["parts"] == [{"text": "before after"}]
        assert all(next(iter(body.values()))["taskId"] == task["id"] for body in bodies)
    server.close()


async def test_0_3_gets_tasks(start: Start) -> None:
    server = start("a2a_agent", env=LOCAL)
    async with receiving() as receiver:
        task = await send(
            server,
            "say hi",
            OLD,
            configuration={"pushNotificationConfig": {"url": receiver.url(), "token": "t"}},
        )
        await receiver.until(lambda body: body["status"]["state"] == "completed", "the end")
        last = receiver.got[-1][1]
        assert (last["kind"], last["id"]) == ("task", task["id"])
        assert last["artifacts"][0]["parts"] == [{"kind": "text", "text": "hi "}]
    server.close()


async def test_failures_are_tried_again_and_redirects_are_not_followed(start: Start) -> None:
    server = start("a2a_agent", env=LOCAL)
    async with receiving() as receiver:
        receiver.statuses = [500, 307]
        await send(server, "say hi", configuration={"taskPushNotificationConfig": {"url": receiver.url()}})
        await receiver.until(completed, "the end")
        assert set(receiver.paths) == {"/hook"}
        assert receiver.got[0][1] == receiver.got[1][1] == receiver.got[2][1]
    server.close()


async def test_configs_are_kept_listed_and_deleted(start: Start) -> None:
    server = start("a2a_agent", env=LOCAL)
    async with receiving() as receiver:
        gate = fresh("gate")
        task = await send(server, f"gate {gate}", configuration={"returnImmediately": True})
        made = await result(
            server, "CreateTaskPushNotificationConfig", {"taskId": task["id"], "url": receiver.url("/one")}
        )
        assert (made["taskId"], made["url"]) == (task["id"], receiver.url("/one"))
        named = {"taskId": task["id"], "id": "two", "url": receiver.url("/two")}
        assert await result(server, "CreateTaskPushNotificationConfig", named) == named
        assert await result(server, "GetTaskPushNotificationConfig", {"taskId": task["id"], "id": "two"}) == named
        listed = await result(server, "ListTaskPushNotificationConfigs", {"taskId": task["id"]})
        assert {each["id"] for each in listed["configs"]} == {made["id"], "two"}
        old = await result(server, "tasks/pushNotificationConfig/list", {"id": task["id"]}, OLD)
        assert {each["pushNotificationConfig"]["id"] for each in old} == {made["id"], "two"}
        for _ in range(2):
            gone = {"taskId": task["id"], "id": made["id"]}
            assert await result(server, "DeleteTaskPushNotificationConfig", gone) == {}
        assert (await error(server, "GetTaskPushNotificationConfig", gone))["code"] == -32001
        (server.folder / gate).touch()
        await receiver.until(completed, "the end")
        assert set(receiver.paths) == {"/two"}
        for number in range(9):
            await result(server, "CreateTaskPushNotificationConfig", {**named, "id": f"more-{number}"})
        full = await error(server, "CreateTaskPushNotificationConfig", {**named, "id": "eleven"})
        assert full["code"] == -32602
    server.close()


async def test_the_calls_of_0_3(start: Start) -> None:
    server = start("a2a_agent", env=LOCAL)
    task = await send(server, "ask", OLD)
    config = {"url": "http://127.0.0.1:9/x", "authentication": {"schemes": ["Bearer"], "credentials": "c"}}
    made = await result(
        server,
        "tasks/pushNotificationConfig/set",
        {"taskId": task["id"], "pushNotificationConfig": config},
        OLD,
    )
    # A config without an id has the id of its task.
    assert made == {"taskId": task["id"], "pushNotificationConfig": {**config, "id": task["id"]}}
    assert await result(server, "tasks/pushNotificationConfig/get", {"id": task["id"]}, OLD) == made
    gone = {"id": task["id"], "pushNotificationConfigId": task["id"]}
    assert await result(server, "tasks/pushNotificationConfig/delete", gone, OLD) is None
    assert await result(server, "tasks/pushNotificationConfig/list", {"id": task["id"]}, OLD) == []
    await result(server, "tasks/cancel", {"id": task["id"]}, OLD)
    server.close()


REFUSED = [
    "http://127.0.0.1:80/x",
    "http://localhost/x",
    "http://[::1]/x",
    "http://10.1.2.3/x",
    "http://192.168.1.1/x",
    "http://169.254.169.254/latest",
    "http://[::ffff:127.0.0.1]/x",
    "http://0.0.0.0/x",
    "ftp://example.com/x",
    "file:///etc/passwd",
    "http://user:password@example.com/x",
    "//example.com/x",
    "nonsense",
    "http://example.com/\r\nX: y",
    "http://localhost./x",
    "http://[::127.0.0.1]/x",
    "http://[::ffff:0:127.0.0.1]/x",
    "http://[fec0::1]/x",
    "http://[64:ff9b::7f00:1]/x",
    "http://[64:ff9b:1::7f00:1]/x",
    "http://[2002:7f00:1::]/x",
    "http://[fe80::1%25lo]/x",
    "http://a..example/x",
    f"http://{'a' * 64}.example/x",
    "http://*.example/x",
]

UNUSABLE = ["http://999.1.1.1/x", "http://xn--a/x", "http://127.0.0.1.:{port}/x"]
"""They look like names of hosts."""

NUMBERS = ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1"]
"""What the resolver reads as 127.0.0.1."""


async def test_private_addresses_are_refused(start: Start) -> None:
    server = start("a2a_agent")
    for url in REFUSED:
        params = {"message": saying("say x"), "configuration": {"taskPushNotificationConfig": {"url": url}}}
        refused = await error(server, "SendMessage", params)
        assert refused["code"] == -32602, url
    assert "begin say" not in server.marks
    server.close()


NOT_DELIVERED = "a push notification was not delivered"


async def test_names_that_lead_to_private_addresses_are_not_called(start: Start) -> None:
    server = start("a2a_agent")
    async with receiving() as receiver:
        for number, host in enumerate(NUMBERS, 1):
            # The lookups need no network.
            config = {"taskPushNotificationConfig": {"url": f"http://{host}:{receiver.port}/hook"}}
            await send(server, "say hi", configuration=config)
            await server.wait_until(lambda: server.log.count(NOT_DELIVERED) >= number, "log line", 30)  # noqa: B023
        assert not receiver.got
    server.close(allowed=f".*{NOT_DELIVERED}.*")


async def test_a_receiver_that_cannot_be_called_ends_nothing_else(start: Start) -> None:
    server = start("a2a_agent", env={**LOCAL, "AGENTAPP_DRAIN_TIMEOUT": "0.3"})
    async with receiving() as receiver:
        waiting = await send(server, "wait", configuration={"returnImmediately": True})
        for url in UNUSABLE:
            config = {"taskPushNotificationConfig": {"url": url.format(port=receiver.port)}}
            await send(server, "say hi", configuration=config)
        await server.wait_until(lambda: server.log.count(NOT_DELIVERED) >= len(UNUSABLE), "log line", 30)
        assert (await result(server, "GetTask", {"id": waiting["id"]}))["status"]["state"] == "TASK_STATE_WORKING"
        assert not receiver.got
    await result(server, "CancelTask", {"id": waiting["id"]})
    server.close(allowed=f".*{NOT_DELIVERED}.*")


@pytest.mark.parametrize("version", [NEW, OLD])
async def test_a_header_cannot_be_injected(start: Start, version: str) -> None:
    server = start("a2a_agent", env=LOCAL)
    name = "taskPushNotificationConfig" if version == NEW else "pushNotificationConfig"
    config = {"url": "http://127.0.0.1:9/", "token": "a\r\nX-Evil: 1"}
    method = "SendMessage" if version == NEW else "message/send"
    params = {"message": saying("say x", version), "configuration": {name: config}}
    assert (await error(server, method, params, version))["code"] == -32602
    assert "begin say" not in server.marks
    server.close()


async def test_the_last_state_is_delivered_when_the_app_closes(start: Start) -> None:
    server = start("a2a_agent", env={**LOCAL, "AGENTAPP_DRAIN_TIMEOUT": "0.3"})
    async with receiving() as receiver:
        config = {"returnImmediately": True, "taskPushNotificationConfig": {"url": receiver.url()}}
        await send(server, "wait", configuration=config)
        server.send_signal()
        assert await server.wait_exit() == 0
        assert receiver.got[-1][1]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"


async def test_a_receiver_that_does_not_answer_delays_nothing(start: Start) -> None:
    server = start("a2a_agent", env={**LOCAL, "AGENTAPP_DRAIN_TIMEOUT": "0.3"})
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener[0].socket.getsockname()[1]}/"
    task = await send(server, "say a b c", configuration={"taskPushNotificationConfig": {"url": url}})
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    server.send_signal()
    assert await server.wait_exit(15) == 0
    await listener[0].aclose()


async def test_a_receiver_that_answers_byte_by_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "TIMEOUT", 0.3)
    configs = PushConfigs(["127.0.0.1"])

    async def drip(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                await stream.send_all(b"x")
                await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, drip, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        with trio.fail_after(15):
            fault = await receivers.Receiver(configs, "t", "c", receivers.Slots())._try({"url": url}, b"{}")
        assert fault == "no answer in 0.3 s"
        nursery.cancel_scope.cancel()


async def test_receivers_that_never_answer_take_few_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "MAX_ATTEMPTS", 3)
    monkeypatch.setattr(receivers, "TIMEOUT", 0.2)
    configs, slots = PushConfigs(["127.0.0.1"]), receivers.Slots()
    most, now = 0, 0

    async def hold(stream: trio.SocketStream) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        while await stream.receive_some():
            pass
        now -= 1

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hold, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        async with trio.open_nursery() as attempts:
            for number in range(12):
                receiver = receivers.Receiver(configs, "t", str(number), slots)
                attempts.start_soon(receiver._try, {"url": url}, b"{}")
        nursery.cancel_scope.cancel()
    assert most == 3


async def test_slow_name_servers_leave_the_threads_of_the_app_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "TIMEOUT", 0.2)
    answered = threading.Event()

    def lookup(*_: Any, **__: Any) -> Any:
        answered.wait(30)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    configs, slots = PushConfigs([]), receivers.Slots()
    try:
        async with trio.open_nursery() as attempts:
            for number in range(50):
                receiver = receivers.Receiver(configs, "t", str(number), slots)
                attempts.start_soon(receiver._try, {"url": "http://slow.example/"}, b"{}")
        assert slots.lookups.borrowed_tokens == receivers.MAX_LOOKUPS
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        answered.set()
