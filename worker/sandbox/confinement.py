"""What takes from a process all that decoding does not need: limits, Landlock, seccomp. By their system calls alone.

None of them asks for a privilege, or for a namespace, which containers forbid (Documentation/userspace-api/landlock.rst
and seccomp_filter.rst of the kernel). All of it holds for good: nothing here can be taken back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from worker.sandbox.wire import Limits

#: Levels in words, each with those before it; `none` is a decoder within the worker's own process.
NONE, RLIMITS, SECCOMP, LANDLOCK = "none", "rlimits", "seccomp", "landlock"
#: All that there is.
FULL = "+".join((RLIMITS, SECCOMP, LANDLOCK))
#: Files that are open at a time: both sides' memory and socket, and the three that every process has.
OPEN_FILES = 16

#: Of a process, as clock_getcpuclockid(3) makes it.
_CLOCK_OF_PROCESS = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
#: Landlock's system calls have the same numbers everywhere.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION = 1
#: How many kinds of access to files each version of Landlock knows; a later one knows at least those of the last.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
#: Versions from which it knows TCP (bind, connect), and what is between processes (abstract sockets, signals).
_KNOWS_TCP, _KNOWS_SCOPES = 4, 6

#: Classic BPF, of which a seccomp filter is made.
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
#: Where a system call's number, its machine and its arguments lie in what a filter sees.
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16
_PROT_EXEC, _CLONE_THREAD = 0x4, 0x10000


class _Machine(NamedTuple):
    """audit: the kernel's name for it. column: where its numbers stand in the tables below."""

    audit: int
    column: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}
#: What decoding needs: memory, threads, its clock, and what is open already. Numbers of x86-64 and of 64-bit ARM.
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "exit": (60, 93),
    "ftruncate": (77, 46),
    "gettimeofday": (96, 169),
    "sysinfo": (99, 179),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "set_robust_list": (273, 99),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}
#: What is allowed where this argument has none of these bits: memory that is no code.
_WITHOUT = {"mmap": ((9, 222), 2, _PROT_EXEC), "mprotect": ((10, 226), 2, _PROT_EXEC)}
#: And where it has some: threads, no processes.
_WITH = {"clone": ((56, 220), 0, _CLONE_THREAD)}
#: Its flags lie where no filter can read them. glibc takes `clone` where the kernel does not know it.
_CLONE3 = 435


def confine(limits: Limits) -> str:
    """Confine this process. Returns the level that was reached, in words: what is in it has been tried, and held.

    All that it needs must be loaded and open. Raises OSError where not even limits can be set.
    """
    _limit(limits)
    held = [RLIMITS]
    # What follows holds for the thread that asks alone, and for those that it starts.
    if sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1:  # noqa: PTH208
        libc = ctypes.CDLL(None, use_errno=True)
        # It ends with its worker, though it be stopped or asleep.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # Nobody of this user looks into its memory; without the second neither of the others is had unprivileged.
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # In this order: the filter forbids to ask for more.
        closed = _landlock(libc) and _fails(lambda: os.close(os.open("/", os.O_RDONLY)), errno.EACCES)
        if _seccomp(libc) and _fails(lambda: socket.socket().close(), errno.EPERM):
            held.append(SECCOMP)
        if closed:
            held.append(LANDLOCK)
    return "+".join(held)


def allow_cpu(pid: int, seconds: int) -> None:
    """So many more seconds of a core for a process of ours, which cannot give them to itself; SIGXCPU ends it then.

    Raises OSError where it is no more.
    """
    clock = (~pid << 3) | _CLOCK_OF_PROCESS
    resource.prlimit(pid, resource.RLIMIT_CPU, (int(time.clock_gettime(clock)) + 1 + seconds, resource.RLIM_INFINITY))


def _limit(limits: Limits) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    memory = pages * resource.getpagesize() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.shared_bytes, limits.shared_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _landlock(libc: ctypes.CDLL) -> bool:
    """Forbid all files that are not open, and what newer kernels count to it. Whether the kernel took it."""
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_LANDLOCK_VERSION))
    if version < 1:
        return False
    rights = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    fields = [rights]
    if version >= _KNOWS_TCP:
        fields.append(0b11)
    if version >= _KNOWS_SCOPES:
        fields.append(0b11)
    asked = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, asked, ctypes.c_size_t(len(asked)), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    # No rule is added: what is forbidden has no exception.
    taken: bool = libc.syscall(_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0
    os.close(ruleset)
    return taken


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Have all system calls fail but those that decoding needs. Whether the kernel took it."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    code = program(machine)
    asked = _Program(len(code) // _STEP.size, code)
    taken: bool = libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(asked), 0, 0) == 0
    return taken


_STEP = struct.Struct("=HBBI")


def program(machine: _Machine) -> bytes:
    """The filter as the kernel reads it. A call of another machine's (32-bit on 64) fails like one that is not known.

    Fails, and does not kill: a library that asks what it need not know goes on without.
    """
    fail, allow = (_RETURN, 0, 0, _FAIL | errno.EPERM), (_RETURN, 0, 0, _ALLOW)
    steps = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, machine.audit), fail, (_LOAD, 0, 0, _NUMBER)]
    for numbers in _ALLOWED.values():
        steps += [(_EQUAL, 0, 1, numbers[machine.column]), allow]
    for table, (there, lacking) in ((_WITHOUT, (fail, allow)), (_WITH, (allow, fail))):
        for numbers, argument, bits in table.values():
            steps += [(_EQUAL, 0, 4, numbers[machine.column]), (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]
            steps += [(_ANY_BIT, 0, 1, bits), there, lacking]
    steps += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL | errno.ENOSYS), fail]
    return b"".join(_STEP.pack(*step) for step in steps)


def _fails(act: Callable[[], object], number: int) -> bool:
    """Whether this is forbidden to us, by who says it so."""
    try:
        act()
    except OSError as exc:
        return exc.errno == number
    return False
