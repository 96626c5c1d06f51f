"""What a launch says about the cluster, as comments: the site file and the job are the reader's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from hpc.slurm.reserved import reserved_variable
from launchers.moving_in.draft import Draft
from launchers.moving_in.shell import Gaps, Launch

OF_THE_PLACE = re.compile(
    r"PYTHON\w*|LD_LIBRARY_PATH|CUDA_DEVICE_MAX_CONNECTIONS|MASTER_\w+|(?:no|http|https)_proxy|\w*SOCKET_IFNAME|MLP_\w+"
    r"|RAY_\w+|NVTE_\w+|OPEN_TRAINING_\w+|\w*(?:KEY|TOKEN|SECRET)\w*",
    re.IGNORECASE,
)


def site_hint(draft: Draft, launch: Launch, gaps: Gaps) -> Iterator[str]:
    """Lines about nodes, GPUs and variables of the job."""
    parts = draft.value("slurm.components", [])
    more = sum(part["nodes"] for part in parts if part["role"] == "engines")
    nodes, gpus = draft.value("placement.num_nodes", 1) + more, draft.value("placement.trainers_per_node", 1)
    if draft.value("placement.engines", "colocated") == "own_gpus":
        gpus += draft.value("placement.engines_per_node", 1) * draft.value("placement.engine_tensor_parallel", 1)
    each = f"{gpus} GPU{'s' * (gpus > 1)}{' each' * (nodes > 1)}"
    yield f"site: {nodes} node{'s' * (nodes > 1)} with {each} for this run; no Ray is needed"
    yield f"  ebbtide doctor --write site.yaml    # a site file; gpus_per_node: {gpus}"
    if environment := dict(_environment(launch, gaps)):
        said = ", ".join(f"{name}: '{value}'" for name, value in environment.items())
        yield f"  variables of the script, if they are needed (environment in site.yaml): {said}"


def variables_of(launch: Launch, gaps: Gaps) -> dict[str, str]:
    """Variables that `ray job submit` gives the job."""
    try:
        found = json.loads(gaps.readable(launch.runtime_env) or "{}")
    except (ValueError, RecursionError):
        return {}
    said = found.get("env_vars") if isinstance(found, dict) else None
    return {name: value for name, value in said.items() if isinstance(value, str)} if isinstance(said, dict) else {}


def _environment(launch: Launch, gaps: Gaps) -> Iterator[tuple[str, str]]:
    """Variables of the job, but for those of slime's own place."""
    for name, value in variables_of(launch, gaps).items():
        free = not OF_THE_PLACE.fullmatch(name) and reserved_variable(name) is None
        if free and value and "$" not in value and value.isprintable():
            yield name, value
