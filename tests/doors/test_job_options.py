"""The door for job options: long options of sbatch on one component of a run file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_stand_ins import ebbtide_with, stand_in
from tests.support.tiny_runs import write_run

SINFO = "printf 'main*|up|infinite|4|8|16000|gpu:2|(null)\\n'"


def components(**sbatch: Any) -> dict[str, Any]:
    """A job of trainers and, with these options, a part for rewards."""
    return {"components": [{"role": "trainers"}, {"role": "rewards", "sbatch": sbatch}]}


def ebbtide_on_login_node(folder: Path, slurm: dict[str, Any], *words: str) -> Any:
    run_file = write_run(folder / "run", placement={"device": "cpu"}, slurm=slurm)
    (folder / "site.yaml").write_text(yaml.safe_dump({"shared_filesystems": [str(folder)], "srun": {"mpi": "none"}}))
    for program, does in {"sinfo": SINFO, "scontrol": "", "sbatch": "", "squeue": ""}.items():
        stand_in(folder / "bin", program, does)
    command, *more = words
    options = (str(run_file), "--site", str(folder / "site.yaml"), "--run-dir", str(folder / "out"), *more)
    return ebbtide_with(folder / "bin", command, *options, cwd=folder)


@pytest.mark.parametrize("words", [("sbatch",), ("submit", "--dry-run")], ids=["sbatch", "dry run"])
def test_an_option_stands_in_its_component_of_the_script(words: tuple[str, ...], tmp_path: Path) -> None:
    done = ebbtide_on_login_node(tmp_path, components(reservation="cpus", hold=True), *words)
    assert done.returncode == 0, done.stderr
    script = done.stdout[done.stdout.index("#!/bin/bash") :]
    trainers, rewards = re.split(r"^#SBATCH hetjob$", script, flags=re.M)
    assert "#SBATCH --reservation=cpus\n" in rewards
    assert "#SBATCH --hold\n" in rewards
    assert "--reservation" not in trainers
    assert "--hold" not in trainers
    assert "--mpi=none" in script


@pytest.mark.parametrize(
    ("sbatch", "said"),
    [
        ({"mem": "4G"}, ["found --mem; wanted an option without a key of its own: set `mem: 64G` on the component"]),
        ({"reservatoin": "cpus"}, ["found", "did you mean reservation?"]),
        ({"output": "x"}, ["leave it out: "]),
        ({"reservation": "a\nb"}, ["found a value of several lines; wanted one line"]),
    ],
    ids=["has a key", "unknown", "ours", "two lines"],
)
def test_a_bad_option_is_refused_with_its_place(sbatch: dict[str, str], said: list[str], tmp_path: Path) -> None:
    done = ebbtide_on_login_node(tmp_path, components(**sbatch), "sbatch")
    assert done.returncode == 2, done.stdout + done.stderr
    told = " ".join(done.stderr.split())
    assert f"slurm.components.1.sbatch.{next(iter(sbatch))}" in told
    assert all(part in told for part in said), told
    assert not (tmp_path / "out").exists()
