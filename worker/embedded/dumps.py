"""A database into one file and back, by the programs of the server. Knows nothing of what is in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.embedded.postgres import environment, program
from worker.private import UMASK
from worker.words import say

#: Is called while a program works, several times a second.
Tell = Callable[[], None]
TELL_EVERY_S = 0.25


def dump(url: str, file: Path, tell: Tell) -> None:
    """Replace the file by a dump, whole or not at all; for its owner alone to read.

    Raises RuntimeError with the program's words, OSError where the file cannot be written.
    """
    with _beside(file) as new:
        _run("pg_dump", "--format=custom", "--no-owner", f"--file={new}", f"--dbname={_plain(url)}", tell=tell)


def look_into(file: Path, tell: Tell, *, whole: bool = False) -> None:
    """Raises RuntimeError for what is no dump of ours. whole: all of it is read."""
    _run("pg_restore", "--file=/dev/null" if whole else "--list", str(file), tell=tell)


def restore(file: Path, url: str, tell: Tell) -> None:
    """All of the dump, in one transaction, into an empty database. Raises RuntimeError with the program's words."""
    options = ("--no-owner", "--exit-on-error", "--single-transaction")
    _run("pg_restore", *options, f"--dbname={_plain(url)}", str(file), tell=tell)


def growing(file: Path) -> Path:
    """Where a dump lies until it is whole."""
    return file.with_name(f"{file.name}.part")


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    new = growing(file)
    new.unlink(missing_ok=True)
    try:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield new
        with new.open("rb") as written:
            os.fsync(written.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg2://", "postgresql://")


def _run(name: str, *arguments: str, tell: Tell) -> None:
    # A session of its own: Ctrl-C is for us, who end it.
    with subprocess.Popen(
        [str(program(name)), *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        umask=UMASK,
    ) as process:
        try:
            while True:
                try:
                    _, words = process.communicate(timeout=TELL_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    tell()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        said = [line for line in words.splitlines() if "error" in line] or words.splitlines()
        raise RuntimeError(" / ".join(said[:3]) or say("{program} failed", program=name))
