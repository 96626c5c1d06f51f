"""Environment variables that a user's files may not set: the launcher owns them, or they hold a secret."""

from __future__ import annotations

import re

_OWNED_PREFIXES = {
    "EBBTIDE_": "ebbtide sets it for its own processes",
    "SLURM_": "Slurm sets it, and ebbtide reads the allocation from it",
    "SLURMD_": "Slurm sets it",
    "SRUN_": "ebbtide starts the one srun of the job with its own options",
    "SBATCH_": "it would override the job's #SBATCH lines",
    "PMI": "Slurm sets it for MPI programs",
    "SUBMITIT_": "submitit sets it",
    "TORCHELASTIC_": "torchrun sets it",
    "APPTAINERENV_": "it belongs into container.environment",
    "SINGULARITYENV_": "it belongs into container.environment",
}
_RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
_OWNED = {
    **dict.fromkeys((*_RANKS, "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"), "torchrun sets it"),
    "PYTHONPATH": "the code directory must come first on it",
    "PYTHONHOME": "it would change which Python libraries are loaded: set python in the site file",
    "CUDA_VISIBLE_DEVICES": "each process gets the GPUs that the layout gives it",
    "CUDA_DEVICE_ORDER": "processes are paired by the UUID of their GPU",
    "NVIDIA_VISIBLE_DEVICES": "each process gets the GPUs that the layout gives it",
    "ROCR_VISIBLE_DEVICES": "each process gets the GPUs that the layout gives it",
    "GLOO_SOCKET_IFNAME": "it follows from the address of the rendezvous: set interface in the site file",
    "LD_PRELOAD": "the engine's memory saver sets it",
    "BASH_ENV": "it would run in every shell of the job: use setup in the site file",
    "ENV": "it would run in every shell of the job: use setup in the site file",
    "IFS": "it would change how the job script reads its own lines",
    "PATH": "a whole new PATH loses the commands of Slurm: use modules or setup in the site file",
    "HOME": "programs find their configuration and caches by it",
    "USER": "Slurm sets it",
}
_SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?)($|_)", re.IGNORECASE)


def reserved_variable(name: str) -> str | None:
    """Why a user's file may not set the environment variable `name`; None if it may."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return "a name is made of letters, digits and underscores"
    if name in _OWNED:
        return _OWNED[name]
    prefix = next((prefix for prefix in _OWNED_PREFIXES if name.startswith(prefix)), None)
    if prefix is not None:
        return _OWNED_PREFIXES[prefix]
    return secret_variable(name)


def secret_variable(name: str) -> str | None:
    """Why the environment variable `name` may not stand in a job script; None if it may."""
    if _SECRET.search(name):
        return "secrets are not written into job scripts: export it in the shell that submits, and sbatch passes it on"
    return None
