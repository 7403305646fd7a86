"""The language of pages, docstrings, comments and messages: patterns that reviews found again and again.

Not a judge of good prose: it keeps the worst from coming back. The rules are in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "efnet"

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
)

MAX_LINE, MAX_CELL = 100, 20
"""Characters of a line of Markdown, words of a table cell."""

VERBS = "programs log, print, return, raise or report"
PLAIN = "use the plain word"

PATTERNS = {
    r"\btold\b|\btell(?:s|ing)?\b(?! apart\b)|\bspeaks?\b|\bhears?\b": VERBS,
    r"\b(?:command|program|process|run|it|script|tool|log|report|table|page|row|file) says?\b": VERBS,
    r"\bto be had\b": "name who has it, or where it is",
    r"\bas said\b": "delete it",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|larger\b|smaller\b|worse\b|better\b)": (
        "'is not a', 'has no', 'there is no'"
    ),
    r"(?:^|[.;:] |\n\n)(?-i:Of) (?:a|an|the|each|every|all|what|that|these|those)\b[^.;:]*?"
    r"\b(?:it|they|that|there) (?:is|are|was|were|has|have)\b": "begin with the subject",
    r"\bhas? (?:no|a) say\b|\bwithout a say\b": "name what affects what",
    r"\bamiss\b|\bnought\b|\banybody's guess\b|\bfor ever\b|\bin vain\b": PLAIN,
    r"\bwhat (?:is|was) \w+ed of it\b|\bout of account\b|\bwithout a word\b": PLAIN,
}
"""What not to write, and the remedy."""

OPENINGS = {
    r"What\b": "begin with an imperative verb, or with a noun",
    r"Of\b": "begin with the subject",
    r"Those\b|That of\b": "name the subject",
}
"""How a docstring must not begin."""

OPTION = re.compile(r"(?<![\w(-])--[a-z][a-z0-9]+(?:[-_.][a-z0-9]+)*\b")
NAMES_OPTIONS = ("cli/", "studies/demo")
"""Files whose subject is the command line. Elsewhere a message names the parameter, not its option."""


# A line break is as good as a blank; lookbehinds need a fixed width.
COMPILED = {
    re.compile(re.sub(r"(?<!there) ", r"\\s+", pattern).replace("there ", r"there\s"), re.IGNORECASE): remedy
    for pattern, remedy in PATTERNS.items()
}


def faults(text: str, line: int = 1) -> Iterator[tuple[int, str]]:
    """Lines of prose that match a pattern, with what to do."""
    for pattern, remedy in COMPILED.items():
        for match in pattern.finditer(text):
            found = match[0].lstrip(" .;:\n")
            start = match.end() - len(found)
            yield line + text.count("\n", 0, start), f"{' '.join(found.split())!r}: {remedy}"


# --- Markdown -------------------------------------------------------------------------------------------


def prose_lines(page: str) -> list[str]:
    """Lines without code: blocks become empty lines, a code span or a link target becomes one word."""
    lines, fence, previous = [], "", ""
    for line in page.splitlines():
        opening = re.match(r"\s*(```+)", line)
        if fence:
            if line.strip().startswith(fence):
                fence = ""
            line = ""
        elif opening:
            fence, line = opening[1], ""
        elif line.startswith("    ") and previous in ("", "    "):
            lines.append("")
            previous = "    "
            continue
        previous = line.strip() and "text"
        line = re.sub(r"`[^`]+`", "CODE", line)
        lines.append(re.sub(r"\]\([^)]*\)", "]", line))
    return lines


def page_faults(page: str) -> Iterator[tuple[int, str]]:
    """Faults of a page in Markdown."""
    lines = prose_lines(page)
    for number, (line, prose) in enumerate(zip(page.splitlines(), lines, strict=True), 1):
        if prose.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", prose.strip("|")):
                if len(cell.split()) > MAX_CELL:
                    yield number, f"a table cell of {len(cell.split())} words: {cell.strip()[:40]}..."
        elif len(line) > MAX_LINE and len(prose) > MAX_LINE and not prose.lstrip().startswith("!["):
            yield number, f"{len(line)} characters; wrap it at {MAX_LINE}"
    yield from faults("\n".join(lines))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_in_plain_english(page: Path) -> None:
    found = sorted(set(page_faults(page.read_text(encoding="utf-8"))))
    assert not found, "\n" + "\n".join(f"{page.relative_to(ROOT)}:{line}: {fault}" for line, fault in found)


# --- Python ---------------------------------------------------------------------------------------------


def docstrings(tree: ast.Module) -> dict[int, ast.Constant]:
    """Docstrings of modules, classes, functions and attributes, by the identity of their nodes."""
    found = {}
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if is_text and isinstance(statement.value.value, str):
                found[id(statement.value)] = statement.value
    return found


def code_faults(source: str, names_options: bool = True) -> Iterator[tuple[int, str]]:
    """Faults of docstrings, messages and comments."""
    tree = ast.parse(source)
    texts = docstrings(tree)
    for constant in texts.values():
        for opening, remedy in OPENINGS.items():
            if re.match(opening, str(constant.value).strip()):
                first = str(constant.value).strip().splitlines()[0]
                yield constant.lineno, f"docstring begins {first[:40]!r}: {remedy}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            text = re.sub(r"`[^`\n]+`", "CODE", node.value) if id(node) in texts else node.value
            yield from faults(text, node.lineno)
            if not names_options:
                options = {match[0] for match in OPTION.finditer(node.value)}
                yield from ((node.lineno, f"{option}: name the parameter in backticks") for option in options)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from faults(token.string.lstrip("# "), token.start[0])


def package_of(path: Path) -> str:
    """First folder below `efnet`; empty for files directly in it."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("package", sorted({package_of(path) for path in PACKAGE.rglob("*.py")}))
def test_code_is_documented_in_plain_english(package: str) -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if package_of(path) == package:
            names_options = path.relative_to(PACKAGE).as_posix().startswith(NAMES_OPTIONS)
            source = path.read_text(encoding="utf-8")
            found += [
                f"{path.relative_to(ROOT)}:{line}: {fault}"
                for line, fault in sorted(set(code_faults(source, names_options)))
            ]
    assert not found, "\n" + "\n".join(found)


# --- The checks themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Mended is the newest release.",
        "Every skipped step is told with its pairs.",
        "Of the densest token it is the distance to the farthest.",
        "The position starts without a say in the importance.",
        "classes is no ClassSet",
        "first: as said",
        "The command says so.",
    ],
)
def test_patterns_find_what_reviews_found(text: str) -> None:
    assert list(faults(text))
    assert list(page_faults(f"# Title\n\n{text}\n"))
    assert list(code_faults(f'x = 1\n"""{text}"""\n'))
    assert list(code_faults(f"# {text}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "There is no GPU.",
        "It is no longer used.",
        "The value `told` means second-hand.",
        "A list of the pairs is kept.",
    ],
)
def test_patterns_let_plain_sentences_pass(text: str) -> None:
    assert not list(page_faults(text))
    assert not list(code_faults(f'x = 1\n"""{text}"""\n'))


def test_long_lines_and_cells_are_found_outside_code() -> None:
    words = "word " * 21
    assert [line for line, _ in page_faults(f"| a |\n|---|\n| {words}|\n")] == [3]
    assert [line for line, _ in page_faults(f"x\n{words}\n")] == [2]
    assert not list(page_faults(f"x\n\n    {words}\n    {words}\n"))
    assert not list(page_faults(f"```\n{words}\n```\n"))
    assert not list(page_faults(f"see `{words}` and [this](https://example.org/{'x' * 100})\n"))


def test_a_pattern_across_lines_is_found() -> None:
    assert [line for line, _ in page_faults("The file is\nno archive.\n")] == [1]


def test_docstrings_and_options_are_found() -> None:
    assert list(code_faults('def f():\n    """What it is."""\n'))
    assert list(code_faults('raise ValueError("give a lower --batch-size")', names_options=False))
    assert not list(code_faults('raise ValueError("give a lower --batch-size")'))
    assert not list(code_faults('raise ValueError("give a lower `batch_size`")', names_options=False))
