"""Work in a process of its own: its memory is its own, is counted apart and is given back."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")

#: A new interpreter: a fork would begin with the memory of its parent.
spawn = multiprocessing.get_context("spawn")


def alone(function: Callable[..., T], *args: Any, threads: int = 1) -> T:
    """What `function(*args)` returns, run in a new process; what it raises comes as RuntimeError, with its traceback.

    threads: for OpenMP and the BLAS in that process.
    """
    with _threads(threads), ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_told, function, args).result()


@contextmanager
def beside(function: Callable[..., None], *args: Any, threads: int = 1) -> Iterator[Connection]:
    """Run `function(connection, *args)` in a new process; yields the other end of the connection.

    The process should end when its connection does; it is ended when the block ends by an exception.
    """
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=function, args=(theirs, *args))
    with _threads(threads):
        process.start()
    # Else this end would wait for ever for a process that died.
    theirs.close()
    try:
        yield ours
        ours.close()
        process.join()
    except BaseException:
        process.terminate()
        process.join()
        raise


def _told(function: Callable[..., T], args: tuple[Any, ...]) -> T:
    try:
        return function(*args)
    except Exception as exc:
        # Not every exception can be sent to another process; one that cannot takes the pool down without a word.
        raise RuntimeError(f"{type(exc).__name__}: {exc}") from exc


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Children inherit the environment, and these libraries read it once, when they are loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(count) for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
