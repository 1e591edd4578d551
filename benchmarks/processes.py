"""Work in a process of its own: its memory is its own, is counted apart and is given back. A peer's has packages of
its own, too."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: A new interpreter: a fork would begin with the memory of its parent.
spawn = multiprocessing.get_context("spawn")
ROOT = Path(__file__).parents[1]
#: Seconds that a peer may take to answer.
ANSWER_S = 300.0


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))


def threads_env(count: int) -> dict[str, str]:
    """Variables for OpenMP and the BLAS, which read them once, when they are loaded."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(count))


def alone(function: Callable[..., T], *args: Any, threads: int = 1) -> T:
    """What `function(*args)` returns, run in a new process; what it raises comes as RuntimeError, with its traceback.

    threads: for OpenMP and the BLAS in that process.
    """
    with _inherited(threads), ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_told, function, args).result()


@contextmanager
def beside(function: Callable[..., None], *args: Any) -> Iterator[Connection]:
    """Run `function(connection, *args)` in a new process; yields the other end once it has sent that it is ready.

    The process ends when its connection does, at the latest; at once when the block ends by an exception.
    """
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_until_closed, args=(function, theirs, args))
    with _inherited(1):
        process.start()
    # Else this end would wait for ever for a process that died.
    theirs.close()
    try:
        ours.recv()
        yield ours
        ours.close()
        process.join()
    except BaseException:
        process.terminate()
        process.join()
        raise


def python_of(environment: str) -> Path:
    """The interpreter with benchmarks/requirements-ENVIRONMENT.txt, which the Makefile makes."""
    return ROOT / f".venv-bench-{environment}" / "bin" / "python"


def ask(python: Path, module: str, request: dict[str, Any], *, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """What a module of this package answers (measure.answer) to `request` in a peer's environment: its figures, or
    {"skipped": reason}."""
    if not python.exists():
        return {"skipped": f"its environment {python.parents[1].name} is not there; `make` makes it"}
    try:
        done = subprocess.run(
            [python, "-m", module],
            input=json.dumps(request),
            cwd=ROOT,
            # What numpy multiplies between a peer's own work is small.
            env=os.environ | threads_env(cores()) | {"OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"it did not end within {timeout_s:g} s"}
    if done.returncode != 0 or not done.stdout:
        return {"skipped": " ".join(done.stderr.strip().splitlines()[-1:]) or f"exit status {done.returncode}"}
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """Children inherit the environment."""
    before = dict(os.environ)
    os.environ.update(threads_env(threads))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _until_closed(function: Callable[..., None], connection: Connection, args: tuple[Any, ...]) -> None:
    with suppress(EOFError):
        function(connection, *args)


def _told(function: Callable[..., T], args: tuple[Any, ...]) -> T:
    try:
        return function(*args)
    except Exception as exc:  # others' code: what is measured, which raises what it likes; told by its words
        # Not every exception can be sent to another process; one that cannot takes the pool down without a word.
        raise RuntimeError(f"{type(exc).__name__}: {exc}") from exc
