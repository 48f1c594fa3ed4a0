"""Token buckets, on a virtual clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_agentapp.errors import TooManyRequests
from trio_agentapp.limits import Rates, rate_limit, rates
from trio_agentapp.refusals import refusals


async def test_a_full_bucket_allows_a_burst_and_then_the_rate(mock_clock: MockClock) -> None:
    limit = Rates("requests", 10)
    assert [limit.take("a") for _ in range(50)] == [0.0] * 50
    assert limit.take("a") == pytest.approx(0.1)
    mock_clock.jump(0.1)
    assert limit.take("a") == 0
    assert limit.take("a") == pytest.approx(0.1)
    mock_clock.jump(3600)
    assert [limit.take("a") for _ in range(51)].count(0.0) == 50


async def test_each_principal_has_its_own_bucket() -> None:
    limit = Rates("requests", 1, size=1)
    assert limit.take("a") == 0
    assert limit.take("a")
    assert limit.take("b") == 0


async def test_without_a_rate_or_a_principal_nothing_is_counted() -> None:
    assert not any(Rates("requests", 0).take("a") for _ in range(1000))
    limit = Rates("requests", 1, size=1)
    assert not any(limit.take(None) for _ in range(1000))
    assert not limit._buckets


async def test_a_rate_below_one_allows_one_request(mock_clock: MockClock) -> None:
    limit = Rates("requests", 0.1)
    assert limit.take("a") == 0
    assert limit.take("a") == pytest.approx(10)
    mock_clock.jump(10)
    assert limit.take("a") == 0


async def test_a_refusal_says_what_the_limit_is() -> None:
    limit = Rates("requests", 2, size=4)
    before = refusals["requests"]
    for _ in range(4):
        await limit.admit("a")
    with pytest.raises(TooManyRequests, match=r"The limit of requests is reached \(2 per second\)\.") as caught:
        await limit.admit("a")
    error = caught.value
    assert (error.status, error.code, error.retryable) == (429, "too_many_requests", True)
    assert error.extra() == {"limit": "requests", "quota": 4, "window": 2.0}
    assert error.advice() == {
        "Retry-After": "1",
        "RateLimit-Policy": '"requests";q=4;w=2',
        "RateLimit": '"requests";r=0;t=1',
    }
    assert refusals["requests"] == before + 1


async def test_refusals_of_one_principal_wait_for_each_other(autojump_clock: MockClock) -> None:
    """A client that floods over many connections gets a hundred refusals a second, at most 5 s late."""
    limit = Rates("requests", 1, size=1)
    await limit.admit("a")
    began_at = trio.current_time()
    ends: list[float] = []

    async def refused(name: str) -> None:
        with pytest.raises(TooManyRequests):
            await limit.admit(name)
        ends.append(trio.current_time() - began_at)

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(refused, "a")
    assert ends[0] == 0
    assert ends[100] == pytest.approx(1.0, abs=0.02)
    assert ends[-1] == pytest.approx(5.0, abs=0.02)
    assert limit.take("b") == 0
    with trio.fail_after(0.005), pytest.raises(TooManyRequests):
        await limit.admit("b")


async def test_full_buckets_are_forgotten_and_all_are_bounded(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = Rates("requests", 1, size=1)
    for number in range(100):
        limit.take(str(number))
    mock_clock.jump(2)
    for number in range(100, 200):
        limit.take(str(number))
    assert len(limit._buckets) == 100
    monkeypatch.setattr(rates, "MAX_BUCKETS", 10)
    for number in range(200, 300):
        limit.take(str(number))
        assert limit.take(str(number)), "the bucket of the present principal is kept"
    assert len(limit._buckets) <= 10


@pytest.mark.parametrize(
    ("principal", "limited"),
    [
        ("address 127.0.0.1", False),
        ("address 127.8.0.1", False),
        ("address ::/64", False),
        ("address 128.0.0.1", True),
        ("user 127.0.0.1", True),
        ("failures of address 127.0.0.1", True),
    ],
)
async def test_addresses_of_this_machine_are_limited_only_if_a_rate_is_set(
    principal: str, limited: bool, mock_clock: MockClock
) -> None:
    default, chosen = rate_limit("requests", None), rate_limit("requests", 100)
    assert any(default.take(principal) for _ in range(501)) is limited
    assert any(chosen.take(principal) for _ in range(501))
