"""`attempts/N/provenance.json`: with what an attempt was made. Versions, commit, command, machine, the user's files.

Written by the process that begins the attempt: on a cluster, the first node's task. Left out: packages that hardly
matter, and the other nodes.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from common.files import write_atomically
from common.redaction import redacted_words
from common.units import GIB
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from hpc.node.gpus import gpu_names
from hpc.node.host_memory import host_memory
from launchers.attempts.changed_files import changed_files
from launchers.attempts.user_files import keep_user_files

log = logging.getLogger(__name__)

CODE = Path(__file__).resolve().parents[2]
PACKAGES = (
    "ebbtide",
    "torch",
    "megatron-core",
    "sglang",
    "transformers",
    "triton",
    "flash-attn",
    "transformer-engine",
    "flashinfer-python",
    "tokenizers",
    "safetensors",
    "numpy",
    "h5py",
    "pydantic",
    "submitit",
)
SHOWN_PACKAGES = ("torch", "megatron-core", "sglang", "transformers")
MOST_DIRTY = 200
ASK_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Provenance:
    """Code, command, machine and files that an attempt was made with.

    Attributes:
        began: seconds since the epoch.
        command: the words of the command line, secrets hidden.
        commit: of the folder that the code lies in; None: `no_commit` says why.
        dirty: files of it that differ from the commit, as `git status --porcelain` names them.
        user_files: see `keep_user_files`.
    """

    began: float = 0.0
    command: tuple[str, ...] = ()
    folder: str = ""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    code: str = ""
    commit: str | None = None
    no_commit: str = ""
    dirty: tuple[str, ...] = ()
    host: str = ""
    system: str = ""
    cores: int = 0
    memory_gib: float = 0.0
    gpus: tuple[str, ...] = ()
    user_files: tuple[dict[str, Any], ...] = ()

    @property
    def code_text(self) -> str:
        """`ebbtide 0.1.0 at 1234abcd (2 files changed), Python 3.11.7, torch 2.13.0, …`."""
        changed = f" ({len(self.dirty)} file{'s' if len(self.dirty) > 1 else ''} changed)" if self.dirty else ""
        commit = f" at {self.commit[:8]}{changed}" if self.commit else ""
        others = [f"{name} {self.packages[name]}" for name in SHOWN_PACKAGES if name in self.packages]
        return ", ".join([f"ebbtide {self.packages.get('ebbtide', '?')}{commit}", f"Python {self.python}", *others])

    @property
    def machine_text(self) -> str:
        """`node1, 16 cores, 128 GiB, 8 × NVIDIA H100 80GB HBM3`."""
        kinds = [f"{self.gpus.count(name)} × {name}" for name in dict.fromkeys(self.gpus)]
        return ", ".join([self.host, f"{self.cores} cores", f"{self.memory_gib:.0f} GiB", *(kinds or ["no GPU"])])

    @property
    def files(self) -> list[tuple[str, str, str]]:
        """Key, path and fingerprint, or what stands in its place, of the user's files."""
        names = ("key", "path", "problem", "sha256", "pieces")
        texts = [[str(one.get(name) or "") for name in names] for one in self.user_files]
        return [
            (key, path, problem or sha or some or "not taken: too large") for key, path, problem, sha, some in texts
        ]


def note_provenance(directory: RunDirectory, number: int) -> None:
    """Write the record of an attempt that begins now; a place without space costs the record, not the attempt."""
    folder, before = AttemptFolder(directory.attempt(number)), newest_files(directory)
    try:
        found = gather(settings_of(directory), folder.user_code)
        write_atomically(folder.provenance, json.dumps(asdict(found), indent=1))
    except OSError as error:
        log.warning("%s: found %s; the attempt goes on without it", folder.provenance, error.strerror or error)
        return
    for one in changed_files(before, found.user_files):
        log.warning("changed since the attempt before: %s: %s", one.key, one.found)


def gather(settings: dict[str, Any], user_code: Path) -> Provenance:
    """The record of this process; the user's code is copied into `user_code`."""
    commit, problem, dirty = git_state(CODE)
    return Provenance(
        began=time.time(),
        command=tuple(redacted_words(sys.argv)),
        folder=os.getcwd(),
        python=platform.python_version(),
        packages=installed(),
        code=str(CODE),
        commit=commit,
        no_commit=problem,
        dirty=dirty,
        host=socket.gethostname(),
        system=platform.platform(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(host_memory().total_bytes / GIB, 1),
        gpus=gpu_names(os.environ.get("CUDA_VISIBLE_DEVICES"), ASK_TIMEOUT_S),
        user_files=tuple(keep_user_files(settings, user_code)),
    )


def read_provenance(folder: Path) -> Provenance | None:
    """What `note_provenance` left in an attempt's folder; None: nothing, or nothing that can be read."""
    try:
        fields = json.loads(AttemptFolder(folder).provenance.read_text(encoding="utf-8"))
        found = Provenance(**{name: _like(name, value) for name, value in fields.items() if name in KNOWN})
        found.code_text, found.machine_text, found.files  # noqa: B018  # what is damaged is found here, not where it is shown
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return found


def newest_files(directory: RunDirectory) -> tuple[dict[str, Any], ...]:
    """The user's files as the newest attempt that noted them found them; nothing where none did."""
    for folder in sorted(directory.attempts(), key=lambda path: int(path.name), reverse=True):
        if (made := read_provenance(folder)) is not None:
            return made.user_files
    return ()


KNOWN = Provenance.__dataclass_fields__


def installed() -> dict[str, str]:
    """Version of each package that matters and is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> tuple[str | None, str, tuple[str, ...]]:
    """Commit of a folder that is the top of a repository, why there is none, and its changed files."""
    try:
        top, commit = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != folder.resolve():
            return None, f"{folder} is no repository", ()
        dirty = _git(folder, "status", "--porcelain").splitlines()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        return None, said.strip().partition("\n")[0], ()
    return commit, "", tuple(dirty[:MOST_DIRTY])


def _git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command = ["git", "-C", str(folder), *words]
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": True, "env": environment}
    return str(subprocess.run(command, stdin=subprocess.DEVNULL, timeout=ASK_TIMEOUT_S, **options).stdout)


def settings_of(directory: RunDirectory) -> dict[str, Any]:
    """The run file as it lies in the run directory; what is wrong with it is said by who reads it for the run."""
    try:
        loaded = yaml.safe_load(directory.run_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _like(name: str, value: Any) -> Any:
    """A list as the tuple that it was; a value of another kind than the field's is refused."""
    wanted = type(KNOWN[name].default) if name not in ("packages", "commit") else object
    found = tuple(value) if isinstance(value, list) else value
    if not isinstance(found, wanted) and not (wanted is float and isinstance(found, int)):
        raise TypeError(name)
    return found
