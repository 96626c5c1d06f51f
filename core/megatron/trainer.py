"""The trainer: Megatron ranks that turn scored samples into optimiser steps.

policy      the model that is trained, and its optimiser            (policy/)
reference   weights that a KL is taken to, if some are              (state/reference.py)
critic      a second model that makes advantages, if there is one   (critic/)
memory      what of them all is on the GPU                          (state/parking.py)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from core.algorithm.estimate import build_advantages, estimate_with_kl
from core.algorithm.kl import kl_in_rewards, mean_kl
from core.algorithm.loss import build_loss
from core.algorithm.steps import step_bounds
from core.checks.needs import needs_reference, needs_values, refuse_other_needs, refuse_other_values
from core.config.schema import RunConfig
from core.megatron.critic.critic import Critic
from core.megatron.layers.adapters import switched_off
from core.megatron.model import build_model
from core.megatron.parallel import Layout, initialise, shut_down
from core.megatron.policy.options import model_options
from core.megatron.policy.policy import LogProbs, Policy
from core.megatron.policy.weights import PolicyWeights
from core.megatron.share import RankShare
from core.megatron.sizes.graphs import Graphs
from core.megatron.state import checkpoint, hf
from core.megatron.state.parking import TrainerMemory
from core.megatron.state.reference import Reference
from core.megatron.state.staged import Write
from core.megatron.state.stored_adapters import stored_model
from core.samples import TrainSample, UpdateResult
from modelcfg import ModelShape
from modelcfg.chosen import ALL


class MegatronTrainer:
    """Models and optimisers of this rank.

    Collective: the constructor and every method; all trainer ranks call with the same arguments.
    """

    def __init__(
        self, config: RunConfig, shape: ModelShape, model_dir: Path, device: str, *, streamed: bool = False
    ) -> None:
        """Build models, gradients and optimisers.

        Args:
            device: "cpu" or "cuda". The environment of torch.distributed (torchrun's) must be set.
            streamed: the optimiser's state stays on the host, and passes through the device at each step.
        """
        self.config, self.shape, self.device = config, shape, device
        self._model_dir = model_dir
        loss = build_loss(config.algorithm)
        refuse_other_needs(config.algorithm, loss.function)
        self._advantages = build_advantages(config.algorithm)
        refuse_other_values(config.algorithm, self._advantages)
        shared_out = config.train.use_distributed_optimizer
        self.layout: Layout = initialise(
            config.placement, config.train.seed, device, use_distributed_optimizer=shared_out
        )
        share, options = RankShare(config, self.layout, device), model_options(config, device)
        model = build_model(shape, options)
        self.weights = PolicyWeights(model, shape, self.layout, config.train.lora, shared_out=shared_out)
        self._load_weights()
        self._reference = self._build_reference()
        self.policy = Policy(config, shape, model, loss, share, streamed=streamed)
        self._critic: Critic | None = None
        if needs_values(config.algorithm):
            whole = replace(options, choice=ALL)
            self._critic = Critic(config, shape, whole, share, self._advantages, model_dir)
        reference = [] if self._reference is None else list(self._reference.weights.values())
        second = None if self._critic is None else (self._critic.optimizer, list(self._critic.parameters.values()))
        self.memory = TrainerMemory(self.policy.optimizer, self.weights.trained, reference, self.weights.base, second)

    def use_graphs(self, graphs: Graphs) -> None:
        """Compute these rows as CUDA graphs from now on: see `Policy.use_graphs`."""
        self.policy.use_graphs(graphs)

    def update(self, samples: list[TrainSample]) -> UpdateResult:
        """num_steps_per_rollout optimiser steps over the samples, each over those of equally many tasks.

        Args:
            samples: the step's samples, groups adjacent.
        Raises:
            NonFiniteGradient: naming the optimiser step.
        """
        num_steps = self.config.train.num_steps_per_rollout
        self.memory.touched()
        if self.config.train.reset_optimizer_states:
            self._forget()
        samples = self._with_references(samples)
        if self.config.algorithm.old_logprobs == "engine":
            samples = [replace(sample, logprobs_old=sample.logprobs_engine) for sample in samples]
        kl: list[Tensor] | None = None
        if self.config.algorithm.kl_coef > 0:
            samples = self.policy.with_old(samples)
            kl = kl_in_rewards(samples)
        bounds = step_bounds(samples, num_steps)
        if self._critic is not None:
            result = self._judged(self._critic, samples, kl, bounds)
        else:
            result = self.policy.learn(samples, bounds) if kl is None else self._lowered(samples, kl, bounds)
        if self._reference is not None and self._reference.follow():
            self.memory.reference_changed()
        return result if kl is None else replace(result, metrics={**result.metrics, **mean_kl(kl, samples)})

    def log_probs(self, samples: list[TrainSample]) -> LogProbs:
        """Log-probs of the response tokens under the current parameters, one list per sample, on every rank."""
        return self.policy.log_probs(samples)

    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        """Full tensors under HuggingFace names: see `hf.named_buckets`."""
        return hf.named_buckets(self.weights.out(), self.shape, self.layout, max_bytes)

    def save_hf(self, directory: Path) -> None:
        """Write the model as a HuggingFace directory; global rank 0 writes."""
        hf.save_hf(self.weights.out(), self.shape, self.layout, self._model_dir, directory)

    def export(self, saved: Path, directory: Path) -> None:
        """Write the model in the files of `save` as a HuggingFace directory. Collective: none; in any thread."""
        stored = stored_model(saved, self.shape, self.config.train.lora, self._model_dir)
        hf.save_stored(stored, self.shape, self._model_dir, directory)

    def save(self, directory: Path) -> None:
        """Write model, optimiser, schedule and RNG states; any other layout can load them."""
        self.stage(directory, apart=False)(self.layout.control)

    def stage(self, directory: Path, *, apart: bool) -> Write:
        """Begin to save: what is left is to write, which is collective over the group that it is given.

        Args:
            apart: what is to be written is copied to the host now, so that another thread may write it.
        """
        self.memory.settle()
        optimizer = self.policy.optimizer
        writes = [checkpoint.save(directory, optimizer, self.layout, apart=apart)]
        if self._reference is not None:
            writes += self._reference.save(directory, optimizer.model.module, self.layout, apart=apart)
        if self._critic is not None:
            writes.append(self._critic.save(directory, apart=apart))
        return partial(_each, writes)

    def load(self, directory: Path) -> None:
        """Take up what `save` wrote, under this or another layout."""
        self.memory.settle()
        checkpoint.load(directory, self.policy.optimizer, self.layout)
        if self._reference is not None:
            self._reference.load(directory, self.policy.optimizer.model.module)
            self.memory.reference_changed()
        if self._critic is not None:
            self._critic.load(directory)
        self.memory.touched()

    def close(self) -> None:
        """Give up Megatron's process groups."""
        shut_down()

    def _load_weights(self) -> None:
        self.weights.load(self._model_dir)

    def _build_reference(self) -> Reference | None:
        """This rank's part of the reference model; equal to the policy's until that is trained."""
        if not needs_reference(self.config.algorithm) or self.config.train.lora is not None:
            return None  # where adapters are trained, the base is the reference
        path, interval = self.config.model.reference_path, self.config.algorithm.ref_update_interval
        reference = Reference(self.weights.parameters, self.weights.fixed, interval)
        if path is not None:
            from core.pretrained.locate import locate

            reference.read(locate(path), self.shape, self.layout)
        return reference

    def _as_reference(self) -> AbstractContextManager[None]:
        """The model computes as the reference inside."""
        if self._reference is None:
            return switched_off(self.policy.optimizer.model)
        return self._reference.in_place()

    def _with_references(self, samples: list[TrainSample]) -> list[TrainSample]:
        known = all(sample.logprobs_ref is not None for sample in samples)
        if known or not needs_reference(self.config.algorithm):
            return samples
        with self._as_reference():
            found = self.policy.log_probs(samples)
        return [replace(sample, logprobs_ref=values) for sample, values in zip(samples, found, strict=True)]

    def _forget(self) -> None:
        """Policy and critic learn from now on as if they had never."""
        self.policy.optimizer.forget()
        if self._critic is not None:
            self._critic.optimizer.forget()

    def _judged(
        self, critic: Critic, samples: list[TrainSample], kl: list[Tensor] | None, bounds: list[int]
    ) -> UpdateResult:
        """The steps of policy and critic, with advantages that the critic's values make."""
        alone, judged = critic.learns_alone, critic.judge(samples, kl)
        result = self.policy.learn(judged.samples, bounds, stays=alone)
        found = critic.learn(judged, bounds)
        return replace(result, metrics={**result.metrics, **found}, advantages=judged.advantages)

    def _lowered(self, samples: list[TrainSample], kl: list[Tensor], bounds: list[int]) -> UpdateResult:
        """The policy's steps, with advantages made anew of rewards that the KL lowers."""
        advantages: Sequence[float | Sequence[float]] = estimate_with_kl(self._advantages, samples, kl)
        samples = [replace(sample, advantage=one) for sample, one in zip(samples, advantages, strict=True)]
        return replace(self.policy.learn(samples, bounds), advantages=advantages)


def _each(writes: Sequence[Write], group: dist.ProcessGroup) -> None:
    for write in writes:
        write(group)
