"""From the run file to the loop's parts, for one trainer rank."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property

from common.files import put_in_place
from core import data
from core.config import load_run_file
from core.config.layout import num_engines, rewards_names
from core.loop import in_turns as loop
from core.loop.checkpoints import Checkpoints
from core.loop.evaluation import Evaluation
from core.loop.journal import Journal
from core.loop.parts import Parts
from core.loop.pause import Pause
from core.loop.phases import PHASE_KEY, Phases
from core.loop.state import LoopState
from core.loop.step_requests import TrainRequests
from core.megatron.trainer import MegatronTrainer
from core.planner import Device, MemoryPlan, plan_memory, takes_turns
from core.pretrained.locate import locate
from core.pretrained.shape import model_shape
from core.pretrained.tokenizer import load_tokenizer
from core.processes.collective import any_rank
from core.processes.device import resolve_device
from core.processes.rendezvous import Address, Rendezvous
from core.residency import EVERYTHING, Holding, table
from core.residency.machine import Residency
from core.residency.memory import total_memory
from core.reward import RewardPool
from core.reward.remote import RemoteRewardPool
from core.reward.remote_directory import RewardDirectory
from core.rollout.rollout import Rollout
from core.run_dir.progress import Progress
from core.run_dir.run_directory import RunDirectory
from core.weights.sync import WeightSync
from launchers.rank.rank_engines import Place, RankEngines
from launchers.show.memory_table import render_memory

log = logging.getLogger("trainer")


class TrainerRank:
    """One rank of the run. The first rank of a node drives the node's engines."""

    def __init__(self, seat: argparse.Namespace) -> None:
        """Args:
        seat: the options of `launchers.rank.trainer`: run_dir, attempt, node, store, host, ends_at.
        """
        self.rank = int(os.environ["RANK"])
        self.first = self.rank == 0
        self.seat = seat
        self.directory = RunDirectory(seat.run_dir)
        self.rendezvous = Rendezvous(Address.parse(seat.store), seat.attempt, os.environ["EBBTIDE_API_KEY"])
        self.progress = Progress(self.directory.progress, active=self.first)
        self.phases = Phases(self._announce, quiet=not self.first)
        self.config = load_run_file(self.directory.run_file)
        self.device = resolve_device(self.config.placement.device)
        self.model_dir = locate(self.config.model.path)
        self.shape = model_shape(self.config.model, self.model_dir)
        self.tokenizer = load_tokenizer(self.model_dir)
        self.stop_token_ids = (*self.tokenizer.eos_token_ids, *self.config.rollout.stop_token_ids)
        self.drives = int(os.environ["LOCAL_RANK"]) == 0
        place = Place(self.rank, seat.node, seat.host, self.drives, self.device)
        self.engines = RankEngines(self.config, place, self.rendezvous, self.shape)

    def run(self) -> None:
        """Take back the latest checkpoint, turn the loop, write the final model. Collective: all trainer ranks."""
        with ExitStack() as stack:
            parts = self._parts(stack)
            num_steps = self.config.rollout.num_rollout
            self.progress.event("begin", step=parts.state.next_step, num_steps=num_steps)
            if not loop.run(parts):
                self.progress.event("pause", step=parts.state.next_step)
                return
            if self.config.checkpoint.save_hf:
                with self.phases("save", num_steps):
                    self._save_hf()
            self.progress.event("end", step=num_steps)

    def await_others(self) -> None:
        """Return when all ranks have finished. Collective: all trainer ranks."""
        any_rank(False)

    @cached_property
    def trainer(self) -> MegatronTrainer:
        """The model and its optimiser; making it joins the trainers' process groups."""
        return MegatronTrainer(self.config, self.shape, self.model_dir, self.device)

    def _save_hf(self) -> None:
        """The final model appears whole or not at all; rank 0 writes it."""
        final = self.directory.hf_model
        unfinished = final.with_suffix(".unfinished")
        if self.first:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.trainer.save_hf(unfinished)
        if self.first:
            put_in_place(unfinished, final)

    def _parts(self, stack: ExitStack) -> Parts:
        self.engines.publish_rank()
        if self._shares_devices:  # an engine sizes itself by the memory that is free when it starts: before the trainer
            self.engines.start()
            self.engines.owner().shrink_to(frozenset())
        checkpoints = self._checkpoints()
        state = checkpoints.load_latest() or LoopState()
        sync = self.engines.weight_sync(self.trainer, self.directory, self.model_dir)
        rollout = self._rollout(stack, sync)
        plan = self._plan()
        if self._shares_devices:
            self.trainer.memory.reserve(plan.staying)
            self.phases.residency = sync.residency = self._residency(table(plan.staying), plan)
        else:
            if plan.graphs:
                self.trainer.use_graphs(plan.graphs)
            self.engines.start()
            if self.device == "cuda":  # nothing moves, but who holds what is logged, and told when memory runs out
                self.phases.residency = self._residency(EVERYTHING, plan)
        return Parts(
            phase=self.phases,
            state=state,
            trainer=self.trainer,
            sync=sync,
            rollout=rollout,
            evaluation=self._evaluation(rollout),
            journal=Journal(self.directory, self.config, self.progress, state.next_step, active=self.first),
            checkpoints=checkpoints,
            pause=self._pause(),
            algorithm=self.config.algorithm,
            request=self._requests(),
            max_failed_share=self.config.reward.max_failed_share,
            num_steps=self.config.rollout.num_rollout,
        )

    def _checkpoints(self) -> Checkpoints:
        section = self.config.checkpoint
        return Checkpoints(
            self.directory.checkpoints,
            self.trainer,
            interval=section.interval,
            keep=section.keep,
            num_steps=self.config.rollout.num_rollout,
        )

    def _pause(self) -> Pause:
        return Pause(
            self.rendezvous,
            ends_at=self.seat.ends_at,
            reserve_s=self.config.slurm.signal_s,
            decides=self.first,
        )

    @cached_property
    def _shares_devices(self) -> bool:
        """Whether trainer ranks and engines of a node give memory back to each other, everywhere or nowhere."""
        wanted, deadline_s = takes_turns(self.config, self.shape, self._memory()), self.config.placement.start_timeout_s
        return self.rendezvous.any_of("offload", wanted, int(os.environ["WORLD_SIZE"]), deadline_s)

    def _memory(self) -> Device:
        """This rank's device, and what it has."""
        return Device("cuda" if self.device == "cuda" else "cpu", total_memory(self.device))

    def _residency(self, table: Mapping[str, Holding], plan: MemoryPlan) -> Residency:
        """From here on the table says who holds what."""
        return Residency(
            (self.trainer.memory, self.engines.owner()),
            agree=lambda: any_rank(False),
            device=self.device,
            table=table,
            planned={phase: plan.trainers_bytes(phase) for phase in plan.phases},
            quiet=not self.first,
        )

    def _plan(self) -> MemoryPlan:
        """What was to be expected of this rank's device; into the log, to be read beside what is found."""
        stage, agreed = self.trainer.layout.pp_rank, self._shares_devices
        plan = plan_memory(self.config, self.shape, self._memory(), stage=stage, in_turns=agreed)
        log.info("planned memory\n%s", render_memory(self.config, self.shape, plan))
        return plan

    def _rollout(self, stack: ExitStack, sync: WeightSync) -> Rollout:
        rewards = self._rewards()
        if self.drives:
            stack.enter_context(rewards)
        return Rollout(
            self.rendezvous,
            self.engines.driven,
            sync,
            self.tokenizer,
            rewards,
            max_running_requests=self.config.placement.engine_max_running_requests,
            num_engines=num_engines(self.config),
        )

    def _rewards(self) -> RewardPool | RemoteRewardPool:
        """Scoring processes of this node, or the reward servers of others if there are any."""
        names = rewards_names(self.config)
        if not names:
            return RewardPool(self.config.reward)
        directory = RewardDirectory(self.rendezvous, names)
        return RemoteRewardPool(directory, os.environ["EBBTIDE_API_KEY"], self.config.placement.start_timeout_s)

    def _requests(self) -> TrainRequests:
        return TrainRequests(self.config.rollout, data.build(self.config.data, self.tokenizer), self.stop_token_ids)

    def _evaluation(self, rollout: Rollout) -> Evaluation:
        sets = {name: data.build(section, self.tokenizer) for name, section in self.config.eval.sets.items()}
        return Evaluation(self.config.eval, self.config.rollout, sets, rollout, self.stop_token_ids)

    def _announce(self, phase: str) -> None:
        """Tell the node agents (for a failure record) and the terminal what the run is doing."""
        if self.first:
            self.rendezvous.set(PHASE_KEY, phase)
        self.progress.event("phase", phase=phase)
