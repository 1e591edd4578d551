"""What the soak has sent for each photo, and what it was told: what the service owes. Knows no service."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

#: Pixels of a drawn photo: so small that reading and looking at it costs little beside the faults.
SIZE = (160, 120)
#: Patches of colour across and down, drawn anew for each photo: vectors of two photos are far from equal.
PATCHES = (8, 6)


class Owed(Enum):
    """What must be found of a photo in the end. EITHER: something was sent of it that nobody acknowledged."""

    PRESENT = "present"
    ABSENT = "absent"
    EITHER = "either"


@dataclass
class Photo:
    """One photo with a content of its own. Written to by one thread at a time.

    rowed: when the soak had put a row of it into the backend's table, before it was sent, so that it is owed although
    nobody acknowledged it. added, gone: when it was acknowledged that it is there, or is no longer (monotonic seconds).
    removing: whether anything was sent to that end; purging: a purge. probe: of another client than the one that
    searches.
    """

    number: int
    path: Path
    sha256: str
    photo_id: int | None = None
    rowed: float | None = None
    added: float | None = None
    refused: str | None = None
    removing: bool = False
    purging: bool = False
    gone: float | None = None
    probe: bool = False

    @property
    def owed(self) -> Owed:
        if self.gone is not None:
            return Owed.ABSENT
        if self.removing or self.refused is not None:
            return Owed.EITHER
        return Owed.PRESENT if self.added is not None or self.rowed is not None else Owed.EITHER


@dataclass
class Ledger:
    """Shared by the threads of the load."""

    photos: list[Photo] = field(default_factory=list)
    #: Calls by what they came to, as `search` or `add timed_out`.
    calls: Counter[str] = field(default_factory=Counter)
    #: What a search showed or left out that it must not have, as sentences.
    seen_wrong: list[str] = field(default_factory=list)
    #: How often the database was set back. What was sent before is acknowledged to nobody afterwards.
    restores: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    _kept_until: float | None = None
    _to_add: list[Photo] = field(default_factory=list)
    _to_remove: list[Photo] = field(default_factory=list)

    def note(self, photo: Photo) -> None:
        with self.lock:
            self.photos.append(photo)

    def count(self, *what: str) -> None:
        with self.lock:
            self.calls.update(what)

    def wrong(self, sentences: Iterable[str]) -> None:
        with self.lock:
            self.seen_wrong.extend(sentences)

    def all(self) -> list[Photo]:
        with self.lock:
            return list(self.photos)

    def back_up(self) -> None:
        """A backup begins, to which the database will be set back: it holds all that was acknowledged until now."""
        with self.lock:
            self._kept_until = time.monotonic()

    def turn_back(self) -> None:
        """The database is as it was when that backup was made: what was acknowledged since it began may be there or
        not, until it is acknowledged again. Ids of photos that may not be there are given to others."""
        with self.lock:
            assert self._kept_until is not None, "of a backup"
            since, self._kept_until = self._kept_until, None
            self.restores += 1
            for photo in self.photos:
                if photo.gone is not None and photo.gone > since:
                    photo.gone = None
                    self._to_remove.append(photo)
                if photo.rowed is not None and photo.rowed > since:
                    photo.rowed = None
                if photo.added is not None and photo.added > since:
                    photo.added = None
                    self._to_add.append(photo)
                if photo.added is None and photo.rowed is None:
                    photo.photo_id = None

    def lost(self) -> Photo | None:
        """A photo that a restore has taken away, to be sent again: nobody else gets it."""
        with self.lock:
            return self._to_add.pop() if self._to_add else None

    def stored(self, photo: Photo, photo_id: int, restores: int) -> bool:
        """Whether that was an acknowledgement: of what was sent when there had been so many restores."""
        with self.lock:
            if restores == self.restores:
                photo.photo_id, photo.added = photo_id, time.monotonic()
            return restores == self.restores

    def has_row(self, photo: Photo, photo_id: int, restores: int) -> bool:
        """Likewise, of a row that was written."""
        with self.lock:
            if restores == self.restores:
                photo.photo_id, photo.rowed = photo_id, time.monotonic()
            return restores == self.restores

    def removed(self, photo: Photo, restores: int) -> bool:
        """Likewise, of a removal."""
        with self.lock:
            if restores == self.restores:
                photo.gone = time.monotonic()
            return restores == self.restores

    def take(self, random: Random) -> Photo | None:
        """A photo that is there, for one that will remove it: nobody else gets it. First those whose removal a restore
        has taken back. Before a restore none that it may take away: its id will be another's, and a removal that comes
        late would remove that one (deploy/README.md)."""
        with self.lock:
            if self._to_remove:
                return self._to_remove.pop()
            until = float("inf") if self._kept_until is None else self._kept_until
            there = [
                photo
                for photo in self.photos
                if photo.added is not None and photo.added <= until and not photo.removing
            ]
            if not there:
                return None
            photo = random.choice(there)
            photo.removing = True
            return photo

    def present(self) -> int:
        """Photos that are owed."""
        return sum(photo.owed is Owed.PRESENT for photo in self.all())


def draw(folder: Path, number: int, seed: int) -> Photo:
    """A photo of its own content, written. The same for the same number and seed."""
    noise = np.random.default_rng([seed, number])
    patches = noise.integers(0, 256, (PATCHES[1], PATCHES[0], 3), dtype=np.uint8)
    picture = Image.fromarray(patches).resize(SIZE, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    path = folder / f"{number:06d}.jpg"
    path.write_bytes(file.getvalue())
    return Photo(number, path, hashlib.sha256(file.getvalue()).hexdigest())
