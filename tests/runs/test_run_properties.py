"""Random agents, stopped at random times: what holds for each of them, whatever it did."""

import logging
import random
from contextlib import aclosing

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_agentapp.protocol.lifecycle import Cause, CleanupResult, RunState
from trio_agentapp.testing import Script, Step, ask_for_exit, cleanup, fail, say, swallow, wait

BUDGET = 10.0


def random_step(dice: random.Random) -> Step:
    return dice.choice(
        [
            say("text"),
            say(None),
            wait(dice.choice([0, 0.5, 3])),
            swallow(dice.choice([0, 2])),
            cleanup(dice.choice([0, 1, 4])),
            ask_for_exit(dice.choice([0, 1]), dice.choice([None, None, None, ValueError("exit")])),
        ]
    )


def agent(script: Script, dice: random.Random, seen: dict[str, object]):
    """The script, sometimes inside nurseries and beside children, with a `finally` that takes its time."""
    nested, children, slow_exit = dice.random() < 0.3, dice.randint(0, 2), dice.choice([0, 1, 20])
    end = dice.choice([None, None, ValueError("body"), ExceptionGroup("two", [ValueError(), KeyError()])])

    async def child(run) -> None:
        try:
            await trio.sleep_forever()
        finally:
            if slow_exit:
                async with run.cleanup():
                    await trio.sleep(1)

    async def handler(run):
        for _ in range(children):
            run.start_soon(child, run)
        try:
            async with aclosing(script(run)) as items:
                if nested:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(trio.sleep, 1)
                        async for item in items:
                            yield item
                else:
                    async for item in items:
                        yield item
            if end is not None:
                raise end
        finally:
            if slow_exit:
                async with run.cleanup():
                    await trio.sleep(slow_exit)
            # Nothing awaits between this note and the end of the body.
            seen["stopped at the end"] = bool(run.stopping)

    return handler


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_every_run_ends_once_and_frees_everything(open_house, bounded_clock, seed: int) -> None:
    logging.getLogger("trio_agentapp").setLevel(logging.CRITICAL)
    try:
        trio.run(live_at_random, open_house, random.Random(seed), clock=bounded_clock())
    finally:
        logging.getLogger("trio_agentapp").setLevel(logging.NOTSET)


async def live_at_random(open_house, dice: random.Random) -> None:
    async with open_house(cleanup_budget=BUDGET) as house:
        async with trio.open_nursery() as nursery:
            for _ in range(dice.randint(1, 4)):
                nursery.start_soon(live_once, house, random.Random(dice.random()))
    # What `open_house` looks at: one terminal event, closed log, record written, registry empty, session free.


async def live_once(house, dice: random.Random) -> None:
    seen: dict[str, object] = {}
    steps = [random_step(dice) for _ in range(dice.randint(0, 6))]
    if dice.random() < 0.2:
        steps.append(fail(RuntimeError("script")))
    timeout_s = dice.choice([None, None, None, 2.25])
    await trio.sleep(dice.random())
    began = trio.current_time()
    run = await house.start(agent(Script(*steps), dice, seen), timeout_s=timeout_s)

    stopped_at = None
    if dice.random() < 0.7:
        with trio.move_on_after(dice.choice([0, 0.25, 0.75, 1.3, 3.1, 6.7])):
            await run.ended.wait()
        for _ in range(dice.randint(1, 3)):
            before_end = run.lifecycle.cause is None
            stop = dice.choice([house.stop, house.request_stop])
            await stop(run)
            if before_end and stopped_at is None and run.lifecycle.cause is Cause.STOPPED:
                stopped_at = trio.current_time()
            if dice.random() < 0.5:
                await trio.sleep(dice.random())
    await run.ended.wait()
    ended = trio.current_time()
    ending = run.lifecycle.ending

    if stopped_at is not None:
        assert ended <= stopped_at + BUDGET + 0.001
        assert ending.state is RunState.STOPPED or ending.cause is Cause.CLEANUP_TIMEOUT
        assert ending.stop_requested
    if ending.cause is Cause.STOPPED:
        assert stopped_at is not None
        assert seen.get("stopped at the end", True)
    if ending.state is RunState.FINISHED:
        assert seen["stopped at the end"] is False
    if ending.cause is Cause.CLEANUP_TIMEOUT:
        assert ending.cleanup is CleanupResult.TIMED_OUT
    if ending.cause is Cause.DEADLINE_EXCEEDED:
        assert timeout_s is not None
        assert ended - began >= timeout_s
        assert ended - began <= timeout_s + BUDGET + 0.001
    # The session is free at once.
    again = await house.play(Script(say("next")), key=run.key)
    assert again.lifecycle.ending.cause is Cause.RETURNED
