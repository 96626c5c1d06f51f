"""Where a text stands in a job script: named where it cannot be spelt, quoted where it can."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.sbatch import templates
from hpc.sbatch.container import command_prefix, mounts, srun_options
from hpc.sbatch.job import JobSpec
from hpc.sbatch.quote import list_word, one_line, word
from hpc.sbatch.text import sbatch_text
from hpc.site.schema import Container, Site
from tests.support.sample_jobs import APPTAINER, JOB, PYXIS, REWARDS, TRAINERS

BROKEN = "a\nb"


def in_container(container: Container, **changes: object) -> JobSpec:
    """A job in a container whose settings are not checked."""
    given = Container.model_construct(**{**dict(container), **changes})
    return replace(JOB, site=Site().model_copy(update={"container": given}))


PLACES: dict[str, list[Callable[[], object]]] = {
    "run directory": [
        lambda: sbatch_text(replace(JOB, run_dir=Path("/runs", BROKEN), batch_log=Path("/logs/batch.log"))),
        lambda: sbatch_text(replace(JOB, array_run_dirs=(Path("/runs/0"), Path("/runs", BROKEN)))),
    ],
    "code directory": [lambda: sbatch_text(replace(JOB, code_dir=Path("/code", BROKEN)))],
    "command": [lambda: sbatch_text(replace(JOB, command=("run", BROKEN)))],
    "variable A": [lambda: sbatch_text(replace(JOB, environment={"A": BROKEN}))],
    "value of --comment": [lambda: sbatch_text(replace(JOB, comment=BROKEN))],
    "log pattern": [lambda: sbatch_text(replace(JOB, task_stdout=BROKEN))],
    "option of srun": [lambda: sbatch_text(replace(JOB, site=Site().model_copy(update={"srun": {"mpi": BROKEN}})))],
    "image": [lambda: srun_options(in_container(PYXIS, image=BROKEN))],
    "mounts": [lambda: srun_options(in_container(PYXIS, mounts=(BROKEN,)))],
    "names": [lambda: srun_options(in_container(PYXIS, environment={BROKEN: "1"}))],
    "option of the container": [
        lambda: srun_options(in_container(PYXIS, options=(BROKEN,))),
        lambda: command_prefix(in_container(APPTAINER, options=(BROKEN,))),
    ],
    "mount": [lambda: command_prefix(in_container(APPTAINER, mounts=(BROKEN,)))],
    "path": [lambda: mounts(replace(JOB, run_dir=Path("/runs", BROKEN)))],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_line_break_is_named_with_its_place(place: str) -> None:
    for render in PLACES[place]:
        with pytest.raises(ValueError, match=f"^found a line break in the {place} '") as caught:
            render()
        assert str(caught.value).endswith("; wanted one line: rename it: a job script cannot spell it")


@pytest.mark.parametrize("mark", ["\n", "\r", "\0"], ids=["line feed", "carriage return", "zero"])
def test_what_ends_a_line_of_a_script_is_refused(mark: str) -> None:
    with pytest.raises(ValueError, match="line break in the value"):
        word(f"a{mark}b")


def test_a_text_of_one_line_is_taken_as_it_is() -> None:
    assert one_line("MAX \t'é", "value") == "MAX \t'é"


@pytest.mark.parametrize(
    ("items", "text"),
    [(["a", "b"], "'a,b'"), (["a b"], "'a b'"), (["it's"], "'it'\"'\"'s'")],
    ids=["two", "a blank", "a quote"],
)
def test_a_list_is_quoted_once(items: list[str], text: str) -> None:
    assert list_word(items, "mounts") == text


@pytest.mark.parametrize("mark", [",", ":"])
def test_a_mount_cannot_spell_these(mark: str) -> None:
    with pytest.raises(ValueError, match=f"a comma or colon in /runs/a{mark}b; wanted"):
        mounts(replace(JOB, run_dir=Path(f"/runs/a{mark}b")))


def test_mounts_of_a_job_without_code_are_its_run_directory_and_the_sites() -> None:
    job = replace(JOB, code_dir=None, run_dir=Path("/runs/X"), site=Site(container=PYXIS))
    assert mounts(job) == ["/runs/X:/runs/X", "/data:/mnt/data:ro", "/models:/models"]


def test_singularity_is_apptainer_by_its_old_name_and_gets_gpus_only_where_there_are_any() -> None:
    container = APPTAINER.model_copy(update={"runtime": "singularity", "mounts": (), "options": ()})
    job = replace(JOB, code_dir=None, site=Site(container=container))
    bind = ["--bind=/runs/math:/runs/math", "'/images/my image.sif'"]
    assert command_prefix(job) == ["singularity", "exec", "--nv", *bind]
    assert command_prefix(replace(job, components=(REWARDS,))) == ["singularity", "exec", *bind]


def test_a_batch_log_may_lie_elsewhere() -> None:
    lines = sbatch_text(replace(JOB, batch_log=Path("/logs/50%/%x.log"))).splitlines()
    assert "#SBATCH --output=/logs/50%%/%x.log" in lines
    assert "# Before sbatch: mkdir -p /logs/50%    (Slurm does not make it)" in lines


def test_a_job_that_leaves_nothing_behind_makes_no_run_directory() -> None:
    job = replace(JOB, command=("hostname",), task_stdout="/logs/%j", verdict=False)
    assert "EBBTIDE_RUN_DIR" not in sbatch_text(job)


@pytest.mark.parametrize(("length", "num_lines"), [(99, 1), (100, 3)])
def test_an_array_longer_than_a_line_has_a_line_per_word(length: int, num_lines: int) -> None:
    text = sbatch_text(replace(JOB, command=("x" * length,)))
    text = text[text.index("command=(") : text.index("# shellcheck")]
    assert len(text.splitlines()) == num_lines


def test_components_of_which_some_ask_for_cpus_are_told_apart_on_the_srun_line() -> None:
    components = (replace(TRAINERS, cpus_per_task=None), replace(REWARDS, cpus_per_task=None))
    task = '"${options[@]}" bash -c "$task" task "${command[@]}"'
    assert f"srun --het-group=0-1 {task}\n" in sbatch_text(replace(JOB, components=components))
    components = (TRAINERS, replace(REWARDS, cpus_per_task=None))
    wanted = f"srun --het-group=0 --cpus-per-task=64 {task} : \\\n  --het-group=1 {task}\n"
    assert wanted in sbatch_text(replace(JOB, components=components))


@pytest.mark.parametrize("write", [False, True], ids=["names", "write"])
def test_templates_are_written_only_when_told(
    write: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["templates", *(["--write"] if write else [])])
    templates.main()
    paths = [tmp_path / f"{name}.sbatch" for name in templates.NAMES]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    written = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == (dict(templates.templates()) if write else {})
