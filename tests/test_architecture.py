"""The shape of the package: imports run one way, names are unique, it stays small."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "efnet"
PAGE = ROOT / "docs" / "architecture.md"

ORDER = (
    "core",
    "reporting",
    "ops",
    "alignment",
    "data",
    "scenes",
    "models",
    "inference",
    "evaluation",
    "training",
    "export",
    "video",
    "explain",
    "service",
    "studies",
    "cli",
)
"""Packages of which each imports only itself and earlier ones."""

SHARED_STEMS = {
    "__init__": "every package has one",
    "base": "the base of all networks, and of those from other papers",
    "config": "describes networks, and a run",
    "errors": "of the library, and of HTTP",
    "plan": "of a scene, and of an experiment",
}
"""Module names that occur twice, with the reason. Files in `cli` may have the name of what they call."""

MAX_MODULES = 256
MAX_LINES = 45_900
"""All lines of all modules, docstrings and blank lines included."""


def modules() -> dict[str, Path]:
    """Every module by its dotted name below `efnet`; a package by that of its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def walk(tree: ast.AST, deferred: bool) -> Iterator[ast.AST]:
    """Nodes that run on import; with `deferred` also bodies of functions and what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if deferred or not (is_function or is_typing):
            yield node
            yield from walk(node, deferred)


@cache
def parse(name: str) -> ast.Module:
    """Syntax tree of a module."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imported(name: str, deferred: bool) -> dict[str, int]:
    """Modules below `efnet` that a module imports, with the line."""
    found: dict[str, int] = {}
    for node in walk(parse(name), deferred):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{MODULES[name]}:{node.lineno}: relative import; write it from efnet"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        for target in targets:
            parts = target.split(".")[1:] if target.split(".")[0] == "efnet" else []
            while parts and ".".join(parts) not in MODULES:
                parts.pop()  # a name within a module
            if parts:
                found.setdefault(".".join(parts), node.lineno)
    return found


def test_every_package_has_its_place() -> None:
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/*.py")}
    assert folders == set(ORDER)
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__"}


def test_the_page_lists_the_packages_in_import_order() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(listed) == ORDER


@pytest.mark.parametrize("package", ORDER)
def test_imports_run_one_way(package: str) -> None:
    """Imports within functions count too: they hide a dependency, they do not remove it."""
    upward = [
        f"{MODULES[name].relative_to(ROOT)}:{line}: {package} must not import efnet.{target}"
        for name in MODULES
        if name.split(".")[0] == package
        for target, line in imported(name, deferred=True).items()
        if ORDER.index(target.split(".")[0]) > ORDER.index(package)
    ]
    assert not upward, "\n".join(upward)


def test_modules_do_not_import_each_other() -> None:
    """No circle among imports that run when a module loads; its packages' `__init__` run before it."""
    graph: dict[str, set[str]] = {}
    for name in MODULES:
        targets = set(imported(name, deferred=False))
        for target in list(targets):
            parts = target.split(".")
            packages = {".".join(parts[:length]) for length in range(1, len(parts))}
            targets |= {package for package in packages if not f"{name}.".startswith(f"{package}.")}
        graph[name] = targets
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise AssertionError("circle of imports: " + " -> ".join((*way[way.index(name) :], name)))
        if name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def is_private_of_torch(name: str) -> bool:
    """Whether a dotted name below torch has a private part, or is of the undocumented archive of programs."""
    return re.fullmatch(r"torch\.([\w.]+\.)?(_[a-z]\w*|pt2_archive)(\.[\w.]+)?", name) is not None


def test_private_names_of_pytorch_are_in_one_module() -> None:
    found = set()
    for name in set(MODULES) - {"core.compat"}:
        for node in walk(parse(name), deferred=True):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute):
                targets = [ast.unparse(node)]
            found |= {f"{name}: {target}" for target in targets if is_private_of_torch(target)}
    found = {entry for entry in found if ".ops.aten._assert_" not in entry}  # operators, not names of Python
    assert not found, f"move these to core/compat.py: {sorted(found)}"


def test_module_names_are_unique() -> None:
    by_stem = defaultdict(list)
    for path in MODULES.values():
        by_stem[path.stem].append(path.relative_to(PACKAGE))
    twice = {
        stem: [str(path) for path in paths]
        for stem, paths in by_stem.items()
        if len([path for path in paths if path.parts[0] != "cli"]) > 1
    }
    unlisted = {stem: paths for stem, paths in twice.items() if stem not in SHARED_STEMS}
    assert not unlisted, f"rename one of each, or list the stem with a reason: {unlisted}"
    assert set(SHARED_STEMS) == set(twice), "SHARED_STEMS lists names that no longer occur twice"


def test_the_package_stays_small() -> None:
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values())
    assert len(MODULES) <= MAX_MODULES, "merge a module that has a single reader into its reader"
    assert lines <= MAX_LINES


def test_the_operations_stay_small() -> None:
    """A reader of the paper shall be able to check that the clustering is exact."""
    files = list((PACKAGE / "ops").rglob("*.py"))
    assert len(files) <= 16
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 3_000


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_named_in_the_pages_exist(page: str) -> None:
    """Also guards the guides for adding something, whose steps are file names."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|yaml|md))`", text))
    named = {name for name in named if "NAME" not in name}
    assert len(named) > 5
    missing = {name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()}
    assert not missing, f"{page} names {sorted(missing)}"
