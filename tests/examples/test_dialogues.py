"""The calculator, Python as a tool, and the guessing game: their run files, and an episode of each.

Templates are their own, and so is the tokenizer.
"""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from pathlib import Path

import jinja2
import pytest
import yaml

from core.checks.tool_schema import tool_schemas
from core.plugins import load_function
from core.rollout.tool_formats import plain
from tests.support.episodes import Played

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_calculator_is_told_of_and_shown() -> None:
    """Its template writes the tool and a call that the run would read, and answers in the order that it shows."""
    run = yaml.safe_load((EXAMPLES / "calculator.yaml").read_text())
    tools = tool_schemas([f"{EXAMPLES}/{one}" for one in run["rollout"]["tools"]])
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((EXAMPLES / run["data"]["chat_template"]).read_text())
    rows = list(islice(load_function(f"{EXAMPLES}/{run['data']['path']}", "data.path")(**run["data"]["options"]), 3))
    text = template.render(
        messages=[{"role": "user", "content": rows[0]["question"]}], tools=tools, add_generation_prompt=True
    )
    assert '"description": "Multiply two whole numbers."' in text
    assert text.endswith(f"<|im_start|>user\n{rows[0]['question']}<|im_end|>\n<|im_start|>assistant\n")
    shown = text.partition("assistant\n")[2].partition("<|im_end|>")[0]
    (call,) = plain(shown)
    assert (call.name, call.arguments) == ("multiply", {"a": 12, "b": 13})
    assert "<|im_start|>tool\n156<|im_end|>\n<|im_start|>assistant\nThe answer is 156.<|im_end|>\n" in text
    assert "\n\n" not in text


def test_products_that_are_kept_out_are_not_trained_on() -> None:
    run = yaml.safe_load((EXAMPLES / "calculator.yaml").read_text())
    rows = load_function(f"{EXAMPLES}/{run['data']['path']}", "data.path")
    trained = {row["question"] for row in rows(**{**run["data"]["options"], "count": 10_000})}
    evaluated = [row["question"] for row in rows(**run["eval"]["sets"]["others"]["options"])]
    assert len(evaluated) == 32
    assert not trained & set(evaluated)


def test_the_calculator_multiplies() -> None:
    said = '<tool_call>{"name": "multiply", "arguments": {"a": 37, "b": 54}}</tool_call>'
    played = Played(EXAMPLES / "calculator" / "tools.py", "qwen", [said, "The answer is 1998."], tools=["multiply"])
    assert "1998" in played.spoken()[1][1]
    assert played.episode["tool_errors"] == 0


def test_python_is_told_of_and_shown() -> None:
    """As the calculator is; and the call that the template shows gives what it says."""
    run = yaml.safe_load((EXAMPLES / "python-tool.yaml").read_text())
    (schema,) = tool_schemas([f"{EXAMPLES}/{one}" for one in run["rollout"]["tools"]])
    text = (
        jinja2.Environment()
        .from_string((EXAMPLES / run["data"]["chat_template"]).read_text())
        .render(messages=[{"role": "user", "content": "What is 1 * 2?"}], tools=[schema], add_generation_prompt=True)
    )
    assert '"description": "Run a Python program, and give what it prints."' in text
    (call,) = plain(text.partition("assistant\n")[2].partition("<|im_end|>")[0])
    answer = asyncio.run(load_function(f"{EXAMPLES}/python_tool/tools.py:python", "rollout.tools")(**call.arguments))
    assert answer == "156"
    assert f"<|im_start|>tool\n{answer}<|im_end|>" in text


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print(37 * 54)", "1998"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("pass", "(it printed nothing)"),
        ("while True: print('x' * 1000)", "error: the program was stopped, it had no more output"),
        ("import time; time.sleep(60)", "error: the program was stopped, it had no more time"),
        ("open('/etc/shadow')", "FileNotFoundError"),
    ],
)
def test_the_model_runs_python(code: str, told: str) -> None:
    said = f"<tool_call>{json.dumps({'name': 'python', 'arguments': {'code': code}})}</tool_call>"
    tool = EXAMPLES / "python_tool" / "tools.py"
    played = Played(tool, "qwen", [said, "done"], tools=["python"], call_timeout_s=60)
    assert told in played.spoken()[1][1]


def test_the_guessing_game_is_played_to_its_end() -> None:
    run = yaml.safe_load((EXAMPLES / "guessing.yaml").read_text())["rollout"]
    options = run["environment_options"]
    turns = ["It is 2.", "what?", "I say 9", "7!"]
    played = Played(
        EXAMPLES / "guessing" / "guess.py", "qwen", turns, 7, environment="Guess", environment_options=options
    )
    assert played.episode["rewards"] == [-0.1, -0.1, -0.1, 1.0]
    texts = [text for role, text in played.spoken() if role == "user"]
    wanted = ["from 1 to 10", "Higher.", "Say a number.", "Lower."]
    assert all(word in text for word, text in zip(wanted, texts, strict=True))
