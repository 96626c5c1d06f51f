"""The samples of a stored step, as the update was given them: nothing of it is sampled or scored again."""

from __future__ import annotations

import json

import numpy as np

from core.samples import Prompt, Sample, Status
from core.trajectory.record import StepRecord


def stored_samples(record: StepRecord) -> list[Sample]:
    """All samples of a step, in its order, without what is not stored: the rest of a row, numbers of an episode."""
    return [_sample(record, place) for place in range(len(record))]


def was_on_policy(record: StepRecord) -> bool:
    """Whether the old log-probs of the loss were the trainer's own; else they were the engine's, to the last bit."""
    return not np.array_equal(record.logprobs_old.values, record.logprobs_engine.values)


def _sample(record: StepRecord, place: int) -> Sample:
    reward = float(record.reward[place])
    prompt = Prompt(
        row=int(record.row[place]),
        text=record.prompt_text[place],
        tokens=tuple(record.prompt_tokens[place].tolist()),
        label=json.loads(record.label[place]),
    )
    return Sample(
        group=int(record.group[place]),
        index=int(record.index[place]),
        prompt=prompt,
        response_tokens=record.response_tokens[place].tolist(),
        logprobs_engine=record.logprobs_engine[place].tolist(),
        status=Status(record.status[place]),
        weight_version=record.weight_version[place],
        response_text=record.response_text[place],
        loss_mask=record.loss_mask[place].tolist(),
        reward=None if np.isnan(reward) else reward,
        failure=record.failure[place] or None,
        engine=record.engine[place],
        task=-1 if record.task is None else int(record.task[place]),
        turns=record.spans(place),
        seed=None if record.seed is None else int(record.seed[place]),
        reward_parts=record.parts(place),
        routing=None if record.routing is None or not len(record.routing[place]) else record.routing[place],
    )
