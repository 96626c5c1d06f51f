from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import modelcfg
from core.config.schema import RunConfig
from core.planner import Device
from hpc.site.files import Site
from hpc.site.schema import Container
from launchers.submit.memory_check import refusals
from launchers.submit.site_rules import refuse_disagreements
from launchers.submit.submission import (
    Refused,
    Submission,
    chain_length,
    make_submission,
    next_in_chain,
    run_dir_mistake,
)
from launchers.submit.which_gpus import site_device

RUN_DIR = Path("/shared/runs/a")


def config(name: str = "tiny", placement: dict[str, Any] | None = None, **slurm: Any) -> RunConfig:
    sections = {
        "name": name,
        "model": {"path": "m"},
        "data": {"path": "d"},
        "rollout": {"num_rollout": 1, "rollout_batch_size": 1},
        "train": {"global_batch_size": 8},
        "placement": placement or {"device": "cpu"},
        "slurm": slurm,
    }
    return RunConfig.model_validate(sections)


def submission(site: Site | None = None, **slurm: Any) -> Submission:
    found, site = config(**slurm), site or Site()
    made = make_submission(found, site, device=site_device(found, site))
    refuse_disagreements(made)
    return made


def test_a_job_of_the_run() -> None:
    job = submission(Site(python="/env/bin/python"), time="2:00:00", exclude=["n3"]).job(RUN_DIR)
    assert job.command[0] == "/env/bin/python"
    assert (job.time_minutes, job.run_dir, job.excluded_nodes) == (120, RUN_DIR, ("n3",))


def test_the_interpreter_of_a_container_is_its_own() -> None:
    pyxis = Site(container=Container(runtime="pyxis", image="a.sqsh"))
    assert submission(pyxis).site.python == "python3"
    assert Path(submission().site.python or "").is_absolute()


MISTAKES = {
    "reserved variable": (
        Site(),
        {"environment": {"RANK": "0"}},
        "slurm.environment.RANK: found the variable RANK; wanted a variable that is yours to set: torchrun sets it",
    ),
    "variable of the launcher": (
        Site(),
        {"environment": {"EBBTIDE_RUN_DIR": "/x"}},
        "slurm.environment.EBBTIDE_RUN_DIR: found the variable EBBTIDE_RUN_DIR; wanted a variable that is yours to "
        "set: ebbtide sets it for its own processes",
    ),
    "secret": (
        Site(),
        {"environment": {"WANDB_API_KEY": "abc"}},
        "slurm.environment.WANDB_API_KEY: found the variable WANDB_API_KEY; wanted a variable that is yours to set: "
        "secrets are not written into job scripts: export it in the shell that submits, and sbatch passes it on",
    ),
    "option with a key of its own": (
        Site(),
        {"components": [{"role": "trainers", "sbatch": {"exclusive": ""}}]},
        "slurm.components.0.sbatch.exclusive: found --exclusive; wanted an option without a key of its own: set "
        "`exclusive: true` on the component in the run file",
    ),
    "misspelt option": (
        Site(),
        {"components": [{"role": "trainers", "sbatch": {"reservaton": "night"}}]},
        "slurm.components.0.sbatch.reservaton: found --reservaton; wanted a long option of sbatch: did you mean "
        "reservation? Or if a plugin of this cluster's Slurm has it, set `plugin_options: [reservaton]` in the site "
        "file",
    ),
    "time over the site's": (
        Site(max_time="24:00:00"),
        {"time": "2-00"},
        "slurm.time: found 2880 min; wanted at most 1440 min (max_time of the site file): lower it: a run that needs "
        "longer saves itself and goes on in another job",
    ),
    "more GPUs than a node has": (
        Site(gpus_per_node=4),
        {"placement": {"device": "cuda", "trainers_per_node": 8, "engines_per_node": 8}},
        "placement: found 8 GPUs per node; wanted at most 4 (gpus_per_node of the site file): spread the run over "
        "more nodes: raise num_nodes and lower trainers_per_node or engines_per_node",
    ),
    "more GPUs than a node has, in a part": (
        Site(gpus_per_node=4),
        {"components": [{"role": "trainers", "gpus_per_node": 8}]},
        "slurm.components.0.gpus_per_node: found 8 GPUs per node; wanted at most 4 (gpus_per_node of the site file): "
        "spread the run over more nodes: raise num_nodes and lower trainers_per_node or engines_per_node",
    ),
    "GPUs that are too old": (
        Site(gpu_type="v100", gpus_per_node=4),
        {"placement": {"device": "cuda"}},
        "placement.device: found GPUs of compute capability 7.0 (v100, gpu_type of the site file); wanted 8.0 or "
        "newer, such as A100, L4 or H100, which have bfloat16: ask for other GPUs, or set placement.device to cpu",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_run_file_and_site_disagree(case: str) -> None:
    site, slurm, says = MISTAKES[case]
    with pytest.raises(Refused) as caught:
        submission(site, **slurm)
    assert str(caught.value) == f"tiny cannot be submitted, 1 mistake:\n  {says}"


@pytest.mark.parametrize(("device", "refused"), [("cpu", True), ("cuda", False)])
def test_where_there_are_no_gpus_engines_that_need_them_are_refused(device: str, refused: bool) -> None:
    """`auto` is what the machine has; a run file that says cpu is refused by itself."""
    found, name = config(placement={"device": "auto"}), "qwen3-next-80b-a3b"
    machine = Device(device, None, "this machine")
    made = make_submission(found, Site(), shape=modelcfg.load(name), device=machine)
    says = f"placement.device: found auto, which is cpu on this machine, with engines for {name}: SGLang computes its "
    assert any(str(one).startswith(says) for one in refusals(made)) == refused


def test_all_mistakes_together() -> None:
    with pytest.raises(Refused) as caught:
        submission(Site(max_time="1:00:00"), environment={"RANK": "0", "HOME": "/"}, time="2:00:00")
    assert len(caught.value.mistakes) == 3
    assert "3 mistakes" in str(caught.value)


def test_a_name_that_slurm_would_not_take() -> None:
    with pytest.raises(Refused, match="found the job name 'my run'; wanted letters"):
        submission(name="my run").job(RUN_DIR)


def test_a_run_directory_that_nodes_do_not_see() -> None:
    assert "in /tmp, which every node has for itself" in str(run_dir_mistake(submission(), Path("/tmp/a"), {}))
    assert run_dir_mistake(submission(Site(shared_filesystems=(Path("/tmp"),))), Path("/tmp/a"), {}) is None


def test_jobs_of_a_chain_wait_for_each_other() -> None:
    assert chain_length(submission()) == 1
    chain = submission(Site(requeue=False), chain=3)
    assert chain_length(chain) == 3
    job = chain.job(RUN_DIR)
    assert not job.requeue
    assert next_in_chain(job, None).dependency is None
    assert next_in_chain(job, "7").dependency == "afterany:7"


def test_the_page_documents_every_mistake() -> None:
    page = (Path(__file__).parents[3] / "docs" / "slurm-mistakes.md").read_text(encoding="utf-8")
    assert [says for _, _, says in MISTAKES.values() if f"```text\n{says}\n```" not in page] == []
