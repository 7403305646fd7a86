"""Links, commands, options, tests and Python blocks that the pages name exist."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from efnet.cli.main import COMMANDS, load_command
from efnet.cli.train import SHORT

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def commands() -> list[tuple[str, str]]:
    """Return every line of a page that begins with `efnet`, with the name of the page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = (line.split("#")[0].strip() for line in text.splitlines())
        found += [(page.name, line) for line in lines if line.startswith("efnet ")]
    return found


@cache
def options_of(command: str) -> set[str]:
    """Return the options that a command declares."""
    parser = ArgumentParser()
    load_command(command).add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    trains = command in ("train", "lr-find", "tune")
    return options | {"--import"} | ({f"--{short}" for short in SHORT} if trains else set())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_documented_commands_and_options_exist() -> None:
    assert len(commands()) > 15
    for page, line in commands():
        words = shlex.split(line.replace("[", " ").replace("]", " "))[1:]
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)
        assert name, f"{page}: no command in '{line}'"
        known = options_of(name)
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{page}: '{line}' has no {word}"


def test_python_blocks_of_the_readme_compile() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)


def test_tests_named_in_the_fidelity_page_exist() -> None:
    text = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    names = set(re.findall(r"`((?:test|check)_\w+)`", text))
    assert len(names) > 5
    missing = [name for name in names if f"def {name}(" not in sources]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_test_files_named_in_the_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/])(?:tests|benchmarks|experiments)/[\w/]+\.(?:py|sh)", text))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing, f"{page.name} names {missing}"
