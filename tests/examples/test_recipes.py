"""Every recipe is a run file without mistakes, for the model that it names, and is told on the page of algorithms.

A model of the named shape, without weights, stands for the downloaded one, and a few rows for a downloaded set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.checks import check_run_file
from core.config.schema import RunConfig
from core.config.sections.data import DataConfig
from core.data import load_rows
from modelcfg import ModelShape, load
from modelcfg.families import families
from tests.support.good_run import write_model

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))
PAGE = ROOT / "docs" / "algorithms.md"
NUM_ROWS = 1024  # as large as the largest step
ROWS: dict[str, dict[str, Any]] = {
    "dapo": {"prompt": [{"role": "user", "content": "2 + 2?"}], "reward_model": {"ground_truth": "4"}},
    "sft": {"question": "2 + 2?", "answer": "2 + 2 is 4.\n#### 4"},
}


def experts(shape: ModelShape) -> dict[str, Any]:
    """What config.json says of a model with experts beside the rest."""
    if not shape.num_experts:
        return {}
    return {
        "num_experts": shape.num_experts,
        "num_experts_per_tok": shape.experts_per_token,
        "moe_intermediate_size": shape.ffn_hidden_size,
        "norm_topk_prob": True,
    }


def checked(recipe: Path, folder: Path) -> RunConfig:
    """The recipe, on stand-ins for what is to be downloaded."""
    run = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    shape = load(run["model"]["name"])
    write_model(folder / "model", shape, architectures=[families()[shape.architecture].hf_class], **experts(shape))
    names = [name for name in ("path", "reference_path") if name in run["model"]]
    changes = [f"model.{name}={folder / 'model'}" for name in names]
    if recipe.stem in ROWS:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([ROWS[recipe.stem]] * NUM_ROWS), folder / "rows.parquet")
        sets = run.get("eval", {}).get("sets", {})
        changes += [
            f"{key}.path={folder / 'rows.parquet'}" for key in ("data", *(f"eval.sets.{name}" for name in sets))
        ]
    else:
        drawn = run["rollout"].get("over_sampling_batch_size") or run["rollout"]["rollout_batch_size"]
        changes += [f"data.size={drawn}", "eval.sets.held_out.size=2"]
    return check_run_file(recipe, changes)


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.stem for recipe in RECIPES])
def test_a_recipe_has_no_mistakes(recipe: Path, tmp_path: Path) -> None:
    config = checked(recipe, tmp_path)
    assert config.model.path == str(tmp_path / "model")
    trained = config.data.seed, config.data.dataset
    for held_out in config.eval.sets.values():
        assert held_out.path or (held_out.seed, held_out.dataset) != trained
        assert held_out.system_prompt == config.data.system_prompt


def test_every_maze_can_be_made() -> None:
    """Of some small ones reasoning_gym cannot."""
    run = yaml.safe_load((ROOT / "examples" / "recipes" / "pass_at_k.yaml").read_text(encoding="utf-8"))
    for section in (run["data"], *run["eval"]["sets"].values()):
        assert len(load_rows(DataConfig(**section))) == section["size"]


def test_the_page_tells_each_recipe_with_keys_that_it_sets() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Recipes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \[`(\w+)\.yaml`\]\(([^)]+)\) \| [^|]+ \| [^|]+ \| ([^|]+) \|$", section, re.M)
    assert sorted(name for name, _, _ in rows) == [recipe.stem for recipe in RECIPES]
    for name, link, keys in rows:
        run = yaml.safe_load((PAGE.parent / link).read_text(encoding="utf-8"))
        known = {key for part in run.values() if isinstance(part, dict) for key in part}
        assert Path(link).stem == name
        assert set(re.findall(r"`([a-z_]+)(?:: [^`]+)?`", keys)) <= known, name
