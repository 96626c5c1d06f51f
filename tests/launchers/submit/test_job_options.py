"""Options of sbatch and srun in run file and site file: each that is refused has a remedy, which is then accepted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.checks import check_run_file
from hpc.sbatch.text import sbatch_text
from hpc.site.files import Site, SiteFileError, load_site
from hpc.slurm.option_names import SBATCH, SRUN, Takes
from hpc.slurm.options import (
    COMPONENT,
    IN_COMPONENT,
    IN_REWARDS,
    IN_SITE,
    IN_SRUN,
    IN_TRAINERS,
    OWN_OF_SRUN,
    RUN,
    SITE,
    refuse_options,
)
from launchers.submit.site_rules import refuse_disagreements
from launchers.submit.submission import Refused, Submission, make_submission
from tests.support.good_run import RUN_FILE, write_run

REMEDY = re.compile(r"set `(.+)` (" + "|".join((COMPONENT, RUN, SITE)) + ")$")
ROLES = ("trainers", "engines", "rewards")
ASKERS = {
    "trainers sbatch": IN_TRAINERS,
    "engines sbatch": IN_COMPONENT,
    "rewards sbatch": IN_REWARDS,
    "site sbatch": IN_SITE,
    "site srun": IN_SRUN,
}


class Files:
    """A run file whose job has a part of each role, and a site file; options and remedies are written into them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: dict[str, Any] = yaml.safe_load(RUN_FILE.replace("1e-6", "1.0e-6"))
        self.run["placement"]["device"] = "cuda"
        self.run["slurm"] = {"components": [{"role": role} for role in ROLES]}
        self.site: dict[str, Any] = {}

    def component(self, role: str) -> dict[str, Any]:
        found: dict[str, Any] = self.run["slurm"]["components"][ROLES.index(role)]
        return found

    def give(self, asker: str, option: str, value: str) -> None:
        """`option` where `asker` says: in a component, or in one of the site file's mappings."""
        place, key = asker.split()
        home = self.site if place == "site" else self.component(place)
        home[key] = {option: value}

    def follow(self, asker: str, remedy: str) -> None:
        """What the remedy says, in place of the options."""
        match = REMEDY.search(remedy)
        assert match is not None, remedy
        snippet, place = match.groups()
        self.__init__(self.folder)  # type: ignore[misc]
        path, value = next(iter(yaml.safe_load(snippet.replace("VALUE", "text")).items()))
        *sections, key = path.split(".")
        role = asker.split()[0]
        home = {COMPONENT: self.component(role if role in ROLES else "trainers"), RUN: self.run, SITE: self.site}[place]
        for section in sections:
            home = home[section]
        home[key] = value

    def submission(self) -> Submission:
        """All checks of a login node."""
        run_file, site_file = write_run(self.folder, yaml.safe_dump(self.run)), self.folder / "site.yaml"
        site_file.write_text(yaml.safe_dump(self.site) if self.site else "# none\n")
        submission = make_submission(check_run_file(run_file), load_site(site_file), site_file=site_file)
        refuse_disagreements(submission)
        return submission

    def script(self) -> str:
        return sbatch_text(self.submission().job(Path("/runs/a")))


def value_of(option: str) -> str:
    return "" if {**SBATCH, **SRUN}.get(option) is Takes.NOTHING else "1"


def test_every_remedy_is_accepted_when_it_is_followed(tmp_path: Path) -> None:
    """Of every option that Slurm has, wherever it may be written: accepted, ours with a reason, or led to its key."""
    outcomes: dict[str, set[str]] = {"accepted": set(), "ours": set(), "has a key": set()}
    for asker, name in ASKERS.items():
        for option in sorted({*SBATCH, *SRUN, *OWN_OF_SRUN}):
            refused = [wrong for _, wrong in refuse_options({option: value_of(option)}, name)]
            if not refused:
                outcomes["accepted"].add(f"{asker} {option}")
            elif refused[0].remedy.startswith("leave it out: "):
                outcomes["ours"].add(f"{asker} {option}")
            else:
                files = Files(tmp_path)
                files.follow(asker, refused[0].remedy)
                _ = Site.model_validate(files.site) if files.site else files.submission()
                outcomes["has a key"].add(f"{asker} {option}")
    for outcome, examples in {
        "accepted": ("trainers sbatch reservation", "rewards sbatch qos", "site sbatch tmp", "site srun mpi"),
        "ours": ("trainers sbatch output", "rewards sbatch gres", "site sbatch ntasks-per-node", "site srun cpu-bind"),
        "has a key": ("engines sbatch nodes", "trainers sbatch exclusive", "site sbatch mem", "site srun reservation"),
    }.items():
        assert outcomes[outcome] >= set(examples)


CIRCLE = ("exclusive", "mem", "cpus-per-task", "nodes", "exclude")


@pytest.mark.parametrize("option", CIRCLE)
@pytest.mark.parametrize("asker", ["trainers sbatch", "engines sbatch", "site sbatch"])
def test_a_remedy_does_what_the_option_would_have_done(asker: str, option: str, tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.give(asker, option, value_of(option))
    with pytest.raises((Refused, SiteFileError)) as caught:
        files.submission()
    before = Files(tmp_path).script()
    files.follow(asker, str(caught.value))
    added = [line for line in files.script().splitlines() if line not in before.splitlines()]
    assert any(line.startswith(f"#SBATCH --{option}") for line in added), added


def test_options_of_a_component_are_of_that_component_only(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.component("engines").update(exclusive=True, sbatch={"qos": "low", "nice": 10, "hold": True, "tmp": "10G"})
    files.site.update(qos="normal", sbatch={"tmp": "1G", "reservation": "night"})
    trainers, engines, rewards = (set(part.splitlines()) for part in files.script().split("#SBATCH hetjob"))
    own = {"--exclusive", "--qos=low", "--nice=10", "--hold", "--tmp=10G"}
    assert {f"#SBATCH {option}" for option in own} < engines
    for other in (trainers, rewards):
        assert {"#SBATCH --qos=normal", "#SBATCH --tmp=1G", "#SBATCH --reservation=night"} < other
        assert not other & {f"#SBATCH {option}" for option in own}


MISTAKES = {
    "misspelt": (
        "trainers sbatch",
        {"reservaton": "night"},
        "slurm.components.0.sbatch.reservaton: found --reservaton; wanted a long option of sbatch: did you mean "
        "reservation? Or if a plugin of this cluster's Slurm has it, set `plugin_options: [reservaton]` in the site "
        "file",
    ),
    "underscores": ("site sbatch", {"mail_user": "a@b.c"}, "without its dashes in front: write for example mail-user"),
    "dashes": ("site srun", {"--mpi": "none"}, "without its dashes in front: write for example mpi"),
    "value of a switch": ("engines sbatch", {"hold": "3"}, "found the value '3' of --hold; wanted no value"),
    "no value": ("site sbatch", {"reservation": ""}, "found --reservation without a value; wanted a value"),
    "no value of srun": ("site srun", {"mpi": ""}, "found --mpi without a value; wanted a value"),
    "ours": ("rewards sbatch", {"output": "x"}, "leave it out: each process has a log of its own in the run directory"),
    "ours, of srun": ("site srun", {"export": "NONE"}, "leave it out: all tasks see what the job script exports"),
    "of srun": ("site sbatch", {"mpi": "none"}, "it belongs to the step: set `srun: {mpi: VALUE}` in the site file"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    asker, options, says = MISTAKES[case]
    files = Files(tmp_path)
    for option, value in options.items():
        files.give(asker, option, value)
    with pytest.raises((Refused, SiteFileError)) as caught:
        files.submission()
    assert says in str(caught.value)


def test_options_of_plugins_are_those_that_the_site_file_names(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.site.update(plugin_options=["gpu-cmode"], sbatch={"gpu-cmode": "shared"}, srun={"gpu-cmode": ""})
    files.component("trainers")["sbatch"] = {"gpu-cmode": "exclusive"}
    assert "#SBATCH --gpu-cmode=exclusive\n" in files.script()
