"""The count of slime's launch scripts, on an invented checkout."""

from __future__ import annotations

from pathlib import Path

from bench.slime_scripts import counts, flags, row, scripts, table

PLAIN = "python3 train.py --hf-checkpoint /m --prompt-data /d.jsonl --rm-type math --rollout-batch-size 8 "
SIZED = PLAIN + (
    "--num-layers 24 --hidden-size 896 --ffn-hidden-size 4864 --num-attention-heads 14 --vocab-size 151936 "
    "--num-query-groups 2 --rotary-base 1000000 --add-qkv-bias "
    "--n-samples-per-prompt 8 --num-rollout 3 --rollout-max-response-len 256 --actor-num-gpus-per-node 1 --colocate "
)


def test_scripts_are_found_counted_and_told(tmp_path: Path) -> None:
    for name, text in {
        "scripts/run-a.sh": SIZED,
        "scripts/run-b.sh": f"{SIZED} --multimodal-keys {{}} --update-weight-mode delta",
        "scripts/run-d.sh": f"{SIZED} --rollout-top-p 0.9",
        "scripts/low_precision/run-c.sh": f"{SIZED} --spec x y",
        "examples/mine/run.sh": PLAIN,
        "examples/mine/broken.sh": "A=( # train.py",
        "scripts/other.sh": "echo nothing",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    rows = [row(tmp_path, script) for script in scripts(tmp_path)]
    assert [one.script for one in rows] == [
        "scripts/run-a.sh",
        "scripts/run-b.sh",
        "scripts/run-d.sh",
        "scripts/low_precision/run-c.sh",
        "examples/mine/broken.sh",
        "examples/mine/run.sh",
    ]
    assert [line.rpartition(": ")[2] for line in counts(rows)] == ["5 of 6", "4", "4", "4", "1"]
    shown = list(table(rows))
    assert shown[2] == "| `scripts/run-a.sh` | yes | pass | qwen2.5-0.5b | yes | – |"
    assert shown[3] == "| `scripts/run-b.sh` | yes | pass | qwen2.5-0.5b | yes | 1 task |"
    assert "| no family | – | – |" in shown[5]
    assert "line 1: found no end of A=(" in shown[6]
    assert "| to be filled in | 1 mistake |" in shown[7]
    assert [line.split(" | ")[:3] for line in list(flags(rows))[2:]] == [
        ["| `--multimodal-keys`", "1", "task"],
        ["| `--rollout-top-p`", "1", "result"],
        ["| `--update-weight-mode`", "1", "speed"],
    ]
