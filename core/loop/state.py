"""State of the loop: everything beside the trainer's own state that a resumed run needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from core.rollout.carried import Carried


class Used(Protocol):
    """What a step's rollout has used up: `core.rollout.request.Generated`."""

    @property
    def num_drawn(self) -> int:
        """Rows of the data."""
        ...

    @property
    def carried(self) -> tuple[Carried, ...]:
        """Groups that the next step goes on with, once the scores are settled."""
        ...


@dataclass(frozen=True)
class LoopState:
    """Written into every checkpoint's manifest. A sample's seed depends on the step, so no sampler state is kept."""

    next_step: int = 0  # the step that comes next; steps below it are complete
    data_position: int = 0  # absolute cursor into the prompt source
    carried: tuple[Carried, ...] = ()  # groups that the next step goes on with; a file of their own in the checkpoint

    def after_step(self, num_prompts: int) -> LoopState:
        """The state once the current step is complete, and nothing of it is carried over."""
        return LoopState(self.next_step + 1, self.data_position + num_prompts)

    def after(self, made: Used) -> LoopState:
        """The state once the current step is complete, of which this is the rollout."""
        return LoopState(self.next_step + 1, self.data_position + made.num_drawn, made.carried)

    def to_dict(self) -> dict[str, Any]:
        """Fields for the manifest."""
        return {"next_step": self.next_step, "data_position": self.data_position}
