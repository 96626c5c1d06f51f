"""Both run files for GSM8K, of examples/ and of docs/from-trl.md, on rows of its form; their rewards on answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.checks import check_run_file
from core.config.sections.reward import RewardConfig
from core.reward.sample import RewardInput
from core.reward.scorers import build_scorer
from modelcfg import load
from tests.support.good_run import write_model
from tests.support.tiny_runs import ebbtide

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "examples" / "gsm8k" / "run.yaml").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "from-trl.md").read_text(encoding="utf-8")
ROW = {  # of our own, in the form of the data set
    "question": "A ferry takes 1,200 cars in a day, 6 days a week. How many does it take in a week?",
    "answer": "It takes 1,200 cars on each of 6 days.\nSo it takes 1200*6=<<1200*6=7200>>7,200 cars.\n#### 7,200",
}


def block(language: str) -> str:
    """The one code block of the page in this language."""
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.mark.parametrize("text", [pytest.param(EXAMPLE, id="example"), pytest.param(block("yaml"), id="page")])
def test_a_run_file_has_no_mistakes(text: str, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    model, rows = tmp_path / "model", tmp_path / "rows.parquet"
    write_model(model, load("qwen2.5-0.5b"), architectures=["Qwen2ForCausalLM"])
    parquet.write_table(pyarrow.Table.from_pylist([ROW] * 64), rows)
    (tmp_path / "reward.py").write_text(block("python"))
    run_file = tmp_path / "run.yaml"
    run_file.write_text(text.replace("openai/gsm8k/main/", f"{tmp_path}/").replace("gsm8k/main/", f"{tmp_path}/"))
    for name in set(re.findall(r"\w+-00000-of-00001\.parquet", text)):
        (tmp_path / name).symlink_to(rows)
    config = check_run_file(run_file, [f"model.path={model}"])
    assert all(held_out.system_prompt == config.data.system_prompt for held_out in config.eval.sets.values())


def test_it_fits_the_gpu_that_the_page_says() -> None:
    page = (ROOT / "docs" / "gsm8k.md").read_text(encoding="utf-8")
    [words] = re.findall(r"^ebbtide (plan .*)$", page, re.MULTILINE)
    done = ebbtide(*words.replace("examples/", f"{ROOT}/examples/").split())
    assert (done.returncode, "verdict   fits" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_example_sees_every_row_once() -> None:
    [[rest], [steps], [prompts]] = (
        re.findall(pattern, EXAMPLE)
        for pattern in (r"# 7,(473) rows", r"num_rollout: (\d+)", r"rollout_batch_size: (\d+)")
    )
    assert int(steps) == int(f"7{rest}") // int(prompts)


@pytest.mark.parametrize(
    ("response", "of_the_example", "of_the_page"),
    [
        pytest.param(r"So the answer is \boxed{7200}.", 1.0, 0.0, id="boxed"),
        pytest.param(r"The answer is \boxed{\$7,200}", 1.0, 0.0, id="dollars"),
        pytest.param("The answer is $7,200.", 1.0, 1.0, id="last word"),
        pytest.param(r"It is \boxed{720}.", 0.0, 0.0, id="wrong"),
        pytest.param("", 0.0, 0.0, id="empty"),
    ],
)
def test_rewards_read_the_published_answers(
    response: str, of_the_example: float, of_the_page: float, tmp_path: Path
) -> None:
    (tmp_path / "reward.py").write_text(block("python"))
    sample = RewardInput(ROW["question"], response, label=ROW["answer"])
    found = [build_scorer(RewardConfig(type=kind))(sample) for kind in ("math", f"{tmp_path}/reward.py:right")]
    assert found == [of_the_example, of_the_page]
