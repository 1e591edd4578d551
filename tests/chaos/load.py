"""What a photo backend asks of the service meanwhile, by the client that backends have: adds, removals, purges,
searches, rebuilds; and probes, by which it is known when the service has recovered.

Whatever a call raises of the client's own errors is an answer here, and is sent again as a backend would; any other
exception ends the soak.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psycopg2

from producer_client import PhotoRefused, Refused, Sightline, SightlineError, Stored
from producer_client.contract import MAX_TOP_K, NewPhoto, Provenance
from producer_client.contract import Photo as Named
from tests.chaos.ledger import Ledger, Owed, Photo, draw

#: Seconds that a caller waits, and times that it sends what was not acknowledged.
PATIENCE_S, TRIES = 5.0, 4
#: Seconds that a probe waits: shorter than what it measures.
PROBE_PATIENCE_S = 2.0
#: Seconds between two calls of one thread, least and most.
PAUSES_S = (0.05, 0.4)
REBUILD_PAUSES_S = (4.0, 10.0)
#: Photos that are in the index at the most: a search shows all of them.
MOST = 900
#: Photos of a message of several.
BULK = 6


@dataclass
class Probes:
    """When probes were sent that succeeded, and when they did: (sent, answered), monotonic seconds."""

    search: list[tuple[float, float]] = field(default_factory=list)
    write: list[tuple[float, float]] = field(default_factory=list)

    def recovery_s(self, ended: float) -> float | None:
        """From the end of a fault until a search and a write that were sent after it succeeded; None where none has."""
        firsts = [
            min((answered for sent, answered in done if sent >= ended), default=None)
            for done in (list(self.search), list(self.write))
        ]
        return None if None in firsts else max(first for first in firsts if first is not None) - ended


class Load:
    """Every method named after an act is the life of one thread, until `over` is set."""

    def __init__(
        self, client: Callable[[], Sightline], database_url: str, table: str, folder: Path, seed: int, ledger: Ledger
    ) -> None:
        self._client = client()
        self._prober = client()
        self._database_url = database_url.replace("+psycopg2", "")
        self._table = table
        self._folder = folder
        self._seed = seed
        self._ledger = ledger
        self._numbers = itertools.count(1)
        #: A photo to search with, which is in no index.
        self._asked = draw(folder, 0, seed)
        self.over = threading.Event()
        self.probing_over = threading.Event()
        self.probes = Probes()

    def acts(self) -> dict[str, Callable[[], None]]:
        return {
            "add 1": lambda: self.add(Random(f"{self._seed} add 1")),
            "add 2": lambda: self.add(Random(f"{self._seed} add 2")),
            "bulk": lambda: self.add_some(Random(f"{self._seed} bulk")),
            "remove": lambda: self.remove(Random(f"{self._seed} remove")),
            "search": lambda: self.search(Random(f"{self._seed} search")),
            "rebuild": lambda: self.rebuild(Random(f"{self._seed} rebuild")),
            "probe search": self.probe_search,
            "probe write": self.probe_write,
        }

    def close(self) -> None:
        self._client.close()
        self._prober.close()

    # ------------------------------------------------------------------------------------------- acts

    def add(self, random: Random) -> None:
        for _ in self._rounds(random):
            lost = self._ledger.lost()
            photo = lost or self._drawn()
            # Of one that is sent again a message may be on its way, which makes a row, too.
            if lost is None and random.random() < 0.5:
                self._insert_row(photo)
            for _ in range(TRIES):
                if self._add_once(self._client, photo, PATIENCE_S) or self.over.wait(random.uniform(*PAUSES_S)):
                    break

    def add_some(self, random: Random) -> None:
        for _ in self._rounds(random):
            photos = {str(photo.number): photo for photo in (self._drawn() for _ in range(BULK))}
            for _ in range(TRIES):
                open_still = [ref for ref, photo in photos.items() if photo.added is None and photo.refused is None]
                if not open_still or self.over.wait(random.uniform(*PAUSES_S)):
                    break
                self._add_some_once({ref: photos[ref] for ref in open_still})
            self.over.wait(1.0)

    def remove(self, random: Random) -> None:
        for _ in self._rounds(random, always=True):
            photo = self._ledger.take(random) if self._ledger.present() > 5 else None
            if photo is None or photo.photo_id is None:
                continue
            photo.purging = photo.purging or random.random() < 0.4
            verb, name = (self._client.purge, "purge") if photo.purging else (self._client.remove, "remove")
            for _ in range(TRIES):
                restores = self._ledger.restores
                try:
                    (outcome,) = verb(photo.photo_id, timeout_s=PATIENCE_S).outcomes
                except SightlineError as exc:
                    self._ledger.count(f"{name} {exc.code}")
                else:
                    if isinstance(outcome, Refused):
                        self._ledger.wrong([f"{name} of photo {photo.photo_id} was refused: {outcome.message}"])
                        break
                    if self._ledger.removed(photo, restores):
                        self._ledger.count(name)
                        break
                    self._ledger.count(f"{name} before a restore")
                if self.over.wait(random.uniform(*PAUSES_S)):
                    break
            self.over.wait(random.uniform(*PAUSES_S))

    def search(self, random: Random) -> None:
        for _ in self._rounds(random, always=True):
            known, restores = self._ledger.all(), self._ledger.restores
            owed = {photo.photo_id: photo.owed for photo in known if photo.photo_id is not None}
            heard_of = [photo for photo in known if photo.added is not None and not photo.removing and not photo.probe]
            try:
                hits = self.hits(PATIENCE_S)
            except SightlineError as exc:
                self._ledger.count(f"search {exc.code}")
                continue
            if restores != self._ledger.restores:
                self._ledger.count("search before a restore")
                continue
            self._ledger.count("search")
            ids = [photo_id for photo_id, _ in hits]
            twice = {photo_id for photo_id in ids if ids.count(photo_id) > 1} if len(set(ids)) < len(ids) else set()
            gone = {photo_id for photo_id in ids if owed.get(photo_id) is Owed.ABSENT}
            self._ledger.wrong(f"a search showed photo {photo_id} twice" for photo_id in twice)
            self._ledger.wrong(f"a search showed photo {photo_id}, which was removed before" for photo_id in gone)
            # Of what this client has heard by a reply: its question waits for that.
            heard = {photo.photo_id for photo in heard_of if not photo.removing}
            missed = heard - set(ids)
            self._ledger.wrong(f"a search did not show photo {photo_id}, which was added before" for photo_id in missed)

    def rebuild(self, random: Random) -> None:
        while not self.over.wait(random.uniform(*REBUILD_PAUSES_S)):
            try:
                self._client.rebuild_index(timeout_s=6 * PATIENCE_S)
            except SightlineError as exc:
                self._ledger.count(f"rebuild {exc.code}")
            else:
                self._ledger.count("rebuild")

    def probe_search(self) -> None:
        while not self.probing_over.wait(0.2):
            sent = time.monotonic()
            try:
                self._prober.search(path=self._asked.path, top_k=1, threshold=-1.0, timeout_s=PROBE_PATIENCE_S)
            except SightlineError as exc:
                self._ledger.count(f"probe_search {exc.code}")
            else:
                self.probes.search.append((sent, time.monotonic()))
                self._ledger.count("probe_search")

    def probe_write(self) -> None:
        photo = self._drawn(probe=True)
        while not self.probing_over.wait(0.2):
            sent = time.monotonic()
            if self._add_once(self._prober, photo, PROBE_PATIENCE_S, "probe_write"):
                self.probes.write.append((sent, time.monotonic()))
                photo = self._drawn(probe=True)

    # ---------------------------------------------------------------------------------------- below

    def hits(self, timeout_s: float) -> list[tuple[int, float]]:
        """Every photo that a search shows, with its similarity to `asked`."""
        found = self._client.search(path=self._asked.path, top_k=MAX_TOP_K, threshold=-1.0, timeout_s=timeout_s)
        return [(hit.photo_id, hit.similarity) for hit in found.hits]

    @property
    def asked(self) -> Photo:
        return self._asked

    def rebuild_at_last(self, timeout_s: float) -> None:
        self._client.rebuild_index(timeout_s=timeout_s)

    def _rounds(self, random: Random, *, always: bool = False) -> Iterator[None]:
        """always: also while the index is as large as it may be."""
        while not self.over.wait(random.uniform(*PAUSES_S)):
            if always or self._ledger.present() < MOST:
                yield

    def _drawn(self, *, probe: bool = False) -> Photo:
        photo = draw(self._folder, next(self._numbers), self._seed)
        photo.probe = probe
        self._ledger.note(photo)
        return photo

    def _insert_row(self, photo: Photo) -> None:
        """As a backend does that loses nothing: the row first, tried until it is there."""
        while not self.over.is_set():
            restores = self._ledger.restores
            try:
                connection = psycopg2.connect(self._database_url, connect_timeout=3)
                try:
                    with connection, connection.cursor() as cursor:
                        # Of a try whose commit was not heard of.
                        cursor.execute(f"SELECT id FROM {self._table} WHERE file_path = %s", (str(photo.path),))
                        found = cursor.fetchone()
                        if found is None:
                            cursor.execute(
                                f"INSERT INTO {self._table} (file_path, lat, lon, location_method) "
                                "VALUES (%s, %s, %s, 'exif') RETURNING id",
                                (str(photo.path), *_point(photo)),
                            )
                            found = cursor.fetchone()
                finally:
                    connection.close()
            except psycopg2.Error:
                self._ledger.count("row not written")
                self.over.wait(0.3)
            else:
                assert found is not None
                if self._ledger.has_row(photo, int(found[0]), restores):
                    return

    def _add_once(self, client: Sightline, photo: Photo, patience_s: float, name: str = "add") -> bool:
        """Whether there is nothing more to send."""
        lat, lon = _point(photo)
        restores = self._ledger.restores
        try:
            photo_id = photo.photo_id if photo.rowed is not None else None
            if photo_id is not None:
                stored = client.add_to_index(photo_id=photo_id, timeout_s=patience_s)
            else:
                stored = client.add_to_index(
                    path=photo.path, lat=lat, lon=lon, provenance="surveyed", timeout_s=patience_s
                )
        except PhotoRefused as exc:
            return self._refused(photo, exc.code, exc.message, restores)
        except SightlineError as exc:
            self._ledger.count(f"{name} {exc.code}")
            return False
        return self._stored(photo, stored, restores, name)

    def _add_some_once(self, photos: dict[str, Photo]) -> None:
        items = [
            NewPhoto(ref, Named(path=str(photo.path)), *_point(photo), Provenance.SURVEYED)
            for ref, photo in photos.items()
        ]
        restores = self._ledger.restores
        try:
            outcomes = self._client.add_many(items, timeout_s=2 * PATIENCE_S)
        except SightlineError as exc:
            self._ledger.count(f"add_many {exc.code}")
            return
        for outcome in outcomes:
            if isinstance(outcome, Stored):
                self._stored(photos[outcome.ref], outcome, restores, "add")
            elif isinstance(outcome, Refused) and outcome.code == "quarantined":
                self._refused(photos[outcome.ref], outcome.code, outcome.message, restores)
            else:
                self._ledger.count(f"add_many {outcome.code}")

    def _stored(self, photo: Photo, stored: Stored, restores: int, name: str) -> bool:
        """restores: there had been when it was sent. Whether it is an acknowledgement."""
        before = photo.photo_id
        if not self._ledger.stored(photo, stored.photo_id, restores):
            self._ledger.count(f"{name} before a restore")
            return False
        if before not in (None, stored.photo_id) or stored.content_sha256 != photo.sha256:
            self._ledger.wrong([f"{photo.path.name} was stored as photo {stored.photo_id}, of another content or row"])
        self._ledger.count(name)
        return True

    def _refused(self, photo: Photo, code: str, message: str, restores: int) -> bool:
        """Whether there is nothing more to send. What was sent before a restore may name a row that is gone with it."""
        if restores != self._ledger.restores:
            self._ledger.count(f"refused {code} before a restore")
            return False
        photo.refused = code
        self._ledger.count(f"refused {code}")
        self._ledger.wrong([f"{photo.path.name} was refused though nothing is wrong with it: {message}"])
        return True


def _point(photo: Photo) -> tuple[float, float]:
    """Of its own: no two photos are at one place."""
    return 55.0 + photo.number * 1e-3, 13.0 + photo.number % 7 * 1e-2
