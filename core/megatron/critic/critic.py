"""The critic of this rank: it judges a step's samples before an update, and learns from what came of them.

It begins as the policy's files with a fresh head, has Adam's state and a learning rate of its own, and is split over
ranks as the policy is.
Legend: N response tokens of a list of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from common.mistake import Wrong
from core.algorithm.advantages import Advantages
from core.algorithm.estimate import estimate_with_values
from core.algorithm.value_loss import MEANS, ValueInputs, ValueLoss, explained_variance
from core.checks.critic import critic_settings
from core.config.schema import RunConfig
from core.megatron.critic.value_model import build_value_model
from core.megatron.model import ModelOptions, forward_row
from core.megatron.rows.computed import means_of_computed
from core.megatron.rows.schedule import Predict, evaluate_batch, train_batch
from core.megatron.rows.to_device import to_device
from core.megatron.rows.tokens import TokenTable
from core.megatron.share import RankShare, combine
from core.megatron.state import checkpoint, hf
from core.megatron.state.dither import dither
from core.megatron.state.flat import move_into_flat
from core.megatron.state.optimizer import Optimizer
from core.megatron.state.staged import Write
from core.samples import TrainSample
from modelcfg import ModelShape
from modelcfg.weights import OUTPUT

FOLDER = "critic"  # in the folder of the policy's checkpoint


@dataclass(frozen=True)
class Judged:
    """A step's samples with their advantages; what the critic expected, and what came: one list per sample."""

    samples: list[TrainSample]
    values: list[list[float]]
    returns: list[list[float]]

    @property
    def advantages(self) -> list[list[float]]:
        """One list per sample."""
        return [list(one) for one in (sample.advantage for sample in self.samples) if isinstance(one, Sequence)]

    @property
    def metrics(self) -> dict[str, float]:
        """How good the values were that the advantages are made with; nothing where all returns are equal."""
        found = explained_variance(self.values, self.returns, [sample.loss_mask for sample in self.samples])
        return {} if found is None else {"train/explained_variance": found}

    def part(self, begin: int, end: int) -> Judged:
        """The samples at places begin to end."""
        return Judged(self.samples[begin:end], self.values[begin:end], self.returns[begin:end])


@dataclass(frozen=True)
class ValueTargets:
    """[N] values of one global batch, as the critic's loss needs them: what `ValueInputs` has."""

    weights: Tensor
    values_old: Tensor
    returns: Tensor

    def pick(self, index: Tensor, sample_index: Tensor, num_samples: int, device: str) -> ValueInputs:  # noqa: ARG002
        """The [R] values of one row, on the device."""
        chosen = [to_device(one[index], device) for one in (self.weights, self.values_old, self.returns)]
        return ValueInputs(*chosen)


class Critic:
    """Value model, gradients and optimiser of this rank. Collective: the constructor and every method."""

    def __init__(
        self,
        config: RunConfig,
        shape: ModelShape,
        options: ModelOptions,
        share: RankShare,
        advantages: Advantages,
        model_dir: Path,
    ) -> None:
        """Build it from the policy's files."""
        self._config, self._share, self._advantages = config, share, advantages
        model = build_value_model(shape, options)
        self.parameters = dict(model.named_parameters())
        if not config.train.use_distributed_optimizer:  # which has a flat buffer of its own
            move_into_flat(list(self.parameters.values()))
        body = {name: tensor for name, tensor in self.parameters.items() if name != OUTPUT}
        hf.load_hf(body | dict(model.fixed_tensors()), shape, share.layout, model_dir, without=(OUTPUT,))
        total_steps = config.rollout.num_rollout * config.train.num_steps_per_rollout
        prepare = partial(dither, seed=config.train.seed) if config.train.dither_masters else None
        self.optimizer = Optimizer(
            model, critic_settings(config), total_steps, prepare=prepare, lr_key="critic.lr, of the critic"
        )
        self._predict: Predict = partial(forward_row, device=share.device)
        self._loss = ValueLoss(config.critic.value_clip)

    @property
    def learns_alone(self) -> bool:
        """Whether this step of the loop is one of its own: `critic.num_critic_only_steps`."""
        alone = self._config.critic.num_critic_only_steps * self._config.train.num_steps_per_rollout
        return self.optimizer.num_steps < alone

    def values(self, samples: Sequence[TrainSample]) -> list[list[float]]:
        """What it expects before each response token, one list per sample, on every rank."""
        table, places = TokenTable(samples), list(range(len(samples)))
        batches = self._share.micro_batches(samples, places, table, None)
        outputs = evaluate_batch(self.optimizer.model, batches, self._predict)
        return table.per_sample(self._share.collect(outputs, table, table.of(places)))

    def judge(self, samples: list[TrainSample], kl: list[Tensor] | None) -> Judged:
        """Advantages of a step's samples, made with what it expects now, and with this KL in their rewards."""
        values = self.values(samples)
        advantages, returns = estimate_with_values(self._advantages, samples, values, kl)
        made = [replace(sample, advantage=one) for sample, one in zip(samples, advantages, strict=True)]
        return Judged(made, values, returns)

    def learn(self, judged: Judged, bounds: Sequence[int]) -> dict[str, float]:
        """An optimiser step over each of these parts of a step's samples: metrics, over all of them.

        Raises:
            NonFiniteGradient: naming the optimiser step.
        """
        steps = [self._step(judged.part(a, b)) for a, b in pairwise(bounds)]
        return {**judged.metrics, **combine(steps, 1 / len(steps)), "train/critic_lr": steps[-1]["train/critic_lr"]}

    def _step(self, judged: Judged) -> dict[str, float]:
        """One optimiser step over one global batch: its metrics."""
        samples, share = judged.samples, self._share
        table = TokenTable(samples)
        weights = table.flat(share.weights(samples))
        targets = ValueTargets(weights, table.flat(judged.values), table.flat(judged.returns))
        counted = [place for place, sample in enumerate(samples) if any(sample.loss_mask)] or [0]
        lr = self.optimizer.lr
        self.optimizer.zero_grad()
        batches = share.micro_batches(samples, counted, table, targets)
        outputs = train_batch(self.optimizer.model, batches, self._predict, self._loss)
        grad_norm = self.optimizer.step()
        found = share.add_up(outputs)
        metrics = means_of_computed(found, MEANS, weights, table.of(counted))
        return {**metrics, "train/critic_grad_norm": grad_norm, "train/critic_lr": lr}

    def save(self, directory: Path, *, apart: bool) -> Write:
        """Stage it beside the policy, for the folder of the policy's checkpoint. Args: as of `checkpoint.save`."""
        return checkpoint.save(directory / FOLDER, self.optimizer, self._share.layout, apart=apart)

    def load(self, directory: Path) -> None:
        """Take up what `save` wrote.

        Raises:
            Wrong: the checkpoint has no critic.
        """
        if not (directory / FOLDER).is_dir():
            found = f"the checkpoint {directory} without a critic"
            remedy = "begin a new run with it, or keep the advantage that the run began with"
            raise Wrong(found, f"one with a critic, as {self._config.algorithm.advantage_estimator} needs", remedy)
        checkpoint.load(directory / FOLDER, self.optimizer, self._share.layout)
