"""What an operator does with the service, one after the other, and whether anything is lost by it."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from producer_client import NewPhoto, Photo, Sightline, Stored
from producer_client.contract import Provenance
from tests.containers import checks
from tests.containers.engine import Engine
from tests.containers.images import BEFORE, ROOT
from tests.containers.ledger import Row, Sent, judge, lacking
from tests.containers.load import Load
from tests.containers.machine import Failed, run, shown, tell, until
from tests.containers.photos import Photos, Taken, metres
from tests.containers.stack import OURS, SERVERS, VISIBILITY_S, Stack, passwords

#: Of photos and questions; that of rebuilds has the beat's knocks in it.
QUEUES = ("interactive", "bulk")
PREFIX = "sightline:"
ADDING = Path(__file__).with_name("adding.py")
#: Seconds that a call may take on a busy machine, and a rebuild.
PATIENCE_S, REBUILD_S = 120.0, 300.0
#: Photos that wait in the queue over an upgrade and a restart.
WAITING = 6
ROWS = (
    "SELECT p.id, p.file_path, count(v.vector) FROM photos p "
    "LEFT JOIN sightline.entries e ON e.photo_id = p.id AND NOT e.removed "
    "LEFT JOIN sightline.embeddings v ON v.content_sha256 = e.content_sha256 GROUP BY 1, 2"
)


@dataclass
class Trial:
    engine: Engine
    photos: Photos
    located: int = 0
    killed: int = 0
    lost: list[str] = field(default_factory=list)
    #: Whatever is wrong, what is lost included.
    faults: list[str] = field(default_factory=list)

    def run(self, earlier: Path | None) -> None:
        secret = passwords()
        self._small = iter(self.photos.small)
        known = self.photos.known
        if earlier is not None:
            half, known = known[::2], known[1::2]
            self._stack = Stack(self.engine, earlier, self.photos.folder, secret, image=BEFORE)
            self._before_the_upgrade(earlier, half)
            before = self._there()
        self._stack = Stack(self.engine, ROOT, self.photos.folder, secret)
        tell("this release:")
        self._stack.up()
        with Sightline(self._stack.broker_url, timeout_s=PATIENCE_S) as self._client:
            if earlier is not None:
                self._after_the_upgrade(before)
            self._add(known)
            self._rebuild()
            self._locate()
            self._look()
            self._kill_each()
            self._back_up_and_restore()
            self._restart()

    # ------------------------------------------------------------------------------------------ steps

    def _before_the_upgrade(self, earlier: Path, known: Sequence[Taken]) -> None:
        tell("the release before:")
        self._stack.up()
        became = self._add_as(earlier, known, PATIENCE_S)
        if set(became) != {"Stored"}:
            raise Failed(f"the release before did not take its photos: {became}")
        self._stack.inside(self._stack.name("index"), "sightline", "rebuild", "--timeout", f"{REBUILD_S:.0f}")
        # What waits in the queue when the next release comes.
        self._stack.stop("worker-cpu")
        self._waiting = self._next(WAITING)
        self._add_as(earlier, self._waiting, 0)

    def _after_the_upgrade(self, before: dict[str, int]) -> None:
        waiting = self._drained()
        self._hold("upgrade", before, [Sent(taken.path) for taken in self._waiting], waiting)

    def _add(self, known: Sequence[Taken]) -> None:
        items = [
            NewPhoto(taken.path, Photo(path=taken.path), taken.lat, taken.lon, Provenance.SURVEYED) for taken in known
        ]
        with shown(f"adding {len(items)} photos from the host"):
            outcomes = self._client.add_many(items, timeout_s=PATIENCE_S)
        refused = [outcome for outcome in outcomes if not isinstance(outcome, Stored)]
        if refused:
            raise Failed(f"{len(refused)} photos were not taken: {refused[0]}")

    def _rebuild(self) -> None:
        with shown("rebuilding"):
            rebuilt = self._client.rebuild_index(timeout_s=REBUILD_S)
        there = len(self._there())
        if rebuilt.indexed != there:
            self.faults.append(f"the index has {rebuilt.indexed} photos, Postgres {there}")

    def _locate(self) -> None:
        far = []
        with shown(f"locating {len(self.photos.asked)} photos from the host"):
            for taken in self.photos.asked:
                answer = self._client.locate(path=taken.path, timeout_s=PATIENCE_S).answer
                if answer.point is not None:
                    far.append(metres(taken, answer.point.lat, answer.point.lon))
        self.located = len(far)
        most = f", {max(far):.0f} m off at the most" if far else ""
        tell(f"{self.located} of {len(self.photos.asked)} photos that are not in the index were located{most}")

    def _look(self) -> None:
        with shown("looking at what containers may do"):
            self.faults += checks.faults(self._stack)
        name = self._stack.name("worker-cpu")
        told = self._stack.inside(name, "sightline", "doctor", fails=True)
        tell(f"sightline doctor, in a container:\n{told}")
        tell(f"decoders are confined by {self._client.stats(timeout_s=PATIENCE_S).sandbox}")

    def _kill_each(self) -> None:
        with shown("starting a second worker"):
            self._stack.up(workers=2)
        before = self._there()
        load = Load(self._client, self._small)
        with load.running():
            for name in self._stack.names(*OURS, *SERVERS):
                self._served(f"adds before {name} is killed")
                if name == self._stack.name("index"):
                    self._client.submit_rebuild_index()
                with shown(f"killing {name} under load, until adds go through again"):
                    self._stack.kill(name)
                    self._served(f"adds after {name} was killed")
                self.killed += 1
        waiting = self._drained()
        load.answered(VISIBILITY_S)
        gone = self._hold("kills", before, load.sent, waiting)
        tell(
            f"{len(load.sent)} adds under {self.killed} kills: {sum(one.photo_id is not None for one in load.sent)} "
            f"answered, {load.not_taken} not taken, {len(gone)} gone without an answer"
        )
        # A worker that dies in the moment of taking a message takes it along: one for each of its threads, at the most.
        if len(gone) > self.killed:
            self._lose(gone)
        for one in gone:
            taken = next(taken for taken in self.photos.small if taken.path == one.partition(" ")[0])
            self._add([taken])

    def _back_up_and_restore(self) -> None:
        kept = self._there()
        with shown("backing up"):
            self._as_the_guide_says("pg_dump")
        after = self._next(WAITING)
        self._add(after)
        with shown("restoring"):
            self._stack.stop("beat", "index")
            self._drained()
            self._as_the_guide_says("pg_restore")
            self._stack.up(workers=2)
        if (there := self._there()) != kept:
            self._lose([f"the restored database has {len(there)} photos, and had {len(kept)} when it was backed up"])
        self._add(after)
        self._rebuild()
        if not set(kept) < set(self._there()):
            self._lose(["what was added after the restore is not there"])

    def _restart(self) -> None:
        before, waiting = self._there(), self._next(WAITING)
        generation = self._client.stats(timeout_s=PATIENCE_S).generation
        self._stack.stop("worker-cpu")
        load = Load(self._client, iter(()))
        for taken in waiting:
            load.add(taken)
        self._stack.down()
        self._stack.up()
        left = self._drained()
        load.answered(PATIENCE_S)
        self._hold("restart", before, load.sent, left)
        if (now := self._client.stats(timeout_s=PATIENCE_S).generation or 0) < (generation or 0):
            self.faults.append(f"generation {now} serves after the restart, and {generation} did before")

    # ------------------------------------------------------------------------------------------ below

    def _hold(self, what: str, before: dict[str, int], sent: list[Sent], waiting: int) -> list[str]:
        """What is gone without an answer, where that may be."""
        rows = self._rows()
        verdict = judge(sent, rows, waiting=waiting)
        self._lose([f"{what}: {fault}" for fault in [*verdict.lost, *lacking(before, rows)]])
        if what != "kills":
            self._lose([f"{what}: {fault}" for fault in verdict.gone])
        return verdict.gone

    def _lose(self, faults: Sequence[str]) -> None:
        self.lost += faults
        self.faults += faults

    def _rows(self) -> list[Row]:
        return [Row(int(number), path, int(vectors)) for number, path, vectors in self._stack.sql(ROWS)]

    def _there(self) -> dict[str, int]:
        return {row.path: row.photo_id for row in self._rows() if row.vectors == 1}

    def _queued(self) -> int:
        """Messages that wait or are in hand."""
        asked = [["LLEN", PREFIX + queue] for queue in QUEUES] + [["HLEN", f"{PREFIX}unacked"]]
        name = self._stack.name("redis")
        return sum(int(self._stack.inside(name, "redis-cli", "-n", "5", *words)) for words in asked)

    def _served(self, what: str) -> None:
        """Wait for three more photos than there are."""
        before = len(self._rows())
        until(lambda: len(self._rows()) >= before + 3, what, PATIENCE_S)

    def _drained(self) -> int:
        """Messages that nobody takes: none, once the queues have run empty."""
        try:
            until(lambda: self._queued() == 0, "the queues to run empty", 4 * VISIBILITY_S + PATIENCE_S)
        except Failed:
            return self._queued()
        return 0

    def _next(self, count: int) -> list[Taken]:
        return [next(self._small) for _ in range(count)]

    def _add_as(self, tree: Path, photos: Sequence[Taken], timeout_s: float) -> dict[str, list[str]]:
        """By the client of another release."""
        asked = [self._stack.broker_url, [[taken.path, taken.lat, taken.lon] for taken in photos], timeout_s]
        given = self.engine.folder / "asked.json"
        given.write_text(json.dumps(asked))
        written = run(
            [sys.executable, "-P", ADDING], env={"PYTHONPATH": str(tree)}, stdin=given, told="adding by its client"
        )
        found: dict[str, list[str]] = json.loads(written)
        return found

    def _as_the_guide_says(self, word: str) -> None:
        """Run the first command of deploy/README.md that has this word."""
        guide = (self._stack.tree / "deploy/README.md").read_text()
        [command, *_] = re.findall(rf"`dc (exec [^`]*\b{word}\b[^`]*)`", guide)
        whole = f"{shlex.join(self._stack.dc)} {command}"
        run(["bash", "-c", whole], env=self.engine.env, cwd=self._stack.folder, told=word)
