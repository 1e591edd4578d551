"""A decoder whose photos do what they say: the sandbox's own server around it, started by tests in its place.

python -m tests.hostile CHANNEL MEMORY LIMITS
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from worker.core.types import Decoded
from worker.sandbox.server import load, run

_PTRACE_ATTACH, _PROCESS_VM_READV = 16, 310


def _asked(call: Callable[..., int], *arguments: Any) -> None:
    if call(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _memory() -> NoReturn:
    taken = []
    while True:
        taken.append(np.ones(10_000_000, np.uint8))


def _grow_shared(size: int = 1 << 40) -> None:
    for memory in range(3, 256):
        try:
            os.ftruncate(memory, size)
        except OSError as exc:
            if exc.strerror and "large" in exc.strerror:
                raise


def _huge(size: str, said: str) -> None:
    _grow_shared(int(size))
    _reply(said.encode())
    _stay("")  # and not let the server say anything else


def _burn(seconds: float = 1e9) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def _stay(_: str) -> None:
    time.sleep(600)


def _reply(said: bytes) -> None:
    """In the place of the server's own word."""
    for channel in range(3, 256):
        try:
            os.write(channel, said)
        except OSError:
            continue


def _say(words: Iterable[str]) -> NoReturn:
    raise ValueError(" ".join(words))


#: By the word before the blank; the rest of the photo is its argument.
ACTS: dict[str, Callable[[str], object]] = {
    "read": lambda path: os.open(path, os.O_RDONLY),
    "write": lambda path: os.open(path, os.O_WRONLY | os.O_CREAT),
    "list": os.listdir,
    "stat": os.stat,
    "remove": os.unlink,
    "internet": lambda _: socket.socket(socket.AF_INET),
    "unix": lambda _: socket.socket(socket.AF_UNIX),
    "pair": lambda _: socket.socketpair(),
    "exec": lambda path: os.execv(path, [path]),
    "fork": lambda _: _fork(),
    "start": lambda path: subprocess.run([path], check=True),
    "kill": lambda pid: os.kill(int(pid), 0),
    "trace": lambda pid: _asked(_libc().ptrace, _PTRACE_ATTACH, int(pid), None, None),
    "peek": lambda pid: _asked(_libc().syscall, _PROCESS_VM_READV, int(pid), None, 0, None, 0, 0),
    "code": lambda _: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "lift": lambda _: resource.setrlimit(resource.RLIMIT_CPU, (10_000, 10_000)),
    "import": __import__,
    "memory": lambda _: _memory(),
    "shared": lambda _: _grow_shared(),
    "burn": lambda _: _burn(),
    "work": lambda _: _burn(0.25),
    "pause": lambda _: time.sleep(0.5),
    "stay": _stay,
    "abort": lambda _: os.abort(),
    "crash": lambda _: ctypes.string_at(0),
    "exit": lambda code: os._exit(int(code)),
    "reply": lambda said: _reply(said.encode()),
    "huge": lambda said: _huge(*said.split(" ", 1)),
    "loaded": lambda names: _say(name for name in names.split() if name in sys.modules),
    "environment": lambda _: _say(sorted(os.environ)),
}


def act(content: bytes, **asked: Any) -> Decoded:
    name, _, rest = content.decode().partition(" ")
    if name in ACTS:
        ACTS[name](rest)
    if name == "large":
        return Decoded(np.zeros((2_400, 2_500, 3), np.uint8))
    return Decoded(np.full((32, 48, 3), len(rest) % 256, np.uint8))


def _load() -> Callable[..., Decoded]:
    load()
    return act


if __name__ == "__main__":
    run(_load)
