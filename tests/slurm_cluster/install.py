"""Slurm, munge and a database from the distribution's packages (Debian, Ubuntu), as root."""

from __future__ import annotations

import os
import shutil
import subprocess

PACKAGES = [
    "slurm-wlm",
    "slurm-client",
    "munge",
    "slurmdbd",
    "slurm-wlm-mysql-plugin",
    "mariadb-server",
    "iproute2",
    "util-linux",
]


def install() -> None:
    """Install what a test cluster needs; does nothing where it is there already.

    Raises:
        SystemExit: not root, or no apt: says what to install by hand.
    """
    from tests.slurm_cluster.cluster import missing

    if not missing():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(f"found no root or no apt-get: install by hand: {' '.join(PACKAGES)}")
    # the packages' own services are not wanted: a test cluster starts its own daemons
    policy = "/usr/sbin/policy-rc.d"
    ours = not os.path.exists(policy)
    if ours:
        with open(policy, "w") as script:
            script.write("#!/bin/sh\nexit 101\n")
        os.chmod(policy, 0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True, timeout=300)
        install_command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
        subprocess.run(install_command, env=environment, check=True, timeout=900)
    finally:
        if ours:
            os.remove(policy)
