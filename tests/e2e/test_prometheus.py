"""A real Prometheus scrapes an app that asks for identities, with the rules of the example."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from .conftest import Start
from .harness import free_port, fresh, say

PROMETHEUS = shutil.which("prometheus")
RULES = Path(__file__).parents[2] / "examples/monitoring/alerts.yml"
TOKEN = "correct-horse-battery"

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's package prometheus")


async def test_it_scrapes_with_the_token_and_evaluates_the_rules(start: Start, tmp_path: Path) -> None:
    server = start("guarded", metrics=True, admin_token=TOKEN)
    for user in ("u1", "u2"):
        body = {"input": say(), "session_id": fresh(), "stream": False}
        answer = await server.call("POST", "/process", body, headers={"Authorization": f"Bearer {user}"})
        assert answer.status == 200
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "prometheus.yml").write_text(
        f"""
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [{RULES}]
scrape_configs:
  - job_name: agents
    authorization: {{type: Bearer, credentials_file: {tmp_path}/token}}
    static_configs: [{{targets: ["127.0.0.1:{server.port}"]}}]
  - job_name: strangers
    static_configs: [{{targets: ["127.0.0.1:{server.port}"]}}]
"""
    )
    port = free_port()
    command = [str(PROMETHEUS), f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as http:

            async def values(query: str) -> dict[str, float]:
                try:
                    answer = await http.get("/query", params={"query": query})
                except httpx.ConnectError:
                    assert process.poll() is None, (tmp_path / "prometheus.log").read_text()
                    return {}
                found: list[Any] = answer.json().get("data", {}).get("result", [])
                return {each["metric"].get("job", ""): float(each["value"][1]) for each in found}

            with trio.fail_after(60):
                while len(up := await values("up")) < 2:
                    await trio.sleep(0.1)
                assert up == {"agents": 1, "strangers": 0}
                while (await values("agent_runs_total{outcome='finished'}")) != {"agents": 2}:
                    await trio.sleep(0.1)
                while True:
                    groups = (await http.get("/rules")).json()["data"]["groups"]
                    rules = [rule for group in groups for rule in group["rules"]]
                    if all(rule["health"] != "unknown" for rule in rules):
                        break
                    await trio.sleep(0.1)
                assert {rule["health"] for rule in rules} == {"ok"}, rules
    finally:
        process.terminate()
        process.wait()
