from __future__ import annotations

import pytest
import trio

from trio_agentapp.testing.redis_server import RedisServer

PAGE = "examples/tasks/README.md"


@pytest.mark.parametrize("celery", [False, True])
async def test_tasks_as_the_page_says(start, document, celery: bool) -> None:
    page = document(PAGE)
    async with RedisServer("valkey") as redis:
        app = start(
            "python examples/tasks/app.py", **({"REDIS_URL": redis.url, "PYTHONWARNINGS": ""} if celery else {})
        )
        await app.wait_ready()
        submit, watch = (page.commands(part)[0] for part in ('"x": 5', '"seconds"'))
        read = page.commands("/longjob/TASK_ID")[0]
        cancel = page.commands("/cancel")[0]
        task_id = (await app.call(submit))["task_id"]
        with trio.fail_after(30):
            while (body := await app.call(read.replace("TASK_ID", task_id)))["status"] != "finished":
                await trio.sleep(0.05)
        assert body["result"] == {"result": 25}
        task_id = (await app.call(watch))["task_id"]
        look = read.replace("longjob/TASK_ID", f"watch/{task_id}")
        with trio.fail_after(30):
            while (await app.call(look))["status"] != "running":
                await trio.sleep(0.05)
        body = await app.call(cancel.replace("TASK_ID", task_id))
        assert (body["status"], body["error"]["code"]) == ("cancelled", "stopped")
        assert "Nobody waits for the kettle any more." in app.out
        assert await app.stop() == 0


def test_the_documented_start(document) -> None:
    lines = "\n".join(document(PAGE).commands(".venv/bin")).splitlines()
    assert lines.count(".venv/bin/python examples/tasks/app.py") == 1
    assert "REDIS_URL=redis://127.0.0.1:6379/0 .venv/bin/python examples/tasks/app.py" in lines
