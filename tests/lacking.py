"""Python as on a kernel, or in a container, that lacks some of what confines a decoder: whoever asks for it is told so.

python -m tests.lacking landlock|seccomp|privileges ARGUMENTS-OF-PYTHON
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Mapping

from worker.sandbox import confinement

#: By what lacks: its system call on x86-64 and on 64-bit ARM, its first argument where that matters, and what is said.
LACKING: Mapping[str, tuple[tuple[int, int], int | None, int]] = {
    "landlock": ((444, 444), None, errno.ENOSYS),
    "seccomp": ((157, 167), confinement._PR_SET_SECCOMP, errno.EINVAL),
}
_PR_CAPBSET_DROP = 24


def lack(name: str) -> None:
    """For good, and for all that this process starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    if name == "privileges":
        for capability in range(64):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        return
    numbers, argument, said = LACKING[name]
    number = numbers[confinement._MACHINES[platform.machine()].column]
    allow = (confinement._RETURN, 0, 0, confinement._ALLOW)
    steps = [(confinement._LOAD, 0, 0, confinement._NUMBER), (confinement._EQUAL, 1, 0, number), allow]
    if argument is not None:
        steps += [(confinement._LOAD, 0, 0, confinement._ARGUMENTS), (confinement._EQUAL, 1, 0, argument), allow]
    steps.append((confinement._RETURN, 0, 0, confinement._FAIL | said))
    code = b"".join(confinement._STEP.pack(*step) for step in steps)
    libc.prctl(confinement._PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    asked = confinement._Program(len(steps), code)
    if libc.prctl(confinement._PR_SET_SECCOMP, confinement._SECCOMP_MODE_FILTER, ctypes.byref(asked), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    lack(sys.argv[1])
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
