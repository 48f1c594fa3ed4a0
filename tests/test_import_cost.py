"""What an import brings along: scripts that use a part of the package do not pay for the rest."""

import json
import subprocess
import sys

import pytest

LOADED = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def loaded_by(statement: str) -> set[str]:
    """The top-level packages in a fresh interpreter after `statement`."""
    program = f"{statement}\n{LOADED}"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return set(json.loads(answer.stdout))


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import trio_agentapp", {"trio", "quart", "quart_trio", "hypercorn", "redis", "httpx", "typer"}),
        ("import trio_agentapp.protocol", {"trio", "asyncio", "quart", "hypercorn", "redis", "httpx"}),
        ("import trio_agentapp.runs", {"quart", "quart_trio", "hypercorn", "redis", "httpx"}),
        ("from trio_agentapp import AgentClient", {"quart", "quart_trio", "hypercorn", "redis", "typer"}),
        ("import trio_agentapp.cli", {"trio", "asyncio", "quart", "hypercorn", "redis", "httpx", "rich", "attrs"}),
        ("import trio_agentapp.agents", {"trio", "httpx", "msgspec", "quart", "redis"}),
        ("from trio_agentapp.agents import Agent", {"asyncio", "quart", "hypercorn", "redis", "typer"}),
        ("import trio_agentapp.registries", {"trio", "asyncio", "redis", "httpx", "zeroconf"}),
        ("from trio_agentapp.registries import RedisRegistry, keeping", {"quart", "httpx", "zeroconf"}),
        ("from trio_agentapp.registries import NacosRegistry", {"quart", "redis", "zeroconf"}),
        ("from trio_agentapp import LocalDeployManager", {"asyncio", "quart", "hypercorn", "redis", "typer"}),
        (
            "from trio_agentapp import AgentApp",
            {"redis", "httpx", "typer", "celery", "msgspec", "cattrs", "pydantic"},
        ),
    ],
)
def test_an_import_does_not_load(statement: str, unwanted: set[str]) -> None:
    assert not loaded_by(statement) & unwanted


def test_the_measure_sees_what_is_loaded() -> None:
    assert "trio" in loaded_by("import trio")
    assert "quart" in loaded_by("from trio_agentapp import AgentApp")
