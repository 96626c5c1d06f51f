"""Epochs as steps: the rows of the training data are counted, before the rules that read the number of steps."""

from __future__ import annotations

from core.config.schema import RunConfig
from core.config.sections.rollout import RolloutConfig
from core.doors import NO_FILTER


def with_steps(config: RunConfig) -> RunConfig:
    """`config` with steps in place of epochs; as it is where it says steps, or where the rows cannot be read.

    Rows count that are too long to be drawn: they are known with the tokenizer alone.
    """
    rollout: RolloutConfig | None = getattr(config, "rollout", None)  # a section with mistakes is missing
    if rollout is None or rollout.num_epoch is None or not hasattr(config, "data"):
        return config
    # here, not at the top: core.data reads sections of core.config
    from core.data import load_rows

    try:
        num_rows = len(load_rows(config.data))
    except Exception:  # whatever a user's function raises: the rules of the data say it
        return config
    steps = max(1, rollout.num_epoch * num_rows // drawn_per_step(rollout))
    return config.model_copy(update={"rollout": rollout.model_copy(update={"num_rollout": steps, "num_epoch": None})})


def drawn_per_step(rollout: RolloutConfig) -> int:
    """Rows that a step uses up: those that a filter chooses among, in one round; with carry-over those it trains."""
    filters = rollout.filter != NO_FILTER and rollout.carry_over_tokens is None
    return rollout.num_drawn if filters else rollout.rollout_batch_size
