"""The loop: one step is sync, rollout, score, update. Every trainer rank runs it; there is no other driver.

Left out: overlapping the phases of neighbouring steps. That is another schedule over the same parts (docs/doors.md): it
leaves a rollout running (`rollout.start`), and says of its batches that they are not on-policy.
Collective: all trainer ranks call `run`; every part called here is collective over them.
"""

from __future__ import annotations

from core.algorithm.batch import TooManyFailures, check_failures, make_batch
from core.loop.parts import Parts
from core.loop.step_requests import weight_version
from core.reward import RewardsUnavailable


def run(parts: Parts) -> bool:
    """Turn the loop from the step that `parts.state` stands at to the last one.

    Returns:
        whether the run is complete; False: it was asked to pause, and is saved.
    Raises:
        TooManyFailures, RewardsUnavailable: if rewards fail beyond the limit, or there is nobody to score; a checkpoint
            is written first.
    """
    phase, state, trainer = parts.phase, parts.state, parts.trainer
    while True:
        step, version = state.next_step, weight_version(state.next_step)
        if parts.pause.due(step):
            with phase("save", step):
                parts.checkpoints.ensure(state)
            return False
        with phase("sync", step):
            parts.sync.push(version)
        if parts.evaluation.due(step):
            with phase("eval", step):
                parts.journal.evaluated(step, parts.evaluation.run(step, version))
        if step == parts.num_steps:
            return True
        with phase("rollout", step):
            made = parts.rollout.generate(parts.request(state, version))
        try:
            with phase("score", step):
                samples = parts.rollout.settle(made)
                batch = make_batch(samples, parts.advantages)
            check_failures(samples, parts.max_failed_share)
        except (TooManyFailures, RewardsUnavailable):
            with phase("save", step):
                parts.checkpoints.ensure(state)
            raise
        with phase("update", step):
            result = trainer.update(batch.train_samples())
        parts.journal.stepped(step, batch, result, phase.take_times())
        state = parts.state = state.after(made)
        if parts.checkpoints.due(state.next_step):
            with phase("save", step):
                parts.checkpoints.save(state)
