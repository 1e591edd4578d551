"""What an operator does with the service, one after the other, and whether anything is lost by it."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
from tests.containers.stack import OURS, SERVERS, VISIBILITY_S, WORKERS, Stack, passwords

#: Of photos and questions; that of rebuilds has the beat's knocks in it.
QUEUES = ("interactive", "bulk")
PREFIX = "sightline:"
ADDING = Path(__file__).with_name("adding.py")
#: Seconds that a call may take on a busy machine, and a rebuild.
PATIENCE_S, REBUILD_S = 120.0, 300.0
#: Starts that are timed.
STARTS = 3
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
    #: From the start of a worker's container to its answer to a question that waited; seconds by image.
    ready_s: dict[str, float] = field(default_factory=dict)
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
            self.located = len(by_torch := self._locate())
            self._without_torch(by_torch)
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
        self._stack.stop(*WORKERS)
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

    def _locate(self) -> set[str]:
        """Paths of those that were."""
        far: dict[str, float] = {}
        with shown(f"locating {len(self.photos.asked)} photos from the host", lambda: f"{len(far)} located"):
            for taken in self.photos.asked:
                answer = self._client.locate(path=taken.path, timeout_s=PATIENCE_S).answer
                if answer.point is not None:
                    far[taken.path] = metres(taken, answer.point.lat, answer.point.lon)
        most = f", {max(far.values()):.0f} m off at the most" if far else ""
        tell(f"{len(far)} of {len(self.photos.asked)} photos that are not in the index were located{most}")
        return set(far)

    def _without_torch(self, by_torch: set[str]) -> None:
        """The guide's "workers without torch": export, then those alone."""
        with shown("starting a worker without torch, with nothing exported"):
            try:
                self._stack.compose("run", "--rm", "worker-serve")
                self.faults.append("a worker without torch and without an export goes on")
            except Failed as exc:
                if "ended with 3" not in str(exc) or "export" not in str(exc):
                    self.faults.append(f"a worker without torch and without an export says {exc}")
        self._as_the_guide_says("export", "exporting the model")
        tell("workers without torch alone:")
        self._stack.scale(worker_cpu=0, worker_serve=1)
        for service, there in (("worker-serve", []), ("index", list(checks.MODELS))):
            if (found := checks.with_models(self._stack, service)) != there:
                self.faults.append(f"{service} has {found}, and is to have {there}")
        self._add(self._next(WAITING))
        if (located := self._locate()) != by_torch:
            self.faults.append(f"without torch others are located: {sorted(located ^ by_torch)}")
        self._time_a_start("worker-serve")
        self._stack.scale(worker_cpu=1, worker_serve=0)
        self._time_a_start("worker-cpu")
        self._stack.scale(worker_cpu=1, worker_serve=1)

    def _time_a_start(self, service: str) -> None:
        """The quickest, for whatever else runs only adds to it; the first does what it does once for a machine."""
        took_s = []
        for _ in range(1 + STARTS):
            self._stack.stop(service)
            asked = self._client.submit_locate(path=self.photos.asked[0].path)
            with shown(f"starting {service}, until it answers"):
                began = self._stack.start(service)
                asked.wait(PATIENCE_S)
                took_s.append((datetime.now(UTC) - began).total_seconds())
        self.ready_s[service.removeprefix("worker-")] = round(min(took_s[1:]), 1)
        told = ", ".join(f"{one:.1f}" for one in took_s)
        tell(f"{service} answered a question that waited {told} s after its container began")

    def _look(self) -> None:
        with shown("looking at what containers may do"):
            self.faults += checks.faults(self._stack)
        name = self._stack.name("worker-cpu")
        told = self._stack.inside(name, "sightline", "doctor", fails=True)
        tell(f"sightline doctor, in a container:\n{told}")
        tell(f"decoders are confined by {self._client.stats(timeout_s=PATIENCE_S).sandbox}")

    def _kill_each(self) -> None:
        with shown("starting a second worker with torch"):
            self._stack.scale(worker_cpu=2, worker_serve=1)
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
            self._as_the_guide_says("pg_dump", "pg_dump")
        after = self._next(WAITING)
        self._add(after)
        with shown("restoring"):
            self._stack.stop("beat", "index")
            self._drained()
            self._as_the_guide_says("pg_restore", "pg_restore")
            self._stack.up()
        if (there := self._there()) != kept:
            self._lose([f"the restored database has {len(there)} photos, and had {len(kept)} when it was backed up"])
        self._add(after)
        self._rebuild()
        if not set(kept) < set(self._there()):
            self._lose(["what was added after the restore is not there"])

    def _restart(self) -> None:
        before, waiting = self._there(), self._next(WAITING)
        generation = self._client.stats(timeout_s=PATIENCE_S).generation
        self._stack.stop(*WORKERS)
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

    def _as_the_guide_says(self, word: str, told: str) -> None:
        """Run the first command of deploy/README.md that has this word."""
        whole = f"{shlex.join(self._stack.dc)} {in_guide(word, self._stack.tree)}"
        run(["bash", "-c", whole], env=self.engine.env, cwd=self._stack.folder, told=told)


def in_guide(word: str, tree: Path = ROOT) -> str:
    """The first command of deploy/README.md that has this word, without `dc`."""
    guide = (tree / "deploy/README.md").read_text()
    found: list[str] = re.findall(rf"`dc ((?:exec|run) [^`]*\b{word}\b[^`]*)`", guide)
    return found[0]
