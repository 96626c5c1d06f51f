"""docs/rollouts.md: every snippet runs, and does what the page says of it."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.checks import check_run_file
from core.config.sections.rollout import RolloutConfig
from core.data import Rendering
from core.doors import GENERATE, TOOL_FORMAT
from core.rollout.environment import STEP
from core.rollout.task import Task
from core.rollout.worker import WorkerEngine
from core.samples import SamplingParams
from core.sandbox.sandbox import REMEDY, Sandbox
from tests.support.episodes import Played, Script, tokenizer
from tests.support.tiny_runs import write_run

PAGE = (Path(__file__).parents[2] / "docs" / "rollouts.md").read_text(encoding="utf-8")
FILES = {block.split('"')[3]: block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
SECTIONS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
CALL = '<tool_call>{"name": "%s", "arguments": {%s}}</tool_call>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def section(word: str) -> dict[str, Any]:
    """The keys of `rollout` in the block that has this word."""
    (found,) = [one["rollout"] for one in SECTIONS if word in str(one)]
    return dict(found)


def test_the_page_has_what_this_test_runs() -> None:
    assert sorted(FILES) == ["again.py", "guess.py", "runner.py", "sums.py"]
    assert len(SECTIONS) == 3


def test_the_run_files_are_accepted(folder: Path) -> None:
    for number, one in enumerate(SECTIONS):
        place = folder / str(number)
        place.mkdir()
        for name, text in FILES.items():
            (place / name).write_text(text)
        changes = {**one, "rollout": {**one["rollout"], "max_response_tokens": 64}}
        if "generate" not in one["rollout"]:
            changes["rollout"]["rewritten_past"] = "keep"  # for the template of tests
        if "reward" in changes:
            changes["reward"] = {**changes["reward"], "path": None}
        check_run_file(write_run(place, data={"system_prompt": "You may call add."}, **changes), ())


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (CALL % ("add", '"a": 1, "b": 2'), "3"),
        (CALL % ("sub", '"a": 1'), "error: found no tool named sub; wanted one of add"),
        (CALL % ("add", '"a": 1'), "error: TypeError: missing a required argument: 'b'"),
        ("<tool_call>add(1)</tool_call>", "error: found what is no JSON ("),
    ],
)
def test_the_tool(call: str, wanted: str, folder: Path) -> None:
    keys = section("sums.py")
    assert keys.pop("tools") == ["sums.py:add"]
    played = Played(folder / "sums.py", "qwen", [call, "Done."], tools=["add"], **keys)
    assert wanted in played.spoken()[1][1]
    if wanted.startswith("error: ") and "(" not in wanted:
        assert wanted in PAGE


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print(6 * 7)", "42"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("print('x' * 5000)", "error: the program had no more output"),
    ],
)
def test_the_tool_that_runs_python(code: str, told: str, folder: Path) -> None:
    call = CALL % ("python", f'"code": {json.dumps(code)}')
    played = Played(folder / "runner.py", "qwen", [call, "Done."], tools=["python"], call_timeout_s=60)
    assert told in played.spoken()[1][1]


def test_the_sandbox_is_as_the_page_has_it() -> None:
    rows = dict(re.findall(r"^\| `(\w+)`[^|]*\| ([^|]+) \|", PAGE.partition("| limit of `Sandbox` |")[2], re.M))
    mib = 1 << 20
    limits = Sandbox()
    assert rows["timeout_s"] == f"{limits.timeout_s:.0f} s"
    assert rows["memory_bytes"] == f"{limits.memory_bytes // mib} MiB"
    assert rows["processes"] == str(limits.processes)
    assert rows["disk_bytes"] == f"{limits.disk_bytes // mib} MiB, {limits.files}"
    assert rows["output_bytes"] == f"{limits.output_bytes // mib} MiB"
    assert rows["packages"] == str(limits.packages).lower()
    assert set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`\w+`.*?) \|", PAGE, re.M)))) >= {
        one.name for one in fields(Sandbox)
    }
    assert REMEDY in PAGE


def test_the_environment(folder: Path) -> None:
    keys = section("guess.py")
    assert keys.pop("environment") == "guess.py:Guess"
    played = Played(folder / "guess.py", "llama", ["five", "3", "9", "7"], "7", environment="Guess", **keys)
    texts = [text for role, text in played.spoken() if role == "user"]
    wanted = ["from 1 to 10", "no number", "Higher.", "Lower."]
    assert all(word in text for word, text in zip(wanted, texts, strict=True)), texts
    assert played.episode == {"turns": 4, "tool_calls": 0, "tool_errors": 0, "rewards": [-0.1, 0.0, 0.0, 1.0]}
    assert STEP in PAGE


@pytest.mark.parametrize(("turns", "spans"), [(["7"], 1), (["8", "7"], 3)])
def test_the_function_of_ones_own(turns: list[str], spans: int, folder: Path) -> None:
    keys = section("again.py")
    generate = GENERATE.build(f"{folder}/{keys['generate']}", keys["generate_options"], {})
    script = Script("qwen", turns, Rendering())
    text = tokenizer("qwen").render([{"role": "user", "content": "3 + 4?"}])
    sampling = SamplingParams(100, stop_token_ids=tokenizer("qwen").eos_token_ids)
    task = Task(tuple(tokenizer("qwen").encode(text)), text, 0, "7", {}, sampling, 0, 0, 0)
    made = asyncio.run(generate(task, WorkerEngine(script, 1, task)))  # type: ignore[arg-type]
    assert [one.role for one in made.turns] == ["assistant", "user", "assistant"][:spans]
    assert ("No. Once more." in tokenizer("qwen").decode(made.tokens)) == (spans == 3)


def test_the_page_names_all_formats_and_keys() -> None:
    assert set(TOOL_FORMAT.builtins) <= set(re.findall(r"`([\w-]+)`", PAGE))
    for key in ("tools", "tool_format", "environment", "environment_options", "max_turns", "rewritten_past"):
        assert key in RolloutConfig.model_fields
        assert f"rollout.{key}" in PAGE, key
