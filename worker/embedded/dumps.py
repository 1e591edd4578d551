"""A database into one file and back, by the programs of the server. Knows nothing of what is in it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from worker.embedded.postgres import environment, program
from worker.private import UMASK

#: Is called while a program works, several times a second.
Tell = Callable[[], None]
TELL_EVERY_S = 0.25


class Failed(Exception):
    """What a program says of an error."""

    def __init__(self, program: str, words: str) -> None:
        super().__init__(words)
        self.program = program


def dump(url: str, file: Path, tell: Tell) -> None:
    """Replace the file by a dump that has been read again, whole or not at all; for its owner alone to read.

    Raises RuntimeError with the program's words, OSError where the file cannot be written.
    """
    with _beside(file.resolve()) as new:
        try:
            _run(
                "pg_dump",
                "--format=custom",
                "--no-owner",
                "--statistics",
                f"--file={new}",
                f"--dbname={_plain(url)}",
                tell=tell,
            )
            _run("pg_restore", "--file=/dev/null", str(new), tell=tell)
        except Failed as exc:
            raise RuntimeError(
                f"{file} was not written. Look whether there is room in its folder and what `sightline doctor` says, "
                f"and try again\n  {exc.program} says: {exc}"
            ) from exc


class About(NamedTuple):
    """Of a dump: when it was made, in pg_restore's words, and whether the planner's statistics are in it."""

    as_of: str
    has_statistics: bool


def look_into(file: Path, schema: str) -> About:
    """Raises RuntimeError for what is no dump of ours."""
    try:
        contents = _run("pg_restore", "--list", str(file), tell=lambda: None)
    except Failed as exc:
        raise RuntimeError(
            f"{file} is no backup that can be read. Take a file that `sightline backup` of this release or an earlier "
            f"one has written, whole\n  {exc.program} says: {exc}"
        ) from exc
    if not re.search(rf"^\d+; \d+ \d+ TABLE {re.escape(schema)} alembic_version ", contents, re.MULTILINE):
        raise RuntimeError(
            f"{file} is a backup of another database: it has no tables of Sightline in the schema {schema}. Take a "
            "file that `sightline backup` has written, or set SIGHTLINE_DB_SCHEMA as it was then"
        )
    made = re.search(r"^; Archive created at (.+)$", contents, re.MULTILINE)
    return About(made[1] if made else "", " STATISTICS DATA " in contents)


def restore(file: Path, url: str, tell: Tell) -> None:
    """All of the dump but rights, whose roles may not be there, in one transaction, into an empty database. Raises
    RuntimeError with the program's words."""
    options = ("--no-owner", "--no-acl", "--exit-on-error", "--single-transaction")
    try:
        _run("pg_restore", *options, f"--dbname={_plain(url)}", str(file), tell=tell)
    except Failed as exc:
        raise RuntimeError(
            f"{file} could not be restored whole, and what was there before is as it was. Take another backup, or look "
            f"whether the data folder has room\n  {exc.program} says: {exc}"
        ) from exc


def growing(file: Path) -> Path:
    """Where a dump lies until it is whole."""
    whole = file.resolve()
    return whole.with_name(f"{whole.name}.part")


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


def _run(name: str, *arguments: str, tell: Tell) -> str:
    """What it writes to its output. Raises Failed with what it says of an error."""
    # A session of its own: Ctrl-C is for us, who end it.
    with subprocess.Popen(
        [str(program(name)), *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        umask=UMASK,
    ) as process:
        try:
            while True:
                try:
                    written, words = process.communicate(timeout=TELL_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    tell()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        said = [line for line in words.splitlines() if "error" in line] or words.splitlines()
        ended = f"nothing, and ended with code {process.returncode}"
        raise Failed(name, " / ".join(line.removeprefix(f"{name}: ") for line in said[:3]) or ended)
    return written
