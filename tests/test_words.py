"""Words of docstrings, messages and pages: what a reader meets first is a sentence, and a number has its name.

Docstrings and messages are read from the sources, pages as they stand.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("common", "core", "hpc", "launchers", "modelcfg", "ebbtide", "bench")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "bench").rglob("*.md"))]

# a docstring that begins with one of these says whose, when or where, and leaves the reader to guess what
NO_BEGINNING = re.compile(
    r"(?:of|as|for|to|by|in|on|at|with|without|from|into|if|unless|when|where|while|until|since|once|so|but|and|because"
    r"|over|under|between|within|after|before|beside|per|through|around|it|its|they|them|those|both|nothing)(?=[\s,.:;])",
    re.IGNORECASE,
)
SECTIONS = ("Args:", "Raises:", "Returns:", "Yields:", "Collective:", "Source:", "Legend:", "Attributes:")
# "so many" and "as many" stand for a number that has a name, "for so long" for a time that has one
NUMBER_WORDS = re.compile(r"\b(?:(?:so|as)\s+many|for\s+so\s+long)\b", re.IGNORECASE)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring of a module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def beginning_fault(text: str) -> str:
    """What is wrong with the beginning of a docstring; empty if nothing is."""
    first = text.partition("\n")[0]
    if first.startswith(SECTIONS) or not first:
        return "no summary line"
    found = NO_BEGINNING.match(first)
    return f"begins with {found[0]!r}" if found else ""


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every string: docstrings, messages, descriptions of keys."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_docstrings_begin_with_a_summary_line() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {fault}: {text[:60]!r}"
        for path in SOURCES
        for line, text in docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if (fault := beginning_fault(text))
    ]
    assert faults == []


def test_numbers_have_names_in_code() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {text[max(0, found.start() - 30) : found.end() + 30]!r}"
        for path in SOURCES
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8")))
        for found in NUMBER_WORDS.finditer(text)
    ]
    assert faults == []


def test_numbers_have_names_on_pages() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]}"
        for path in PAGES
        for text in [path.read_text(encoding="utf-8")]
        for found in NUMBER_WORDS.finditer(text)
    ]
    assert faults == []


def test_sentences_of_pages_do_not_begin_with_of() -> None:
    faults = [
        f"{path.relative_to(ROOT)}: {found[0]!r}"
        for path in PAGES
        for found in re.finditer(
            r"(?:^|(?<=[.:?] )|(?<=\n\n))(?:Of|As of)\s+\w+.{0,30}", path.read_text(encoding="utf-8")
        )
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Of one engine.", "begins with 'Of'"),
        ("As if two rows had been there.", "begins with 'As'"),
        ("Args:\n    a: b", "no summary line"),
        ("Raises ValueError unless it is even.", ""),
        ("Whether it is even.", ""),
        ("Offsets of the segments.", ""),
        ("For, as it were", "begins with 'For'"),
    ],
)
def test_the_reader_of_this_test_sees_beginnings(text: str, fault: str) -> None:
    assert beginning_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("only so many layers", True),
        ("the host needs as\nmany, page-locked", True),
        ("as few layers as possible", False),
        ("as often as it is restarted", False),
        ("how many there are", False),
    ],
)
def test_the_reader_of_this_test_sees_numbers_without_names(text: str, found: bool) -> None:
    assert bool(NUMBER_WORDS.search(text)) == found
