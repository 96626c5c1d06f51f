"""Learning curves: read from run directories, merged, drawn; and one real run from the command to the picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench import curves
from bench.learning import command
from bench.record import RESULTS
from tests.support.tiny_runs import write_run
from tests.support.waiting import COMMAND_S

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


def write_finished(folder: Path, seed: int, rewards: list[float], *, complete: bool = True) -> Path:
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump({"name": "sums", "rollout": {"seed": seed}}))
    metrics = {name: 0.25 for name in (*curves.PER_STEP.values(), "perf/step_time")}
    events = [{"event": "eval", "step": 0, "results": {"held_out": {"accuracy": 0.125}}}]
    events += [
        {"event": "step", "step": step, "metrics": {**metrics, "rollout/raw_reward": reward}}
        for step, reward in enumerate(rewards)
    ]
    events += [{"event": "eval", "step": len(rewards), "results": {"held_out": {"accuracy": 0.75}}}]
    events += [{"event": "end", "step": len(rewards)}] * complete
    (folder / "progress.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_read_takes_what_the_run_logged(tmp_path: Path) -> None:
    curve = curves.read(write_finished(tmp_path / "a", 5, [0.1, 0.4]), "as shipped")
    assert (curve["task"], curve["seed"], curve["complete"]) == ("sums", 5, True)
    assert curve["accuracy"] == {"held_out": [[0, 0.125], [2, 0.75]]}
    assert (curve["steps"], curve["reward"], curve["logprob_gap"]) == ([0, 1], [0.1, 0.4], [0.25, 0.25])


def test_a_step_that_was_repeated_counts_with_its_last_value(tmp_path: Path) -> None:
    run_dir = write_finished(tmp_path / "a", 5, [0.1, 0.4], complete=False)
    with (run_dir / "progress.jsonl").open("a") as file:
        metrics = {"rollout/raw_reward": 0.5, "perf/step_time": 1.0}
        file.write(json.dumps({"event": "step", "step": 1, "metrics": metrics}) + "\n")
    curve = curves.read(run_dir, "as shipped")
    assert (curve["complete"], curve["reward"], curve["logprob_gap"]) == (False, [0.1, 0.5], [0.25, None])


def write_dialogues(folder: Path) -> Path:
    """Two steps of a run with tools, evaluated before the first and at the end."""
    write_finished(folder, 1, [])
    rates = [{"accuracy": share, "turns/mean": 1 + share, "tool_calls/valid_ratio": share} for share in (0, 1)]
    per_step = {**curves.PER_STEP, **curves.OF_DIALOGUES}
    metrics = {name: 0.25 for name in (*per_step.values(), "perf/step_time")}
    events = [
        {"event": "eval", "step": step, "results": {"others": rate}} for step, rate in zip((0, 2), rates, strict=True)
    ]
    events += [{"event": "step", "step": step, "metrics": metrics} for step in (0, 1)]
    events += [{"event": "end", "step": 2}]
    (folder / "progress.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for attempt, commit in ((2, "old"), (10, "new")):
        path = folder / "attempts" / str(attempt) / "provenance.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"packages": {"torch": "2"}, "commit": commit, "dirty": []}))
    return folder


def test_dialogues_have_their_turns_and_calls_and_the_page_a_row_for_each_step(tmp_path: Path) -> None:
    curve = curves.read(write_dialogues(tmp_path / "a"), "as shipped")
    assert (curve["valid_calls"], curve["turns"]) == ([0.25, 0.25], [0.25, 0.25])
    assert curve["valid_calls_of"] == {"others": [[0, 0], [2, 1]]}
    assert (curve["commit"], curve["versions"]) == ("new", {"torch": "2"})
    assert curves.page_table(curve, "others").splitlines()[2:] == [
        "| 0 | 0.25 | 0.25 | 0.25 | 0.00 | 0.00 | 1.00 |",
        "| 1 | 0.25 | 0.25 | 0.25 |  |  |  |",
        "| end |  |  |  | 1.00 | 1.00 | 2.00 |",
    ]
    curves.draw([curve], tmp_path / "dialogues.png")
    assert (tmp_path / "dialogues.png").read_bytes().startswith(PNG)


def test_the_tables_of_a_task_are_printed(tmp_path: Path) -> None:
    results = ["--results", str(tmp_path / "results")]
    done = learning("--finished", str(write_dialogues(tmp_path / "a")), "--machine", "somewhere", *results)
    assert done.returncode == 0, done.stderr
    printed = learning("--page", "sums", "others", *results).stdout
    assert printed.startswith("as shipped, seed 1\n\n| step |")
    assert printed.count("\n| ") == 4


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted the directory of a run"):
        curves.read(tmp_path, "as shipped")


def test_merge_replaces_the_same_task_variant_and_seed() -> None:
    old = [{"task": "a", "variant": "x", "seed": seed, "steps": [0]} for seed in (2, 1)]
    new = [{"task": "a", "variant": "x", "seed": 1, "steps": [0, 1]}]
    merged = curves.merge(old, new)
    assert [(curve["seed"], len(curve["steps"])) for curve in merged] == [(1, 2), (2, 1)]


def test_seeds_reach_sampling_order_and_source() -> None:
    words = command(ROOT / "examples" / "chain-sum.yaml", 7, Path("out"), ["train.lr=1e-5"])
    assert [word for word in words if "=" in word] == [
        "train.lr=1e-5",
        "rollout.seed=7",
        "data.seed=7",
        "data.options.seed=7",
    ]
    assert "data.options.seed=7" not in command(ROOT / "examples" / "family.yaml", 7, Path("out"), [])


def test_finished_runs_become_json_and_a_picture(tmp_path: Path) -> None:
    runs = [write_finished(tmp_path / f"seed{seed}", seed, [0.1, 0.2, 0.9]) for seed in (1, 2)]
    done = learning("--finished", *map(str, runs), "--machine", "somewhere", "--results", str(tmp_path / "results"))
    assert done.returncode == 0, done.stderr
    recorded = json.loads((tmp_path / "results" / "learning.json").read_text())["curves"]
    assert [(curve["seed"], curve["machine"]) for curve in recorded] == [(1, "somewhere"), (2, "somewhere")]
    assert (tmp_path / "results" / "learning-sums.png").read_bytes().startswith(PNG)
    assert done.stdout.count("held_out") == 2


def test_a_peer_is_drawn_beside_them_by_its_rewards(tmp_path: Path) -> None:
    recorded = RESULTS / "peer_trl_cpu.json"
    [curve] = curves.read_peer(recorded)
    steps = next(run for run in json.loads(recorded.read_text())["runs"] if run["name"] != "ebbtide")["steps"]
    assert (curve["task"], curve["steps"]) == ("smollm2-arithmetic", list(range(len(steps))))
    assert curve["reward"] == [pytest.approx(step["reward"], abs=1e-5) for step in steps]
    ours = curves.read(write_finished(tmp_path / "a", 5, [0.1, 0.4]), "as shipped")
    for name, some in (("both", [ours, curve]), ("alone", [curve])):
        curves.draw(some, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)
    assert [line.split()[0] for line in curves.table([ours, curve]).splitlines()] == ["task", "sums"]


@pytest.mark.run
def test_a_real_run_leaves_a_curve(tmp_path: Path) -> None:
    evaluated = {"sets": {"same": {"path": "data.jsonl", "max_prompt_tokens": 64}}}
    run_file = write_run(tmp_path / "run", rollout={"num_rollout": 2}, eval=evaluated)
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    done = learning(str(run_file), "--seeds", "3", *folders)
    assert done.returncode == 0, done.stdout + done.stderr
    [curve] = json.loads((tmp_path / "results" / "learning.json").read_text())["curves"]
    assert (curve["task"], curve["seed"], curve["steps"], curve["complete"]) == ("tiny", 3, [0, 1], True)
    assert [step for step, _ in curve["accuracy"]["same"]] == [0, 2]
    assert curve["commit"]
    assert all(0 <= gap < 1e-3 for gap in curve["logprob_gap"])
    assert (tmp_path / "results" / "learning-tiny.png").read_bytes().startswith(PNG)


def learning(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "bench/learning.py", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S)
