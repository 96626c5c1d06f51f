"""Strangers' Python, run where it can do no harm: bounded, without network, files, secrets or other processes."""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from core.sandbox import ways

START_TIMEOUT_S = 60.0  # of a machine that has much else to do; otherwise it is some hundredths
END_TIMEOUT_S = 10.0
CHUNK = 1 << 16
MIB = 1 << 20
REMEDY = (
    "have the administrator allow user namespaces (user.max_user_namespaces above 0, "
    "kernel.apparmor_restrict_unprivileged_userns = 0; in a container also a seccomp profile that lets unshare "
    "through), or install bubblewrap"
)


class SandboxUnavailable(RuntimeError):
    """A machine on which there is no sandbox, or a sandbox that was lost. The message says why, and what to do."""


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
        return self.run_all(code, [stdin])[0]

    def run_all(self, code: str, stdins: Sequence[str | bytes]) -> list[Ran]:
        """Run a program on each input, one after the other, each time as if for the first time. Starts faster than `run`.

        Raises:
            SandboxUnavailable: there is no sandbox on this machine.
        """
        jobs = [{"code": code, "stdin": _latin(stdin)} for stdin in stdins]
        return _play(find_way(self.packages, self.visible), self, jobs)


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
        (ran,) = _play(way, trial, [{"code": "print(6 * 7)", "stdin": ""}])
    except (SandboxUnavailable, OSError) as error:
        return str(error)
    if ran.stdout == "42\n":
        return None
    lines = ran.stderr.strip().splitlines()
    return lines[-1] if lines else f"Python ended with {ran.exit_code}, and said {ran.stdout!r}"


def _play(way: str, sandbox: Sandbox, jobs: Sequence[Mapping[str, str]]) -> list[Ran]:
    """Run jobs: in one sandbox, or, where bubblewrap made it and could not empty it between them, in one each."""
    if way == ways.BUBBLEWRAP and len(jobs) > 1:
        return [ran for job in jobs for ran in _play(way, sandbox, [job])]
    python = ways.interpreter(sandbox.packages)
    visible = ways.visible_paths([*python.visible, *sandbox.visible])
    limits = asdict(sandbox) | {"python": python.path, "threads_outside": ways.threads_outside()}
    process = ways.start(way, visible, sandbox.disk_bytes)
    try:
        asked = json.dumps({"jobs": jobs, "limits": limits, "visible": visible}).encode("ascii") + b"\n"
        least = sum(len(job["stdin"]) for job in jobs)
        most = len(jobs) * (12 * sandbox.output_bytes + 10_000)  # as JSON, a byte has six at most
        deadline = START_TIMEOUT_S + len(jobs) * (sandbox.timeout_s + END_TIMEOUT_S) + least / MIB
        said, complaint = _talk(process, asked, most, deadline)
        lines = said.splitlines()
        if len(lines) == len(jobs):
            return [_read(line) for line in lines]
        ended = process.poll()
        reason = complaint.decode("utf-8", "replace").strip() or f"it ended with exit code {ended}"
        raise SandboxUnavailable(
            f"{reason}" if not lines else f"the sandbox was lost after {len(lines)} runs: {reason}"
        )
    finally:
        _end(process)


def _talk(process: subprocess.Popen[bytes], asked: bytes, most: int, timeout_s: float) -> tuple[bytes, bytes]:
    """Say what is to be done, and hear both outputs to their ends. Raises SandboxUnavailable after the deadline."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    told, out, err = (stream.fileno() for stream in (process.stdin, process.stdout, process.stderr))
    os.set_blocking(told, False)
    heard: dict[int, bytearray] = {out: bytearray(), err: bytearray()}
    left, deadline = memoryview(asked), time.monotonic() + timeout_s
    poll = select.poll()
    for one in heard:
        poll.register(one, select.POLLIN)
    poll.register(told, select.POLLOUT)
    listening = set(heard)
    while listening:
        rest = deadline - time.monotonic()
        if rest <= 0:
            raise SandboxUnavailable(f"the sandbox gave no answer within {timeout_s:.0f} s")
        for one, _ in poll.poll(rest * 1000):
            if one == told:
                with suppress(BlockingIOError):
                    try:
                        left = left[os.write(told, left[:CHUNK]) :]
                    except BrokenPipeError:
                        left = left[len(left) :]
                if not left:
                    poll.unregister(told)
                continue
            data = os.read(one, CHUNK)
            heard[one] += data
            if not data:
                poll.unregister(one)
                listening.discard(one)
            if len(heard[one]) > most:
                raise SandboxUnavailable("the sandbox says more than it may")
    return bytes(heard[out]), bytes(heard[err])


def _read(line: bytes) -> Ran:
    found = json.loads(line)
    out, err = (found[name].encode("latin-1").decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return Ran(out, err, found["exit_code"], found["stopped"], found["seconds"])


def _latin(stdin: str | bytes) -> str:
    data = stdin.encode("utf-8", "surrogatepass") if isinstance(stdin, str) else stdin
    return data.decode("latin-1")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of it: without its launcher, or an owner, process 1 is killed, and all else with it."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(END_TIMEOUT_S)
