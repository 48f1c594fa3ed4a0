"""From a name to an app, and back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_agentapp import AgentApp
from trio_agentapp.app.entrypoint import entrypoint_of
from trio_agentapp.app.loading import load_app, resolved
from trio_agentapp.errors import ConfigurationError

made_here = AgentApp(app_name="Here")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder; what is imported from it is forgotten."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("from trio_agentapp import AgentApp", *lines, "")))


def test_a_file(folder: Path) -> None:
    write(folder / "shop-agent.py", "from helper import NAME", "shop = AgentApp(app_name=NAME)", "shop.run()")
    (folder / "helper.py").write_text("NAME = 'Shop'\n")
    app = load_app("shop-agent.py")
    assert app.app_name == "Shop"
    # Once more it is the same; `run` in it did nothing.
    assert load_app(f"{folder}/shop-agent.py:shop") is app
    assert entrypoint_of(app) == "shop-agent:shop"
    assert resolved("shop-agent.py:shop") == f"{folder}/shop-agent.py:shop"


def test_a_file_of_a_package(folder: Path) -> None:
    write(folder / "store/inner/__init__.py")
    write(folder / "store/__init__.py", "NAME = 'Inner'")
    write(folder / "store/inner/agent.py", "from .. import NAME", "app = AgentApp(app_name=NAME)")
    app = load_app("store/inner/agent.py")
    assert app.app_name == "Inner"
    assert entrypoint_of(app) == "store.inner.agent:app"
    assert load_app("store.inner.agent") is app
    assert resolved("store.inner.agent:app") == "store.inner.agent:app"


def test_a_function_that_makes_the_app(folder: Path) -> None:
    write(folder / "made.py", "def make():", "    return AgentApp(app_name='Made')")
    assert load_app("made:make").app_name == "Made"
    with pytest.raises(ConfigurationError, match="made has no AgentApp among its global names"):
        load_app("made")
    with pytest.raises(ConfigurationError, match=r"made:AgentApp is not an AgentApp but type"):
        load_app("made:AgentApp")


def test_the_usual_names_come_first(folder: Path) -> None:
    write(folder / "usual.py", "other = AgentApp()", "agent_app = AgentApp(app_name='Usual')")
    assert load_app("usual").app_name == "Usual"
    write(folder / "twice.py", "one = two = AgentApp(app_name='Twice')")
    assert load_app("twice").app_name == "Twice"


def test_a_folder_that_is_a_module_too(folder: Path) -> None:
    write(folder / "package/__init__.py", "app = AgentApp(app_name='Package')")
    write(folder / "package/app.py", "from beside import NAME", "app = AgentApp(app_name=NAME)")
    (folder / "package/beside.py").write_text("NAME = 'File'")
    assert load_app("package").app_name == "Package"
    assert load_app("./package").app_name == "File"
    write(folder / "hidden.py", "app = AgentApp(app_name='Module')")
    write(folder / "hidden/app.py", "app = AgentApp(app_name='Folder')")
    assert load_app("hidden").app_name == "Module"
    assert resolved("hidden/:other") == f"{folder}/hidden/app.py:other"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("import nothing_of_this_name", r"bad.py, line 2: ModuleNotFoundError: No module named 'nothing_of"),
        ("AgentApp(nme='x')", r"bad.py, line 2: TypeError: AgentApp has no parameter 'nme'"),
        ("def (", r"bad.py, line 2: SyntaxError: "),
        ("import sys; sys.exit(3)", r"bad.py ended the program while it was imported \(exit code 3\)"),
    ],
)
def test_a_module_that_fails(folder: Path, line: str, says: str) -> None:
    write(folder / "bad.py", line)
    for place in ("bad.py", "bad.py"):  # a failed one is not remembered
        with pytest.raises(ConfigurationError, match=says):
            load_app(place)
    assert "bad" not in sys.modules


def test_names_that_name_nothing() -> None:
    for place, says in (
        (":app", "names no file or module"),
        ("nowhere.py", "there is no file"),
        ("a/b", "no file"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            load_app(place)


def test_where_an_app_is() -> None:
    assert entrypoint_of(made_here) == f"{__name__}:made_here"
    with pytest.raises(ConfigurationError, match="not a global name of any module"):
        entrypoint_of(AgentApp())
