"""Supervised runs from the run file to the model: real trainers, no engine; and the run that goes on from there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from core.checks import check_run_file
from core.trajectory import read_step, step_path
from launchers.show.replayed import is_equal
from tests.support.tiny_runs import CHAT_TEMPLATE, ebbtide, events, losses, write_run

pytestmark = pytest.mark.run
WORDS = ("one", "two", "three")
TURNS = [
    [
        {"role": "user", "content": f"say {word}"},
        {"role": "assistant", "content": f"{word} it is"},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": word * (1 + number)},
    ]
    for number in range(4)
    for word in WORDS
]


def write_sft(folder: Path) -> Path:
    """A run file of four steps over twelve conversations, two optimiser steps each, evaluated at both ends."""
    held_out = {"path": "rows.jsonl", "prompt_key": "messages", "max_prompt_tokens": 64, "size": 4}
    file = write_run(
        folder,
        data={"path": "rows.jsonl", "prompt_key": "messages"},
        rollout={"generate": "rows", "n_samples_per_prompt": 1, "max_response_tokens": 64},
        train={"global_batch_size": 2, "lr": 3e-3, "freeze": ["embed_tokens", "input_layernorm"]},
        eval={"sets": {"held_out": held_out}},
        checkpoint={"keep": 4},
    )
    run: dict[str, Any] = yaml.safe_load(file.read_text())
    del run["reward"], run["placement"]["engine_max_running_requests"]
    file.write_text(json.dumps(run))
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in TURNS))
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    done = ebbtide("run", str(write_sft(folder)), "--run-dir", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "evaluation: mean loss of a token" in done.stdout
    (folder / "out" / "stdout.txt").write_text(done.stdout)
    return folder / "out"


def first_batch(run_dir: Path) -> list[tuple[list[int], list[bool]]]:
    """Tokens and labels of the first optimiser step, made by transformers alone, from the rows that the step names."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run_dir.parent / "model")
    with h5py.File(step_path(run_dir, 0)) as file:
        rows = np.asarray(file["row"])[:2]
    made = []
    for row in rows:
        tokens: list[int] = []
        labels: list[bool] = []
        for number, turn in enumerate(TURNS[row]):
            before = tokenizer.apply_chat_template(TURNS[row][:number], tokenize=False) if number else ""
            through = tokenizer.apply_chat_template(TURNS[row][: number + 1], tokenize=False)
            own = turn["role"] == "assistant"
            header = "assistant:" if own else ""
            for text, counts in ((header, False), (through[len(before) + len(header) :], own)):
                ids = tokenizer.encode(text, add_special_tokens=False)
                tokens += ids
                labels += [counts] * len(ids)
        made.append((tokens, labels))
    return made


def test_the_loss_is_that_of_transformers(finished: Path) -> None:
    """The first optimiser step of the run, over the same rows, masked by hand; mean over the tokens of the batch."""
    import torch
    from transformers import AutoModelForCausalLM

    assert CHAT_TEMPLATE.startswith("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n")
    model = AutoModelForCausalLM.from_pretrained(finished.parent / "model", dtype=torch.float32).eval()
    batch = first_batch(finished)
    length = max(len(tokens) for tokens, _ in batch)
    ids = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in batch])
    labels = torch.full_like(ids, -100)
    for place, (tokens, counts) in enumerate(batch):
        labels[place, : len(tokens)] = torch.where(torch.tensor(counts), torch.tensor(tokens), -100)
    mask = torch.tensor([[1] * len(tokens) + [0] * (length - len(tokens)) for tokens, _ in batch])
    with torch.no_grad():
        wanted = float(model(input_ids=ids, attention_mask=mask, labels=labels).loss)
    with h5py.File(step_path(finished, 0)) as file:
        logprobs, counts = np.asarray(file["logprobs_old"]), np.asarray(file["loss_mask"])
        end = int(np.asarray(file["response_offsets"])[2])
    found = -float(logprobs[:end][counts[:end] == 1].mean())
    assert found == pytest.approx(wanted, abs=1e-5)


def test_it_learns_and_says_so(finished: Path) -> None:
    first, last = (event["results"]["held_out"]["loss"] for event in events(finished, "eval"))
    assert last < 0.8 * first
    assert losses(finished)[3] < losses(finished)[0]
    metrics = events(finished, "step")[0]["metrics"]
    assert "rollout/raw_reward" not in metrics
    assert metrics["rollout/failed_ratio"] == 0
    assert not any(np.isnan(value) for value in metrics.values())


def test_what_is_frozen_stays(finished: Path) -> None:
    before, after = (load_file(one / "model.safetensors") for one in (finished.parent / "model", finished / "hf"))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if "embed_tokens" in name or "input_layernorm" in name}


def test_there_is_no_engine(finished: Path) -> None:
    names = {path.name for path in (finished / "attempts" / "1").rglob("*")}
    assert any("trainer" in name for name in names)
    assert not any("engine" in name for name in names)


def test_commands_know_it(finished: Path) -> None:
    shown = ebbtide("inspect", str(finished))
    assert shown.returncode == 0, shown.stderr
    assert "it is" in shown.stdout
    assert "nan" not in shown.stdout
    assert "4 of 4 done" in ebbtide("status", str(finished)).stdout
    report = ebbtide("report", str(finished), "--output", str(finished.parent / "page.html"))
    assert report.returncode == 0, report.stderr
    page = (finished.parent / "page.html").read_text()
    assert "Loss of held_out" in page
    assert "no reward; the samples below" not in page


def test_before_it_starts_commands_know_it(tmp_path: Path) -> None:
    run_file = str(write_sft(tmp_path))
    checked = ebbtide("check", run_file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "4 rows to learn" in checked.stdout
    assert "no engine" in checked.stdout
    assert "learnt      ' one it is\\n'" in checked.stdout
    planned = ebbtide("plan", run_file)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "engines   none" in planned.stdout
    assert "KV cache" not in planned.stdout


def test_resumed_it_repeats_what_it_would_have_done(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished, again, symlinks=True)
    shutil.rmtree(again / "hf")
    for step in (3, 4):
        shutil.rmtree(again / "checkpoints" / f"step_{step:06d}")
    done = ebbtide("resume", str(again))
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(again) == losses(finished)
    assert (again / "hf" / "model.safetensors").read_bytes() == (finished / "hf" / "model.safetensors").read_bytes()


def test_a_step_is_replayed_and_an_evaluation_by_engines_says_what_to_do_instead(
    finished: Path, tmp_path: Path
) -> None:
    done = ebbtide("replay", str(finished), "--step", "3", "--run-dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 3, recorded and replayed: equal to the last bit" in done.stdout
    assert is_equal(read_step(step_path(finished, 3)), read_step(step_path(tmp_path / "out", 3)))
    refused = ebbtide("eval", str(finished))
    assert refused.returncode == 2
    assert f"evaluate the model by itself: ebbtide eval {finished}/hf --data FILE" in refused.stderr


def test_the_next_run_file_begins_with_its_model(finished: Path, tmp_path: Path) -> None:
    after = check_run_file(write_run(tmp_path), [f"model.path={finished / 'hf'}"])
    assert (after.algorithm.loss, after.placement.engines) == ("clipped", "colocated")
