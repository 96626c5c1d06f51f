"""The policy of this rank: its model computes log-probs, and its optimiser's steps change it.

Legend: N response tokens of a list of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from core.algorithm.importance import effective_share
from core.algorithm.loss import LossInUse
from core.config.schema import RunConfig
from core.megatron.graphs.row_graphs import RowGraphs
from core.megatron.model import PolicyModel, forward_row
from core.megatron.rows import agreement
from core.megatron.rows.computed import means_of_computed, with_gradient
from core.megatron.rows.packing import Row
from core.megatron.rows.routing import NotedExperts, Routing, engine_routing
from core.megatron.rows.schedule import Predict, evaluate_batch, train_batch
from core.megatron.rows.tokens import TokenTable, token_values
from core.megatron.share import RankShare, combine, peaks_of_all
from core.megatron.sizes.graphs import Graphs, expected_sizes
from core.megatron.state.dither import dither
from core.megatron.state.optimizer import Optimizer
from core.samples import TrainSample, UpdateResult
from modelcfg import ModelShape
from modelcfg.chosen import frozen_names
from modelcfg.weights import EMBEDDING

LogProbs = list[list[float]]  # per sample one per response token


class Policy:
    """Model, gradients and optimiser of this rank.

    Collective: the constructor and every method but `use_graphs`; all trainer ranks call with the same arguments.

    Attributes:
        optimizer: with the model, wrapped.
        training_pass: how the model computes a row that has a loss; without one it computes kernel by kernel.
    """

    def __init__(
        self,
        config: RunConfig,
        shape: ModelShape,
        model: PolicyModel,
        loss: LossInUse,
        share: RankShare,
        *,
        streamed: bool,
    ) -> None:
        """Give a model that has its weights gradients and an optimiser.

        Args:
            streamed: the optimiser's state stays on the host, and passes through the device at each step.
        """
        self._config, self._shape, self._loss, self._share = config, shape, loss, share
        alone = config.critic.num_critic_only_steps
        total_steps = (config.rollout.num_rollout - alone) * config.train.num_steps_per_rollout
        dithered = config.train.dither_masters and not self._has_two_embeddings
        prepare = partial(dither, seed=config.train.seed) if dithered else None
        self.optimizer = Optimizer(model, config.train, total_steps, prepare=prepare, streamed=streamed)
        self._predict: Predict = partial(forward_row, device=share.device)
        self.training_pass: Predict = self._predict

    def use_graphs(self, graphs: Graphs) -> None:
        """Compute these rows as CUDA graphs from now on. Only if the buffers never leave.

        If they are all rows, the graphs are made now; the gradients are not those of any update then.
        """
        self.training_pass = rows = RowGraphs(graphs.most_tokens)
        if graphs.all_rows:
            sizes = expected_sizes(graphs.most_tokens, self._config.sample_tokens, self._config.train.share_prompts)
            rows.prepare(self.optimizer.model.train(), sizes)

    def learn(self, samples: list[TrainSample], bounds: Sequence[int], *, stays: bool = False) -> UpdateResult:
        """Optimiser steps over these parts of the samples; if the policy stays, what they would have been.

        Raises:
            NonFiniteGradient: naming the optimiser step.
        """
        samples, routings = self._with_first_pass(samples, bounds)
        steps = [
            self._step(samples[a:b], None if routings is None else routings[a:b], stays=stays)
            for a, b in pairwise(bounds)
        ]
        return UpdateResult(
            metrics=_over_steps([metrics for metrics, _, _ in steps]) | peaks_of_all(self._share.device),
            logprobs=[values for _, old, _ in steps for values in old],
            logprobs_ref=_references(samples),
            logprobs_policy=[values for _, _, policy in steps for values in policy],
        )

    def log_probs(self, samples: list[TrainSample], routings: Sequence[Routing | None] | None = None) -> LogProbs:
        """Log-probs of the response tokens under the current parameters, one list per sample, on every rank.

        Args:
            routings: experts to replay: see `RankShare`.
        """
        return self.log_probs_at(samples, list(range(len(samples))), routings)

    def log_probs_at(
        self,
        samples: list[TrainSample],
        places: list[int],
        routings: Sequence[Routing | None] | None = None,
        noted: NotedExperts | None = None,
    ) -> LogProbs:
        """The values of `log_probs` for the samples at these places, NaN for the others; `noted` takes the experts."""
        table = TokenTable(samples)
        batches = self._share.micro_batches(samples, places, table, None, routings)
        predict = self._predict if noted is None else partial(noting, noted, self._share.device)
        outputs = evaluate_batch(self.optimizer.model, batches, predict)
        return table.per_sample(self._share.collect(outputs, table, table.of(places)))

    def with_old(self, samples: list[TrainSample]) -> list[TrainSample]:
        """The samples with the log-probs that the policy has for them now, unless all have some."""
        if _have_old(samples):
            return samples
        return _as_old(samples, self.log_probs(samples, self._of_engine(samples)))

    @property
    def _has_two_embeddings(self) -> bool:
        """First and last stage train a copy each, and nothing but equal updates keeps them equal."""
        train, tied = self._config.train, self._shape.tied_embeddings and self._share.layout.pp_size > 1
        return tied and train.lora is None and EMBEDDING not in frozen_names(self._shape, train.choice)

    def _of_engine(self, samples: Sequence[TrainSample]) -> list[Routing | None] | None:
        """The experts that the engine chose, where the policy's passes are to have them."""
        if self._config.algorithm.routing_replay != "engine":
            return None
        return [engine_routing(sample, self._shape) for sample in samples]

    def _with_first_pass(
        self, samples: list[TrainSample], bounds: Sequence[int]
    ) -> tuple[list[TrainSample], list[Routing | None] | None]:
        """The samples with their old log-probs and the experts to replay, as far as several steps need them.

        A single step finds the old log-probs itself.
        """
        has_old, routings = _have_old(samples), self._of_engine(samples)
        notes = self._config.algorithm.routing_replay == "trainer"
        if len(bounds) <= 2 or (has_old and not notes):
            return samples, routings
        taught = [a + i for a, b in pairwise(bounds) for i in with_gradient(samples[a:b], self._loss.teaches)]
        noted = NotedExperts(self._shape, self._share.layout.control) if notes else None
        old = self.log_probs_at(samples, taught, routings, noted)
        if noted is not None:
            routings = noted.of_samples(samples, taught)
        return samples if has_old else _as_old(samples, old), routings

    def _step(
        self, samples: Sequence[TrainSample], routings: Sequence[Routing | None] | None, *, stays: bool
    ) -> tuple[dict[str, float], LogProbs, LogProbs]:
        """One optimiser step over one global batch: metrics, old log-probs, and the policy's before this step.

        If the policy stays, it is not changed. `routings` are the experts to replay: see `RankShare`.
        """
        table = TokenTable(samples)
        values = token_values(samples, table, self._share.weights(samples))
        chosen = with_gradient(samples, self._loss.teaches)
        model, own = self.optimizer.model, {"train/lr": 0.0 if stays else self.optimizer.lr}
        replayed = None if routings is None else agreement.Agreement()
        batches = self._share.micro_batches(samples, chosen, table, values, routings, replayed)
        if stays:
            outputs = evaluate_batch(model, batches, self._predict, self._loss)
        else:
            self.optimizer.zero_grad()
            outputs = train_batch(model, batches, self.training_pass, self._loss)
            own["train/grad_norm"] = self.optimizer.step()
        metrics = self._share.add_up(outputs)
        computed = table.of(chosen)
        metrics |= means_of_computed(metrics, self._loss.means, values.weights, computed)
        metrics |= effective_share(metrics)
        if replayed is not None:
            metrics |= replayed.metric(self._share.layout.control)
        metrics |= {**own, "perf/num_micro_batches": float(len(batches))}
        policy = table.per_sample(self._share.collect(outputs, table, computed))
        old = [list(sample.logprobs_old or ()) for sample in samples] if _have_old(samples) else policy
        return metrics, old, policy


def noting(noted: NotedExperts, device: str, model: Any, row: Row) -> Any:
    """What the model makes of a row, and the experts noted."""
    return forward_row(model, row, device, noted.of(row))


def _have_old(samples: Sequence[TrainSample]) -> bool:
    return all(sample.logprobs_old is not None for sample in samples)


def _as_old(samples: Sequence[TrainSample], found: LogProbs) -> list[TrainSample]:
    return [replace(sample, logprobs_old=values) for sample, values in zip(samples, found, strict=True)]


def _references(samples: Sequence[TrainSample]) -> LogProbs | None:
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
