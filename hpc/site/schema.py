"""The site file as frozen, typed sections: a cluster described once. Every key is declared here and nowhere else."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from common.hostlist import check_nodes
from common.memory_size import gpu_memory_bytes
from common.mistake import Wrong, show
from common.slurm_time import time_limit_minutes
from hpc.slurm.options import IN_SITE, IN_SRUN, refuse_option, refuse_options
from hpc.slurm.reserved import reserved_variable


def _time(text: str) -> str:
    time_limit_minutes(text)
    return text


def _word(text: str) -> str:
    if not text or re.search(r"\s", text):
        raise Wrong(show(text), "one word", "take it as `sinfo`, `sacctmgr` or `ip link` shows it")
    return text


def _module(text: str) -> str:
    if not text or re.search(r"\s", text):
        raise Wrong(show(text), "one module, as `module avail` shows it", "make each module an item of the list")
    return text


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text or "\0" in text:
        raise Wrong(f"a line break in {show(text)}", "one line", "write it on one line")
    return text


def _variable(name: str) -> str:
    reason = reserved_variable(name)
    if reason is not None:
        raise Wrong(f"the variable {name}", "a variable that is yours to set", reason)
    return name


def _option(name: str) -> str:
    refuse_option(name, IN_SITE)
    return name


def _option_of_srun(name: str) -> str:
    refuse_option(name, IN_SRUN)
    return name


def _nodes(text: str) -> str:
    check_nodes(text)
    return text


def _ports(text: str) -> str:
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    if match is None:
        raise Wrong(show(text), "two port numbers as LOW-HIGH", "write for example 20000-29999")
    low, high = int(match[1]), int(match[2])
    if not 1024 <= low < high <= 65535:
        raise Wrong(show(text), "LOW < HIGH, both from 1024 to 65535", "write for example 20000-29999")
    if high - low < MIN_PORTS - 1:
        raise Wrong(f"{high - low + 1} ports", f"at least {MIN_PORTS}", "widen the range: each process takes several")
    return text


def _memory(text: str) -> str:
    gpu_memory_bytes(text)
    return text


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise Wrong(show(str(path)), "an absolute path", "write it from / on: it is read on other machines")
    return path


def _mount(text: str) -> str:
    parts = text.split(":")
    if len(parts) not in (1, 2, 3) or not all(part.startswith("/") for part in parts[:2]) or "," in text:
        raise Wrong(show(text), "SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro, with absolute paths", "correct the mount")
    if len(parts) == 3 and parts[2] not in ("ro", "rw"):
        raise Wrong(show(text), "ro or rw after the second colon", "correct the mount")
    return text


MIN_PORTS = 100
_NO_ENVIRONMENT = "leave it out: the processes find their allocation in SLURM_* variables"
_NO_PIDS = "leave it out: scancel would not reach the processes inside"
REFUSED_IN_APPTAINER = {
    **dict.fromkeys(("--cleanenv", "-e", "--containall", "-C"), _NO_ENVIRONMENT),
    **dict.fromkeys(("--pid", "-p"), _NO_PIDS),
}
Time = Annotated[str, AfterValidator(_time)]
Word = Annotated[str, AfterValidator(_word)]
Module = Annotated[str, AfterValidator(_module)]
Line = Annotated[str, AfterValidator(_one_line)]
Variable = Annotated[str, AfterValidator(_variable)]
Option = Annotated[str, AfterValidator(_option)]
SrunOption = Annotated[str, AfterValidator(_option_of_srun)]
Nodes = Annotated[str, AfterValidator(_nodes)]
Ports = Annotated[str, AfterValidator(_ports)]
Memory = Annotated[str, AfterValidator(_memory)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Mount = Annotated[str, AfterValidator(_mount)]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Container(Section):
    """The image that the processes of a run start in. The job script itself runs outside."""

    runtime: Literal["none", "pyxis", "apptainer", "singularity"] = Field("none", description="what starts containers")
    image: Line | None = Field(None, description="file or address of the image, as the runtime spells it")
    mounts: tuple[Mount, ...] = Field(
        (),
        description="SOURCE:TARGET or SOURCE:TARGET:ro; run directory and code are always mounted at their own paths",
    )
    environment: dict[Variable, Line] = Field(default_factory=dict, description="variables inside the container only")
    options: tuple[Line, ...] = Field((), description="further options of `srun` (pyxis) or of `apptainer exec`")

    @model_validator(mode="after")
    def _has_image(self) -> Container:
        if self.runtime != "none" and not self.image:
            raise Wrong(f"runtime {self.runtime} without an image", "an image to start", "add image to container")
        if self.runtime == "none" and self.image:
            raise Wrong("an image and runtime none", "a runtime that starts it", "set runtime: pyxis or apptainer")
        return self

    @model_validator(mode="after")
    def _keeps_the_environment(self) -> Container:
        if self.runtime in ("apptainer", "singularity"):
            for option in self.options:
                if option in REFUSED_IN_APPTAINER:
                    raise Wrong(f"the option {option}", "another option", REFUSED_IN_APPTAINER[option])
        return self


class CpuNodes(Section):
    """Options of components without GPUs, in place of the four keys of the same names above."""

    partition: Word | None = Field(None, description="partition of components without GPUs")
    account: Word | None = Field(None, description="account of components without GPUs")
    qos: Word | None = Field(None, description="quality of service of components without GPUs")
    constraint: Word | None = Field(None, description="node features of components without GPUs")


class Site(Section):
    """A cluster, described once."""

    partition: Word | None = Field(None, description="where jobs go; null: the cluster's default partition")
    account: Word | None = Field(None, description="who pays; null: your default account")
    qos: Word | None = Field(None, description="quality of service")
    constraint: Word | None = Field(None, description="node features that jobs need, e.g. h100&ib")
    cpu_nodes: CpuNodes | None = Field(None, description="where components without GPUs go; null: where all go")
    time: Time | None = Field(None, description="time limit of a job whose run file names none")
    max_time: Time | None = Field(None, description="longest time limit that the cluster grants")
    gpus_per_node: Annotated[int, Field(ge=0)] | None = Field(None, description="GPUs of a GPU node")
    gpu_option: Literal["gres", "gpus-per-node"] = Field("gres", description="which option of sbatch asks for GPUs")
    gpu_type: Word | None = Field(None, description="type in the request for GPUs, e.g. h100; null: any")
    gpu_memory: Memory | None = Field(
        None, description="memory of a GPU, e.g. 80GiB, for what submit and plan check; null: as gpu_type says"
    )
    nodes_exclude: tuple[Nodes, ...] = Field((), description="nodes that jobs never run on; ranges as node[1-3]")
    modules: tuple[Module, ...] = Field((), description="environment modules that the job script loads")
    setup: tuple[str, ...] = Field((), description="lines of bash that the job script runs before the processes start")
    environment: dict[Variable, Line] = Field(default_factory=dict, description="variables of all processes")
    python: Line | None = Field(
        None, description="interpreter on compute nodes; null: the one that submits, or python3 in a container"
    )
    port_range: Ports = Field("20000-29999", description="ports that processes of a run may listen on")
    interface: Word | None = Field(
        None, description="network interface that nodes reach each other through; null: that of the host name's address"
    )
    heterogeneous: bool = Field(True, description="whether the cluster takes heterogeneous jobs")
    requeue: bool = Field(True, description="whether jobs may requeue themselves")
    accounting: bool = Field(True, description="whether `sacct` works")
    scratch: AbsolutePath | None = Field(
        None, description="directory for temporary files that each node has for itself; null: TMPDIR"
    )
    shared_filesystems: tuple[AbsolutePath, ...] = Field(
        (), description="directories that all nodes see; if any are named, run directories must lie in one of them"
    )
    container: Container = Field(Container(), description="containers")
    plugin_options: tuple[Word, ...] = Field(
        (), description="options that plugins of this cluster's Slurm add to those of sbatch and srun"
    )
    sbatch: dict[Option, Line] = Field(
        default_factory=dict, description="further long options of sbatch, for all components: reservation, …"
    )
    srun: dict[SrunOption, Line] = Field(
        default_factory=dict, description="further long options of the srun that starts the processes: mpi, network, …"
    )

    @field_validator("sbatch", "srun")
    @classmethod
    def _options_that_slurm_knows(cls, options: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        asker = IN_SRUN if info.field_name == "srun" else IN_SITE
        for _, wrong in refuse_options(options, asker, info.data.get("plugin_options", ())):
            raise wrong
        return options

    @model_validator(mode="after")
    def _time_within_limit(self) -> Site:
        if self.time and self.max_time and time_limit_minutes(self.time) > time_limit_minutes(self.max_time):
            raise Wrong(f"time {self.time} and max_time {self.max_time}", "time <= max_time", "lower time")
        return self

    @model_validator(mode="after")
    def _type_with_gpus(self) -> Site:
        if self.gpu_type and self.gpus_per_node == 0:
            raise Wrong(f"gpu_type {self.gpu_type} and gpus_per_node 0", "GPUs, or no type", "correct gpus_per_node")
        return self

    @property
    def interpreter(self) -> str:
        """What starts Python on compute nodes."""
        return self.python or (sys.executable if self.container.runtime == "none" else "python3")

    @property
    def ports(self) -> range:
        """The ports of `port_range`, both ends included."""
        low, high = self.port_range.split("-")
        return range(int(low), int(high) + 1)

    @property
    def time_minutes(self) -> int | None:
        """`time` in minutes."""
        return time_limit_minutes(self.time) if self.time else None

    @property
    def max_time_minutes(self) -> int | None:
        """`max_time` in minutes."""
        return time_limit_minutes(self.max_time) if self.max_time else None
