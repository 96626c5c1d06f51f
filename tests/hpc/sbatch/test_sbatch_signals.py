"""Which components a job script starts tasks in, and which of them hear of its end: read and executed as Slurm does.

Slurm sends what `--signal` says to the tasks of the component whose directives say it, and with `B:` to the batch shell
instead; `scancel` ends tasks and shell alike by TERM.
"""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.sbatch.job import JobSpec
from hpc.sbatch.text import sbatch_text
from hpc.site.schema import Site
from hpc.slurm.component import Component
from tests.support.sample_jobs import EVEN, HET, JOB, REWARDS, TRAINERS
from tests.support.stand_ins import Outcome, run_script

ENGINES = Component("engines", cpus_per_task=16, gpus_per_node=8)
ALIKE = tuple(replace(component, cpus_per_task=16) for component in (TRAINERS, ENGINES, REWARDS))
JOBS: dict[str, tuple[JobSpec, int]] = {
    "ordinary": (JOB, 1),
    "two components": (HET, 2),
    "two with the same CPUs": (EVEN, 2),
    "three components": (replace(HET, components=(TRAINERS, ENGINES, REWARDS)), 3),
    "three with the same CPUs": (replace(HET, components=ALIKE), 3),
    "three, no CPUs named": (replace(HET, components=tuple(replace(c, cpus_per_task=None) for c in ALIKE)), 3),
    "one allocation for two": (replace(HET, heterogeneous=False), 1),
}
# a task that ends by the signal alone, and then leaves the verdict that the script acts on
SAYS = 'echo "heard in $COMPONENT" >"$HEARD/$SLURM_PROCID"'
LEAVES = '[ "$SLURM_PROCID" != 0 ] || echo end >"$EBBTIDE_SLURM_DIR/verdict"'
WAITS = (
    f"hear() {{ {SAYS}; {LEAVES}; exit $CODE; }}; trap hear USR1 USR2 TERM; "
    'touch "$READY/$SLURM_PROCID"; for ((i = 0; i < 1500; i++)); do command -p sleep 0.02; done; exit 99'
)


def executed(tmp_path: Path, job: JobSpec, sent: signal.Signals, *, shell: bool, code: int = 0) -> Outcome:
    """The outcome of a job that is sent a signal once all of its tasks wait."""
    folders = {name: tmp_path / name.lower() for name in ("READY", "HEARD")}
    for folder in folders.values():
        folder.mkdir()
    job = replace(job, site=Site(), run_dir=tmp_path / "run", code_dir=None, command=("bash", "-c", WAITS))
    text = sbatch_text(job)
    reached = range(job.num_het_components) if shell else warned(text, sent)
    says = {"SIGNAL": str(int(sent)), "SIGNALLED": " ".join(map(str, reached)), "SIGNAL_SHELL": "yes" if shell else ""}
    return run_script(text, tmp_path, CODE=str(code), **{k: str(v) for k, v in folders.items()}, **says)


def warned(text: str, sent: signal.Signals) -> list[int]:
    """The components whose tasks Slurm warns: directives hold for the one that they stand in."""
    parts = text.split("\n#SBATCH hetjob\n")
    asked = [re.findall(r"^#SBATCH --signal=(\S+)@\d+$", part, re.MULTILINE) for part in parts]
    return [number for number, signals in enumerate(asked) if signals == [sent.name.removeprefix("SIG")]]


def heard(tmp_path: Path) -> list[str]:
    """What the tasks say, in their order."""
    return [path.read_text().strip() for path in sorted((tmp_path / "heard").iterdir())]


@pytest.mark.parametrize("name", JOBS)
def test_a_warning_reaches_the_tasks_of_every_component(tmp_path: Path, name: str) -> None:
    job, components = JOBS[name]
    outcome = executed(tmp_path, job, signal.SIGUSR2, shell=False)
    assert heard(tmp_path) == [f"heard in {number}" for number in range(components)]
    assert outcome.code == 0


def test_a_warning_by_another_signal_is_sent_likewise(tmp_path: Path) -> None:
    assert executed(tmp_path, replace(HET, signal="USR1"), signal.SIGUSR1, shell=False).code == 0
    assert heard(tmp_path) == ["heard in 0", "heard in 1"]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR2], ids=lambda sent: sent.name)
@pytest.mark.parametrize("name", ["ordinary", "three with the same CPUs"])
def test_a_signal_to_all_leaves_the_shell_to_read_the_verdict(tmp_path: Path, name: str, sent: signal.Signals) -> None:
    """A cancelled run leaves by the code of its tasks, not by that of a shell that died before them."""
    job, components = JOBS[name]
    outcome = executed(tmp_path, job, sent, shell=True, code=43)
    assert heard(tmp_path) == [f"heard in {number}" for number in range(components)]
    assert outcome.code == 43
    assert "left no verdict" not in outcome.output


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("ordinary", []),
        ("two components", ["0", "1"]),
        ("two with the same CPUs", ["0-1"]),
        ("three components", ["0", "1", "2"]),
        ("three with the same CPUs", ["0-2"]),
        ("one allocation for two", []),
    ],
)
def test_srun_is_handed_all_components(tmp_path: Path, name: str, groups: list[str]) -> None:
    (words,) = executed(tmp_path, JOBS[name][0], signal.SIGUSR2, shell=False).named("srun")
    assert [word.partition("=")[2] for word in words if word.startswith("--het-group")] == groups
