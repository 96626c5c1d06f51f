"""Strangers' Python, run where it can do no harm: bounded, without network, files, secrets or other processes."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from typing import Any

from core.sandbox import ways
from core.sandbox.session import START_TIMEOUT_S, SandboxUnavailable, Session

MIB = 1 << 20
REMEDY = (
    "have the administrator allow user namespaces (user.max_user_namespaces above 0, "
    "kernel.apparmor_restrict_unprivileged_userns = 0; in a container also a seccomp profile that lets unshare "
    "through), or install bubblewrap"
)


@dataclass(frozen=True)
class Ran:
    """What became of a program.

    Attributes:
        stdout, stderr: what it wrote, up to the limit; what is no UTF-8 is replaced.
        exit_code: negative: the signal that ended it; None: the sandbox did.
        stopped: what it had no more of: "time", "output" or "memory"; empty: it ended by itself.
        seconds: from its start to its end.
    """

    stdout: str
    stderr: str
    exit_code: int | None
    stopped: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and not self.stopped


@dataclass(frozen=True)
class Sandbox:
    """The limits of a sandbox. Each call of `run` has one of its own, and nothing is left of it.

    Attributes:
        timeout_s: of a program, from its start, by the clock.
        memory_bytes: of all its processes; for a single one also of its address space.
        disk_bytes, files: of /tmp, the only folder that it can write to; it is in memory, and comes on top of that.
        output_bytes: of standard output, and of standard error.
        processes: most of them at a time, threads included.
        packages: whether the packages of this environment can be imported; else the standard library alone.
        visible: further files and folders that can be read, by their absolute paths.
        environment: variables of the program; nothing else is passed on.
    """

    timeout_s: float = 5.0
    memory_bytes: int = 512 * MIB
    disk_bytes: int = 32 * MIB
    files: int = 1000
    output_bytes: int = MIB
    processes: int = 32
    packages: bool = False
    visible: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    def run(self, code: str, stdin: str | bytes = "") -> Ran:
        """Run a program, and wait for its end.

        May be called by several threads, and be interrupted: then the program is ended, too.

        Raises:
            SandboxUnavailable: there is no sandbox on this machine.
        """
        with closing(self.run_all(code, [stdin])) as outcomes:
            return next(outcomes)

    def run_all(
        self, code: str, stdins: Iterable[str | bytes], within_s: float | None = None
    ) -> Generator[Ran, None, None]:
        """Run a program on each input, each time as if for the first time, when its outcome is asked for.

        Faster than a call of `run` for each. Close it where no more outcomes are wanted.

        Args:
            within_s: a limit for all together; a program for which no time is left is stopped as it begins.
        Raises:
            SandboxUnavailable: there is no sandbox on this machine.
        """
        return _runs(find_way(self.packages, self.visible), self, code, stdins, within_s)

    def _session(self, way: str) -> Session:
        python = ways.interpreter(self.packages)
        visible = ways.visible_paths([*python.visible, *self.visible])
        limits = asdict(self) | {"python": python.path, "threads_outside": ways.threads_outside()}
        return Session(way, limits, visible, python.hidden)


def run_python(code: str, stdin: str | bytes = "", timeout_s: float = 5.0) -> Ran:
    """Run a stranger's program under the limits that `Sandbox` has by itself.

    Raises:
        SandboxUnavailable: there is no sandbox on this machine.
    """
    return Sandbox(timeout_s=timeout_s).run(code, stdin)


@functools.lru_cache(maxsize=16)
def find_way(packages: bool = False, visible: tuple[str, ...] = ()) -> str:
    """The first way in which a program runs here: `namespaces` or `bubblewrap`. Tried once per process.

    Raises:
        SandboxUnavailable: with the reasons of all ways.
    """
    reasons = []
    for way in (ways.NAMESPACES, ways.BUBBLEWRAP):
        if (why := why_not(way, packages, visible)) is None:
            return way
        reasons.append(f"{way}: {why}")
    raise SandboxUnavailable(
        f"found no way to run strangers' programs here ({'; '.join(reasons)}); wanted user namespaces or bubblewrap: "
        f"{REMEDY}"
    )


def why_not(way: str, packages: bool = False, visible: tuple[str, ...] = ()) -> str | None:
    """Why a program does not run this way; None: it does."""
    trial = Sandbox(timeout_s=START_TIMEOUT_S, packages=packages, visible=visible)
    try:
        with closing(_runs(way, trial, "print(6 * 7)", [""])) as outcomes:
            ran = next(outcomes)
    except (SandboxUnavailable, OSError) as error:
        return str(error)
    if ran.stdout == "42\n":
        return None
    lines = ran.stderr.strip().splitlines()
    return lines[-1] if lines else f"Python ended with {ran.exit_code}, and said {ran.stdout!r}"


def _runs(
    way: str, sandbox: Sandbox, code: str, stdins: Iterable[str | bytes], within_s: float | None = None
) -> Generator[Ran, None, None]:
    """Run in one sandbox, or, where bubblewrap made it and it cannot be emptied between programs, in one each."""
    end = math.inf if within_s is None else time.monotonic() + within_s
    with ExitStack() as stack:
        session: Session | None = None
        for stdin in stdins:
            if session is None or way == ways.BUBBLEWRAP:
                stack.close()
                session = stack.enter_context(sandbox._session(way))
            left_s = min(sandbox.timeout_s, max(end - time.monotonic(), 0.0))
            yield _ran(session.run(code, _bytes(stdin), left_s))


def _ran(found: Mapping[str, Any]) -> Ran:
    out, err = (found[name].encode("latin-1").decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return Ran(out, err, found["exit_code"], found["stopped"], found["seconds"])


def _bytes(stdin: str | bytes) -> bytes:
    return stdin.encode("utf-8", "surrogatepass") if isinstance(stdin, str) else stdin
