"""Steps or epochs: a run file says one of the two, and epochs become steps once the rows have been counted.

    num_epoch: 3, 7,473 rows, 64 drawn per step  ->  num_rollout: 350, num_epoch: null

Whoever checks or plans a run counts (`core.checks.epochs`); the run directory's run file has the steps alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from common.yaml_document import Document

STEPS, EPOCHS = ("rollout", "num_rollout"), ("rollout", "num_epoch")
NOT_COUNTED = 1  # steps, for those who do not ask for their number


def one_of_both(document: Document) -> Iterator[Mistake]:
    """Leave one of the two in the tree, steps to be counted where it is epochs; a mistake where both are said.

    What an override says takes the place of the other one in the file.
    """
    rollout = document.tree.get("rollout")
    if not isinstance(rollout, dict) or rollout.get("num_epoch") is None:
        return
    if rollout.get("num_rollout") is None:
        rollout["num_rollout"] = NOT_COUNTED
        return
    overridden = {path for path in (STEPS, EPOCHS) if document.override(path)}
    if overridden == {STEPS}:
        rollout["num_epoch"] = None
    elif overridden == {EPOCHS}:
        rollout["num_rollout"] = NOT_COUNTED
    else:
        found = f"{rollout['num_epoch']}, beside num_rollout {rollout['num_rollout']}"
        key, override = ".".join(EPOCHS), document.override(EPOCHS)
        line = None if override else document.line(EPOCHS)
        yield Mistake(key, line, found, "one of the two", "remove the other", override)
