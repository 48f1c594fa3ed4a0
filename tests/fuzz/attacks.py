"""The two ways in which the app is fuzzed, and what came of them."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections import Counter
from random import Random
from typing import Any

import attrs
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .mutations import BODIES, ROUTES, mutated
from .target import TIMEOUT, Target, fault_of

__all__ = ["MODES", "Outcome", "by_document", "by_mutation", "exchange", "operations"]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
MODES = {"right": GenerationMode.POSITIVE, "wrong": GenerationMode.NEGATIVE}


@attrs.define
class Outcome:
    """What a slice of fuzzing found."""

    requests: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    statuses: dict[str, int] = attrs.field(factory=dict)
    violations: list[str] = attrs.field(factory=list)

    def count(self, status: int, took: float) -> None:
        self.requests += 1
        self.slowest = max(self.slowest, took)
        self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1

    def assert_clean(self) -> None:
        assert not self.violations, "\n".join(self.violations[:20])


def operations(target: Target) -> dict[str, Any]:
    """What the document of the app lists, by method and path."""
    schema = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.label: operation for operation in found}


def by_document(target: Target, operation: Any, mode: str, examples: int, number: int = 0) -> Outcome:
    """Requests that follow the document, or break it, by schemathesis; answers are held against it, too."""
    outcome = Outcome()
    began = time.monotonic()
    session = requests.Session()
    complaints = len(target.complaints())

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=MODES[mode]))
    def ask(case: Any) -> None:
        sent = time.monotonic()
        try:
            answer = case.call(session=session, timeout=TIMEOUT)
        except (requests.RequestException, ValueError) as exc:
            outcome.count(0, time.monotonic() - sent)
            if not _unsendable(exc):
                outcome.violations.append(f"{operation.label}: {exc!r}: {case.as_curl_command()[:500]}")
            return
        outcome.count(answer.status_code, time.monotonic() - sent)
        fault = fault_of(answer.status_code, answer.content, answer.status_code < 300, case.as_curl_command())
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as failures:
            fault = "; ".join(str(each) for each in failures.exceptions)
        except AssertionError as failure:
            fault = str(failure)
        if fault is not None:
            outcome.violations.append(f"{operation.label}: {fault[:800]}: {case.as_curl_command()[:500]}")

    # There may be nothing in an operation that could be wrong.
    with contextlib.suppress(Unsatisfiable):
        ask()
    outcome.violations += target.complaints()[complaints:]
    outcome.seconds = time.monotonic() - began
    session.close()
    return outcome


def _unsendable(error: Exception) -> bool:
    """HTTP libraries refuse to send some header values at all."""
    return isinstance(error, ValueError | requests.exceptions.InvalidHeader) and "header" in str(error).lower()


def by_mutation(target: Target, bodies: int, number: int = 0) -> Outcome:
    """Mutated bodies for every route in turn."""
    outcome = Outcome()
    random = Random(number)
    began = time.monotonic()
    connection = target.connect()
    complaints = len(target.complaints())
    for count in range(bodies):
        route = ROUTES[count % len(ROUTES)]
        method, _, path = route.partition(" ")
        raw, media = mutated(BODIES[route], random)
        headers = {"Content-Type": media} if media else {}
        sent = time.monotonic()
        try:
            connection, answer, body = exchange(target, connection, method, path.removesuffix("?"), raw, headers)
        except (OSError, http.client.HTTPException) as exc:
            outcome.count(0, time.monotonic() - sent)
            outcome.violations.append(f"{route}: {exc!r} for {raw[:500]!r}")
            connection.close()
            connection = target.connect()
            continue
        outcome.count(answer.status, time.monotonic() - sent)
        if (fault := fault_of(answer.status, body, answer.status < 300)) is not None:
            outcome.violations.append(f"{route}: {fault} for {raw[:500]!r}")
        if answer.will_close:
            connection.close()
            connection = target.connect()
    connection.close()
    outcome.violations += target.complaints()[complaints:]
    outcome.seconds = time.monotonic() - began
    return outcome


def exchange(
    target: Target,
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    raw: bytes,
    headers: dict[str, str],
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse, bytes]:
    """One request, with the connection for the next one.

    A refusal that is faster than its body ends the connection, as HTTP allows; a new one must do.
    """
    try:
        return connection, *_exchange(connection, method, path, raw, headers)
    except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
        connection.close()
        connection = target.connect()
        return connection, *_exchange(connection, method, path, raw, headers)


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, raw: bytes, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    # The response may be there although the server has not read the whole body.
    with contextlib.suppress(BrokenPipeError):
        connection.request(method, path, body=raw, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read()


def together(outcomes: list[Outcome]) -> Outcome:
    """Several as one."""
    statuses: Counter[str] = Counter()
    for outcome in outcomes:
        statuses.update(outcome.statuses)
    return Outcome(
        requests=sum(outcome.requests for outcome in outcomes),
        seconds=sum(outcome.seconds for outcome in outcomes),
        slowest=max((outcome.slowest for outcome in outcomes), default=0.0),
        statuses=dict(sorted(statuses.items())),
        violations=[violation for outcome in outcomes for violation in outcome.violations],
    )
