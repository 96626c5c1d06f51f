"""One part of a (heterogeneous) Slurm job: a number of nodes of one kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from common.memory_size import slurm_memory_bytes
from common.mistake import Wrong
from hpc.slurm.options import IN_PYTHON, refuse_option, refuse_value


@dataclass(frozen=True)
class Component:
    """What a part of the job asks for; component 0 of a job leads: the batch script runs on its first node.

    `partition`, `account`, `qos` and `constraint` left out are those of the site. `mem` is per node, as Slurm spells it
    (`64G`; `0`: all of the node). `options` are further long options of sbatch, without the dashes.

    Raises:
        Wrong: (a ValueError) a value that no job could have.
    """

    name: str
    nodes: int = 1
    tasks_per_node: int = 1
    cpus_per_task: int | None = None
    gpus_per_node: int = 0
    mem: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclusive: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", self.name):
            raise Wrong(f"the component name {self.name!r}", "letters, digits, _ and -", "rename it, e.g. trainers")
        for key, least in (("nodes", 1), ("tasks_per_node", 1), ("cpus_per_task", 1), ("gpus_per_node", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise Wrong(f"{key} {value} of {self.name}", f"at least {least}", "correct it or leave it out")
        try:
            slurm_memory_bytes(self.mem or "0")
        except Wrong as wrong:
            raise Wrong(f"mem {self.mem!r} of {self.name}", wrong.wanted, wrong.remedy) from None
        for option, value in self.options.items():
            refuse_option(option, IN_PYTHON)
            refuse_value(option, value, IN_PYTHON)

    @property
    def num_tasks(self) -> int:
        """Tasks of all nodes of this component."""
        return self.nodes * self.tasks_per_node
