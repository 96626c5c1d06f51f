"""An estimator asked for the advantages of a step's samples, and its answer held to what it must be.

Legend: B samples of a step, T response tokens of a sample, N of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.mistake import Wrong
from core.algorithm.advantages import Advantages
from core.config.sections.algorithm import AlgorithmConfig
from core.doors import ADVANTAGE, KL, VALUES
from core.plugins import where
from core.samples import Sample, TrainSample

Asked = Sequence[Sample] | Sequence[TrainSample]

OFFERS: Mapping[str, Callable[[Asked], Any]] = {
    "lengths": lambda samples: torch.tensor([len(one.response_tokens) for one in samples], dtype=torch.int64),
    "logprobs_engine": lambda samples: [torch.tensor(one.logprobs_engine) for one in samples],
    "loss_mask": lambda samples: [torch.tensor(one.loss_mask, dtype=torch.float32) for one in samples],
    KL: lambda samples: [torch.zeros(len(one.response_tokens)) for one in samples],
}
"""What an estimator gets if it has a parameter of the name."""


def build_advantages(algorithm: AlgorithmConfig) -> Advantages:
    """The run's estimator, built-in or a user's.

    Raises:
        Wrong: it cannot be loaded, does not fit the door, or takes values without saying so, or says so without.
    """
    made = ADVANTAGE.build(algorithm.advantage_estimator, algorithm.advantage_options, algorithm.model_dump())
    takes, says = VALUES in ADVANTAGE.asked_by(made), needs_values(made)
    if takes != says:
        found = f"needs_values {says} and {'a' if takes else 'no'} parameter values of {where(made)}"
        raise Wrong(found, "needs_values = True with a parameter values, or neither", f"correct {ADVANTAGE.key}")
    return made  # type: ignore[no-any-return]


def needs_values(advantages: Advantages) -> bool:
    """Whether the estimator waits for what a critic expects, which only the trainer can tell."""
    return getattr(advantages, "needs_values", False) is True


def estimate(advantages: Advantages, samples: Sequence[Sample]) -> list[float] | list[list[float]]:
    """Advantages of the samples: one number each, or one per response token; 0 where there is no reward.

    Raises:
        Wrong: it gave something else than `Advantages` says.
    Collective: none.
    """
    valid = torch.tensor([not s.failed for s in samples])
    return _held(advantages, samples, valid, _ask(advantages, samples, valid, {}))


def estimate_with_kl(
    advantages: Advantages, samples: Sequence[TrainSample], kl: Sequence[Tensor]
) -> list[float] | list[list[float]]:
    """Advantages like those of `estimate`, of rewards that are lowered by a KL.

    Args:
        kl: one tensor [T] per sample.
    """
    valid = torch.tensor([s.reward is not None for s in samples])
    return _held(advantages, samples, valid, _ask(advantages, samples, valid, {KL: list(kl)}))


def _held(advantages: Advantages, samples: Asked, valid: Tensor, given: Any) -> list[float] | list[list[float]]:
    """What the estimator gave, as lists."""
    if isinstance(given, Tensor):
        return _per_sample(given, valid, where(advantages))
    return _per_token(given, valid, [len(s.response_tokens) for s in samples], where(advantages))


def estimate_with_values(
    advantages: Advantages,
    samples: Sequence[TrainSample],
    values: Sequence[Sequence[float]],
    kl: Sequence[Tensor] | None = None,
) -> tuple[list[list[float]], list[list[float]]]:
    """Advantages and returns of the samples, one number per response token; 0 where there is no reward.

    Args:
        values: what the critic expects before each token, one list per sample.
        kl: one tensor [T] per sample; None: the KL is not in the rewards.
    Raises:
        Wrong: the estimator gave something else than `Advantages` says.
    Collective: none.
    """
    valid = torch.tensor([s.reward is not None for s in samples])
    expected = [torch.tensor(one, dtype=torch.float32) for one in values]
    given = _ask(advantages, samples, valid, {VALUES: expected} | ({} if kl is None else {KL: list(kl)}))
    if not isinstance(given, tuple) or len(given) != 2:
        found = f"a {type(given).__name__} from {where(advantages)}"
        raise Wrong(found, "a pair, advantages and returns, as it has needs_values", f"correct {ADVANTAGE.key}")
    lengths, source = [len(s.response_tokens) for s in samples], where(advantages)
    made, returns = (_per_token(one, valid, lengths, source) for one in given)
    return made, returns


def _ask(advantages: Advantages, samples: Asked, valid: Tensor, more: Mapping[str, Any]) -> Any:
    rewards = torch.tensor([float("nan") if s.reward is None else s.reward for s in samples], dtype=torch.float32)
    groups = torch.tensor([s.group for s in samples])
    asked = {name: more[name] if name in more else OFFERS[name](samples) for name in ADVANTAGE.asked_by(advantages)}
    return advantages(rewards, groups, valid, **asked)


def _per_sample(given: Tensor, valid: Tensor, source: str) -> list[float]:
    if given.shape != valid.shape:
        raise _wrong(f"a tensor {list(given.shape)} from {source}", len(valid))
    values = torch.where(valid, given.detach().cpu().float(), 0.0)
    _refuse_infinite(values, range(len(valid)), source)
    return list(values.tolist())


def _per_token(given: Any, valid: Tensor, lengths: list[int], source: str) -> list[list[float]]:
    if not isinstance(given, Sequence) or not all(isinstance(one, Tensor) for one in given):
        raise _wrong(f"a {type(given).__name__} from {source}", len(lengths))
    if len(given) != len(lengths):
        raise _wrong(f"{len(given)} tensors from {source}", len(lengths))
    for place, (one, length) in enumerate(zip(given, lengths, strict=True)):
        if one.shape != (length,):
            found = f"a tensor {list(one.shape)} for sample {place} from {source}"
            raise Wrong(found, f"[{length}], one number per response token", f"correct {ADVANTAGE.key}")
    flat = torch.cat([torch.zeros(0), *(one.detach().cpu().float() for one in given)])
    values = torch.where(torch.from_numpy(np.repeat(valid.numpy(), lengths)), flat, 0.0)
    _refuse_infinite(values, np.repeat(np.arange(len(lengths)), lengths), source)
    return [part.tolist() for part in torch.split(values, lengths)]


def _refuse_infinite(values: Tensor, owners: Sequence[int] | Any, source: str) -> None:
    finite = values.isfinite()
    if not finite.all():
        first = int((~finite).nonzero()[0])
        found = f"{float(values[first])} for sample {owners[first]} from {source}"
        raise Wrong(
            found, "a finite advantage", "divide by nothing that may be 0, and read no reward that is not valid"
        )


def _wrong(found: str, num_samples: int) -> Wrong:
    wanted = f"a tensor [{num_samples}], one number per sample, or {num_samples} tensors, one number per response token"
    return Wrong(found, wanted, f"correct {ADVANTAGE.key}")
