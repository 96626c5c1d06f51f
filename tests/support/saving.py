"""What is written while the trainer does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def save_beside(trainer: Any, directory: Path, act: Callable[[], Any]) -> Any:
    """What `act` gives. What is written must not be what the trainer goes on with."""
    write = trainer.stage(directory, apart=True)
    changing = {tensor.untyped_storage().data_ptr() for tensor in _own(trainer)}
    for one in write.args[0]:
        for _, _, (_, tensors) in one.args[0].files:
            assert not [item for item, tensor in tensors if tensor.untyped_storage().data_ptr() in changing]
    return _beside(partial(write, dist.new_group(backend="gloo")), act)


def export_beside(trainer: Any, saved: Path, directory: Path, act: Callable[[], Any]) -> Any:
    """What `act` gives; the first rank writes the model of what is saved meanwhile."""
    return _beside(partial(trainer.export, saved, directory) if dist.get_rank() == 0 else _nothing, act)


def _beside(work: Callable[[], None], act: Callable[[], Any]) -> Any:
    failed: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    found = act()
    thread.join(300)
    assert not failed, failed
    assert not thread.is_alive()
    dist.barrier()
    return found


def _nothing() -> None:
    pass


def _own(trainer: Any) -> Iterator[torch.Tensor]:
    """All that the trainer's memory knows, and what streams on the host."""
    yield from trainer.weights.parameters.values()
    optimizers = [trainer.policy.optimizer, *([trainer._critic.optimizer] if trainer._critic else [])]
    for optimizer in optimizers:
        with optimizer.state_at_hand():
            for adam in optimizer.adams:
                for parameter, state in adam.optimizer.state.items():
                    yield from (parameter.data, *state.values())
    if trainer._reference is not None:
        yield from trainer._reference.weights.values()
