"""Containers as the site file has them: options of srun (pyxis), or a command in front (apptainer, singularity)."""

from __future__ import annotations

from common.mistake import Wrong
from hpc.sbatch.job import JobSpec
from hpc.sbatch.quote import list_word, one_line, word

OWN_VARIABLES = ("PYTHONPATH", "EBBTIDE_RUN_DIR", "EBBTIDE_SLURM_DIR", "EBBTIDE_JOB_END")


def srun_options(job: JobSpec) -> list[str]:
    """Words of bash for the srun line; none unless pyxis starts the containers."""
    container = job.site.container
    if container.runtime != "pyxis":
        return []
    names = dict.fromkeys((*OWN_VARIABLES, *job.site.environment, *job.environment, *container.environment))
    return [
        f"--container-image={word(container.image or '', 'image')}",
        # of this start of this job only: a name shared with another would bring its leftovers along
        '--container-name="ebbtide-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"',
        f"--container-mounts={list_word(mounts(job), 'mounts')}",
        "--no-container-mount-home",
        f"--container-env={list_word(names, 'names')}",
        *(word(option, "option of the container") for option in container.options),
    ]


def command_prefix(job: JobSpec) -> list[str]:
    """Words of bash before the command; none unless apptainer or singularity starts the containers."""
    container = job.site.container
    if container.runtime not in ("apptainer", "singularity"):
        return []
    gpus = any(component.gpus_per_node for component in job.components)
    binds = [f"--bind={word(mount, 'mount')}" for mount in mounts(job)]
    options = [word(option, "option of the container") for option in container.options]
    return [container.runtime, "exec", *(["--nv"] if gpus else []), *binds, *options, word(container.image or "")]


def exports(job: JobSpec) -> dict[str, str]:
    """Variables of the job script that become variables inside the container."""
    container = job.site.container
    if container.runtime == "pyxis":
        return dict(container.environment)
    # not --env, which would split values at commas
    prefix = f"{container.runtime.upper()}ENV_"
    return {f"{prefix}{name}": value for name, value in container.environment.items()}


def mounts(job: JobSpec) -> list[str]:
    """SOURCE:TARGET[:ro] of all mounts: the run directories and the code at their own paths, then the site's.

    Raises:
        Wrong: (a ValueError) a path with a comma or colon, which a mount cannot spell.
    """
    own = [*(job.array_run_dirs or (job.run_dir,)), *((job.code_dir,) if job.code_dir else ())]
    for path in own:
        if any(mark in one_line(path, "path") for mark in ",:"):
            raise Wrong(f"a comma or colon in {path}", "a path that a container's mount can spell", "rename it")
    given = [mount if ":" in mount else f"{mount}:{mount}" for mount in job.site.container.mounts]
    return list(dict.fromkeys([*(f"{path}:{path}" for path in own), *given]))
