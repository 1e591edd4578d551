"""A disk that hangs: whoever looks there waits until somebody ends it, as with one of the network that is gone."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Seconds for which it hangs at the most: a test that waits for it in vain fails and does not hang itself.
LONGEST_S = 30.0
#: Of umount2: also while somebody waits in it.
DETACH = 2


@contextmanager
def hung_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A file system in user space whose server answers nothing, mounted on this empty folder; gives what ends that,
    upon which it is an empty folder again. Skips the test where this user may mount none."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as exc:
        pytest.skip(f"no file systems in user space here: {exc}")
    how = f"fd={server},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"sightline-hung", os.fsencode(folder), b"fuse", 0, how.encode()) != 0:
        os.close(server)
        pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    servers = [server]

    def end() -> None:
        if servers:
            libc.umount2(os.fsencode(folder), DETACH)
            os.close(servers.pop())  # whoever waits is told that nobody answers any more

    at_last = threading.Timer(LONGEST_S, end)
    at_last.daemon = True
    at_last.start()
    try:
        yield end
    finally:
        at_last.cancel()
        end()
