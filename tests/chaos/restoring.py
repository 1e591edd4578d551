"""The database of a running service set back to a dump that was made a little earlier, by the commands that people have
for that. Knows what that does to the books, and no photos."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Lock

from tests.chaos.faults import Course
from tests.chaos.ledger import Ledger
from worker.stack import Stack
from worker.storage.store import PostgresStore

#: Seconds that a command may take, under the load of everything else.
PATIENCE_S = 120.0


class Restores:
    """watching: held by who starts again what has died, while it looks."""

    def __init__(self, stack: Stack, ledger: Ledger, watching: Lock) -> None:
        self._stack = stack
        self._ledger = ledger
        self._watching = watching
        #: The highest number of a generation that came back.
        self.generation = 0

    def course(self, lasts_s: float) -> Course:
        """lasts_s: from the dump to the restore."""
        with ThreadPoolExecutor(1, thread_name_prefix="restore") as pool:
            running = pool.submit(self._run, lasts_s)
            while not running.done():
                yield
            running.result()

    def _run(self, lasts_s: float) -> None:
        data, servers = self._stack.settings.data_dir, self._stack.servers
        dump, elsewhere = data.with_name("photos.dump"), data.with_name("restored")
        self._ledger.back_up()
        _sightline("backup", str(dump), data_dir=str(data))
        time.sleep(lasts_s)
        # Into another folder, as `up` runs in its own; then it changes places.
        _sightline("restore", str(dump), data_dir=str(elsewhere))
        former = data.with_name("former")
        with self._watching:
            servers.stop_postgres()
            (data / "postgres").rename(former)
            (elsewhere / "postgres").rename(data / "postgres")
            # Nothing that was sent until now is kept, and nothing that is sent from now on is lost.
            self._ledger.turn_back()
        servers.start_postgres()
        shutil.rmtree(former)
        with closing(PostgresStore(self._stack.settings)) as store:
            self.generation = store.generations.highest()


def _sightline(*arguments: str, data_dir: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTLINE_")}
    command = [sys.executable, "-m", "worker.cli", *arguments]
    done = subprocess.run(
        command, env={**env, "SIGHTLINE_DATA_DIR": data_dir}, capture_output=True, text=True, timeout=PATIENCE_S
    )
    if done.returncode != 0:
        raise RuntimeError(f"`sightline {' '.join(arguments)}` ended with {done.returncode}: {done.stderr}")
