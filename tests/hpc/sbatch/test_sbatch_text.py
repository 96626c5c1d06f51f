"""Script texts: equal to the ones in golden/, accepted by bash and shellcheck, and refused where they cannot be spelt.

After a meant change: `python tests/hpc/sbatch/test_sbatch_text.py` writes the golden texts anew; read the difference.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.sbatch.job import JobSpec
from hpc.sbatch.templates import FOLDER, NAMES, templates
from hpc.sbatch.text import sbatch_text
from hpc.site.schema import Container, Site
from hpc.slurm.component import Component
from tests.support.sample_jobs import HET, HOSTILE, JOB, JOBS, PYXIS, REWARDS, TRAINERS
from tests.support.waiting import COMMAND_S

GOLDEN = Path(__file__).parent / "golden"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


@pytest.mark.parametrize("name", JOBS)
def test_the_text_is_the_golden_one(name: str) -> None:
    assert sbatch_text(JOBS[name]) == (GOLDEN / f"{name}.sbatch").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_what_the_code_renders(name: str) -> None:
    text = (FOLDER / f"{name}.sbatch").read_text(encoding="utf-8")
    assert text == templates()[name], "run python -m hpc.sbatch.templates --write"


def test_there_is_no_other_template() -> None:
    assert {path.stem for path in FOLDER.glob("*.sbatch")} == set(NAMES)


SCRIPTS = sorted([*GOLDEN.glob("*.sbatch"), *FOLDER.glob("*.sbatch")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_bash_and_shellcheck_accept_it(script: Path) -> None:
    # below a warning, shellcheck says that '$HOME' is not expanded: of paths that are meant so
    severity = "style" if script.parent == FOLDER else "warning"
    for command in (["bash", "-n"], [str(SHELLCHECK), "--shell=bash", f"--severity={severity}"]):
        done = subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=COMMAND_S)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def lines(job: JobSpec) -> list[str]:
    return sbatch_text(job).splitlines()


def test_each_component_has_a_time_and_a_signal_for_its_tasks() -> None:
    text = sbatch_text(HET)
    for part in text.split("#SBATCH hetjob"):
        assert part.count("#SBATCH --time=01:30:00\n") == 1
        assert part.count("#SBATCH --signal=USR2@300\n") == 1
    assert text.count("#SBATCH hetjob\n") == 1


def test_there_is_one_srun_whatever_the_job() -> None:
    for job in JOBS.values():
        assert sum(line.startswith("srun ") for line in lines(job)) == 1


def test_directives_come_before_the_first_command() -> None:
    for job in JOBS.values():
        text = lines(job)
        first_command = next(number for number, line in enumerate(text) if line and not line.startswith("#"))
        assert not any(line.startswith("#SBATCH") for line in text[first_command:])


def test_without_heterogeneous_jobs_the_nodes_are_added_up_and_fit_any_component() -> None:
    text = lines(replace(HET, heterogeneous=False))
    for line in ("--nodes=3", "--cpus-per-task=64", "--gres=gpu:h100:8", "--mem=0", "--partition=gpu", "--tmp=10G"):
        assert f"#SBATCH {line}" in text
    assert "#SBATCH hetjob" not in text
    assert text == lines(replace(HET, site=HET.site.model_copy(update={"heterogeneous": False})))


@pytest.mark.parametrize(("sizes", "most"), [(("64G", "512000M"), "512000M"), (("1T", "0"), "0"), ((None, "8"), "8")])
def test_the_largest_memory_wins(sizes: tuple[str | None, str], most: str) -> None:
    components = tuple(Component(name, mem=mem) for name, mem in zip("ab", sizes, strict=True))
    assert f"#SBATCH --mem={most}" in lines(replace(JOB, components=components, heterogeneous=False))


def test_the_sites_gpu_request_is_not_made_for_cpu_components() -> None:
    leader, worker = sbatch_text(HET).split("#SBATCH hetjob")
    assert "gres" in leader
    assert "gres" not in worker
    assert "--constraint" not in worker
    assert "#SBATCH --partition=cpu\n" in worker


LINE_BREAK = Path("/runs/a\nb")
REFUSED: dict[str, tuple[Callable[[], JobSpec], str]] = {
    "line break in the run directory": (lambda: replace(JOB, run_dir=LINE_BREAK), "one line"),
    "line break in the code directory": (lambda: replace(JOB, code_dir=LINE_BREAK), "one line"),
    "line break in the command": (lambda: replace(JOB, command=("a\nb",)), "one line"),
    "line break in a variable": (lambda: replace(JOB, environment={"A": "a\nb"}), "one line"),
    "line break in the comment": (lambda: replace(JOB, comment="a\n#SBATCH --x"), "one line"),
    "line break in an option": (
        lambda: replace(JOB, components=(Component("a", options={"tmp": "1\n2"}),)),
        "one line",
    ),
    "line break in a log pattern": (lambda: replace(JOB, task_stdout="a\nb"), "one line"),
    "backslash in the run directory": (lambda: replace(JOB, run_dir=Path("/runs/a\\b")), "backslash"),
    "colon in the code directory": (lambda: replace(JOB, code_dir=Path("/code:old")), "PYTHONPATH"),
    "comma in a mounted path": (
        lambda: replace(JOB, run_dir=Path("/runs/a,b"), site=Site(container=PYXIS)),
        "a container's mount can spell",
    ),
    "unmergeable options": (
        lambda: replace(
            JOB,
            components=(Component("a", options={"tmp": "1"}), Component("b", options={"tmp": "2"})),
            heterogeneous=False,
        ),
        "differ in the option tmp (1, 2)",
    ),
    "unmergeable tasks": (
        lambda: replace(JOB, components=(TRAINERS, replace(REWARDS, tasks_per_node=2)), heterogeneous=False),
        "differ in tasks_per_node (1, 2)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_script_cannot_spell_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ValueError) as caught:
        sbatch_text(make())
    assert message in str(caught.value)
    assert str(caught.value).startswith("found ")
    assert "; wanted " in str(caught.value)


def test_a_container_needs_an_image() -> None:
    with pytest.raises(ValueError, match="runtime pyxis without an image"):
        Container(runtime="pyxis")


def test_no_secret_gets_into_a_script() -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "MY_PASSWORD", "EBBTIDE_API_KEY"):
        with pytest.raises(ValueError, match="secrets are not written"):
            replace(JOB, environment={name: "x"})


def test_the_hostile_path_is_in_the_text_only_quoted() -> None:
    assert str(HOSTILE) not in sbatch_text(JOBS["hostile"])


if __name__ == "__main__":
    for name, job in JOBS.items():
        (GOLDEN / f"{name}.sbatch").write_text(sbatch_text(job), encoding="utf-8")
