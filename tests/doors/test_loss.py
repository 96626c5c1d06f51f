"""The door `algorithm.loss`: a user's file brings a loss of whole responses, and a plain function."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from common.mistake import Wrong
from core.algorithm.loss import LossInUse, TokenInputs, build_loss
from core.checks.needs import loss_needs, refuse_other_needs
from core.config.sections.algorithm import AlgorithmConfig
from core.plugins import load_function
from tests.support.door_files import example, said_of, write_file
from tests.support.rank_main import make_samples
from tests.support.ranks import run_ranks
from tests.support.tiny_models import tiny_model

CLIP, SPREAD, SEED = 0.1, 0.05, 0
SPLITS: dict[str, dict[str, Any]] = {
    "few rows": {},
    "small rows": {"train": {"max_tokens_per_micro_batch": 30}},
    "unshared": {"train": {"max_tokens_per_micro_batch": 30, "share_prompts": False}},
    "tensor": {"placement": {"tensor_parallel": 2}},
    "stages": {"placement": {"pipeline_parallel": 2}, "train": {"max_tokens_per_micro_batch": 60}},
}
PLAIN = '''
def distance(logprobs, entropy, inputs, scale):
    """To the reference, whose log-probs are there because it asks for them."""
    gap = ((logprobs - inputs.logprobs_ref) ** 2 * inputs.weights).sum() * scale
    return gap - (logprobs * inputs.weights).sum(), {"train/gap_max": gap.detach()}


distance.needs_reference = True


def surest(logprobs, entropy, inputs):
    return (entropy * inputs.weights).sum(), {}


surest.needs_entropy_gradient = "sureness"
'''


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("losses")
    model = str(tiny_model("llama", folder / "model"))
    gspo, plain = write_file(folder, example("Loss"), "gspo.py"), write_file(folder, PLAIN)
    train = {"num_steps_per_rollout": 1, "global_batch_size": 9}
    algorithm = {"loss": f"{gspo}:Gspo", "loss_options": {"clip": CLIP}, "loss_aggregation": "sample_mean"}

    def case(algorithm: dict[str, Any], *actions: Any, **config: dict[str, Any]) -> dict[str, Any]:
        config = {**config, "train": {**train, **config.get("train", {})}}
        return {"model": model, "config": {"algorithm": algorithm, **config}, "actions": list(actions)}

    cases = {
        name: case(algorithm, ["log_probs", SEED], ["update_stale", SEED, SPREAD], "checksums", "off_plan", **split)
        for name, split in SPLITS.items()
    }
    cases["distance"] = case(
        {"loss": f"{plain}:distance", "loss_options": {"scale": 2.0}}, ["update", SEED], ["update", SEED], "off_plan"
    )
    cases["surest"] = case({"loss": f"{plain}:surest", "loss_options": {}}, ["update", SEED])
    return run_ranks(folder / "ranks", 2, cases)


def gspo_by_hand(logprobs: list[list[float]]) -> tuple[float, float]:
    """Loss and share of clipped tokens, sample by sample."""
    losses, shares = [], []
    for sample, ours in zip(make_samples(SEED), logprobs, strict=True):
        counted = [i for i, m in enumerate(sample.loss_mask) if m]
        if counted:
            ratio = math.exp(sum(ours[i] - sample.logprobs_engine[i] for i in counted) / len(counted))
            advantages = [sample.advantage + SPREAD * i for i in counted]
            bounded = [min(max(ratio, 1 - CLIP), 1 + CLIP) * a for a in advantages]
            losses.append(-sum(min(ratio * a, b) for a, b in zip(advantages, bounded, strict=True)) / len(counted))
            shares.append(sum(b < ratio * a for a, b in zip(advantages, bounded, strict=True)) / len(counted))
    return sum(losses) / len(losses), sum(shares) / len(shares)


@pytest.mark.parametrize("split", SPLITS)
def test_a_loss_of_whole_responses_is_the_same_over_every_split(outcomes: dict[str, list[Any]], split: str) -> None:
    logprobs, metrics, checksums, off_plan = outcomes[split]
    loss, share = gspo_by_hand(logprobs)
    assert metrics["train/loss"] == pytest.approx(loss, rel=1e-4)
    assert metrics["train/sequence_clipfrac"] == pytest.approx(share, rel=1e-5)
    assert 0.1 < share < 0.9
    _, unsplit, parameters, _ = outcomes["few rows"]
    assert metrics["train/grad_norm"] == pytest.approx(unsplit["train/grad_norm"], rel=1e-4)
    assert off_plan == {}
    if split in ("small rows", "unshared"):
        assert metrics["perf/num_micro_batches"] > unsplit["perf/num_micro_batches"]
        assert float.fromhex(checksums[0]) == pytest.approx(float.fromhex(parameters[0]), rel=1e-6)


def test_no_reference_is_held_for_a_loss_that_asks_for_none(outcomes: dict[str, list[Any]]) -> None:
    """Though the run file's kl_loss_coef, which belongs to another loss, is above 0; `off_plan` compares the bytes."""
    assert "train/kl_loss" not in outcomes["few rows"][1]


def test_a_plain_function_gets_the_reference_that_it_asks_for(outcomes: dict[str, list[Any]]) -> None:
    first, second, off_plan = outcomes["distance"]
    assert first["logprobs_ref"] is not None
    assert first["metrics"]["train/gap_max"] == 0.0  # the policy is its own reference before the first step
    assert second["metrics"]["train/gap_max"] > 0.0
    assert first["metrics"]["train/grad_norm"] > 0
    assert off_plan == {}


def test_what_was_declared_wrongly_is_said_by_file_and_function(outcomes: dict[str, list[Any]]) -> None:
    """`sureness` is no option: so the entropy has no gradient, and neither has a loss of it alone."""
    (message,) = outcomes["surest"]
    assert "Wrong: found a loss without a gradient from surest of " in message
    assert "mine.py; wanted (loss, metrics): a scalar tensor with a gradient" in message


def inputs(num_tokens: int) -> TokenInputs:
    ones = torch.ones(num_tokens)
    return TokenInputs(ones, ones, ones, torch.zeros(num_tokens, dtype=torch.int64), num_samples=1)


GIVES = {
    "no pair": ("return logprobs.sum()", "a Tensor"),
    "per token": ("return logprobs, {}", "a loss [3]"),
    "a number": ("return 1.0, {}", "a float as loss"),
    "detached": ("return logprobs.sum().detach(), {}", "a loss without a gradient"),
    "a list of metrics": ("return logprobs.sum(), []", "a list as metrics"),
    "a metric per token": ("return logprobs.sum(), {'a': logprobs}", "a tensor [3] as metric 'a'"),
    "a metric as a number": ("return logprobs.sum(), {'a': 1.0}", "a float as metric 'a'"),
}


@pytest.mark.parametrize(("body", "found"), GIVES.values(), ids=GIVES)
def test_what_a_loss_gives_is_held_to_what_it_must_be(body: str, found: str, tmp_path: Path) -> None:
    path = write_file(tmp_path, f"def mine(logprobs, entropy, inputs):\n    {body}\n")
    loss = build_loss(AlgorithmConfig(loss=f"{path}:mine"))
    with pytest.raises(Wrong) as caught:
        loss(torch.zeros(3, requires_grad=True), torch.zeros(3), inputs(3))
    assert str(caught.value) == (
        f"found {found} from mine of {path}; wanted (loss, metrics): a scalar tensor with a gradient, and a dict of "
        "scalar tensors: correct algorithm.loss"
    )


def test_the_loss_is_a_metric_unless_one_is_given() -> None:
    logprobs, three = torch.full((3,), 2.0, requires_grad=True), inputs(3)
    plain = LossInUse(lambda logprobs, entropy, inputs: (logprobs.sum(), {}), frozenset())
    own = LossInUse(lambda *given: (given[0].sum(), {"train/loss": torch.tensor(7.0)}), frozenset())
    assert {name: float(value) for name, value in plain(logprobs, logprobs, three)[1].items()} == {"train/loss": 6.0}
    assert float(own(logprobs, logprobs, three)[1]["train/loss"]) == 7.0


def test_sums_of_samples() -> None:
    """Four samples, of which this micro-batch has two; their order is the batch's, not the row's."""
    four = TokenInputs(*[torch.ones(5)] * 3, torch.tensor([3, 3, 3, 1, 1]), num_samples=4)
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], requires_grad=True)
    sums = four.sums(values)
    assert sums.tolist() == [0.0, 24.0, 0.0, 7.0]
    (sums * torch.tensor([1.0, 3.0, 1.0, 5.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [5.0, 5.0, 5.0, 3.0, 3.0]


NEEDS = """
class Loss:
    {said}

    def __init__(self, coef=0.5, off=0.0):
        {set}

    def __call__(self, logprobs, entropy, inputs):
        return logprobs.sum(), {{}}
"""


@pytest.mark.parametrize(
    ("said", "options", "wanted"),
    [
        ("", {}, False),
        ("needs_reference = True", {}, True),
        ("needs_reference: bool = True", {}, True),
        ("needs_reference = False", {}, False),
        ('needs_reference = "coef"', {}, True),
        ('needs_reference = "off"', {}, False),
        ('needs_reference = "off"', {"off": 0.1}, True),
        ('needs_reference = "coef"', {"coef": 0}, False),
        ('needs_reference = "kl_loss_coef"', {}, True),
        ('needs_reference = "entropy_coef"', {}, False),
    ],
)
def test_what_a_loss_says_it_needs(said: str, options: dict[str, Any], wanted: bool, tmp_path: Path) -> None:
    path = write_file(tmp_path, NEEDS.format(said=said, set="pass"))
    algorithm = AlgorithmConfig(loss=f"{path}:Loss", loss_options=options, kl_loss_coef=0.1)
    assert loss_needs(algorithm) == (wanted, False)
    refuse_other_needs(algorithm, build_loss(algorithm).function)


def test_a_need_that_the_text_does_not_show_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, NEEDS.format(said="", set="self.needs_reference = True"))
    algorithm = AlgorithmConfig(loss=f"{path}:Loss")
    with pytest.raises(Wrong) as caught:
        refuse_other_needs(algorithm, build_loss(algorithm).function)
    assert str(caught.value) == (
        f"found needs_reference = True of Loss of {path}, which its text does not say; wanted a plain constant: write "
        "`needs_reference = True` in its class, or the name of the option that asks for it"
    )


def test_means_are_names(tmp_path: Path) -> None:
    path = write_file(tmp_path, NEEDS.format(said='means = "train/mine"', set="pass"))
    with pytest.raises(Wrong, match=r"found means 'train/mine' of Loss of .*mine.py; wanted names of metrics"):
        build_loss(AlgorithmConfig(loss=f"{path}:Loss"))


WANTED = "wanted a function (logprobs, entropy, inputs) -> (loss, metrics), or a class whose objects are called so"
CHECKED = {
    "fits": ("def f(logprobs, entropy, inputs): ...", "", ""),
    "an option": ("def f(logprobs, entropy, inputs, scale=1): ...", "algorithm.loss_options={scale: 2}", ""),
    "a setting": ("def f(logprobs, entropy, inputs, eps_clip): ...", "", ""),
    "unknown option": (
        "def f(logprobs, entropy, inputs, scale=1): ...",
        "algorithm.loss_options={scael: 2}",
        "algorithm.loss_options: found the option scael; wanted an option of DIR/mine.py:f: scale: remove or correct "
        "it",
    ),
    "too few": (
        "def f(logprobs, inputs): ...",
        "",
        f"algorithm.loss: found f of DIR/mine.py with (logprobs, inputs); {WANTED}: correct its parameters",
    ),
    "no __call__": (
        "class f:\n    clip = 1",
        "",
        f"algorithm.loss: found the class f of DIR/mine.py without __call__; {WANTED}: define __call__",
    ),
    "not there": (
        "def g(): ...",
        "",
        "algorithm.loss: found no f in DIR/mine.py; wanted a function defined or imported there: define f "
        "at the top level of the file",
    ),
}


@pytest.mark.parametrize(("text", "options", "said"), CHECKED.values(), ids=CHECKED)
def test_the_login_node_reads_the_file(text: str, options: str, said: str, tmp_path: Path) -> None:
    found = said_of(tmp_path, text, "algorithm.loss=mine.py:f", *([options] if options else []))
    assert found == said


def test_a_misspelt_built_in(tmp_path: Path) -> None:
    assert said_of(tmp_path, "", "algorithm.loss=cliped").endswith(
        "found 'cliped'; wanted one of clipped, gspo, cispo, sapo, policy_gradient, distillation, sft, or "
        "module.py:function or package.module:function: did you mean clipped?"
    )


def test_the_built_in_is_loaded_the_same_way() -> None:
    loss = load_function("core.algorithm.losses.clipped:ClippedLoss", "algorithm.loss")
    assert isinstance(build_loss(AlgorithmConfig()).function, loss)  # type: ignore[arg-type]
