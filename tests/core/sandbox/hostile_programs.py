"""A hundred programs that mean no good. Each is bounded by itself, too: where a sandbox failed, nothing would be lost.

A program is told, in a line of JSON on its standard input, what there is to attack: `key` (a file of the run), `pid` (a
process of the caller), `victim` (another), `port`, `path` and `abstract` (servers of this machine), `mark` (a name for
what it leaves behind). `held(f, …)` calls what must fail and prints `held`; it prints `escaped` if it succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass

PROLOGUE = '''
import ctypes, errno, json, os, signal, socket, subprocess, sys, threading, time
told = json.loads(sys.stdin.readline())
libc = ctypes.CDLL(None, use_errno=True)

def held(function, *arguments, **named):
    try:
        made = function(*arguments, **named)
    except BaseException as error:
        print("held", type(error).__name__, error)
    else:
        print("escaped", made)

def call(number, *arguments):
    """A system call; raises what it fails with."""
    made = libc.syscall(number, *arguments)
    if made < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return made

def read(path):
    with open(path, "rb") as file:
        return file.read(1000)

def write(path):
    with open(path, "w") as file:
        file.write("left")

def connect(family, address, kind=socket.SOCK_STREAM):
    one = socket.socket(family, kind)
    one.settimeout(1)
    one.connect(address)
    one.send(b"hello")
'''


@dataclass(frozen=True)
class Hostile:
    """A program and what must become of it.

    Attributes:
        stopped: how the sandbox ends it; empty: it ends by itself.
        says: what its output has; `held`: what it tried failed.
        exit_code: None: any.
        limits: of the sandbox, where the usual ones would make it last.
    """

    name: str
    code: str
    stopped: str = ""
    says: str = "held"
    exit_code: int | None = 0
    limits: dict[str, float] | None = None


def _stopped(name: str, how: str, code: str, **limits: float) -> Hostile:
    return Hostile(name, code, how, "", None, limits or None)


def _ends(name: str, code: str, says: str = "", exit_code: int | None = 0, **limits: float) -> Hostile:
    return Hostile(name, code, "", says, exit_code, limits or None)


SHORT = 1.0
ENDLESS = [
    _stopped("sleeps", "time", "time.sleep(30)", timeout_s=SHORT),
    _stopped("spins", "time", "end = time.time() + 30\nwhile time.time() < end: pass", timeout_s=SHORT),
    _stopped(
        "ignores signals",
        "time",
        "for n in range(1, 65):\n try: signal.signal(n, signal.SIG_IGN)\n except (OSError, ValueError): pass\n"
        "time.sleep(30)",
        timeout_s=SHORT,
    ),
    _stopped(
        "waits for input that never comes",
        "time",
        "r, w = os.pipe()\nos.set_blocking(r, True)\nos.read(r, 1)",
        timeout_s=SHORT,
    ),
    _stopped("stops itself", "time", "os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(30)", timeout_s=SHORT),
    _stopped(
        "waits for a thread", "time", "t = threading.Thread(target=time.sleep, args=(30,))\nt.start()", timeout_s=SHORT
    ),
    _stopped(
        "catches everything",
        "time",
        "end = time.time() + 30\nwhile time.time() < end:\n try: time.sleep(1)\n except BaseException: pass",
        timeout_s=SHORT,
    ),
    _stopped("computes in C", "time", "sum(range(3 * 10 ** 9))", timeout_s=SHORT),
    _stopped("backtracks in a pattern", "time", "import re\nre.match(r'(a+)+$', 'a' * 30 + 'b')", timeout_s=SHORT),
    _stopped("closes its outputs and sleeps", "time", "os.close(1)\nos.close(2)\ntime.sleep(30)", timeout_s=SHORT),
    _stopped("deadlocks", "time", "lock = threading.Lock()\nlock.acquire()\nlock.acquire(timeout=30)", timeout_s=SHORT),
]
OUTPUT = [
    _stopped("says too much", "output", "for _ in range(200): print('x' * 100_000)"),
    _stopped("says too much at once", "output", "sys.stdout.write('x' * 8_000_000)"),
    _stopped("complains too much", "output", "for _ in range(200): sys.stderr.write('x' * 100_000)"),
    _stopped("says too much by a child", "output", "subprocess.run(['/bin/sh', '-c', 'head -c 8000000 /dev/zero'])"),
    _ends("says bytes that are no text", "os.write(1, bytes(range(256)) + b'\\xff\\xfe done')", "done"),
    _ends("says nulls and escapes", "print('\\0\\x1b[2J\\x07 done')", "done"),
    _ends("closes its output", "os.close(1)\nos.close(2)\nos._exit(0)"),
    _ends("closes everything", "os.closerange(0, 300)\nos._exit(0)"),
    _ends("never reads its input", "print('done')", "done"),
    _ends("writes to its input", "held(os.write, 0, b'x')", "held"),
]
MEMORY = [
    _ends(
        "allocates without end",
        "try:\n a = []\n for _ in range(40): a.append(bytearray(50_000_000))\nexcept MemoryError: print('held')",
        "held",
    ),
    _ends("allocates at once", "held(bytearray, 2_000_000_000)", "held"),
    _ends("maps memory", "import mmap\nheld(mmap.mmap, -1, 2_000_000_000)", "held"),
    _ends("makes a huge text", "held(lambda: len('x' * 2_000_000_000))", "held"),
    _stopped(
        "allocates in many processes",
        "memory",
        "for _ in range(8):\n if os.fork() == 0:\n  a = b'x' * 60_000_000\n  time.sleep(300)\ntime.sleep(300)",
        memory_bytes=200_000_000,
        timeout_s=30.0,
    ),
    _stopped(
        "allocates in processes that cannot be read",
        "memory",
        "libc.prctl(4, 0, 0, 0, 0)\nfor _ in range(8):\n"
        " if os.fork() == 0:\n  a = b'x' * 60_000_000\n  time.sleep(300)\ntime.sleep(300)",
        memory_bytes=200_000_000,
        timeout_s=30.0,
    ),
    _ends(
        "shares memory with its children",
        "a = b'x' * 60_000_000\nfor _ in range(8):\n if os.fork() == 0:\n  time.sleep(0.3)\n  os._exit(0)\n"
        "for _ in range(8): os.wait()\nprint('done')",
        "done",
        memory_bytes=200_000_000,
    ),
    _ends("memory without a name", "held(os.memfd_create, 'x')", "held PermissionError"),
    _ends(
        "locks memory", "import mmap\na = mmap.mmap(-1, 100_000_000)\nheld(lambda: 1 / (libc.mlockall(3) == 0))", "held"
    ),
    _ends(
        "shared memory of System V",
        "held(call, 29 if os.uname().machine == 'x86_64' else 194, 7, 1000, 0o1600)",
        "held PermissionError",
    ),
    _ends(
        "message queues", "held(call, 68 if os.uname().machine == 'x86_64' else 186, 7, 0o1600)", "held PermissionError"
    ),
    _ends("recurses too deeply", "def f(n): return f(n + 1)\nheld(f, 0)", "held RecursionError"),
    _ends(
        "recurses until its stack ends",
        "sys.setrecursionlimit(10 ** 8)\nsys.stdout.flush()\ndef f(x): return [x.__class__ for x in map(f, [x])]\nf(0)",
        exit_code=None,
    ),
    _ends("nests a list", "a = []\nfor _ in range(200_000): a = [a]\nheld(repr, a)", "held RecursionError"),
    _ends("a number of too many digits", "held(lambda: str(10 ** 10_000))", "held ValueError"),
]
PROCESSES = [
    _ends(
        "a bomb of forks",
        "def f():\n for _ in range(200):\n  try:\n   if os.fork() == 0: time.sleep(300); os._exit(0)\n"
        "  except OSError as e: return print('held', e)\n print('escaped')\nf()",
        "held",
    ),
    _ends(
        "a bomb that grows",
        "for _ in range(7):\n try: os.fork()\n except OSError:\n  os.write(1, b'held\\n')\n  break\ntime.sleep(0.2)",
        "held",
    ),
    _ends(
        "a bomb of threads",
        "def f():\n for _ in range(200):\n"
        "  try: threading.Thread(target=time.sleep, args=(300,), daemon=True).start()\n"
        "  except RuntimeError as e: return print('held', e)\n print('escaped')\nf()\nsys.stdout.flush()\nos._exit(0)",
        "held",
    ),
    _ends(
        "a bomb of shells",
        "held(lambda: subprocess.run(['/bin/sh', '-c', "
        "'i=0; while [ $i -lt 100 ]; do i=$((i+1)); sleep 300 & done'], check=True))",
        "held",
    ),
    _ends(
        "a daemon",
        "if os.fork() == 0:\n os.setsid()\n if os.fork() == 0: time.sleep(300)\n os._exit(0)\nos.wait()\nprint('done')",
        "done",
    ),
    _ends(
        "a daemon that keeps the output", "if os.fork() == 0:\n os.setsid()\n time.sleep(300)\nprint('done')", "done"
    ),
    _ends(
        "a daemon that ignores signals",
        "if os.fork() == 0:\n os.setsid()\n"
        " for n in (1, 2, 3, 13, 15): signal.signal(n, signal.SIG_IGN)\n time.sleep(300)\nprint('done')",
        "done",
    ),
    _ends(
        "a child that forks while it is killed",
        "if os.fork() == 0:\n end = time.time() + 5\n"
        " while time.time() < end:\n  if os.fork(): os._exit(0)\nprint('done')",
        "done",
    ),
    _ends(
        "a flood of zombies",
        "try:\n for _ in range(300):\n  if os.fork() == 0: os._exit(0)\n print('escaped')\n"
        "except OSError as e: print('held', e)",
        "held",
    ),
    _ends(
        "orphans",
        "for _ in range(100):\n if os.fork() == 0:\n  if os.fork() == 0: os._exit(0)\n  os._exit(0)\n"
        " os.wait()\nprint('done')",
        "done",
    ),
    _ends(
        "a stopped child",
        "p = os.fork()\nif p == 0: time.sleep(300)\nos.kill(p, signal.SIGSTOP)\nprint('done')",
        "done",
    ),
    _ends(
        "a server that stays",
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'],"
        " start_new_session=True, stdout=subprocess.DEVNULL)\nprint('done')",
        "done",
    ),
    _ends("many open files", "held(lambda: [open('/dev/null') for _ in range(1000)])", "held OSError"),
    _ends(
        "raises its own limits",
        "import resource\n"
        "held(resource.setrlimit, resource.RLIMIT_NPROC, (10_000, 10_000))\n"
        "held(resource.setrlimit, resource.RLIMIT_AS, (-1, -1))",
        "held ValueError",
    ),
    _ends(
        "raises the limits of process 1",
        "import resource\nheld(resource.prlimit, 1, resource.RLIMIT_NOFILE, (1, 1))",
        "held",
    ),
]
DISK = [
    _ends(
        "fills the disk",
        "held(lambda: [open(f'/tmp/{n}', 'wb').write(bytes(1_000_000)) for n in range(100)])",
        "held OSError",
    ),
    _ends(
        "fills it with one file",
        "with open('/tmp/a', 'wb') as f:\n held(lambda: [f.write(bytes(1_000_000)) for _ in range(100)])\n os._exit(0)",
        exit_code=None,
    ),
    _ends(
        "fills it with files that have no name",
        "def f():\n kept = []\n for n in range(50):\n"
        "  one = open('/tmp/a', 'wb', 0)\n  os.unlink('/tmp/a')\n  kept.append(one)\n"
        "  if one.write(bytes(1_000_000)) < 1_000_000: raise OSError('full')\nheld(f)",
        "held OSError",
    ),
    _ends("uses up the files", "held(lambda: [open(f'/tmp/{n}', 'w').close() for n in range(5000)])", "held OSError"),
    _ends("nests folders", "def f():\n for _ in range(2000):\n  os.mkdir('d')\n  os.chdir('d')\nheld(f)", "held"),
    _ends("a sparse file", "held(os.truncate, os.open('/tmp/a', os.O_CREAT | os.O_WRONLY), 10 ** 12)", exit_code=None),
    _ends(
        "shared memory",
        "from multiprocessing import shared_memory\n"
        "def f():\n m = shared_memory.SharedMemory('x', True, 100_000_000)\n m.buf[:] = bytes(100_000_000)\nheld(f)",
        exit_code=None,
    ),
    _ends("leaves files", "write('/tmp/' + told['mark'])\nwrite('/dev/shm/' + told['mark'])\nprint('done')", "done"),
    _ends("leaves a pipe", "os.mkfifo('/tmp/' + told['mark'])\nprint('done')", "done"),
    _ends(
        "leaves a file that it may not delete",
        "os.mkdir('/tmp/d')\nwrite('/tmp/d/x')\nos.chmod('/tmp/d', 0)\nprint('done')",
        "done",
    ),
]
OUTSIDE = [
    _ends(f"writes to {folder}", f"held(write, {folder!r} + '/' + told['mark'])", "held")
    for folder in ("", "/etc", "/usr", "/usr/bin", "/var/tmp", "/root", "/home", "/dev", "/run", "/proc", "/sys")
] + [
    _ends("writes beside the key", "held(write, told['key'] + told['mark'])", "held"),
    _ends("writes to its interpreter", "held(write, sys.executable)\nheld(write, os.__file__)", "held"),
    _ends("replaces its interpreter", "held(os.rename, sys.executable, sys.executable + '.old')", "held"),
    _ends(
        "a link out of the folder",
        "os.symlink(told['key'], '/tmp/a')\nheld(read, '/tmp/a')\nheld(write, '/tmp/a')",
        "held",
    ),
    _ends("a hard link", "held(os.link, '/etc/passwd', '/tmp/a')", "held"),
    _ends("a path with dots", "held(read, '/tmp/' + '../' * 20 + told['key'])", "held FileNotFoundError"),
    _ends(
        "a link to the root of process 1", "os.symlink('/proc/1/root', '/tmp/a')\nheld(os.listdir, '/tmp/a')", "held"
    ),
    _ends("a device of its own", "held(os.mknod, '/tmp/a', 0o600 | 0o060000, os.makedev(8, 0))", "held"),
]
SECRETS = [
    _ends("reads the key", "held(read, told['key'])", "held FileNotFoundError"),
    _ends("looks for the key's folder", "held(os.listdir, os.path.dirname(told['key']))", "held FileNotFoundError"),
    _ends("reads the environment", "print(dict(os.environ), 'done')", "done"),
    _ends(
        "reads all environments",
        "for one in os.listdir('/proc'):\n if one.isdigit():\n"
        "  try: print(read(f'/proc/{one}/environ'))\n  except OSError as e: print('held', e)",
        "held",
    ),
    _ends("reads the memory of process 1", "held(read, '/proc/1/mem')\nheld(read, '/proc/1/maps')", "held"),
    _ends("reads the files of process 1", "held(os.listdir, '/proc/1/fd')", "held"),
    _ends(
        "looks for the caller",
        "print([p for p in os.listdir('/proc') if p.isdigit()] <= ['1', '2', '3'] and 'done')",
        "done",
    ),
    _ends("reads the caller", "held(read, f\"/proc/{told['pid']}/environ\")", "held"),
    _ends("reads passwords", "held(read, '/etc/shadow')", "held FileNotFoundError"),
    _ends(
        "looks for keys of ssh",
        "held(os.listdir, '/root/.ssh')\nheld(os.listdir, os.path.expanduser('~/.ssh'))",
        "held FileNotFoundError",
    ),
    _ends("looks for homes", "held(os.listdir, '/home')", "held FileNotFoundError"),
    _ends(
        "reads the kernel's keys",
        "held(call, 250 if os.uname().machine == 'x86_64' else 219, 0, -3, 0)",
        "held PermissionError",
    ),
    _ends(
        "reads the kernel's log",
        "held(call, 103 if os.uname().machine == 'x86_64' else 116, 10, 0, 0)",
        "held PermissionError",
    ),
    _ends("reads disks", "held(read, '/dev/sda')\nheld(read, '/dev/vda')\nheld(read, '/dev/mem')", "held"),
    _ends(
        "what descriptors it has",
        "print(os.listdir('/proc/self/fd'))\nprint(len(os.listdir('/proc/self/fd')) <= 4)",
        "True",
    ),
]
SIGNALS = [
    _ends("kills process 1", "os.kill(1, signal.SIGKILL)\ntime.sleep(0.05)\nprint('done')", "done"),
    _ends(
        "every signal for process 1",
        "for n in range(1, 65):\n try: os.kill(1, n)\n except OSError: pass\ntime.sleep(0.05)\nprint('done')",
        "done",
    ),
    _ends(
        "kills everything",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.kill(-1, signal.SIGTERM)\nprint('done')",
        exit_code=None,
    ),
    _ends("kills everything for good", "os.kill(-1, signal.SIGKILL)\nprint('done')", exit_code=None),
    _ends("kills the caller", "held(os.kill, told['pid'], signal.SIGKILL)", "held ProcessLookupError"),
    _ends("kills its parent", "print(os.getppid())\nos.kill(os.getppid(), signal.SIGKILL)\nprint('done')", "done"),
    _ends("kills another", "held(os.kill, told['victim'], signal.SIGKILL)", "held ProcessLookupError"),
    _ends("kills its group", "sys.stdout.flush()\nos.killpg(0, signal.SIGKILL)", exit_code=-9),
    _ends("a flood of signals", "for _ in range(3000):\n os.kill(1, signal.SIGCHLD)\nprint('done')", "done"),
    _ends(
        "traces process 1",
        "held(call, 101 if os.uname().machine == 'x86_64' else 117, 16, 1, 0, 0)",
        "held PermissionError",
    ),
    _ends(
        "is traced", "held(call, 101 if os.uname().machine == 'x86_64' else 117, 0, 0, 0, 0)", "held PermissionError"
    ),
    _ends(
        "reads another's memory",
        "held(call, 310 if os.uname().machine == 'x86_64' else 270, 1, 0, 0, 0, 0, 0)",
        "held PermissionError",
    ),
    _ends("takes another's files", "held(call, 438, os.pidfd_open(1), 0, 0)", "held PermissionError"),
]
NETWORK = [
    _ends("connects to this machine", "held(connect, socket.AF_INET, ('127.0.0.1', told['port']))", "held"),
    _ends("connects by IPv6", "held(connect, socket.AF_INET6, ('::1', told['port']))", "held"),
    _ends("connects outside", "held(connect, socket.AF_INET, ('192.0.2.1', 80))", "held OSError"),
    _ends("sends a datagram", "held(connect, socket.AF_INET, ('192.0.2.1', 53), socket.SOCK_DGRAM)", "held OSError"),
    _ends(
        "broadcasts",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\nheld(s.sendto, b'x', ('255.255.255.255', 9))",
        "held OSError",
    ),
    _ends("resolves a name", "held(socket.getaddrinfo, 'example.org', 80)", "held gaierror"),
    _ends("a raw socket", "held(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)", "held PermissionError"),
    _ends("a packet socket", "held(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3)", "held OSError"),
    _ends("a netlink socket", "held(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)", "held OSError"),
    _ends("a socket to the virtual machine's host", "held(socket.socket, 40, socket.SOCK_STREAM)", "held OSError"),
    _ends("a socket of the kernel's ciphers", "held(socket.socket, 38, socket.SOCK_SEQPACKET)", "held OSError"),
    _ends("a Unix socket of this machine", "held(connect, socket.AF_UNIX, told['path'])", "held FileNotFoundError"),
    _ends(
        "one without a file", "held(connect, socket.AF_UNIX, '\\0' + told['abstract'])", "held ConnectionRefusedError"
    ),
    _ends(
        "the machine's interfaces",
        "print([name for _, name in socket.if_nameindex()] if False else sorted(os.listdir('/proc/net'))[:0], 'done')",
        "done",
    ),
]
RIGHTS = [
    _ends(
        "becomes root",
        "held(os.setuid, 0)\nheld(os.setresgid, 0, 0, 0)\nheld(os.setgroups, [0])",
        "held PermissionError",
    ),
    _ends(
        "a program that runs as root",
        "print(subprocess.run(['/bin/su', '-c', 'id'], capture_output=True,"
        " stdin=subprocess.DEVNULL).returncode != 0 and 'held' or 'escaped')",
        "held",
    ),
    _ends(
        "marks a program to run as its owner",
        "write('/tmp/a')\nos.chmod('/tmp/a', 0o6755)\nprint(os.statvfs('/tmp').f_flag & os.ST_NOSUID and 'held')",
        "held",
    ),
    _ends("mounts", "held(lambda: 1 / (libc.mount(b'none', b'/tmp', b'tmpfs', 0, b'') == 0))", "held"),
    _ends(
        "unmounts",
        "held(lambda: 1 / (libc.umount2(b'/tmp', 2) == 0))\nheld(lambda: 1 / (libc.umount2(b'/proc', 2) == 0))",
        "held",
    ),
    _ends(
        "makes namespaces",
        "for flag in (0x10000000, 0x20000, 0x40000000):\n held(lambda: 1 / (libc.unshare(flag) == 0))",
        "held",
    ),
    _ends(
        "makes namespaces by a fork",
        "held(call, 56 if os.uname().machine == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0)",
        "held PermissionError",
    ),
    _ends(
        "enters namespaces", "held(lambda: 1 / (libc.setns(os.open('/proc/self/ns/net', os.O_RDONLY), 0) == 0))", "held"
    ),
    _ends("a root within the root", "os.mkdir('/tmp/r')\nheld(os.chroot, '/tmp/r')", "held PermissionError"),
    _ends(
        "leaves the root",
        "fd = os.open('/', os.O_RDONLY)\nos.fchdir(fd)\nfor _ in range(50): os.chdir('..')\n"
        "print(os.getcwd())\nheld(os.stat, told['key'].lstrip('/'))",
        "held FileNotFoundError",
    ),
    _ends(
        "opens by handle", "held(call, 304 if os.uname().machine == 'x86_64' else 265, 3, 0, 0)", "held PermissionError"
    ),
    _ends("changes the host's name", "held(socket.sethostname, 'x')", "held PermissionError"),
    _ends("changes the clock", "held(time.clock_settime, time.CLOCK_REALTIME, 0)", "held PermissionError"),
    _ends(
        "settings of the kernel",
        "held(write, '/proc/sys/kernel/core_pattern')\n"
        "held(write, '/proc/sys/vm/drop_caches')\nheld(write, '/proc/sysrq-trigger')",
        "held",
    ),
    _ends(
        "its own namespace of users",
        "held(write, '/proc/sys/user/max_user_namespaces')\nheld(write, '/proc/self/uid_map')",
        "held",
    ),
    _ends(
        "loads a module",
        "held(call, 175 if os.uname().machine == 'x86_64' else 105, 0, 0, b'')",
        "held PermissionError",
    ),
    _ends(
        "programs of the kernel",
        "held(call, 321 if os.uname().machine == 'x86_64' else 280, 0, 0, 0)",
        "held PermissionError",
    ),
    _ends("io_uring", "held(call, 425, 1, 0)", "held PermissionError"),
    _ends("faults of pages", "held(call, 323 if os.uname().machine == 'x86_64' else 282, 0)", "held PermissionError"),
    _ends(
        "counters of the processor",
        "held(call, 298 if os.uname().machine == 'x86_64' else 241, 0, 0, -1, -1, 0)",
        "held PermissionError",
    ),
    _ends(
        "takes the filter away",
        "held(lambda: 1 / (libc.prctl(22, 0, 0, 0, 0) == 0))\nheld(lambda: 1 / (libc.prctl(38, 0, 0, 0, 0) == 0))",
        "held",
    ),
    _ends(
        "raises its priority",
        "held(os.setpriority, os.PRIO_PROCESS, 0, -20)\n"
        "held(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50))",
        "held PermissionError",
    ),
    _ends(
        "types into the terminal",
        "import fcntl, termios\nheld(fcntl.ioctl, 0, termios.TIOCSTI, b'x')\nheld(os.open, '/dev/tty', os.O_RDWR)",
        "held",
    ),
]
EXITS = [
    _ends("an exit code", "sys.exit(7)", exit_code=7),
    _ends("an exit without an end", "os._exit(3)", exit_code=3),
    _ends("an exception", "raise ValueError('x')", exit_code=1),
    _ends("no Python", "this is none", exit_code=1),
    _ends("aborts", "os.abort()", exit_code=-6),
    _ends("reads where nothing is", "ctypes.string_at(0)", exit_code=-11),
    _ends("kills itself", "os.kill(os.getpid(), signal.SIGKILL)", exit_code=-9),
    _ends(
        "another program in its place", "sys.stdout.flush()\nos.execv('/bin/sh', ['sh', '-c', 'exit 5'])", exit_code=5
    ),
]
PROGRAMS = [*ENDLESS, *OUTPUT, *MEMORY, *PROCESSES, *DISK, *OUTSIDE, *SECRETS, *SIGNALS, *NETWORK, *RIGHTS, *EXITS]
