"""The packages that an app needs, with exact versions: those it names, or those of the modules that it imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import ConfigurationError, DeployError
from .extras import needed
from .source_tree import SourceTree, secret_in

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["OWN", "Requirements", "find_requirements", "listed"]

BETWEEN = re.compile(r",\s*(?=[A-Za-z])(?![^\[]*\])")
"""A comma between requirements: neither one of a version, as in `a>1,<2`, nor one of extras, as in `a[b,c]`."""

OWN = "trio-agentapp"
"""This package. It goes into the context as a wheel, because an index may not have this very version."""


@attrs.frozen(kw_only=True)
class Requirements:
    lines: tuple[str, ...]
    """Of `requirements.txt`, sorted; all with `==` or a URL."""
    found_in: str
    open_ended: tuple[str, ...]
    """Packages that are not installed here in the version that is asked for. Their own dependencies have no exact
    versions; pip chooses them when the image is built."""


def find_requirements(tree: SourceTree, given: Sequence[str] | None = None) -> Requirements:
    """Return what `given` asks for, else `requirements.txt`, else `pyproject.toml`, else what the modules import.

    Versions that are not exact, and those of dependencies, are the ones installed here.

    Raises:
        DeployError: a line is no requirement, or is an option of pip; a package without an exact version is not
            installed here; a module that is imported is neither in the tree nor installed. The message names file,
            line and module.
    """
    imports = tuple(_imports(tree))
    _check_left_out(tree, imports)
    if given is not None:
        asked, found_in = [_parsed(_public(text), "--requirement") for text in given], "given"
    elif "requirements.txt" in tree.files:
        asked, found_in = list(_of_file(tree, "requirements.txt", ())), "requirements.txt"
    elif (project := _of_project(tree)) is not None:
        asked, found_in = project, "pyproject.toml"
    else:
        asked, found_in = _of_imports(tree, imports), "imports"
    return _pinned(asked, found_in)


# Where they are named.


def listed(requirements: Sequence[str] | str | None) -> list[str] | None:
    """Requirements one by one: each text is the name of a file of them, or one or more with commas between them.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    if requirements is None:
        return None
    found: list[str] = []
    for text in (requirements,) if isinstance(requirements, str) else requirements:
        if text.endswith(".txt"):
            try:
                lines = Path(text).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{text} cannot be read ({type(error).__name__})") from error
            found += [line.partition(" #")[0].strip() for line in lines if not line.lstrip().startswith("#")]
        else:
            found += BETWEEN.split(text)
    return [each.strip() for each in found if each.strip()]


def _public(text: str) -> str:
    if (found := secret_in(text.encode())) is not None:
        raise DeployError(
            f"a --requirement has what looks like {found[0]}, which all who get the image could read; use a "
            "package index that the network protects, or put the code into the folder of the app"
        )
    return text


def _parsed(text: str, where: str) -> Requirement:
    requirements = needed("packaging.requirements", "build")
    try:
        found: Requirement = requirements.Requirement(text)
    except requirements.InvalidRequirement:
        raise DeployError(f"{where}: {text!r} is not a requirement such as name==1.2") from None
    return found


def _of_file(tree: SourceTree, name: str, within: tuple[str, ...]) -> Iterator[Requirement]:
    if name in within:
        raise DeployError(f"{name} includes itself")
    if name not in tree.files:
        raise DeployError(f"{within[-1]} includes {name}, which is not in the context")
    text = tree.files[name].decode(errors="replace").replace("\\\n", " ")
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        option, _, value = line.partition(" ")
        if option in ("-r", "--requirement"):
            included = (PurePosixPath(name).parent / value.strip()).as_posix()
            yield from _of_file(tree, included, (*within, name))
        elif line.startswith("-"):
            raise DeployError(
                f"{name}, line {number}: the option {option.partition('=')[0]} cannot be used in an image; an "
                "index is named when the image is built (--build-arg PIP_INDEX_URL=...), and code in this folder "
                "needs no requirement"
            )
        else:
            yield _parsed(line.partition(" --hash")[0], f"{name}, line {number}")


def _of_project(tree: SourceTree) -> list[Requirement] | None:
    if "pyproject.toml" not in tree.files:
        return None
    try:
        project = tomllib.loads(tree.files["pyproject.toml"].decode()).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DeployError(f"pyproject.toml cannot be read: {error}") from error
    if "dependencies" not in project:
        return None
    return [_parsed(text, "pyproject.toml, dependencies") for text in project["dependencies"]]


# What the modules import.


@attrs.frozen
class _Import:
    file: str
    line: int
    module: str
    """As written, with its dots: `package.module`."""
    optional: bool
    """It may fail: it is in a function, in `try`, or under a condition."""


def _imports(tree: SourceTree) -> Iterator[_Import]:
    for name, content in tree.files.items():
        if not name.endswith(".py"):
            continue
        try:
            module = ast.parse(content)
        except (SyntaxError, ValueError):
            continue  # a template, or a broken module; the check of the context says so if the app imports it
        top = {id(statement) for statement in module.body}
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield _Import(name, node.lineno, alias.name, id(node) not in top)
            elif isinstance(node, ast.ImportFrom):
                package = PurePosixPath(name).parent.parts
                before = package[: len(package) - node.level + 1] if node.level else ()
                base = ".".join((*before, *(node.module or "").split(".") * bool(node.module)))
                for alias in node.names:
                    yield _Import(
                        name, node.lineno, f"{base}.{alias.name}" if base else alias.name, id(node) not in top
                    )


def _local_names(each: _Import) -> Iterator[list[str]]:
    """The paths at which a module of the tree would be, nearest first: from the top folder, and beside the file."""
    parts = each.module.split(".")
    for folder in ("", PurePosixPath(each.file).parent.as_posix()):
        paths = [(PurePosixPath(folder) / "/".join(parts[:end])).as_posix() for end in range(len(parts), 0, -1)]
        yield [name for path in paths for name in (f"{path}.py", f"{path}/__init__.py", f"{path}/")]


def _check_left_out(tree: SourceTree, imports: Iterable[_Import]) -> None:
    for each in imports:
        found = [
            next((name for name in names if name in tree.files or name in tree.left_out), None)
            for names in _local_names(each)
        ]
        left = next((name for name in found if name in tree.left_out), None)
        if left is not None and not each.optional and not any(name in tree.files for name in found):
            raise DeployError(
                f"{each.file}, line {each.line}, imports {each.module}, and the rules of {tree.left_out[left]} "
                f"leave {left} out; take it in again with a line !{left} in .agentappignore"
            )


def _of_imports(tree: SourceTree, imports: Iterable[_Import]) -> list[Requirement]:
    packages = metadata.packages_distributions()
    folders = {parent.as_posix() for name in tree.files for parent in PurePosixPath(name).parents}
    found = {OWN}
    for each in imports:
        top = each.module.partition(".")[0]
        names = {name for some in _local_names(each) for name in some}
        local = any(name in tree.files or name.rstrip("/") in folders for name in names)
        if local or top in sys.stdlib_module_names or top in ("__future__", OWN.replace("-", "_")):
            continue
        if top in packages:
            found.update(packages[top])
        elif not each.optional:
            raise DeployError(
                f"{each.file}, line {each.line}, imports {top}, which is neither in {tree.root} nor installed; "
                "copy it there, install its package, or name it in requirements.txt"
            )
    return [_parsed(name, "imports") for name in sorted(found)]


# Exact versions.


def _pinned(asked: Sequence[Requirement], found_in: str) -> Requirements:
    lines: dict[str, str] = {}
    open_ended = set()
    visited: set[tuple[str, str]] = set()
    todo = [(each, "", True) for each in (*asked, _parsed(OWN, ""))]
    while todo:
        requirement, extra, direct = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        key = _canonical(requirement.name)
        installed = _version(requirement.name)
        matches = installed is not None and requirement.specifier.contains(installed, prereleases=True)
        if key != OWN:
            line = _line(requirement, installed if matches else None, found_in, direct)
            lines[key] = lines.get(key, line) if not direct or requirement.url is None else line
        if not matches or requirement.url is not None:
            open_ended.add(requirement.name)
            continue
        for wanted in ("", *sorted(requirement.extras)):
            if (key, wanted) not in visited:
                visited.add((key, wanted))
                todo += [(_parsed(text, key), wanted, False) for text in metadata.requires(requirement.name) or ()]
    return Requirements(
        lines=tuple(lines[key] for key in sorted(lines)), found_in=found_in, open_ended=tuple(sorted(open_ended))
    )


def _line(requirement: Requirement, installed: str | None, found_in: str, direct: bool) -> str:
    name = _canonical(requirement.name)
    if requirement.url is not None:
        return f"{name} @ {requirement.url}"
    if installed is not None:
        return f"{name}=={installed}"
    specifiers = list(requirement.specifier)
    if len(specifiers) == 1 and specifiers[0].operator == "==" and "*" not in specifiers[0].version:
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        return f"{name}{extras}=={specifiers[0].version}"
    here = _version(requirement.name)
    state = f"version {here} is installed here" if here else "it is not installed here"
    source = found_in if direct else "a dependency"
    raise DeployError(
        f"{requirement} ({source}) has no exact version, and {state}, so none can be written down; install it, or "
        f"write {requirement.name}==VERSION"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _canonical(name: str) -> str:
    canonical: Any = needed("packaging.utils", "build").canonicalize_name
    return str(canonical(name))
