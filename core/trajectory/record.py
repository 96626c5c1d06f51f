"""One step of a run as it is stored: what went in, what came out, what was learnt from it.

B samples, N response tokens in all. Texts have NUL replaced by U+2400 and lone surrogates by U+FFFD, which HDF5 cannot
hold; the tokens are exact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.samples import FlatRouting, Sample, Span
from core.trajectory.ragged import Ragged

Texts = tuple[str, ...]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, eq=False)
class StepRecord:
    """All samples of one step, in order of group and index within the group.

    The response-level ragged fields (`response_tokens`, `loss_mask`, `logprobs_*`) have equal lengths.
    """

    step: int
    run: str
    model: str
    dtype: str

    prompt_tokens: Ragged  # int32
    response_tokens: Ragged  # int32
    loss_mask: Ragged  # uint8; 0: the token takes no part in the loss
    logprobs_engine: Ragged  # float32, as sampled
    logprobs_old: Ragged  # float32, by the trainer before the first update of the step; NaN: not computed

    reward: NDArray[np.float64]  # [B]; NaN where `failure` says why there is none
    advantage: NDArray[np.float32]  # [B]; where there is one per token, their mean over the tokens that count
    group: NDArray[np.int64]  # [B] index of the prompt within the step
    index: NDArray[np.int64]  # [B] index within the group
    row: NDArray[np.int64]  # [B] row of the data source

    status: Texts  # a core.samples.Status value each
    weight_version: Texts
    engine: Texts
    failure: Texts  # "" where the sample was scored
    label: Texts  # JSON
    prompt_text: Texts
    response_text: Texts

    token_advantage: Ragged | None = None  # float32; only where the estimator gives one per response token
    logprobs_ref: Ragged | None = None  # float32; only where the loss has a reference
    logprobs_policy: Ragged | None = None  # float32, before the optimiser step that learnt from the sample; in replays
    seed: NDArray[np.int64] | None = None  # [B] sampling seeds
    task: NDArray[np.int64] | None = None  # [B] index within the group of the task that made the sample
    turns: Texts | None = None  # JSON: the fields of core.samples.Span, each
    reward_parts: Mapping[str, NDArray[np.float64]] | None = None  # [B] each; NaN where a sample has none of the name
    routing: Ragged | None = None  # [K, L x k] uint8 or int16 per sample: see core.samples; only where it is replayed
    metrics: Mapping[str, float] = field(default_factory=dict)
    created: str = field(default_factory=_now)  # ISO 8601, UTC

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.reward)

    def spans(self, sample: int) -> list[Span]:
        """Who said what of a response, in order; empty: the model said all of it."""
        return [] if self.turns is None else [Span(*one) for one in json.loads(self.turns[sample])]

    def parts(self, sample: int) -> dict[str, float]:
        """The numbers of a sample's reward, by name, where that was a mapping; else empty."""
        found = {name: float(values[sample]) for name, values in (self.reward_parts or {}).items()}
        return {name: value for name, value in found.items() if not np.isnan(value)}

    @classmethod
    def from_samples(
        cls,
        samples: Sequence[Sample],
        *,
        advantages: Sequence[float | Sequence[float]],
        logprobs_old: Sequence[Sequence[float]],
        step: int,
        run: str,
        model: str,
        dtype: str,
        logprobs_ref: Sequence[Sequence[float]] | None = None,
        logprobs_policy: Sequence[Sequence[float]] | None = None,
        seeds: Sequence[int] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> StepRecord:
        """A record of scored samples, and of what the update made of them.

        Args:
            advantages: one per sample, or per sample one value per response token.
            seeds: one per sample.
            logprobs_old, logprobs_ref, logprobs_policy: per sample one value per response token.
        Raises:
            ValueError: a length does not fit; names the field and the sample.
        """
        _check_per_sample(samples, advantages=advantages, seeds=seeds)
        responses = [sample.response_tokens for sample in samples]
        lengths = [len(response) for response in responses]

        def per_token(name: str, sequences: Sequence[Sequence[Any]], dtype: str) -> Ragged:
            _check_per_token(name, sequences, lengths)
            return Ragged.pack(sequences, dtype)

        loss_mask = per_token("loss_mask", [sample.loss_mask for sample in samples], "uint8")
        token_advantage = _per_token_advantage(advantages, per_token)
        return cls(
            step=step,
            run=run,
            model=model,
            dtype=dtype,
            prompt_tokens=Ragged.pack([sample.prompt.tokens for sample in samples], "int32"),
            response_tokens=Ragged.pack(responses, "int32"),
            loss_mask=loss_mask,
            logprobs_engine=per_token("logprobs_engine", [sample.logprobs_engine for sample in samples], "float32"),
            logprobs_old=per_token("logprobs_old", logprobs_old, "float32"),
            logprobs_ref=None if logprobs_ref is None else per_token("logprobs_ref", logprobs_ref, "float32"),
            logprobs_policy=None
            if logprobs_policy is None
            else per_token("logprobs_policy", logprobs_policy, "float32"),
            reward=np.array([np.nan if sample.reward is None else sample.reward for sample in samples], "float64"),
            advantage=np.array(advantages, "float32")
            if token_advantage is None
            else _means(token_advantage, loss_mask),
            token_advantage=token_advantage,
            group=np.array([sample.group for sample in samples], "int64"),
            index=np.array([sample.index for sample in samples], "int64"),
            row=np.array([sample.prompt.row for sample in samples], "int64"),
            seed=None if seeds is None else np.array(seeds, "int64"),
            task=np.array([sample.task for sample in samples], "int64"),
            status=_texts(sample.status.value for sample in samples),
            weight_version=_texts(sample.weight_version for sample in samples),
            engine=_texts(sample.engine for sample in samples),
            failure=_texts(sample.failure or "" for sample in samples),
            label=_texts(json.dumps(sample.prompt.label, default=str) for sample in samples),
            prompt_text=_texts(sample.prompt.text for sample in samples),
            response_text=_texts(sample.response_text for sample in samples),
            turns=_texts(json.dumps([astuple(one) for one in sample.turns]) for sample in samples)
            if any(sample.turns for sample in samples)
            else None,
            reward_parts=_parts([sample.reward_parts for sample in samples]),
            routing=_routings([sample.routing for sample in samples]),
            metrics={name: float(value) for name, value in (metrics or {}).items()},
        )


def _per_token_advantage(
    advantages: Sequence[Any], per_token: Callable[[str, Sequence[Any], str], Ragged]
) -> Ragged | None:
    """None: there is one per sample."""
    has_lists = any(isinstance(one, Sequence) for one in advantages)
    return per_token("advantages", advantages, "float32") if has_lists else None


def _parts(found: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float64]] | None:
    """[B] of each name; None: no reward was a mapping."""
    names = sorted({name for one in found for name in one})
    return {name: np.array([one.get(name, np.nan) for one in found], "float64") for name in names} or None


def _routings(found: Sequence[FlatRouting | None]) -> Ragged | None:
    """The experts of all samples; those of whom nothing is known have none."""
    known = [one for one in found if one is not None]
    if not known:
        return None
    offsets = np.cumsum([0, *(0 if one is None else len(one) for one in found)])
    return Ragged(np.concatenate(known), offsets)


def _means(values: Ragged, mask: Ragged) -> NDArray[np.float32]:
    """[B] means over the tokens that the mask counts; 0 where it counts none."""
    owners = np.repeat(np.arange(len(values)), values.lengths)
    sums = np.bincount(owners, values.values * mask.values, minlength=len(values))
    counts = np.bincount(owners, mask.values, minlength=len(values))
    means: NDArray[np.float32] = (sums / np.maximum(counts, 1)).astype("float32")
    return means


def _texts(texts: Iterable[str]) -> Texts:
    clean = (text.replace("\0", "\u2400").encode("utf-8", "surrogatepass") for text in texts)
    return tuple(text.decode("utf-8", "replace") for text in clean)


def _check_per_sample(samples: Sequence[Sample], **fields: Sequence[Any] | None) -> None:
    for name, values in fields.items():
        if values is not None and len(values) != len(samples):
            raise ValueError(f"{name} has {len(values)} values for {len(samples)} samples; wanted one each")


def _check_per_token(name: str, sequences: Sequence[Sequence[Any]], lengths: Sequence[int]) -> None:
    if len(sequences) != len(lengths):
        raise ValueError(f"{name} has {len(sequences)} sequences for {len(lengths)} samples; wanted one each")
    for sample, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        if len(sequence) != length:
            raise ValueError(
                f"{name} of sample {sample} has {len(sequence)} values for {length} response tokens; wanted one each"
            )
