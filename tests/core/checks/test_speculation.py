"""Speculative decoding by SGLang's options: what is let through, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.checks import check_run_file
from core.checks.speculation import drafts, states_are_not_drafted
from core.config import RunFileError, load_run_file
from modelcfg import load
from tests.support.good_run import write_run

GPU = "placement.device=cuda"
OPTIONS = "placement.engine_options"
NGRAM = f"{OPTIONS}.speculative_algorithm=NGRAM"
WITH = "with speculative_algorithm NGRAM"
CHAIN = "speculative_algorithm: STANDALONE, speculative_draft_model_path: deeper"
REFUSED = {
    "on CPUs": (
        [NGRAM],
        f"{OPTIONS}.speculative_algorithm: found NGRAM with placement.device cpu; wanted GPUs: on CPUs SGLang takes "
        "the likeliest of drafted tokens, whatever the temperature: remove it",
    ),
    "a draft model": (
        [GPU, f"{OPTIONS}.speculative_algorithm=EAGLE", f"{OPTIONS}.speculative_draft_model_path=/models/draft"],
        f"{OPTIONS}.speculative_algorithm: found 'EAGLE'; wanted NGRAM, STANDALONE or none: others draft with "
        "layers that share weights with the model: set it to NGRAM, which drafts without a model, or remove it",
    ),
    "heads of the model itself": (
        [GPU, f"{OPTIONS}.speculative_algorithm=nextn"],
        f"{OPTIONS}.speculative_algorithm: found 'nextn'; wanted NGRAM, STANDALONE or none",
    ),
    "no algorithm": (
        [GPU, f"{OPTIONS}.speculative_num_draft_tokens=8"],
        f"{OPTIONS}.speculative_num_draft_tokens: found 8; wanted speculative_algorithm, without which it does "
        "nothing: set speculative_algorithm: NGRAM, or remove it",
    ),
    "other samples": (
        [GPU, NGRAM, f"{OPTIONS}.speculative_accept_threshold_acc=0.5"],
        f"{OPTIONS}.speculative_accept_threshold_acc: found 0.5; wanted 1: below it tokens are taken that the model "
        "would not sample, and their log-probs do not say so: remove it",
    ),
    "one token": (
        [GPU, NGRAM, f"{OPTIONS}.speculative_num_draft_tokens=1"],
        f"{OPTIONS}.speculative_num_draft_tokens: found 1; wanted 2 or more: one of them is the token that is sampled "
        "anyway: raise it, or remove it",
    ),
    "a text to draft from": (
        [GPU, NGRAM, f"{OPTIONS}.speculative_ngram_external_corpus_path=corpus.txt"],
        f"{OPTIONS}.speculative_ngram_external_corpus_path: found 'corpus.txt'; wanted nothing: SGLang reads it with a "
        "tokenizer, which the engines of a run do not load: remove it",
    ),
    "a model for n-grams": (
        [GPU, NGRAM, f"{OPTIONS}.speculative_draft_model_path=/models/draft"],
        f"{OPTIONS}.speculative_draft_model_path: found '/models/draft'; wanted nothing with NGRAM, which drafts "
        "without a model: remove it",
    ),
    "trees of drafts": (
        [GPU, f"{OPTIONS}={{{CHAIN}, speculative_eagle_topk: 4}}"],
        f"{OPTIONS}.speculative_eagle_topk: found 4; wanted 1: each drafted token is followed by one other: remove it",
    ),
    "steps and tokens": (
        [GPU, f"{OPTIONS}={{{CHAIN}, speculative_num_steps: 3, speculative_num_draft_tokens: 6}}"],
        f"{OPTIONS}.speculative_num_steps: found 3 with speculative_num_draft_tokens 6; wanted 5: each step drafts a "
        "token, and one is sampled anyway: remove it, or speculative_num_draft_tokens",
    ),
    "what was not tried": (
        [GPU, f"{OPTIONS}={{{CHAIN}, speculative_draft_model_quantization: fp8}}"],
        f"{OPTIONS}.speculative_draft_model_quantization: found 'fp8'; wanted nothing with STANDALONE: the memory plan "
        "does not know it, and it was not tried: remove it",
    ),
    "what we set": (
        [GPU, f"{OPTIONS}={{{CHAIN}, enable_draft_weights_cpu_backup: false}}"],
        f"{OPTIONS}.enable_draft_weights_cpu_backup: found an option that the run sets",
    ),
    "seeds": (
        [GPU, NGRAM, "rollout.deterministic=true"],
        f"rollout.deterministic: found true {WITH}; wanted false: whether a drafted token is taken is drawn without "
        f"the sample's seed: set it to false, or remove {OPTIONS}.speculative_algorithm",
    ),
    "experts of the engine": (
        [GPU, NGRAM, "algorithm.routing_replay=engine"],
        f"algorithm.routing_replay: found engine {WITH}; wanted none or trainer: the engine would also tell the "
        f"experts of drafted tokens that it did not take: remove it, or remove {OPTIONS}.speculative_algorithm",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RunFileError) as error:
        check_run_file(write_run(tmp_path), overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [GPU, NGRAM],
        [GPU, f"{OPTIONS}={{speculative_algorithm: ngram, speculative_num_draft_tokens: 8}}"],
        [GPU, f"{OPTIONS}={{{CHAIN}, speculative_num_steps: 5, speculative_num_draft_tokens: 6}}"],
        [GPU, NGRAM, "placement.check_sync=2", "placement.weight_sync=files"],
        [f"{OPTIONS}={{speculative_algorithm: null, speculative_use_rejection_sampling: false}}"],
    ],
    ids=["its usual number", "a number", "a model", "files", "switched off"],
)
def test_let_through(tmp_path: Path, overrides: list[str]) -> None:
    check_run_file(write_run(tmp_path), overrides)


def test_engines_that_are_never_synced_may_have_a_draft_model(tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), [GPU, f"{OPTIONS}.speculative_algorithm=EAGLE"])
    assert [one.key for one in drafts(config)] == [f"{OPTIONS}.speculative_algorithm"]
    untrained = config.placement.model_copy(update={"trainers": "none"})
    assert list(drafts(config.model_copy(update={"placement": untrained}))) == []


@pytest.mark.parametrize(("name", "refused"), [("qwen3-4b", False), ("qwen3-next-80b-a3b", True)])
def test_models_with_a_state_have_no_drafts(tmp_path: Path, name: str, refused: bool) -> None:
    found = list(states_are_not_drafted(load_run_file(write_run(tmp_path), [GPU, NGRAM]), load(name)))
    assert [one.key for one in found] == [f"{OPTIONS}.speculative_algorithm"] * refused
