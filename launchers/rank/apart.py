"""The parts of runs of one half: engines without a trainer, or a trainer that learns from what is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from core.algorithm.estimate import build_advantages
from core.loop.held_out import HeldOutLoss
from core.loop.missing import Missing, NothingToSave
from core.loop.parts import Parts
from core.loop.phases import Phases
from core.loop.state import LoopState
from core.megatron.trainer import MegatronTrainer
from core.planner import streams
from core.processes.collective import join
from core.rollout.rows import RowRollout
from core.run_dir.moment import Moment
from core.weights.as_started import WeightsAsStarted
from launchers.rank.rank_engines import RankEngines
from launchers.rank.sample_parts import build_evaluation, build_rollout
from launchers.rank.this_rank import ThisRank
from launchers.rank.wiring import build_checkpoints, build_journal, build_pause, expected_memory

NO_TRAINER = ("placement.trainers is none", "set placement.trainers to megatron")
NO_ENGINES = ("placement.engines is none", "set placement.engines to colocated")


def build_evaluating(rank: ThisRank, announce: Callable[[Moment], None], stack: ExitStack) -> Parts:
    """Parts with engines and no trainer: weights are those that the engines have started with.

    Collective: all trainer ranks.
    """
    engines = RankEngines(rank)
    engines.meet()
    join(rank.config.placement.collective_timeout_s)
    engines.start()
    sync = WeightsAsStarted(engines.driven)
    rollout = build_rollout(rank, engines, sync, stack)
    return _parts(
        rank,
        announce,
        stack,
        trainer=Missing("trainer", *NO_TRAINER),
        sync=sync,
        rollout=rollout,
        evaluation=build_evaluation(rank, rank.config.eval.at_once(), rollout),
        checkpoints=NothingToSave(),
    )


def build_replaying(rank: ThisRank, announce: Callable[[Moment], None], stack: ExitStack) -> Parts:
    """Parts with a trainer and neither engines nor rows. Collective: all trainer ranks."""
    config = rank.config
    RankEngines(rank).meet()
    streamed = streams(config, rank.shape, rank.memory(), in_turns=False)
    trainer = MegatronTrainer(config, rank.shape, rank.model_dir, rank.device, streamed=streamed)
    checkpoints = build_checkpoints(rank, trainer, expected_memory(rank, trainer, in_turns=False))
    return _parts(
        rank,
        announce,
        stack,
        state=checkpoints.load_latest() or LoopState(),
        trainer=trainer,
        sync=Missing("sync", *NO_ENGINES),
        rollout=RowRollout(),
        evaluation=HeldOutLoss(config.eval, config.rollout, {}, trainer),
        checkpoints=checkpoints,
    )


def _parts(rank: ThisRank, announce: Callable[[Moment], None], stack: ExitStack, **own: Any) -> Parts:
    """What both have, and what is each one's own."""
    common: Mapping[str, Any] = {
        "phase": Phases(announce, quiet=not rank.first),
        "state": LoopState(),
        "journal": build_journal(rank, 0, dict, stack, keep_policy=True),
        "pause": build_pause(rank),
        "advantages": build_advantages(rank.config.algorithm),
        "request": Missing("request", *NO_TRAINER),
        "max_failed_share": rank.config.reward.max_failed_share,
        "num_steps": 0,
    }
    return Parts(**{**common, **own})
