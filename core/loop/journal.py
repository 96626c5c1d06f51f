"""What a run tells about itself: trajectory store, progress file, sinks of metrics. Only rank 0 writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from common.redaction import redacted
from core.algorithm.batch import Batch, rollout_metrics
from core.config.layout import num_engines
from core.config.schema import RunConfig
from core.loop.work import gpu_peak_flops, work_of
from core.megatron.sizes.flops import update_flops
from core.processes.device import resolve_device, resolve_dtype
from core.rollout.seeds import train_seed
from core.run_dir.progress import Progress, ProgressReader
from core.run_dir.run_directory import RunDirectory
from core.samples import Sample, UpdateResult
from core.sinks.fan_out import FanOut, wanted_sinks
from core.sinks.shown import to_show
from core.sinks.sink import RunInfo
from core.trajectory import StepRecord, step_path, write_step
from modelcfg import ModelShape

log = logging.getLogger(__name__)


class Journal:
    """Rank 0's records of the run; on the other ranks every call is a no-op. Collective: none."""

    def __init__(
        self,
        directory: RunDirectory,
        config: RunConfig,
        progress: Progress,
        first_step: int,
        *,
        active: bool,
        counts: Callable[[], Mapping[str, float]] = dict,
        keep_policy: bool = False,
        shape: ModelShape | None = None,
    ) -> None:
        """Open the records of the run.

        Args:
        first_step: what an earlier attempt told of this step and later ones will be told again.
        active: whether this rank writes at all.
        counts: further metrics of a step; called once for each.
        keep_policy: store the policy's log-probs at each sample's own optimiser step as well.
        shape: of the model, to tell how much of the GPUs' arithmetic an update uses; None: that is not told.
        """
        self._directory = directory
        self._config = config
        self._progress = progress
        self._active = active
        self._counts = counts
        self._keep_policy = keep_policy
        self._device = resolve_device(config.placement.device)
        self._dtype = resolve_dtype(config.model.dtype, self._device)
        self._tokens_seen = _tokens_seen(directory, first_step) if active else 0.0
        self._shape = shape
        info = RunInfo(
            name=config.name,
            directory=directory.path,
            first_step=first_step,
            num_steps=config.rollout.num_rollout,
            run_file=redacted("", config.model_dump(mode="json")),
        )
        self._sinks = FanOut(wanted_sinks(config.logging) if active else (), info)

    def evaluated(self, step: int, results: dict[str, dict[str, float]]) -> None:
        """Record an evaluation: set name -> rates."""
        self._sinks.evaluation(step, results)
        self._progress.event("eval", step=step, results=results)

    def stepped(self, step: int, batch: Batch, result: UpdateResult, times: dict[str, float]) -> None:
        """Record a complete step: its samples, its metrics."""
        if not self._active:
            return
        metrics = {**rollout_metrics(batch.samples), **self._counts(), **result.metrics, **times}
        metrics |= self._rates(batch, times) | self._of_update(batch, metrics)
        record = StepRecord.from_samples(
            batch.samples,
            advantages=batch.advantages if result.advantages is None else result.advantages,
            logprobs_old=result.logprobs,
            logprobs_ref=result.logprobs_ref,
            logprobs_policy=result.logprobs_policy if self._keep_policy else None,
            seeds=[self._seed(step, sample) for sample in batch.samples],
            step=step,
            run=self._config.name,
            model=self._config.model.name or self._config.model.path,
            dtype=self._dtype,
            metrics=metrics,
        )
        write_step(step_path(self._directory.path, step), record)
        self._sinks.step(step, metrics)
        if count := self._config.logging.show_samples:
            self._sinks.samples(step, to_show(batch.samples, count))
        self._progress.event("step", step=step, metrics=metrics)
        self._show_samples(step, batch)

    def close(self) -> None:
        """Record no more."""
        self._sinks.end()

    def _seed(self, step: int, sample: Sample) -> int:
        """What a sample was sampled with; one that no engine made has the seed that an engine would have been given."""
        if sample.seed is not None:
            return sample.seed
        return train_seed(self._config.rollout.seed, step, sample.group, sample.task)

    def _rates(self, batch: Batch, times: dict[str, float]) -> dict[str, float]:
        num_devices = num_engines(self._config) * self._config.placement.engine_tensor_parallel
        # a schedule that overlaps may have waited for the rollout in another step
        if "perf/rollout_time" not in times or not num_devices:
            return {}
        num_tokens = sum(len(sample.response_tokens) for sample in batch.samples)
        return {"perf/tokens_per_gpu_per_sec": num_tokens / times["perf/rollout_time"] / num_devices}

    def _of_update(self, batch: Batch, metrics: Mapping[str, float]) -> dict[str, float]:
        """Tokens that the trainer was given up to this step, and the share of the GPUs' arithmetic that it used."""
        num_tokens = sum(len(sample.prompt.tokens) + len(sample.response_tokens) for sample in batch.samples)
        self._tokens_seen += num_tokens
        told = {"train/tokens_seen": self._tokens_seen}
        computed, seconds = metrics.get("perf/train_tokens"), metrics.get("perf/train_time")
        if self._shape is None or not computed or not seconds or (peak := gpu_peak_flops(self._device)) is None:
            return told
        placement = self._config.placement
        work = work_of(batch.samples, share_prompts=self._config.train.share_prompts)
        part = computed / work.tokens  # the others teach nothing, and are not computed
        flops = update_flops(self._shape, computed, work.targets * part, work.pairs * part)
        num_gpus = placement.num_nodes * placement.trainers_per_node
        return told if flops is None else {**told, "perf/mfu": flops / seconds / num_gpus / peak}

    def _show_samples(self, step: int, batch: Batch) -> None:
        for sample in batch.samples[: self._config.logging.show_samples]:
            log.info(
                "sample step=%d group=%d reward=%s prompt=%r response=%r",
                step,
                sample.group,
                sample.reward,
                sample.prompt.text[-80:],
                sample.response_text[:200],
            )


def _tokens_seen(directory: RunDirectory, first_step: int) -> float:
    """What earlier attempts have told of the step before the first; 0: nothing."""
    seen = {
        event["step"]: event["metrics"].get("train/tokens_seen", 0.0)
        for event in ProgressReader(directory.progress).new_events()
        if event["event"] == "step"
    }
    return float(seen.get(first_step - 1, 0.0))
