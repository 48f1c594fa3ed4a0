"""The reference page of the command line says what the program has, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from trio_agentapp.cli import program
from trio_agentapp.cli.exits import ExitCode

PAGE = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text()
ROOT = typer.main.get_command(program)


def commands(group: Any = ROOT, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield before + name, command


def section(heading: str) -> str:
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert text, heading
    return text


def first_cells(text: str) -> list[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def options(command: Any) -> list[str]:
    return [
        name
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name != "help"
        for name in (*parameter.opts, *parameter.secondary_opts)
    ]


def test_every_command_is_listed() -> None:
    listed = first_cells(PAGE.partition("\n## ")[0])
    assert listed == [name for name, _ in commands()]
    assert {name for name, _ in commands()} >= {"run", "chat", "deploy local"}


def test_every_option_is_in_its_section() -> None:
    assert sorted(first_cells(section("Before the command"))) == sorted(options(ROOT))
    for name, command in commands():
        assert sorted(first_cells(section(f"`{name}`"))) == sorted(options(command)), name
        assert command.help, name


def test_defaults_that_are_numbers_are_the_documented_ones() -> None:
    found = 0
    for name, command in commands():
        rows = dict(re.findall(r"^\| `([^`]+)`[^|]*\| ([^|]*?) *\|", section(f"`{name}`"), re.MULTILINE))
        for parameter in command.params:
            documented = rows.get(parameter.opts[0])
            if (
                documented
                and not isinstance(parameter.default, bool)
                and isinstance(parameter.default, int | float)
            ):
                assert documented == str(parameter.default), (name, parameter.name)
                found += 1
    assert found >= 2


def test_every_exit_code_is_listed() -> None:
    rows = re.findall(r"^\| `(\d+)` \| `(\w+)` \|", section("Exit codes"), re.MULTILINE)
    assert rows == [(str(code.value), code.name) for code in ExitCode]
