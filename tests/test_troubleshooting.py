"""docs/troubleshooting.md quotes messages that are said, and names metrics that are logged."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
FOLDERS = ("common", "core", "hpc", "launchers")
OF_THE_SYSTEM = {"no space left on device"}  # os.strerror's, in its own case


def messages() -> list[str]:
    quoted = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## Messages")[2].partition("## What")[0], re.MULTILINE)
    assert len(quoted) > 10
    return quoted


@pytest.fixture(scope="module")
def said() -> str:
    """All texts of the code, one a line; what stands between braces is left out."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


@pytest.mark.parametrize("message", messages())
def test_each_message_is_one_that_the_code_says(message: str, said: str) -> None:
    for piece in filter(None, map(str.strip, message.split("…"))):
        assert piece in said or piece in OF_THE_SYSTEM, piece


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:perf|rollout|train)/[\w/]+)`", PAGE))))
def test_each_metric_is_logged(name: str, said: str) -> None:
    timed = re.fullmatch(r"perf/(\w+)_time", name)
    assert name in said or (timed and "_time" in said)
