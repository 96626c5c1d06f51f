"""The parts of a schedule, built from the run file for one trainer rank: step by step, as the ranks have to agree."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from common.mistake import Wrong
from core.algorithm.estimate import build_advantages
from core.doors import ROWS, SCHEDULE
from core.loop.checkpoints import Checkpoints
from core.loop.journal import Journal
from core.loop.model_saves import ModelSaves
from core.loop.parts import Parts
from core.loop.pause import Pause
from core.loop.phases import Phases
from core.loop.state import LoopState
from core.loop.step_requests import TrainRequests
from core.megatron.trainer import MegatronTrainer
from core.planner import MemoryPlan, host_shortage, plan_memory, saves_apart, streams, takes_turns
from core.processes import keys
from core.processes.collective import any_rank
from core.residency import EVERYTHING, table
from core.residency.engines import EngineOwner
from core.residency.machine import Residency
from core.residency.memory import gib
from core.run_dir.moment import Moment
from hpc.node.host_memory import host_memory
from hpc.slurm.job_end import ask_job_end, job_of
from launchers.attempts.history import usual_step_s
from launchers.rank.rank_engines import RankEngines
from launchers.rank.sample_parts import from_rows, sampled
from launchers.rank.this_rank import ThisRank
from launchers.show.memory_table import render_memory

log = logging.getLogger("trainer")


def build(rank: ThisRank, announce: Callable[[Moment], None], overlaps: Sequence[str], stack: ExitStack) -> Parts:
    """Everything that a schedule works with.

    Args:
        announce: called whenever a phase begins.
        overlaps: the phases that the schedule has go on at the same time.
        stack: closes what has to be closed.
    Collective: all trainer ranks, in this order: `decide_sharing`, the trainer's process groups, `build_checkpoints`,
        `load_latest`, and the ranks of a node in `weight_sync`.
    """
    config, engines = rank.config, RankEngines(rank)
    owner = engines.owner()
    engines.meet()
    in_turns = decide_sharing(rank, overlaps)
    if in_turns:  # an engine sizes itself by the memory that is free when it starts: before the trainer
        engines.start()
        owner.shrink_to(frozenset())
    streamed = streams(config, rank.shape, rank.memory(), in_turns)
    trainer = MegatronTrainer(config, rank.shape, rank.model_dir, rank.device, streamed=streamed)
    plan = expected_memory(rank, trainer, in_turns)
    checkpoints = build_checkpoints(rank, trainer, plan)
    state = checkpoints.load_latest() or LoopState()
    residency = build_residency(rank, trainer, owner, plan)
    sync = engines.weight_sync(trainer, residency if in_turns else None)
    without_engines = config.rollout.generate == ROWS
    made = from_rows(rank, trainer) if without_engines else sampled(rank, engines, sync, stack)
    if in_turns:
        trainer.memory.reserve(plan.staying)
    else:
        if plan.graphs:
            trainer.use_graphs(plan.graphs)
        engines.start()
    return Parts(
        phase=Phases(announce, residency, quiet=not rank.first),
        state=state,
        trainer=trainer,
        sync=sync,
        rollout=made.rollout,
        evaluation=made.evaluation,
        journal=build_journal(rank, state.next_step, lambda: made.counts() | checkpoints.take_times(), stack),
        checkpoints=checkpoints,
        pause=build_pause(rank),
        advantages=build_advantages(config.algorithm),
        request=TrainRequests(config.rollout, made.prompts, rank.stop_token_ids),
        max_failed_share=config.reward.max_failed_share,
        num_steps=config.rollout.num_rollout,
    )


def decide_sharing(rank: ThisRank, overlaps: Sequence[str]) -> bool:
    """Whether trainer ranks and engines of a node give memory back to each other, everywhere or nowhere.

    Raises:
        Wrong: they do, and the schedule has both work at the same time.
    Collective: all trainer ranks, over the store; waits up to placement.start_timeout_s.
    """
    wanted = takes_turns(rank.config, rank.shape, rank.memory())
    in_turns = rank.rendezvous.any_of(keys.OFFLOAD, wanted, rank.num_ranks, rank.config.placement.start_timeout_s)
    if in_turns and overlaps:
        found = f"{SCHEDULE.key} {rank.config.placement.schedule}, which overlaps {' and '.join(overlaps)}"
        remedy = "set placement.offload to off, or placement.engines to own_gpus"
        raise Wrong(found, "trainers and engines that do not take turns on their GPUs", remedy)
    return in_turns


def build_checkpoints(rank: ThisRank, trainer: MegatronTrainer, plan: MemoryPlan) -> Checkpoints:
    """Make the store of checkpoints that the run file describes; written while the run goes on if all hosts have room.

    Collective: all trainer ranks.
    """
    section, num_steps = rank.config.checkpoint, rank.config.rollout.num_rollout
    interval = section.model_interval
    models = ModelSaves(rank.directory, trainer, interval=interval, num_steps=num_steps) if interval else None
    memory = host_memory()
    asynchronous = not any_rank(not saves_apart(rank.config, plan, memory.total_bytes))
    when = "while the run goes on" if asynchronous else "before the run goes on"
    log.info("checkpoints are written %s; host memory %s GiB, by %s", when, gib(memory.total_bytes), memory.whose)
    return Checkpoints(
        rank.directory.checkpoints,
        trainer,
        interval=section.interval,
        keep=section.keep,
        num_steps=num_steps,
        models=models,
        every_s=section.every_s,
        asynchronous=asynchronous,
        timeout_s=rank.config.placement.collective_timeout_s,
    )


def expected_memory(rank: ThisRank, trainer: MegatronTrainer, in_turns: bool) -> MemoryPlan:
    """The plan of this rank's device; into the log, to be read beside what is found.

    Raises:
        Wrong: the host has no room for what is parked there.
    """
    stage = trainer.layout.pp_rank
    plan = plan_memory(rank.config, rank.shape, rank.memory(), stage=stage, in_turns=in_turns)
    log.info("planned memory\n%s", render_memory(rank.config, rank.shape, plan))
    memory = host_memory()
    if shortage := host_shortage(rank.config, plan, memory.total_bytes, memory.whose):
        raise shortage
    return plan


def build_residency(rank: ThisRank, trainer: MegatronTrainer, owner: EngineOwner, plan: MemoryPlan) -> Residency | None:
    """Who holds what of this rank's device; None on a CPU that holds everything at once.

    On a GPU that does, nothing moves, but who holds what is logged, and told when memory runs out.
    """
    if not plan.in_turns and rank.device != "cuda":
        return None
    return Residency(
        (trainer.memory, owner),
        agree=lambda: any_rank(False),
        device=rank.device,
        table=table(plan.staying) if plan.in_turns else EVERYTHING,
        planned={phase: plan.trainers_bytes(phase) for phase in plan.phases},
        quiet=not rank.first,
    )


def build_journal(
    rank: ThisRank,
    first_step: int,
    counts: Callable[[], dict[str, float]],
    stack: ExitStack,
    *,
    keep_policy: bool = False,
) -> Journal:
    """Closed when the run is left, complete or not."""
    journal = Journal(
        rank.directory,
        rank.config,
        rank.progress,
        first_step,
        active=rank.first,
        counts=counts,
        keep_policy=keep_policy,
        shape=rank.shape,
    )
    stack.callback(journal.close)
    return journal


def build_pause(rank: ThisRank) -> Pause:
    """Rank 0 decides; what a step takes it knows from the attempts before."""
    return Pause(
        rank.rendezvous,
        ends_at=rank.ends_at,
        reserve_s=rank.config.slurm.signal_s,
        decides=rank.first,
        first_step_s=usual_step_s(rank.directory) if rank.first else 0.0,
        ask_end=lambda: ask_job_end(job) if (job := job_of(os.environ)) is not None else None,
    )
