"""Engines whose ranks compute attention in groups: which run files are refused, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.checks import check_run_file
from core.checks.attention_groups import SIZE, SWITCH, family_has_groups, groups_are_of_one_engine
from core.config import RunFileError, load_run_file
from modelcfg import load
from tests.support.good_run import write_run

TWO_RANKS = "placement.engine_tensor_parallel=2"
GROUPS = "placement.engine_options={enable_dp_attention: true, dp_size: 2}"
OVER_NODES = ["placement.engine_nodes=2", "placement.num_nodes=2", "placement.trainers_per_node=2"]
REFUSED = {
    "several engines": (
        [TWO_RANKS, "placement.engine_options={dp_size: 2}"],
        f"{SIZE}: found dp_size 2 without enable_dp_attention; wanted one engine behind a server: else SGLang starts "
        "several there, and no sync fits them: set enable_dp_attention: true beside it; more engines are "
        "placement.engines_per_node",
    ),
    "one group": (
        [TWO_RANKS, "placement.engine_options={enable_dp_attention: true}"],
        f"{SIZE}: found dp_size 1 with enable_dp_attention; wanted a divisor of engine_tensor_parallel, 2, larger than "
        "1: use 2",
    ),
    "unequal groups": (
        ["placement.engine_tensor_parallel=6", GROUPS.replace("dp_size: 2", "dp_size: 4")],
        f"{SIZE}: found dp_size 4 with enable_dp_attention; wanted a divisor of engine_tensor_parallel, 6, larger than "
        "1: use one of 2, 3, 6",
    ),
    "one rank": (
        [GROUPS],
        f"{SIZE}: found dp_size 2 with enable_dp_attention; wanted a divisor of engine_tensor_parallel, 1, larger than "
        "1: raise placement.engine_tensor_parallel, or remove both options",
    ),
    "the output layer alone": (
        [TWO_RANKS, "placement.engine_options={enable_dp_lm_head: true}"],
        "placement.engine_options.enable_dp_lm_head: found enable_dp_lm_head alone; wanted enable_dp_attention beside "
        "it, whose groups then have the whole output layer, too: remove it, or set both with dp_size",
    ),
    "over nodes": (
        [TWO_RANKS, GROUPS, *OVER_NODES],
        f"{SWITCH}: found true for engines over 2 nodes; wanted an engine on one node: over several, SGLang's programs "
        "listen on ports that the run does not hold: remove it, with dp_size",
    ),
    "drafts": (
        [TWO_RANKS, GROUPS.replace("}", ", speculative_algorithm: NGRAM}")],
        f"{SWITCH}: found true beside speculative_algorithm; wanted groups alone: drafts beside them were not tried, "
        "and SGLang 0.5.16 refuses some: remove it with dp_size, or the drafts",
    ),
    "fewer samples than groups": (
        [TWO_RANKS, GROUPS, "placement.engine_max_running_requests=1"],
        "placement.engine_max_running_requests: found 1, for engines with dp_size 2; wanted a sample or more for each "
        "group: raise it, or lower dp_size",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RunFileError) as error:
        check_run_file(write_run(tmp_path), overrides)
    assert message in str(error.value)


@pytest.mark.parametrize("options", [GROUPS, "placement.engine_options={enable_dp_attention: false, dp_size: 1}"])
def test_accepted(tmp_path: Path, options: str) -> None:
    assert list(groups_are_of_one_engine(load_run_file(write_run(tmp_path), [TWO_RANKS, options]))) == []


@pytest.mark.parametrize(
    ("name", "has_groups"),
    [("qwen3-4b", True), ("qwen3-30b-a3b", True), ("deepseek-v3-671b-a37b", True), ("glm4-9b", False)]
    + [(name, False) for name in ("llama-3.1-8b", "qwen2.5-7b", "mimo-7b")],
)
def test_families_whose_classes_in_sglang_know_groups(tmp_path: Path, name: str, has_groups: bool) -> None:
    config = load_run_file(write_run(tmp_path), [TWO_RANKS, GROUPS])
    found = [str(one) for one in family_has_groups(config, load(name))]
    assert (found == []) == has_groups
    assert all("SGLang knows groups: with others ranks would mix up samples" in one for one in found)
    alone = load_run_file(write_run(tmp_path), [TWO_RANKS])
    assert list(family_has_groups(alone, load(name))) == []
