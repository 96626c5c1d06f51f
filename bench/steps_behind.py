"""A schedule whose samples are some steps old: deliberately, for bench/mismatch.py.

A step learns from samples that the weights of `steps` steps before have made, and takes them for on-policy: old
log-probs are then the trainer's own, so that `algorithm.importance` has the gap to correct, or not. The engines work
while the trainer waits, so that nothing is gained by it. Left out: pauses and checkpoints, for its runs are short.
"""

from __future__ import annotations

from collections import deque

from ebbtide import Parts, make_batch, weight_version


def run(parts: Parts, steps: int = 1) -> bool:
    """Turn the loop; the first steps learn from samples of the first weights."""
    drawn = parts.state  # whose rows come next
    ahead = deque()  # samples of the steps to come, each with the state after it
    for step in range(parts.state.next_step, parts.num_steps):
        version = weight_version(step)
        evaluate(parts, step, version)
        while len(ahead) <= steps and drawn.next_step < parts.num_steps:
            with parts.phase("rollout", step):
                made = parts.rollout.generate(parts.request(drawn, version))
            with parts.phase("score", step):
                samples = parts.rollout.settle(made)
            drawn = drawn.after(made)
            ahead.append((samples, drawn))
        samples, after = ahead.popleft()
        batch = make_batch(samples, parts.advantages)
        with parts.phase("update", step):
            result = parts.trainer.update(batch.train_samples())
        parts.journal.stepped(step, batch, result, parts.phase.take_times())
        parts.state = after
    evaluate(parts, parts.num_steps, weight_version(parts.num_steps))
    return True


def evaluate(parts: Parts, step: int, version: str) -> None:
    """Give the engines the newest weights, and evaluate them if it is due."""
    with parts.phase("sync", step):
        parts.sync.push(version)
    if parts.evaluation.due(step):
        with parts.phase("eval", step):
            parts.journal.evaluated(step, parts.evaluation.run(step, version))
