"""The trainer: Megatron ranks that turn scored samples into optimiser steps.

Legend: N response tokens of a list of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from core.algorithm.estimate import build_advantages, estimate_with_kl
from core.algorithm.importance import effective_share
from core.algorithm.kl import kl_in_rewards, mean_kl
from core.algorithm.loss import build_loss
from core.algorithm.steps import step_bounds
from core.checks.needs import loss_needs, needs_reference, needs_values, refuse_other_needs, refuse_other_values
from core.config.layout import pipeline_stages
from core.config.schema import RunConfig
from core.megatron.critic.critic import Critic
from core.megatron.graphs.row_graphs import RowGraphs
from core.megatron.layers.adapters import switched_off
from core.megatron.model import ModelOptions, build_model, forward_row
from core.megatron.parallel import Layout, initialise, shut_down
from core.megatron.rows import agreement
from core.megatron.rows.computed import means_of_computed, with_gradient
from core.megatron.rows.packing import Row
from core.megatron.rows.routing import NotedExperts, Routing, engine_routing
from core.megatron.rows.schedule import Predict, evaluate_batch, train_batch
from core.megatron.rows.tokens import TokenTable, TokenValues
from core.megatron.share import RankShare, combine, peaks_of_all
from core.megatron.sizes.graphs import Graphs, expected_sizes
from core.megatron.state import checkpoint, hf
from core.megatron.state.adapters import MergedWeights, is_adapter
from core.megatron.state.dither import dither
from core.megatron.state.flat import move_into_flat
from core.megatron.state.optimizer import Optimizer
from core.megatron.state.parking import TrainerMemory
from core.megatron.state.reference import Reference
from core.megatron.state.staged import Write
from core.processes.device import resolve_dtype
from core.samples import TrainSample, UpdateResult
from modelcfg import ModelShape

LogProbs = list[list[float]]  # per sample one per response token


class MegatronTrainer:
    """Model, gradients and optimiser of this rank.

    Collective: the constructor and every method; all trainer ranks call with the same arguments.
    """

    def __init__(
        self, config: RunConfig, shape: ModelShape, model_dir: Path, device: str, *, streamed: bool = False
    ) -> None:
        """Build model, gradients and optimiser.

        Args:
            device: "cpu" or "cuda". The environment of torch.distributed (torchrun's) must be set.
            streamed: the optimiser's state stays on the host, and passes through the device at each step.
        """
        self.config, self.shape, self.device = config, shape, device
        self._model_dir = model_dir
        self._loss = build_loss(config.algorithm)
        refuse_other_needs(config.algorithm, self._loss.function)
        self._advantages = build_advantages(config.algorithm)
        refuse_other_values(config.algorithm, self._advantages)
        shared_out = config.train.use_distributed_optimizer
        self.layout: Layout = initialise(
            config.placement, config.train.seed, device, use_distributed_optimizer=shared_out
        )
        self._share = RankShare(config, self.layout, device)
        options = _model_options(config, device)
        model = build_model(shape, options)
        self._parameters = dict(model.named_parameters())
        trained = [parameter for parameter in self._parameters.values() if parameter.requires_grad]
        base = [parameter for parameter in self._parameters.values() if not parameter.requires_grad]
        if not shared_out:  # which has a flat buffer of its own
            move_into_flat(trained)
        move_into_flat(base)
        self._fixed = dict(model.fixed_tensors())
        self._load_weights()
        self._needs_reference = needs_reference(config.algorithm)
        # where adapters are trained, the base is the reference
        has_reference = self._needs_reference and config.train.lora is None
        self._reference = self._load_reference() if has_reference else None
        alone = config.critic.num_critic_only_steps
        total_steps = (config.rollout.num_rollout - alone) * config.train.num_steps_per_rollout
        dithered = config.train.dither_masters and not self._has_two_embeddings
        prepare = partial(dither, seed=config.train.seed) if dithered else None
        self._optimizer = Optimizer(model, config.train, total_steps, prepare=prepare, streamed=streamed)
        self._predict: Predict = partial(forward_row, device=device)
        self._learn: Predict = self._predict
        self._critic: Critic | None = None
        if needs_values(config.algorithm):
            self._critic = Critic(config, shape, options, self._share, self._advantages, model_dir)
        reference = [] if self._reference is None else list(self._reference.weights.values())
        second = None if self._critic is None else (self._critic.optimizer, list(self._critic.parameters.values()))
        self.memory = TrainerMemory(self._optimizer, trained, reference, base, second)

    def use_graphs(self, graphs: Graphs) -> None:
        """Compute these rows as CUDA graphs from now on. Only if the buffers never leave.

        If they are all rows, the graphs are made now; the gradients are not those of any update then.
        """
        self._learn = rows = RowGraphs(graphs.most_tokens)
        if graphs.all_rows:
            sample_tokens = self.config.data.max_prompt_tokens + self.config.rollout.max_response_tokens
            sizes = expected_sizes(graphs.most_tokens, sample_tokens, self.config.train.share_prompts)
            rows.prepare(self._optimizer.model.train(), sizes)

    def update(self, samples: list[TrainSample]) -> UpdateResult:
        """num_steps_per_rollout optimiser steps over the samples, each over those of equally many tasks.

        Args:
            samples: the step's samples, groups adjacent.
        Raises:
            NonFiniteGradient: naming the optimiser step.
        """
        num_steps = self.config.train.num_steps_per_rollout
        self.memory.touched()
        samples = self._with_references(samples)
        if self.config.algorithm.old_logprobs == "engine":
            samples = [replace(sample, logprobs_old=sample.logprobs_engine) for sample in samples]
        kl: list[Tensor] | None = None
        if self.config.algorithm.kl_coef > 0:
            samples = self._with_old(samples)
            kl = kl_in_rewards(samples)
        bounds = step_bounds(samples, num_steps)
        if self._critic is not None:
            result = self._judged(self._critic, samples, kl, bounds)
        else:
            result = self._learnt(samples, bounds) if kl is None else self._lowered(samples, kl, bounds)
        if self._reference is not None and self._reference.follow():
            self.memory.reference_changed()
        return result if kl is None else replace(result, metrics={**result.metrics, **mean_kl(kl, samples)})

    def _judged(
        self, critic: Critic, samples: list[TrainSample], kl: list[Tensor] | None, bounds: list[int]
    ) -> UpdateResult:
        """The steps of policy and critic, with advantages that the critic's values make."""
        alone, judged = critic.learns_alone, critic.judge(samples, kl)
        result = self._learnt(judged.samples, bounds, stays=alone)
        found = critic.learn(judged, bounds)
        return replace(result, metrics={**result.metrics, **found}, advantages=judged.advantages)

    def _lowered(self, samples: list[TrainSample], kl: list[Tensor], bounds: list[int]) -> UpdateResult:
        """The policy's steps, with advantages made anew of rewards that the KL lowers."""
        advantages: Sequence[float | Sequence[float]] = estimate_with_kl(self._advantages, samples, kl)
        samples = [replace(sample, advantage=one) for sample, one in zip(samples, advantages, strict=True)]
        return replace(self._learnt(samples, bounds), advantages=advantages)

    def _learnt(self, samples: list[TrainSample], bounds: list[int], *, stays: bool = False) -> UpdateResult:
        """The policy's optimiser steps over these parts of the samples; if it stays, what they would have been."""
        has_old, routings = all(sample.logprobs_old is not None for sample in samples), self._of_engine(samples)
        notes = self.config.algorithm.routing_replay == "trainer"
        if len(bounds) > 2 and (notes or not has_old):
            taught = [a + i for a, b in pairwise(bounds) for i in with_gradient(samples[a:b], self._loss.teaches)]
            noted = NotedExperts(self.shape, self.layout.control) if notes else None
            old = self._log_probs_at(samples, taught, routings, noted)
            if not has_old:
                samples = [replace(sample, logprobs_old=values) for sample, values in zip(samples, old, strict=True)]
            if noted is not None:
                routings = noted.of_samples(samples, taught)
        steps = [
            self._step(samples[a:b], None if routings is None else routings[a:b], stays=stays)
            for a, b in pairwise(bounds)
        ]
        return UpdateResult(
            metrics=_over_steps([metrics for metrics, _, _ in steps]) | peaks_of_all(self.device),
            logprobs=[values for _, old, _ in steps for values in old],
            logprobs_ref=_references(samples),
            logprobs_policy=[values for _, _, policy in steps for values in policy],
        )

    def log_probs(
        self, samples: list[TrainSample], routings: Sequence[Routing | None] | None = None
    ) -> list[list[float]]:
        """Log-probs of the response tokens under the current parameters, one list per sample, on every rank.

        Args:
            routings: experts to replay: see `RankShare`.
        """
        return self._log_probs_at(samples, list(range(len(samples))), routings)

    def _of_engine(self, samples: Sequence[TrainSample]) -> list[Routing | None] | None:
        """The experts that the engine chose, where the policy's passes are to have them."""
        if self.config.algorithm.routing_replay != "engine":
            return None
        return [engine_routing(sample, self.shape) for sample in samples]

    def _log_probs_at(
        self,
        samples: list[TrainSample],
        places: list[int],
        routings: Sequence[Routing | None] | None = None,
        noted: NotedExperts | None = None,
    ) -> list[list[float]]:
        """The values of `log_probs` for the samples at these places, NaN for the others; `noted` takes the experts."""
        table = TokenTable(samples)
        batches = self._share.micro_batches(samples, places, table, None, routings)
        predict = self._predict if noted is None else partial(_noting, noted, self.device)
        outputs = evaluate_batch(self._optimizer.model, batches, predict)
        return table.per_sample(self._share.collect(outputs, table, table.of(places)))

    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        """Full tensors under HuggingFace names: see `hf.named_buckets`."""
        return hf.named_buckets(self._weights_out(), self.shape, self.layout, max_bytes)

    def save_hf(self, directory: Path) -> None:
        """Write the model as a HuggingFace directory; global rank 0 writes."""
        hf.save_hf(self._weights_out(), self.shape, self.layout, self._model_dir, directory)

    def save(self, directory: Path) -> None:
        """Write model, optimiser, schedule and RNG states; any other layout can load them."""
        self.stage(directory, apart=False)(self.layout.control)

    def stage(self, directory: Path, *, apart: bool) -> Write:
        """Begin to save: what is left is to write, which is collective over the group that it is given.

        Args:
            apart: what is to be written is copied to the host now, so that another thread may write it.
        """
        self.memory.settle()
        writes = [checkpoint.save(directory, self._optimizer, self.layout, apart=apart)]
        if self._reference is not None:
            writes += self._reference.save(directory, self._optimizer.model.module, self.layout, apart=apart)
        if self._critic is not None:
            writes.append(self._critic.save(directory, apart=apart))
        return partial(_each, writes)

    def load(self, directory: Path) -> None:
        """Take up what `save` wrote, under this or another layout."""
        self.memory.settle()
        checkpoint.load(directory, self._optimizer, self.layout)
        if self._reference is not None:
            self._reference.load(directory, self._optimizer.model.module)
            self.memory.reference_changed()
        if self._critic is not None:
            self._critic.load(directory)
        self.memory.touched()

    def close(self) -> None:
        """Give up Megatron's process groups."""
        shut_down()

    @property
    def _has_two_embeddings(self) -> bool:
        """First and last stage train a copy each, and nothing but equal updates keeps them equal."""
        return self.shape.tied_embeddings and self.layout.pp_size > 1 and self.config.train.lora is None

    def _load_weights(self) -> None:
        own = {name: parameter for name, parameter in self._parameters.items() if not is_adapter(name)}
        hf.load_hf(own | self._fixed, self.shape, self.layout, self._model_dir)

    def _weights_out(self) -> Mapping[str, Tensor]:
        """What others are to have of this rank: adapters are merged."""
        own, lora = self._parameters | self._fixed, self.config.train.lora
        if lora is None:
            return own
        layout = self.layout
        return MergedWeights(own, self.shape, lora, layout.tp_size, layout.stages, layout.pp_rank)

    def _step(
        self, samples: Sequence[TrainSample], routings: Sequence[Routing | None] | None, *, stays: bool
    ) -> tuple[dict[str, float], LogProbs, LogProbs]:
        """One optimiser step over one global batch: metrics, old log-probs, and the policy's before this step.

        If the policy stays, it is not changed. `routings` are the experts to replay: see `RankShare`.
        """
        table = TokenTable(samples)
        values = self._token_values(samples, table)
        chosen = with_gradient(samples, self._loss.teaches)
        model, own = self._optimizer.model, {"train/lr": 0.0 if stays else self._optimizer.lr}
        replayed = None if routings is None else agreement.Agreement()
        batches = self._share.micro_batches(samples, chosen, table, values, routings, replayed)
        if stays:
            outputs = evaluate_batch(model, batches, self._predict, self._loss)
        else:
            self._optimizer.zero_grad()
            outputs = train_batch(model, batches, self._learn, self._loss)
            own["train/grad_norm"] = self._optimizer.step()
        metrics = self._share.add_up(outputs)
        computed = table.of(chosen)
        metrics |= means_of_computed(metrics, self._loss.means, values.weights, computed)
        metrics |= effective_share(metrics)
        if replayed is not None:
            metrics |= replayed.metric(self.layout.control)
        metrics |= {**own, "perf/num_micro_batches": float(len(batches))}
        policy = table.per_sample(self._share.collect(outputs, table, computed))
        if all(sample.logprobs_old is not None for sample in samples):
            return metrics, [list(sample.logprobs_old or ()) for sample in samples], policy
        return metrics, policy, policy

    def _token_values(self, samples: Sequence[TrainSample], table: TokenTable) -> TokenValues:
        def optional(values: list[Sequence[float] | None]) -> Tensor | None:
            known = [v for v in values if v is not None]
            return table.flat(known) if len(known) == len(values) else None

        return TokenValues(
            weights=table.flat(self._share.weights(samples)),
            advantages=table.spread([s.advantage for s in samples]),
            logprobs_engine=table.flat([s.logprobs_engine for s in samples]),
            logprobs_old=optional([s.logprobs_old for s in samples]),
            logprobs_ref=optional([s.logprobs_ref for s in samples]),
        )

    def _with_references(self, samples: list[TrainSample]) -> list[TrainSample]:
        if not self._needs_reference or all(sample.logprobs_ref is not None for sample in samples):
            return samples
        with self._as_reference():
            found = self.log_probs(samples)
        return [replace(sample, logprobs_ref=values) for sample, values in zip(samples, found, strict=True)]

    def _with_old(self, samples: list[TrainSample]) -> list[TrainSample]:
        if all(sample.logprobs_old is not None for sample in samples):
            return samples
        old = self.log_probs(samples, self._of_engine(samples))
        return [replace(sample, logprobs_old=values) for sample, values in zip(samples, old, strict=True)]

    def _load_reference(self) -> Reference:
        """This rank's part of the reference model; equal to the policy's until that is trained."""
        path, interval = self.config.model.reference_path, self.config.algorithm.ref_update_interval
        reference = Reference(self._parameters, self._fixed, interval)
        if path is not None:
            from core.pretrained.locate import locate

            reference.read(locate(path), self.shape, self.layout)
        return reference

    def _as_reference(self) -> AbstractContextManager[None]:
        """The model computes as the reference inside."""
        if self._reference is None:
            return switched_off(self._optimizer.model)
        return self._reference.in_place()


def _each(writes: Sequence[Write], group: dist.ProcessGroup) -> None:
    for write in writes:
        write(group)


def _model_options(config: RunConfig, device: str) -> ModelOptions:
    name = resolve_dtype(config.model.dtype, device)
    return ModelOptions(
        dtype=torch.bfloat16 if name == "bfloat16" else torch.float32,
        tensor_parallel=config.placement.tensor_parallel,
        stages=pipeline_stages(config.placement),
        expert_parallel=config.placement.expert_parallel,
        context_parallel=config.placement.context_parallel,
        sequence_parallel=config.placement.sequence_parallel,
        recompute=config.train.recompute,
        recompute_layers=config.train.recompute_layers,
        temperature=config.rollout.temperature,
        entropy_gradient=loss_needs(config.algorithm).entropy_gradient,
        lora=config.train.lora,
        seed=config.train.seed,
    )


def _noting(noted: NotedExperts, device: str, model: Any, row: Row) -> Any:
    """What the model makes of a row, and the experts noted."""
    return forward_row(model, row, device, noted.of(row))


def _references(samples: Sequence[TrainSample]) -> list[list[float]] | None:
    """The reference's log-probs of each sample; None where the update used none."""
    found = [sample.logprobs_ref for sample in samples]
    return None if None in found else [list(values or ()) for values in found]


def _over_steps(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the optimiser steps of an update; counts are added up, the learning rate is the last."""
    result = combine(steps, 1 / len(steps))
    for name in result:
        if name.startswith("perf/"):
            result[name] = sum(step[name] for step in steps)
    result["train/lr"] = steps[-1]["train/lr"]
    return result | agreement.of_update(steps)
