"""Whatever is in the file, the answer is a RunFileError or a config: never another exception."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from core.checks import check_run_file
from core.config import RunFileError, load_run_file
from core.config.keys import RUN_KEYS
from tests.support.good_run import RUN_FILE, write_run

SNIPPETS = [
    "\t",
    ":",
    "- ",
    "*a",
    "&a ",
    "!!int ",
    "!x ",
    "{",
    "]",
    "'",
    '"',
    "#",
    "\n",
    "\n  ",
    "---\n",
    "%",
    "null",
    "é",
    "\x00",
    "-1",
]
VALUES = [
    "[]",
    "{}",
    "x",
    "true",
    "-1",
    "0",
    "null",
    "1e400",
    ".nan",
    "1.5",
    "''",
    "[[1]]",
    "{a: {b: c}}",
    "!!set {a}",
    "!!int x",
    "&a [*a]",
]
ALL_KEYS = [f"{section}.{key}" for section in RUN_KEYS.sections() for key in RUN_KEYS.keys_of((section,))]


def mutated(generator: random.Random) -> str:
    text = RUN_FILE
    for _ in range(generator.randint(1, 4)):
        start = generator.randrange(len(text))
        text = text[:start] + generator.choice(["", *SNIPPETS]) + text[start + generator.randint(0, 12) :]
    return text


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    path = write_run(tmp_path)
    refused = 0
    for _ in range(60):
        path.write_text(mutated(generator))
        with contextlib.suppress(RunFileError):
            load_run_file(path)
            continue
        refused += 1
    assert refused > 20


@pytest.mark.parametrize("value", VALUES)
def test_each_key_with_an_odd_value(value: str, tmp_path: Path) -> None:
    path = write_run(tmp_path)
    for key in [*ALL_KEYS, *RUN_KEYS.sections(), "eval.sets.held_out.path", "name"]:
        with contextlib.suppress(RunFileError):
            check_run_file(path, [f"{key}={value}"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("name: &a [*a]\n", "values nested too deeply, or an anchor inside itself", id="anchor in itself"),
        pytest.param("name: !!int one\n", "'one' with the tag tag:yaml.org,2002:int", id="tag that does not fit"),
        pytest.param("name: \x07\n", "a syntax error (unacceptable character #x0007", id="control character"),
    ],
)
def test_traps_of_yaml(text: str, found: str, tmp_path: Path) -> None:
    path = write_run(tmp_path)
    path.write_text(text)
    with pytest.raises(RunFileError) as caught:
        load_run_file(path)
    assert caught.value.mistakes[0].found.startswith(found)
