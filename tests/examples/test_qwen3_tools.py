"""Qwen3 with Python as a tool: the run file, what its template does to the past, and a run of a small model.

The template is one in the form of Qwen3's. The small model has learnt one episode by heart, so that it calls.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from core.checks import check_run_file
from core.checks.dialogue import refuse_template
from core.checks.tool_schema import tool_schemas
from core.config.sections.data import DataConfig
from core.config.sections.rollout import RolloutConfig
from core.data import Rendering, load_rows
from core.pretrained.tokenizer import Tokenizer
from core.trajectory import read_step, step_path
from modelcfg import load
from tests.support.chat_templates import tokenizer
from tests.support.episodes import Played
from tests.support.good_run import write_model
from tests.support.tiny_models import reference_model, tiny_model
from tests.support.tiny_runs import ebbtide, events

ROOT = Path(__file__).parents[2]
RUN_FILE = ROOT / "examples" / "qwen3_tools" / "run.yaml"
RUN = yaml.safe_load(RUN_FILE.read_text(encoding="utf-8"))
TOOL = f"{ROOT}/examples/python_tool/tools.py:python"
CALL = '<tool_call>\n{"name": "python", "arguments": {"code": "print(6 * 7)"}}\n</tool_call>'
TURNS = (f"<think>\nPython.\n</think>\n\n{CALL}", "<think>\nDone.\n</think>\n\n42")
END = "<|im_end|>"
HEARD = "\n<|im_start|>user\n<tool_response>\n42\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
PLAYING = {"environment": "game.py:Guess"}


def write_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that a model's folder gets, with the template."""
    made = tokenizer("qwen3")
    made.fast.eos_token = END
    made.fast.save_pretrained(folder)
    return made


def test_the_run_file_has_no_mistakes_and_every_answer_is_right(tmp_path: Path) -> None:
    write_model(tmp_path / "model", load(RUN["model"]["name"]), architectures=["Qwen3ForCausalLM"])
    write_tokenizer(tmp_path / "model")
    config = check_run_file(RUN_FILE, [f"model.path={tmp_path / 'model'}"])
    held_out = config.eval.sets["others"]
    for name in ("system_prompt", "chat_template_options", "prompt_key", "label_key", "max_prompt_tokens"):
        assert getattr(held_out, name) == getattr(config.data, name)
    trained, others = (load_rows(section) for section in (config.data, held_out))
    assert not {row["question"] for row in trained} & {row["question"] for row in others}
    question = re.compile(r"What is \((\d+) \* (\d+) ([+-]) (\d+)\) ([+*-]) (\d+)\?")
    by_sign = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    for row in others:
        first, factor, sign, second, last_sign, third = question.fullmatch(row["question"]).groups()  # type: ignore[union-attr]
        inner = by_sign[sign](int(first) * int(factor), int(second))
        assert row["answer"] == str(by_sign[last_sign](inner, int(third)))


def test_it_fits_the_gpu_that_the_page_says() -> None:
    page = (ROOT / "docs" / "rollouts.md").read_text(encoding="utf-8")
    [words] = re.findall(r"^ebbtide (plan examples/qwen3_tools/run.yaml.*)$", page, re.MULTILINE)
    done = ebbtide(*words.replace("examples/", f"{ROOT}/examples/").split())
    assert (done.returncode, "verdict   fits" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("keys", "options", "becomes"),
    [
        pytest.param({"tools": [TOOL]}, {}, None, id="tools, thinking by default"),
        pytest.param({"tools": [TOOL]}, {"enable_thinking": True}, None, id="tools, thinking"),
        pytest.param({"tools": [TOOL]}, {"enable_thinking": False}, "nt\n<think>\n\n</think>\n\n", id="tools, off"),
        pytest.param(PLAYING, {}, "nt\n<think>\nA thought.\n", id="environment, thinking"),
        pytest.param(PLAYING, {"enable_thinking": False}, "nt\n<think>\n\n</think>\n\n", id="environment, off"),
    ],
)
def test_what_its_template_does_to_the_past(keys: dict[str, Any], options: dict[str, Any], becomes: str | None) -> None:
    """With tools alone the thinking stays; it goes once the user speaks. With thinking off the empty thought goes."""
    sizes = {"num_rollout": 1, "rollout_batch_size": 1}
    rollout = RolloutConfig.model_validate({**sizes, **keys})
    tools = tool_schemas(rollout.tools)
    how = Rendering(tools=tools, generation_prompt=rollout.environment is None, options=options)
    if becomes is None:
        refuse_template(rollout, how, tokenizer("qwen3"))
        return
    with pytest.raises(ValueError, match="writes an earlier turn anew") as caught:
        refuse_template(rollout, how, tokenizer("qwen3"))
    assert repr(becomes)[1:-1] in str(caught.value)
    kept = RolloutConfig.model_validate({**sizes, **keys, "rewritten_past": "keep"})
    refuse_template(kept, how, tokenizer("qwen3"))


def test_an_episode_is_what_its_template_writes_token_by_token() -> None:
    """Where turns are as it writes them itself, with a thought in front."""
    played = Played(Path(TOOL.partition(":")[0]), "qwen3", TURNS, tools=["python"], call_timeout_s=60)
    assert played.spoken()[1] == ("tool", HEARD)
    result = {"role": "tool", "content": "42", "name": "python", "tool_call_id": "call00000"}
    turns = [{"role": "assistant", "content": said} for said in TURNS]
    whole = played.render([*played.messages, turns[0], result, turns[1]], False)
    assert [*played.tokens, *played.response.tokens] == tokenizer("qwen3").encode(whole.rstrip("\n"))


def test_without_thinking_the_past_is_kept_with_its_empty_thoughts() -> None:
    """What the model saw before a turn stays before it, and is not learnt."""
    keys: dict[str, Any] = {"template_options": {"enable_thinking": False}, "rewritten_past": "keep"}
    turns = [CALL, "42"]
    played = Played(Path(TOOL.partition(":")[0]), "qwen3", turns, tools=["python"], call_timeout_s=60, **keys)
    empty = "<think>\n\n</think>\n\n"
    assert played.prompt.endswith(f"assistant\n{empty}")
    assert played.spoken() == [("assistant", CALL + END), ("tool", HEARD + empty), ("assistant", "42" + END)]
    assert played.script.asked[1] == tokenizer("qwen3").encode(played.prompt + CALL + END + HEARD + empty)
    spans, mask = played.response.turns, played.response.loss_mask
    assert mask is not None
    assert [set(mask[span.start : span.end]) for span in spans] == [{1}, {0}, {1}]


def learn_by_heart(folder: Path, prompt: list[int], said: list[int]) -> None:
    """Train the model until it says this behind the prompt, by Adam in a few lines: to load torch's takes longer."""
    import torch

    model = reference_model(folder)
    weights = list(model.parameters())
    means = [(torch.zeros_like(one), torch.zeros_like(one)) for one in weights]
    tokens, labels = torch.tensor([prompt + said]), torch.tensor([[-100] * len(prompt) + said])
    for step in range(1, 51):
        loss = model(input_ids=tokens, labels=labels).loss
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient, (first, second) in zip(weights, gradients, means, strict=True):
                first.lerp_(gradient, 0.1)
                second.lerp_(gradient.square(), 0.05)
                weight -= 5e-3 * (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
    assert loss < 0.05
    model.save_pretrained(folder)


@pytest.mark.run
def test_a_small_model_of_its_form_thinks_calls_and_answers(tmp_path: Path) -> None:
    """The example, smaller: calls are read by SGLang's parser, run, answered, and trained token by token."""
    model, run_dir = tiny_model("qwen3", tmp_path / "model"), tmp_path / "out"
    made = write_tokenizer(model)
    few = {"count": 1, "seed": 1}
    [row] = load_rows(DataConfig(source="python", path=f"{RUN_FILE.parent}/{RUN['data']['path']}", options=few))
    asked = [{"role": "user", "content": row["question"]}]
    prompt = made.render(asked, RUN["data"]["system_prompt"], None, tool_schemas([TOOL]))
    learn_by_heart(model, made.encode(prompt), made.encode((END + HEARD).join(TURNS) + END))
    changes = [
        *("model.name=null", f"model.path={model}", "placement.device=cpu", "train.recompute=none"),
        *("rollout.num_rollout=1", "rollout.rollout_batch_size=1", "train.global_batch_size=4"),
        *("rollout.max_response_tokens=400", "data.max_prompt_tokens=800", f"data.options={few}"),
        *("train.max_tokens_per_micro_batch=2048", "eval={}", "checkpoint.save_hf=off"),
        *("placement.engine_max_running_requests=8", "placement.engine_memory_fraction=0.5"),
    ]
    done = ebbtide("run", str(RUN_FILE), "--run-dir", str(run_dir), *[w for one in changes for w in ("--set", one)])
    assert done.returncode == 0, done.stdout + done.stderr
    [event] = events(run_dir, "step")
    record = read_step(step_path(run_dir, 0))
    called = 0
    for place in range(len(record)):
        spans = record.spans(place)
        assert [span.role for span in spans[:3:2]] == ["assistant"] * len(spans[:3:2])
        if len(spans) > 1 and CALL in made.decode(record.response_tokens[place][: spans[0].end], False):
            heard = made.decode(record.response_tokens[place][spans[1].start : spans[1].end], False)
            assert heard == HEARD
            called += 1
        own = record.loss_mask[place] == 1
        for span in spans:
            assert set(own[span.start : span.end].tolist()) == {span.role == "assistant"}
        gap = np.abs(record.logprobs_old[place] - record.logprobs_engine[place])[own]
        assert gap.mean() < 1e-5
    assert called >= len(record) // 2
    assert event["metrics"]["rollout/tool_calls/valid_ratio"] >= 0.5
