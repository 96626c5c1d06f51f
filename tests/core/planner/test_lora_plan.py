"""The plan of adapters: the page's own example, and what the base no longer takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.config import load_run_file
from core.planner.disk import plan_disk
from core.planner.trainer import part_bytes
from modelcfg import load, num_parameters
from modelcfg.adapters import adapter_parameters
from tests.support.tiny_runs import ebbtide

PAGE = (Path(__file__).parents[3] / "docs" / "lora.md").read_text(encoding="utf-8")
RUN_FILE = next(block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "name:" in block)
TABLE = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE)
    return path


def test_the_pages_table_is_the_plan(run_file: Path) -> None:
    done = ebbtide("plan", str(run_file), "--gpu-memory", "h200")
    assert done.returncode == 0, done.stderr
    assert TABLE in done.stdout
    whole = ebbtide("plan", str(run_file), "--gpu-memory", "h200", "--set", "train.lora=null")
    assert whole.returncode == 2
    for figure in re.findall(r"\| Qwen3-30B-A3B \|.*?\| ([\d.]+) GiB: does not fit \| ([\d.]+) GiB", PAGE)[0]:
        assert f" {figure} of 139.70 GiB in " in done.stdout + whole.stdout


def test_the_base_takes_its_weights_and_adapters_everything_else(run_file: Path) -> None:
    """18 bytes for each number of an adapter; rooms of tensors are rounded up."""
    config, shape = load_run_file(run_file), load("qwen3-30b-a3b")
    parts = part_bytes(config, shape, "cuda")
    assert config.train.lora is not None
    trained = sum(adapter_parameters(shape, config.train.lora.rank, config.train.lora.targets).values())
    assert parts["base"] == pytest.approx(2 * num_parameters(shape), rel=1e-5)
    assert parts["reference"] == 0  # although there is a KL
    assert sum(parts.values()) - parts["base"] == pytest.approx(18 * trained, rel=1e-3)
    assert plan_disk(config, shape, "cuda").checkpoint == 14 * trained


def test_70b_is_trained_on_four_gpus(tmp_path: Path) -> None:
    """The page's own sentence."""
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "lora-70b" in block)
    (tmp_path / "run.yaml").write_text(text)
    done = ebbtide("plan", str(tmp_path / "run.yaml"), "--gpu-memory", "h100")
    assert done.returncode == 0, done.stderr
    found = re.search(r"fits: ([\d.]+) of 79.10 GiB", done.stdout)
    assert found
    assert f"| {found[1]} GiB" in PAGE
