"""State of the loop: everything beside the trainer's own state that a resumed run needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol


class Used(Protocol):
    """What a step's rollout has used up: `core.rollout.request.Generated`."""

    @property
    def num_drawn(self) -> int:
        """Rows of the data."""
        ...


@dataclass(frozen=True)
class LoopState:
    """Written into every checkpoint's manifest. A sample's seed depends on the step, so no sampler state is kept."""

    next_step: int = 0  # the step that comes next; steps below it are complete
    data_position: int = 0  # absolute cursor into the prompt source

    def after_step(self, num_prompts: int) -> LoopState:
        """The state once the current step is complete."""
        return LoopState(self.next_step + 1, self.data_position + num_prompts)

    def after(self, made: Used) -> LoopState:
        """The state once the current step is complete, of which this is the rollout."""
        return self.after_step(made.num_drawn)

    def to_dict(self) -> dict[str, Any]:
        """Fields for the manifest."""
        return asdict(self)
