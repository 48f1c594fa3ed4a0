"""The files of an app: which of a folder belong into its image, and which are left out or refused."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import attrs

from ..errors import ConfigurationError, DeployError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

    Rules = Sequence[tuple[str, GitIgnoreSpec]]

__all__ = ["IGNORE_FILES", "MADE_BY", "SourceTree", "read_tree", "secret_in"]

IGNORE_FILES = (".gitignore", ".agentappignore")
"""Files of the top folder whose lines, in the format of gitignore(5), leave files out. The second one wins."""

ALWAYS_IGNORED = (
    ".git/", ".hg/", ".svn/", "__pycache__/", "*.py[co]", ".venv*/", "venv/", "node_modules/", "*.egg-info/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/", ".tox/", ".nox/", ".coverage", ".idea/",
    ".vscode/", ".DS_Store", ".env", ".env.*", "!.env.example",
    ".envrc",
    # A context that was written into the folder of its own source.
    ".agentapp-build/",
)  # fmt: skip

MADE_BY = b"# Made by trio-agentapp build"
"""How the Dockerfile of a build context begins."""

MOST_FILES, MOST_BYTES = 10_000, 512 * 1024 * 1024
"""More is almost always a folder that was meant to be left out, such as data or models."""

SECRET_FILES = re.compile(
    r"id_(rsa|dsa|ecdsa|ed25519)|.*\.(pem|key|p12|pfx|jks|keystore|kdbx)|\.?kubeconfig|\.netrc|\.pypirc|\.npmrc"
    r"|\.pgpass|\.htpasswd|\.git-credentials|\.dockerconfigjson|credentials(\.json)?|service[-_]account.*\.json"
    r"|secrets?\.(json|ya?ml|toml|ini)|(?!\.|.*(example|sample|template)).+\.env",
    re.IGNORECASE,
)
SECRET_FOLDERS = {".aws", ".ssh", ".kube", ".gnupg", ".docker", ".azure"}

# Formats of keys that their issuers document, so that they can be told from other texts.
SECRET_TEXTS = {
    "a private key": rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "an access key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an access key of Alibaba Cloud": rb"\bLTAI[0-9A-Za-z]{12,26}\b",
    "a token of GitHub": rb"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{60,})",
    "a token of GitLab": rb"\bglpat-[0-9A-Za-z_-]{20}",
    "an API key of a model provider": rb"\bsk-(?:proj-|ant-|or-)?[0-9A-Za-z_-]{24,}",
    "an API key of Google": rb"\bAIza[0-9A-Za-z_-]{35}",
    "a token of Slack": rb"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a token of Hugging Face": rb"\bhf_[0-9A-Za-z]{30,}",
    "a key of a kubeconfig": rb"\bclient-key-data:\s*[\"']?[0-9A-Za-z+/=]{40}",
    "a URL with a password": rb"\b(?:rediss?|postgres(?:ql)?|mysql|mongodb|amqps?|https?)://[^\s:/@'\"{}<>$]*:"
    rb"[^\s:/@'\"{}<>$]{4,}@[^\s'\"]",
}
SECRET_TEXT = re.compile(b"|".join(b"(%s)" % text for text in SECRET_TEXTS.values()))


@attrs.frozen(kw_only=True)
class SourceTree:
    """The files that belong into an image, by their path below `root` with `/`."""

    root: Path
    entry: str
    """The app, relative to `root`: `agent.py`, `agent.py:app` or `package.module:app`."""
    files: dict[str, bytes]
    executables: frozenset[str]
    left_out: dict[str, str]
    """Path of each file or folder that a rule leaves out, with the rule."""


def read_tree(entrypoint: str, *, allowed: Sequence[str] = ()) -> SourceTree:
    """Read the folder of an app. A file or module means the folder from which Python imports it.

    `allowed`: paths below that folder that are not searched for secrets.

    Raises:
        ConfigurationError: there is no such file, folder or module, or no file of a usual name in the folder.
        DeployError: a file looks like a secret, is a link to the outside, or cannot be read; there are too many.
    """
    root, entry = _place(entrypoint)
    files: dict[str, bytes] = {}
    executables = set()
    left_out: dict[str, str] = {}
    size = 0
    rules = _rules(root)
    for path, name in _walk(root, rules, left_out):
        _check_name(name)
        if path.is_symlink():
            _check_link(root, path, name, rules, allowed)
        files[name], executable = _read(path, name, name in allowed)
        if executable:
            executables.add(name)
        size += len(files[name])
        if len(files) > MOST_FILES or size > MOST_BYTES:
            raise DeployError(
                f"{root} has more than {MOST_FILES:,} files or {MOST_BYTES >> 20} MiB, {_largest(files)} most of "
                "it; leave folders out in .agentappignore, one pattern a line"
            )
    tree = SourceTree(root=root, entry=entry, files=files, executables=frozenset(executables), left_out=left_out)
    _check_entry(tree)
    return tree


def _place(entrypoint: str) -> tuple[Path, str]:
    from ..app.loading import is_file, resolved

    full = resolved(entrypoint)
    place, _, name = full.partition(":")
    suffix = f":{name}" if name else ""
    if not is_file(place):
        return _module_root(place), f"{place}{suffix}"
    path = Path(place).resolve()
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    asked = Path(entrypoint.partition(":")[0])
    root = asked.resolve() if asked.is_dir() else path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    if root == Path(root.anchor) or root == Path.home():
        raise DeployError(
            f"{path} is in {root}, which would go into the image as a whole; give it a folder of its own"
        )
    return root, f"{path.relative_to(root).as_posix()}{suffix}"


def _module_root(module: str) -> Path:
    """The folder from which Python imports a module. It is not imported."""
    top = module.partition(".")[0]
    installed = {Path(path).resolve() for path in (*site.getsitepackages(), sysconfig.get_paths()["purelib"])}
    for entry in ("", *sys.path):
        folder = Path(entry or os.getcwd()).resolve()
        if not (folder / f"{top}.py").is_file() and not (folder / top).is_dir():
            continue
        if folder in installed:
            raise ConfigurationError(
                f"the module {top!r} is installed, not source; make a folder with a file that imports the app, and "
                f"name {top} in its requirements.txt"
            )
        return folder
    raise ConfigurationError(f"there is no module {top!r} here; a file ends in .py")


def _walk(root: Path, rules: Rules, left_out: dict[str, str]) -> Iterator[tuple[Path, str]]:
    for folder, subfolders, names in os.walk(root):
        here = Path(folder)
        kept = []
        for name in sorted(subfolders):
            path = here / name
            shown = path.relative_to(root).as_posix()
            rule = _rule(rules, f"{shown}/")
            if rule is None and (path / "pyvenv.cfg").exists():
                rule = "virtual environment"
            if rule is None and (path / "CACHEDIR.TAG").exists():
                rule = "cache folder"
            if rule is None and _is_context(path):
                rule = "build context"
            if rule is not None:
                left_out[f"{shown}/"] = rule
            elif path.is_symlink():
                raise DeployError(f"{shown} is a link to a folder, which an image cannot hold; copy the folder")
            elif name in SECRET_FOLDERS:
                raise DeployError(f"{shown}/ is a folder for credentials; {_advice(f'{shown}/')}")
            else:
                kept.append(name)
        subfolders[:] = kept
        for name in sorted(names):
            shown = (here / name).relative_to(root).as_posix()
            if (rule := _rule(rules, shown)) is not None:
                left_out[shown] = rule
            else:
                yield here / name, shown


def _is_context(folder: Path) -> bool:
    """Whether `build --output` has written this folder: then an image would have all files twice."""
    file = folder / "Dockerfile"
    try:
        return file.is_file() and file.read_bytes().startswith(MADE_BY)
    except OSError:
        return False


def _rules(root: Path) -> Rules:
    from .extras import needed

    pathspec = needed("pathspec", "build")
    texts: list[tuple[str, Sequence[str]]] = [("always", ALWAYS_IGNORED)]
    for name in IGNORE_FILES:
        if (path := root / name).is_file():
            texts.append((name, path.read_text(encoding="utf-8", errors="replace").splitlines()))
    return [(name, pathspec.GitIgnoreSpec.from_lines(lines)) for name, lines in texts]


def _rule(rules: Rules, name: str) -> str | None:
    """The file of rules that leaves this path out; a later one can take it in again with `!`."""
    found = None
    for source, spec in rules:
        included = spec.check_file(name).include
        if included is not None:
            found = source if included else None
    return found


def _check_name(name: str) -> None:
    # Surrogates stand for bytes that are not UTF-8: no digest and no archive can hold them.
    if not name.isprintable():
        raise DeployError(
            f"{name!r} has characters in its name that are not printable; rename it, or leave its folder out in "
            ".agentappignore"
        )


def _check_link(root: Path, path: Path, name: str, rules: Rules, allowed: Sequence[str]) -> None:
    """A link means the file behind it, so the rules for that file hold, too.

    Raises:
        DeployError: that file is outside, is left out, looks like a secret by its name, or does not exist.
    """
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(root):
        raise DeployError(f"{name} is a link to {target}, outside of {root}; copy the file")
    shown = target.relative_to(root).as_posix()
    if shown in allowed or name in allowed:
        return
    above = [f"{parent.as_posix()}/" for parent in PurePosixPath(shown).parents][:-1]
    if (rule := next(filter(None, (_rule(rules, each) for each in (*above, shown))), None)) is not None:
        raise DeployError(f"{name} is a link to {shown}, which is left out ({rule}); {_advice(name)}")
    if SECRET_FILES.fullmatch(target.name):
        raise DeployError(f"{name} is a link to {shown}, which looks like a secret by its name; {_advice(name)}")


def _read(path: Path, name: str, allowed: bool) -> tuple[bytes, bool]:
    if not path.is_file():
        raise DeployError(f"{name} is not a file that can be copied; remove it, or write it into .agentappignore")
    if not allowed and SECRET_FILES.fullmatch(PurePosixPath(name).name):
        raise DeployError(f"{name} looks like a secret by its name; {_advice(name)}")
    try:
        content = path.read_bytes()
        executable = bool(path.stat().st_mode & 0o111)
    except OSError as error:
        raise DeployError(
            f"{name} cannot be read: {error.strerror}; to leave it out, write it into .agentappignore"
        ) from error
    if not allowed and (found := secret_in(content)):
        kind, line = found
        raise DeployError(f"{name}, line {line}, has what looks like {kind}; {_advice(name)}")
    return content, executable


def secret_in(content: bytes) -> tuple[str, int] | None:
    """The kind of the first text that looks like a secret, and its line; None if there is none."""
    if (found := SECRET_TEXT.search(content)) is None:
        return None
    kind = list(SECRET_TEXTS)[next(index for index, text in enumerate(found.groups()) if text is not None)]
    return kind, content.count(b"\n", 0, found.start()) + 1


def _advice(name: str) -> str:
    return (
        f"images are read by many, so pass secrets by environment variables; to leave it out, write {name} into "
        f".agentappignore; if it is no secret, allow it: --allow {name}"
    )


def _largest(files: dict[str, bytes]) -> str:
    sizes: dict[str, int] = {}
    for name, content in files.items():
        top = name.partition("/")[0]
        sizes[top] = sizes.get(top, 0) + len(content) + 1
    return max(sizes, key=lambda top: sizes[top])


def _check_entry(tree: SourceTree) -> None:
    place = tree.entry.partition(":")[0]
    names = (
        [place] if place.endswith(".py") else [f"{place.replace('.', '/')}{end}" for end in (".py", "/__init__.py")]
    )
    if not any(name in tree.files for name in names):
        rule = next((f"{tree.left_out[name]}" for name in names if name in tree.left_out), None)
        why = f"the rules of {rule} leave it out" if rule else "it is not there"
        raise DeployError(f"{names[0]}, the file of the app, is not in the context: {why}")
