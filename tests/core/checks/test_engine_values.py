"""Values of engine options that other keys, or the model, rule out."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.checks import check_run_file
from core.config import RunFileError
from tests.support.good_run import write_run

OPTIONS = "placement.engine_options"
TWO = ["placement.device=cuda", "placement.trainers_per_node=2", "placement.engine_tensor_parallel=2"]
EXPERTS = "model.path=experts"
REFUSED = {
    "no page": ([f"{OPTIONS}.page_size=0"], "page_size: found 0; wanted tokens of a page, 1 or more: correct it"),
    "no chunk": (
        [f"{OPTIONS}.chunked_prefill_size=0"],
        "chunked_prefill_size: found 0; wanted tokens of a prompt, 1 or more, or -1 for prompts in one piece",
    ),
    "half a text": (
        [f"{OPTIONS}.json_model_override_args='{{'"],
        "json_model_override_args: found '{'; wanted a mapping as JSON in one text",
    ),
    "another text": (
        [f"{OPTIONS}.json_model_override_args='[1]'"],
        "json_model_override_args: found '[1]'; wanted a",
    ),
    "a short context": (
        [f"{OPTIONS}.context_length=10"],
        "context_length: found 10; wanted 96 or more, the tokens of the longest prompt and response: raise it to 96",
    ),
    "a long context": (
        [f"{OPTIONS}.context_length=1000"],
        "context_length: found 1000; wanted at most the 256 positions of model, which an engine has without it",
    ),
    "ranks that are not there": (
        [EXPERTS, f"{OPTIONS}.ep_size=2"],
        "ep_size: found 2 with placement.engine_tensor_parallel 1; wanted 1, for an engine of one GPU: remove it",
    ),
    "no rank": (
        [EXPERTS, *TWO, f"{OPTIONS}.ep_size=0"],
        "ep_size: found 0 with placement.engine_tensor_parallel 2; wanted 1, or the 2 GPUs of an engine: set it to 2",
    ),
    "experts that move": (
        [EXPERTS, f"{OPTIONS}.enable_eplb=true"],
        "enable_eplb: found true; wanted experts that stay where a sync brings them",
    ),
    "no experts": (
        [*TWO, f"{OPTIONS}.ep_size=2"],
        "ep_size: found 2 for model, which has no experts; wanted 1: remove it",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RunFileError) as error:
        check_run_file(write_run(tmp_path), overrides)
    assert f"{OPTIONS}.{message}" in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{OPTIONS}={{page_size: 16, chunked_prefill_size: -1, context_length: 96}}"],
        [f"{OPTIONS}={{json_model_override_args: '{{\"rope_theta\": 1.0}}', page_size: null}}"],
        [EXPERTS, *TWO, f"{OPTIONS}.ep_size=2"],
        [EXPERTS, *TWO, f"{OPTIONS}={{ep_size: 1, moe_dp_size: 2}}"],
    ],
    ids=["numbers", "texts", "ranks of experts", "copies of experts"],
)
def test_let_through(tmp_path: Path, overrides: list[str]) -> None:
    check_run_file(write_run(tmp_path), overrides)
