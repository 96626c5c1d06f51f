"""Dialogues: tools and environments, token by token, with templates in the manner of three families.

What the model says is scripted; everything else is real: the tokenizer, the templates, the engine's face for a task.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.checks import check_run_file
from core.checks.dialogue import refuse_template
from core.checks.tool_schema import tool_schemas
from core.config import RunFileError
from core.config.sections.rollout import RolloutConfig
from core.data import Rendering
from core.doors import SGLANG_FORMATS
from core.pretrained.tokenizer import Tokenizer, load_tokenizer
from core.reward.episode import score_episode
from core.reward.sample import RewardInput
from core.rollout.own import OwnGeneration
from core.rollout.task import SampleFailed, Task
from core.rollout.tool_formats import ToolCall, plain
from core.samples import SamplingParams, Status
from core.sglang.generation import Generation
from tests.support import chat_templates
from tests.support.chat_templates import ENDS
from tests.support.episodes import Played, tokenizer
from tests.support.tiny_runs import write_run, write_tokenizer
from tests.support.waiting import COMMAND_S

FAMILIES = sorted(chat_templates.TEMPLATES)
USER_CODE = '''
import asyncio, os, time

from ebbtide import Environment


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


async def later(what: str) -> dict:
    """Say it a little later.

    Args:
        what: anything
    """
    await asyncio.sleep(0.02)
    return {"later": what}


def raises(a: int = 0) -> int:
    """Raise."""
    return {}[a]


def hangs(how: str) -> int:
    """Hang."""
    if how == "sleeps":
        time.sleep(1000)
    while how == "spins":
        pass
    while how == "catches":
        try:
            time.sleep(1000)
        except Exception:
            pass


async def waits() -> int:
    """Wait."""
    await asyncio.sleep(1000)


def leaves() -> int:
    """End the process."""
    raise SystemExit(3)


class Guess(Environment):
    """A number, which is to be guessed."""

    def __init__(self, first="Guess.", least=0):
        self.first, self.least = first, least

    def reset(self, task):
        self.number, self.tries = int(task.label), 0
        return self.first

    def step(self, action):
        self.tries += 1
        guess = int(action) + self.least
        if guess == self.number:
            return None, 1.0, True
        return "higher" if guess < self.number else "lower", -0.25, False


class Waits(Guess):
    async def reset(self, task):
        await asyncio.sleep(0)
        return [{"role": "system", "content": "A game."}, {"role": "user", "content": "Go on."}]

    async def step(self, action):
        await asyncio.sleep(1000)


class Behaves:
    def reset(self, task):
        self.how = task.label
        if self.how == "raises at once":
            raise KeyError(self.how)
        return 3 if self.how == "number at once" else "Go."

    def step(self, action):
        if self.how == "raises":
            return {}["no such key"]
        while self.how == "hangs":
            time.sleep(1000)
        return {
            "never ends": ("more", 0, False),
            "pair": ("more", 0),
            "text": "more",
            "nothing": None,
            "nan": ("more", float("nan"), False),
            "worded": ("more", "1", False),
            "done?": ("more", 1, "yes"),
            "empty": ("", 1, False),
            "model": ([{"role": "assistant", "content": "I"}], 1, False),
            "no reward": ("", None, True),
        }[self.how]


def numbers(text):
    from ebbtide import ToolCall

    return [ToolCall("add", {"a": int(text), "b": 1})] if text.isdigit() else []
'''


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "game.py"
    path.write_text(USER_CODE)
    return path


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def check_masks(played: Played) -> None:
    """1 and a log-prob exactly at the model's tokens, which are those that the engine gave."""
    for response in played.responses:
        mask = [0] * len(response.tokens)
        for span in response.turns:
            if span.role == "assistant":
                mask[span.start : span.end] = [1] * (span.end - span.start)
                assert span.weight_version == "step3"
            else:
                assert span.weight_version == ""
        assert response.loss_mask == mask
        assert [bool(value) for value in response.logprobs] == [bool(one) for one in mask]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dialogue_is_what_the_template_writes_token_by_token(family: str, code: Path) -> None:
    """Where turns are as the tokenizer would cut them, it equals the tokens of the whole text."""
    said = [call("add", a=3, b=4), "So it is 7."]
    played = Played(code, family, said, tools=["add"])
    result = {"role": "tool", "content": "7", "name": "add", "tool_call_id": "call00000"}
    history = [*played.messages, {"role": "assistant", "content": said[0]}, result]
    whole = played.render([*history, {"role": "assistant", "content": said[1]}], False)
    if family == "glm":
        whole += ENDS[family]  # nothing in the text stands for the end of a last turn
    made = tokenizer(family).encode(whole.rstrip("\n"))
    assert [*played.tokens, *played.response.tokens] == made
    assert played.script.asked[1] == tokenizer(family).encode(played.render(history))
    check_masks(played)
    assert [role for role, _ in played.spoken()] == ["assistant", "tool", "assistant"]
    assert played.spoken()[0][1] == said[0] + ENDS[family]
    assert played.response.status is Status.COMPLETED
    assert played.episode == {"turns": 2, "tool_calls": 1, "tool_errors": 0, "rewards": []}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_tokens_stay_as_they_were_sampled(family: str, code: Path) -> None:
    """Also where the tokenizer would make others of that text."""
    encode = tokenizer(family).encode
    said = call("add", a=3, b=4)
    letters = [token for letter in said for token in encode(letter)] + encode(ENDS[family])
    assert letters != encode(said + ENDS[family])
    played = Played(code, family, [letters, "So it is 7."], tools=["add"])
    first, heard, _ = played.response.turns
    assert played.response.tokens[: first.end] == letters
    assert played.script.asked[1] == [*played.tokens, *letters, *played.response.tokens[heard.start : heard.end]]
    assert "7" in played.spoken()[1][1]
    check_masks(played)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_environment_speaks_first_answers_and_rewards(family: str, code: Path) -> None:
    played = Played(code, family, ["3", "9", "7"], environment="Guess", label="7")
    check_masks(played)
    roles = [role for role, _ in played.spoken()]
    assert roles == ["user", "assistant", "user", "assistant", "user", "assistant"]
    texts = [text for role, text in played.spoken() if role == "user"]
    assert [word in text for word, text in zip(["Guess.", "higher", "lower"], texts, strict=True)] == [True] * 3
    assert [span.reward for span in played.response.turns] == [None, -0.25, None, -0.25, None, 1.0]
    assert played.episode["rewards"] == [-0.25, -0.25, 1.0]
    metadata = {"episode": played.episode}
    assert score_episode(RewardInput("", "", metadata=metadata)) == 0.5
    others = {"role": "user", "content": "Guess."}
    assert played.script.asked[0] == tokenizer(family).encode(played.render([*played.messages, others]))


def test_an_end_of_turn_is_not_doubled_and_another_one_stands(code: Path) -> None:
    """GLM's ends are the markers of those who are next: one that is not the template's own stays, as it was said."""
    played = Played(code, "glm", [("1", "<|user|>"), ("2", "<|observation|>"), "7"], environment="Guess", label="7")
    texts = [text for _, text in played.spoken()]
    assert texts[1:3] == ["1<|user|>", "\nhigher<|assistant|>\n"]
    assert texts[3:5] == ["2<|observation|>", "<|user|>\nhigher<|assistant|>\n"]


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_of_one_turn_are_answered_together_in_their_order(family: str, code: Path) -> None:
    said = call("later", what="a") + call("add", a=1, b=2) + call("nobody") + call("add", a="x") + call("raises")
    played = Played(
        code, family, [said + "<tool_call>{</tool_call>" + "<tool_call>", "Done."], tools=["add", "later", "raises"]
    )
    text = played.spoken()[1][1]
    wanted = [
        '{"later": "a"}',
        "3",
        "error: found no tool named nobody; wanted one of add, later, raises",
        "error: TypeError: missing a required argument: 'b'",
        "error: KeyError: 0",
        "error: found what is no JSON",
        "error: found <tool_call> without </tool_call>",
    ]
    places = [text.find(one) for one in wanted]
    assert -1 not in places, (text, places)
    assert places == sorted(places)
    assert (played.episode["tool_calls"], played.episode["tool_errors"]) == (7, 5)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (call("hangs", how="sleeps"), "error: no result within 0.3 s"),
        (call("hangs", how="spins"), "error: no result within 0.3 s"),
        (call("hangs", how="catches"), "error: no result within 0.3 s"),
        (call("waits"), "error: no result within 0.3 s"),
        (call("leaves"), "error: SystemExit: 3"),
        ('<tool_call>{"name": "add", "arguments": "[1]"}</tool_call>', "arguments of the kind list; wanted a mapping"),
        ('<tool_call>{"name": "add", "arguments": "{a: 1}"}</tool_call>', "found arguments that are no JSON"),
        ('<tool_call>["add"]</tool_call>', "error: found no name; wanted <tool_call>"),
    ],
)
def test_what_a_tool_does_wrong_is_told_to_the_model(said: str, wanted: str, code: Path) -> None:
    played = Played(code, "qwen", [said, "Done."], tools=["add", "hangs", "waits", "leaves"])
    assert wanted in played.spoken()[1][1]
    assert played.response.status is Status.COMPLETED


def test_tools_and_an_environment_together(code: Path) -> None:
    played = Played(code, "qwen", [call("add", a=3, b=4), "7"], tools=["add"], environment="Guess", label="7")
    assert [role for role, _ in played.spoken()] == ["user", "assistant", "tool", "assistant"]
    assert [span.reward for span in played.response.turns] == [None, None, None, 1.0]


@pytest.mark.parametrize(
    ("label", "found", "line"),
    [
        ("raises at once", "KeyError: 'raises at once'", "raise KeyError(self.how)"),
        ("number at once", "found 3; wanted text, or a list of messages", "def reset(self, task):\n        self.how"),
        ("raises", "KeyError: 'no such key'", '{}["no such key"]'),
        ("hangs", "no answer of the environment within 0.3 s (rollout.call_timeout_s)", '"hangs":\n            time'),
        ("pair", "found ('more', 0); wanted (observation, reward, done)", "def step(self, action):\n        if"),
        ("text", "found 'more'; wanted (observation, reward, done)", "def step(self, action):\n        if"),
        ("nothing", "found None; wanted (observation, reward, done)", "def step(self, action):\n        if"),
        ("nan", "found nan; wanted a finite reward, or None", "def step(self, action):\n        if"),
        ("worded", "found '1'; wanted a finite reward", "def step(self, action):\n        if"),
        ("done?", "found ('more', 1, 'yes'); wanted (observation", "def step(self, action):\n        if"),
        ("empty", "found ''; wanted something for the model to answer", "def step(self, action):\n        if"),
        ("model", "none of them the assistant's", "def step(self, action):\n        if"),
    ],
)
def test_a_bad_environment_fails_the_sample_with_file_and_line(label: str, found: str, line: str, code: Path) -> None:
    with pytest.raises(SampleFailed) as caught:
        Played(code, "qwen", ["1"], label, environment="Behaves")
    number = USER_CODE[: USER_CODE.index(line)].count("\n") + 1 + (label == "hangs")
    assert found in str(caught.value)
    assert f"game.py:{number} in " in str(caught.value), str(caught.value)


def test_an_environment_that_waits_is_cut_off_where_it_waits(code: Path) -> None:
    with pytest.raises(SampleFailed, match="no answer of the environment within") as caught:
        Played(code, "llama", ["1"], "7", environment="Waits")
    line = USER_CODE[: USER_CODE.rindex("await asyncio.sleep(1000)")].count("\n") + 1
    assert f"game.py:{line} in step" in str(caught.value)


def test_one_that_never_ends_is_cut_off_after_its_turns(code: Path) -> None:
    played = Played(code, "qwen", ["1"], "never ends", environment="Behaves", max_turns=3)
    assert played.response.status is Status.TRUNCATED
    assert [role for role, _ in played.spoken()][-1] == "assistant"
    assert played.episode["turns"] == 3
    assert played.episode["rewards"] == [0.0, 0.0, 0.0]


def test_a_reward_by_steps_needs_one(code: Path) -> None:
    played = Played(code, "qwen", ["1"], "no reward", environment="Behaves")
    with pytest.raises(ValueError, match="found no step with a reward; wanted one at least"):
        score_episode(RewardInput("", "", metadata=dict(played.response.extra)))


def test_the_tokens_of_an_episode_are_bounded(code: Path) -> None:
    """By all that is said; a turn cut off ends it, and so does an answer that leaves no room."""
    said = call("later", what="x" * 20)
    cut = Played(code, "qwen", [said, "Done."], tools=["later"], room=20)
    assert (len(cut.response.tokens), cut.response.status) == (20, Status.TRUNCATED)
    assert len(cut.script.asked) == 1
    whole = Played(code, "qwen", [said, "Done."], tools=["later"])
    first = whole.response.turns[0].end
    for room in (first + 1, whole.response.turns[1].end):
        tight = Played(code, "qwen", [said, "Done."], tools=["later"], room=room)
        assert (len(tight.response.tokens), tight.response.status) == (first, Status.TRUNCATED)
    last = Played(code, "qwen", [said, "Done."], tools=["later"], room=whole.response.turns[1].end + 1)
    assert last.script.limits[1] == 1
    with pytest.raises(SampleFailed, match="tokens before the model's first turn; wanted fewer than 5"):
        Played(code, "qwen", ["7"], "7", room=5, environment="Guess")


THOUGHT = "<think>\nHm.\n</think>\n\n"


def test_a_past_that_the_template_rewrites_is_kept_or_split(code: Path) -> None:
    said = ["3", THOUGHT + "9", "7"]
    keys: dict[str, Any] = {"environment": "Thinks", "label": "7"}
    more = code.with_name("thinks.py")
    more.write_text(
        USER_CODE + "\n\nclass Thinks(Guess):\n    def step(self, a):\n        return super().step(a[-1])\n"
    )
    kept = Played(more, "qwen", said, rewritten_past="keep", **keys)
    check_masks(kept)
    assert kept.spoken()[3][1].startswith(THOUGHT)
    split = Played(more, "qwen", said, rewritten_past="split", **keys)
    check_masks(split)
    first, second = split.responses
    assert split.spoken(first) == kept.spoken()[:4]
    assert [role for role, _ in split.spoken(second)] == ["past", "assistant"]
    history = [*split.messages, {"role": "user", "content": "Guess."}]
    for turn, heard in (("3", "higher"), (said[1], "lower")):
        history += [{"role": "assistant", "content": turn}, {"role": "user", "content": heard}]
    assert "Hm." not in split.render(history)
    assert split.script.asked[2] == tokenizer("qwen").encode(split.render(history))
    assert [dict(one.extra)["episode"]["rewards"] for one in split.responses] == [[-0.25, -0.25, 1.0]] * 2
    whole = Played(code, "qwen", ["3", "9", "7"], rewritten_past="split", environment="Guess", label="7")
    assert len(whole.responses) == 1


def rollout(**keys: Any) -> RolloutConfig:
    return RolloutConfig.model_validate({"num_rollout": 1, "rollout_batch_size": 1, **keys})


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_that_rewrite_are_found_before_the_start(family: str, code: Path) -> None:
    how = Rendering()
    playing = {"environment": f"{code}:Guess"}
    refuse_template(rollout(**playing, rewritten_past="keep"), how, tokenizer(family))
    if family != "qwen":
        refuse_template(rollout(**playing), how, tokenizer(family))
        return
    with pytest.raises(ValueError, match="found a chat template that writes an earlier turn anew") as caught:
        refuse_template(rollout(**playing), how, tokenizer(family))
    assert "<think>" in str(caught.value)
    assert "set rollout.rewritten_past to keep" in str(caught.value)


def test_templates_that_do_not_do_for_tools_are_refused(code: Path) -> None:
    tools = {"tools": [f"{code}:add"]}
    schemas = tool_schemas(tools["tools"])
    for family in FAMILIES:  # qwen's keeps the thinking until the user speaks again
        refuse_template(rollout(**tools), Rendering(tools=schemas), tokenizer(family))
    for template, found in {
        "{% for m in messages %}{{ m.role + m.content }}{% endfor %}": "says nothing of the tool add",
        "{% for m in messages if m.role != 'tool' %}{{ m.content }}{% endfor %}": "leaves out what a message",
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{{ m.content }}"
        "{% endfor %}": "fails on a message of the role tool",
        "{% for m in messages %}{{ m.content * 2 }}{% endfor %}": "writes a turn of the model 2 times",
    }.items():
        with pytest.raises(ValueError, match=found):
            refuse_template(rollout(**tools), Rendering(template=template, tools=schemas), tokenizer("qwen"))
    closed = Rendering(template="{% for m in messages %}{{ m.content }}{% endfor %} model:", generation_prompt=False)
    with pytest.raises(ValueError, match="found a chat template that ends a prompt with"):
        refuse_template(rollout(environment="game.py:Guess", rewritten_past="keep"), closed, tokenizer("qwen"))
    told = Rendering("You may call add.", "{% for m in messages %}{{ m.role + m.content }}{% endfor %}", schemas)
    refuse_template(rollout(**tools, rewritten_past="keep"), told, tokenizer("qwen"))


def test_a_format_of_ones_own(code: Path) -> None:
    played = Played(code, "qwen", ["41", "It is 42."], tools=["add"], tool_format=f"{code}:numbers")
    assert "42" in played.spoken()[1][1]


def test_plain_calls() -> None:
    assert plain("No call.") == []
    text = (
        'Hm. <tool_call>\n{"name": "a", "arguments": {"b": [1]}}\n</tool_call> and <tool_call>{"name": "c"}</tool_call>'
    )
    assert plain(text) == [ToolCall("a", {"b": [1]}), ToolCall("c", {})]


PARSING = """
import json, sys
from core.rollout.tool_formats import ByEngine

tool, cases = sys.argv[1], json.loads(sys.argv[2])
found = [[[one.name, dict(one.arguments), one.error] for one in ByEngine(name, [tool])(text)] for name, text in cases]
try:
    ByEngine("telepathy", [tool])
except ValueError as error:
    print(json.dumps([found, str(error)]))
"""


@pytest.mark.slow
def test_sglangs_own_parsers(code: Path) -> None:
    """In a process of its own, as SGLang changes transformers where it is imported."""
    arguments = {"a": 1, "b": 2}
    as_json = json.dumps({"name": "add", "arguments": arguments})
    glm = "add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>2</arg_value>\n"
    calls = {
        "qwen25": f"<tool_call>\n{as_json}\n</tool_call>",
        "hermes": f"<tool_call>{as_json}</tool_call>",
        "llama3": json.dumps({"name": "add", "parameters": arguments}),
        "glm45": f"<tool_call>{glm}</tool_call>",
        "pythonic": "[add(a=1, b=2)]",
        "mistral": f"[TOOL_CALLS] [{as_json}]",
    }
    others = [
        ["qwen25", "<tool_call>\n{\n</tool_call>"],
        ["qwen25", '<tool_call>\n{"name": "sub", "arguments": {}}\n</tool_call>'],
        *([name, "It is 3."] for name in calls),
    ]
    cases = json.dumps([*calls.items(), *others])
    done = subprocess.run(
        [sys.executable, "-c", PARSING, f"{code}:add", cases],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=True,
    )
    found, refused = json.loads(done.stdout.splitlines()[-1])
    for name, one in zip(calls, found, strict=False):
        assert one == [["add", arguments, ""]], name
    broken = "found a call that cannot be read; wanted one in the format qwen25"
    assert found[len(calls) :] == [[["", {}, broken]], [["sub", {}, ""]], *([] for _ in calls)]
    assert "rollout.tool_format telepathy, which the SGLang installed here does not have" in refused
    assert set(SGLANG_FORMATS) <= set(re.findall(r"[\w.-]+", refused))


def mistakes(folder: Path, code: Path, rollout: dict[str, Any], **sections: Any) -> list[str]:
    (folder / "game.py").write_text(code.read_text())
    try:
        check_run_file(write_run(folder, rollout=rollout, **sections), ())
    except RunFileError as error:
        return [str(one) for one in error.mistakes]
    return []


def test_tools_or_an_environment_make_a_dialogue(code: Path) -> None:
    assert rollout().generate == "one_turn"
    assert rollout(tools=["a.py:f"]).generate == "dialogue"
    assert rollout(environment="a.py:F").generate == "dialogue"
    again = rollout(environment="a.py:F").model_dump(mode="json")
    assert RolloutConfig.model_validate(again).generate == "dialogue"


PLAYING = {"environment": "game.py:Guess", "rewritten_past": "keep"}
CALLING = {"tools": ["game.py:add"], "rewritten_past": "keep"}
TOLD = {"path": "data.jsonl", "system_prompt": "You may call add."}


@pytest.mark.parametrize(
    ("rollout", "sections", "wanted"),
    [
        (PLAYING, {}, []),
        (CALLING, {"data": TOLD}, []),
        (CALLING, {}, ["data.chat_template", "says nothing of the tool add"]),
        ({**PLAYING, "generate": "one_turn"}, {}, ["found one_turn with rollout.environment; wanted dialogue"]),
        ({"generate": "dialogue"}, {}, ["dialogue without tools and environment"]),
        (
            {**PLAYING, "environment": "game.py:Behaves", "environment_options": {"worst": 1}},
            {},
            ["rollout.environment_options: found the option worst; wanted no options"],
        ),
        ({"environment_options": {"first": 1}}, {}, ["without it; wanted environment_options only with"]),
        ({**PLAYING, "environment": "game.py:Behave"}, {}, ["no Behave in", "did you mean Behaves?"]),
        (
            {**PLAYING, "environment": "game.py:add"},
            {},
            ["the function add of", "wanted a class with reset, step"],
        ),
        ({"tools": ["game.py:numbers"]}, {}, ["rollout.tools.0: found no docstring of numbers in line"]),
        ({**CALLING, "tools": ["game.py:add", "game.py:add"]}, {"data": TOLD}, ["two tools named add"]),
        (
            {**CALLING, "tool_format": "qwen26"},
            {"data": TOLD},
            ["'qwen26'; wanted one of plain", "did you mean qwen25?"],
        ),
        ({**PLAYING, "tool_format": "qwen25"}, {}, ["'qwen25' without it; wanted tool_format only with rollout.tools"]),
        ({"max_turns": 3}, {}, ["3 without it; wanted max_turns only with rollout.tools or rollout.environment"]),
        (PLAYING, {"data": {"apply_chat_template": False}}, ["data.apply_chat_template: found false with a dialogue"]),
        (PLAYING, {"reward": {"type": "environment", "path": None}}, []),
        ({}, {"reward": {"type": "environment", "path": None}}, ["environment without rollout.environment"]),
    ],
)
def test_what_a_login_node_says(
    rollout: dict[str, Any], sections: dict[str, Any], wanted: list[str], code: Path, tmp_path: Path
) -> None:
    found = mistakes(tmp_path, code, rollout, **sections)
    assert len(found) == bool(wanted), found
    assert all(text in found[0] for text in wanted), found


class Guesser:
    """An engine whose model guesses 3, and 7 once it is told to go higher."""

    def __init__(self, own: Tokenizer) -> None:
        self.own = own

    def vocab_size(self) -> int:
        return 512

    async def generate(self, tokens: Sequence[int], params: SamplingParams, **_how: bool) -> Generation:
        made = self.own.encode(("7" if "higher" in self.own.decode(tokens) else "3") + "</s>")
        return Generation(made, [-0.5] * len(made), Status.COMPLETED, "step4")


def test_a_worker_plays_it_and_what_fails_fails_alone(code: Path, tmp_path: Path) -> None:
    """The run file's keys reach the process that plays, and what it played comes back."""
    write_tokenizer(tmp_path)
    own = load_tokenizer(tmp_path)
    messages = [{"role": "user", "content": "Play."}]
    text = own.render(messages, generation_prompt=False)
    sampling = SamplingParams(200, stop_token_ids=own.eos_token_ids)
    tasks = [
        Task(tuple(own.encode(text)), text, 17, label, {}, sampling, 0, index, 1, messages=messages)
        for index, label in enumerate(["7", "no number", "7"])
    ]
    keys = {"environment": f"{code}:Guess", "tools": [f"{code}:add"], "rewritten_past": "keep"}
    config = rollout(**keys, environment_options={"first": "Guess!"})
    how = Rendering(tools=tool_schemas(config.tools), generation_prompt=False)
    with OwnGeneration(config, tmp_path, own.decode, {"": how}) as made:
        ((first, failed, third),) = asyncio.run(made([tasks], Guesser(own)))  # type: ignore[arg-type, list-item]
    line = USER_CODE[: USER_CODE.index("self.number, self.tries")].count("\n") + 1
    assert first.failure is None, first.failure
    assert failed.failure is not None
    assert failed.failure.startswith("ValueError: invalid literal for int()")
    assert f"(game.py:{line} in reset); row 17, sample 1" in failed.failure
    assert third.tokens == first.tokens
    texts = [own.decode(first.tokens[one.start : one.end], False) for one in first.turns]
    assert texts == ["user: Guess!\nassistant:", "3</s>", "\nuser: higher\nassistant:", "7</s>"]
    assert [one.reward for one in first.turns] == [None, -0.25, None, 1.0]
    assert [one.weight_version for one in first.turns] == ["", "step4", "", "step4"]
    assert first.extra["episode"]["rewards"] == [-0.25, 1.0]
