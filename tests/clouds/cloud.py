"""A cloud on loopback that records requests, checks their signatures, and answers as the services document it.

It keeps agent runtimes, functions, buckets and objects. What it makes is ready after `looks` looks at its state.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs

from . import signatures

KEY, SECRET, TOKEN = "LTAI-of-these-tests", "the-secret-of-these-tests", "the-token-of-these-tests"


@attrs.frozen
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path.partition('?')[0]}"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.define
class Fault:
    """Answers the next `times` requests whose line matches."""

    pattern: str
    status: int
    code: str = "Fault"
    message: str = "made by a test"
    times: int = 1
    headers: dict[str, str] = attrs.field(factory=dict)
    after: bool = False
    """The request has its effect, and only its answer is lost."""
    hold: threading.Event | None = None
    """The answer waits for it."""


class Cloud:
    """The state of the cloud. `url` is the endpoint of every service."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.cloud = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.clear()

    def clear(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.arrived = threading.Condition()
        self.runtimes: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, list[dict[str, Any]]] = {}
        self.functions: dict[str, dict[str, Any]] = {}
        self.triggers: dict[str, dict[str, Any]] = {}
        self.buckets: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.leases: dict[str, bytes] = {}
        self.looks = 2
        self.ends_as = "READY"
        self.reason = ""
        self.made = 0

    @property
    def lines(self) -> list[str]:
        return [request.line for request in self.requests]

    def wait_for(self, pattern: str, timeout: float = 20) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: any(re.search(pattern, line) for line in self.lines), timeout)

    def requests_of(self, pattern: str) -> list[Request]:
        return [request for request in self.requests if re.fullmatch(pattern, request.line)]

    # What the services do.

    def answer(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        with self.arrived:
            self.requests.append(request)
            self.arrived.notify_all()
        fault = next((each for each in self.faults if each.times and re.search(each.pattern, request.line)), None)
        if fault is not None:
            fault.times -= 1
            if fault.after:
                self._answer(request)
            if fault.hold is not None:
                fault.hold.wait(20)
            if fault.status:
                return _error(request, fault.status, fault.code, fault.message, fault.headers)
        return self._answer(request)

    def _answer(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        path = request.path.partition("?")[0]
        if path.startswith("/lease/"):
            if request.headers.get("x-bailian-extra") != "signed":
                return _error(request, 403, "AccessDenied", "no right to write")
            self.leases[path.removeprefix("/lease/")] = request.body
            return 200, {}, b""
        if (wrong := _wrong_signature(request)) is not None:
            return wrong
        parts = path.strip("/").split("/")
        if path.startswith("/2025-09-10/agents/runtimes"):
            return self._agentrun(request, parts[3:])
        if path.startswith("/2023-03-30/functions"):
            return self._fc(request, parts[2:])
        if path.endswith(("/datacenter", "/highCode/publish")):
            return self._modelstudio(request, parts)
        return self._oss(request, parts)

    def _modelstudio(self, request: Request, parts: list[str]) -> tuple[int, dict[str, str], bytes]:
        if parts[-1] == "datacenter":
            param = {
                "Url": f"{self.url}/lease/lease-1?Signature=signed-url-secret",
                "Method": "PUT",
                "Headers": {"X-bailian-extra": "signed", "Content-Type": ""},
            }
            return _json({"Success": True, "Data": {"TempStorageLeaseId": "lease-1", "Param": param}})
        return _json({"success": True, "data": "deploy-1"})

    def _agentrun(self, request: Request, parts: list[str]) -> tuple[int, dict[str, str], bytes]:
        match request.method, parts:
            case "POST", []:
                self.made += 1
                given = request.json
                identifier = f"ar-{self.made}"
                self.runtimes[identifier] = {
                    **given,
                    "agentRuntimeId": identifier,
                    "status": "CREATING",
                    "createdAt": "2026-01-02T03:04:05Z",
                    "looks": 0,
                }
                return _success(self.runtimes[identifier])
            case "GET", []:
                return _success({"items": list(self.runtimes.values()), "total": len(self.runtimes)})
        runtime = self.runtimes.get(parts[0])
        if runtime is None:
            return _error(request, 404, "ERR_NOT_FOUND", f"no runtime {parts[0]}")
        match request.method, parts[1:]:
            case "GET", []:
                self._age(runtime)
                if runtime["status"] == "DELETING" and runtime["looks"] > self.looks:
                    del self.runtimes[parts[0]]
                return _success(runtime)
            case "PUT", []:
                runtime.update(request.json, status="UPDATING", looks=0)
                return _success(runtime)
            case "DELETE", []:
                runtime.update(status="DELETING", looks=0)
                return _success(runtime)
            case "POST", ["versions"]:
                return _success({"agentRuntimeId": parts[0], "agentRuntimeVersion": "7"})
            case "GET", ["endpoints"]:
                return _success({"items": self.endpoints.get(parts[0], [])})
            case "POST", ["endpoints"]:
                made = {
                    **request.json,
                    "agentRuntimeEndpointId": "ep-1",
                    "endpointPublicUrl": f"https://{parts[0]}.example.com",
                    "status": "CREATING",
                    "looks": 0,
                }
                self.endpoints.setdefault(parts[0], []).append(made)
                return _success(made)
            case "GET", ["endpoints", _]:
                found = self.endpoints[parts[0]][0]
                found["looks"] += 1
                if found["looks"] >= self.looks:
                    found["status"] = "READY"
                return _success(found)
        raise AssertionError(request.line)

    def _age(self, item: dict[str, Any]) -> None:
        item["looks"] += 1
        if item["looks"] >= self.looks and item["status"] in ("CREATING", "UPDATING"):
            item.update(status=self.ends_as, statusReason=self.reason)

    def _fc(self, request: Request, parts: list[str]) -> tuple[int, dict[str, str], bytes]:
        match request.method, parts:
            case "POST", []:
                name = request.json["functionName"]
                if name in self.functions:
                    return _error(request, 409, "FunctionAlreadyExists", name)
                self.functions[name] = {
                    **request.json,
                    "state": "Pending",
                    "createdTime": "2026-01-02T03:04:05Z",
                    "looks": 0,
                }
                return _json(self.functions[name])
            case "GET", []:
                return _json({"functions": list(self.functions.values())})
        function = self.functions.get(parts[0])
        if function is None:
            return _error(request, 404, "FunctionNotFound", f"no function {parts[0]}")
        match request.method, parts[1:]:
            case "GET", []:
                function["looks"] += 1
                if function["looks"] >= self.looks:
                    state = {"READY": "Active", "CREATE_FAILED": "Failed"}.get(self.ends_as, "Pending")
                    function.update(state=state, stateReason=self.reason)
                return _json(function)
            case "PUT", []:
                function.update(request.json, looks=0)
                return _json(function)
            case "DELETE", []:
                del self.functions[parts[0]]
                return 204, {}, b""
            case "POST", ["versions"]:
                return _json({"versionId": "3"})
            case "POST", ["triggers"]:
                if parts[0] in self.triggers:
                    return _error(request, 409, "TriggerAlreadyExists", parts[0])
                self.triggers[parts[0]] = {
                    **request.json,
                    "httpTrigger": {"urlInternet": f"https://{parts[0]}.fcapp.run"},
                }
                return _json(self.triggers[parts[0]])
        trigger = self.triggers.get(parts[0])
        if trigger is None:
            return _error(request, 404, "TriggerNotFound", parts[0])
        match request.method:
            case "PUT":
                trigger.update(request.json)
            case "DELETE":
                del self.triggers[parts[0]]
                return 204, {}, b""
        return _json(trigger)

    def _oss(self, request: Request, parts: list[str]) -> tuple[int, dict[str, str], bytes]:
        bucket, key = parts[0], "/".join(parts[1:])
        if request.method == "PUT" and not key:
            self.buckets.add(bucket)
            return 200, {}, b""
        if bucket not in self.buckets:
            return _error(request, 404, "NoSuchBucket", bucket)
        match request.method:
            case "PUT":
                self.objects[key] = request.body
                return 200, {}, b""
            case "HEAD" if key not in self.objects:
                return 404, {}, b""
            case "HEAD":
                return 200, {"Content-Length": str(len(self.objects[key]))}, b""
        return 200, {"Content-Type": "application/xml"}, b"<AccessControlPolicy></AccessControlPolicy>"


@contextmanager
def serving() -> Iterator[Cloud]:
    cloud = Cloud()
    thread = threading.Thread(target=cloud.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield cloud
    finally:
        cloud.server.shutdown()
        cloud.server.server_close()
        thread.join()


def _wrong_signature(request: Request) -> tuple[int, dict[str, str], bytes] | None:
    said = signatures.fields(request.headers.get("authorization", ""))
    if said["Credential"].partition("/")[0] != KEY:
        return _error(request, 404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
    if request.headers["authorization"].startswith("OSS4"):
        right = signatures.oss4(request.method, request.path, request.headers, SECRET)
    else:
        right = signatures.acs3(request.method, request.path, request.headers, request.body, SECRET)
        assert request.headers["x-acs-content-sha256"] == signatures.sha256(request.body)
    if said["Signature"] != right:
        return _error(request, 403, "SignatureDoesNotMatch", f"signed with another secret than {KEY} has")
    return None


def _json(value: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _success(data: Any) -> tuple[int, dict[str, str], bytes]:
    return _json({"code": "SUCCESS", "requestId": "r-1", "data": data})


def _error(
    request: Request, status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    if request.headers.get("authorization", "").startswith("OSS4") and request.method != "HEAD":
        text = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>r-1</RequestId></Error>"
        return status, {"Content-Type": "application/xml", **(headers or {})}, text.encode()
    status, own, body = _json({"code": code, "message": message, "requestId": "r-1"}, status)
    return status, {**own, **(headers or {})}, body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for each answer: two would wait for each other

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # the client hung up
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, more, content = self.server.cloud.answer(Request(self.command, self.path, headers, body))  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""
