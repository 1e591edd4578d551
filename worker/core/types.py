"""Values that pass between the rooms of the service."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt

from producer_client.contract import Code, Near, PositionFrom, PositionIssue, Provenance
from producer_client.positions import Position, Reading
from worker.core.keypoints import Keypoints
from worker.core.shot import NO_SHOT, Picture, Shot
from worker.core.vectors import Ids, Vector, Vectors

#: Stands before the content's hash in the path of a photo that came as bytes and has no file to read again.
INLINE = "inline:"
#: uint8 [height, width, 3], RGB, upright.
Pixels = npt.NDArray[np.uint8]
#: Stands for the hash of a picture that has none, because it shows too little to be known again by it, or no place.
TOO_PLAIN = b""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A photo ready for an encoder, with what its file says of where it was taken, and with what and when,
    and the hash of the picture. reduced: whether the file has more pixels than these."""

    pixels: Pixels
    position: Reading = PositionIssue.ABSENT
    picture_hash: bytes = TOO_PLAIN
    reduced: bool = False
    shot: Shot = NO_SHOT

    @property
    def gps(self) -> tuple[float, float] | None:
        """(lat, lon) in degrees, where the file has a position."""
        return (self.position.lat, self.position.lon) if isinstance(self.position, Position) else None


def is_on_disk(path: str | None) -> TypeGuard[str]:
    """Whether a path names a file on a disk of ours; not a URL, nor what came as bytes."""
    return path is not None and "://" not in path and not path.startswith(INLINE)


class FileFacts(NamedTuple):
    """By which a file on disk is known to be the same without reading it: bytes, and its time of change."""

    size: int
    mtime_ns: int


class UnknownFile(NamedTuple):
    """Of which the disk does not say how it is."""

    why: str


class FileState(StrEnum):
    """What has become of the file of a photo since it was embedded."""

    CHANGED = "changed"  #: it has another content
    GONE = "gone"


class KnownFile(NamedTuple):
    """The file of an indexed photo, as it was when it was embedded. facts: None where nobody knows. at: when the entry
    was written, as Postgres says it."""

    photo_id: int
    path: str
    content_sha256: str
    facts: FileFacts | None
    state: FileState | None
    at: Any


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """A row of the backend's `photos` table, read as Sightline understands it."""

    photo_id: int
    path: str | None
    lat: float | None
    lon: float | None
    provenance: Provenance
    address: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index knows of one photo. picture_hash, shot: None where no worker has made them yet, or
    nobody asked. suspended: something contradicts its position, and nobody has confirmed it."""

    photo_id: int
    path: str | None
    content_sha256: str
    lat: float | None
    lon: float | None
    provenance: Provenance | None
    address: Any
    metadata: dict[str, Any] | None
    position_error_m: float | None = None
    picture_hash: bytes | None = None
    file_state: FileState | None = None
    position_from: PositionFrom | None = None
    suspended: bool = False
    shot: Shot | None = None


@dataclass(frozen=True, slots=True)
class NewEntry:
    """One photo to store, in one transaction with its vector and its change.

    `photo_id` None finds the row of one of `spellings` (the last one is the same for all of them), or makes one with
    `path`. `vector` None when (content, model key) is stored already, `picture_hash`, `shot` and `keypoints` None when
    they are, or are not known. `given` is what the message says, `exif` what the file or its sidecar says, `exif_from`
    which of them; see worker.core.position for what holds. `exif_error_m` is the error that it states, in metres; it
    holds for a row that has the same point from the same camera, too. A new row is made of them; `update_row` says
    whether one that is there is written, too, None that the settings do. `file` is how the file was, where it is one
    on disk.
    """

    ref: str
    photo_id: int | None
    path: str
    spellings: tuple[str, ...]
    content_sha256: str
    vector: Vector | None
    given: tuple[float, float, Provenance] | None
    exif: tuple[float, float] | None
    address: dict[str, Any] | None
    metadata: dict[str, Any] | None
    exif_error_m: float | None = None
    exif_from: PositionFrom | None = None
    file: FileFacts | None = None
    update_row: bool | None = None
    picture_hash: bytes | None = None
    shot: Shot | None = None
    keypoints: Keypoints | None = None


@dataclass(frozen=True, slots=True)
class RowChange:
    """What writing to a row of the backend's would change. old and new: its columns by our names for them."""

    photo_id: int
    path: str
    old: dict[str, Any]
    new: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    ref: str
    entry: Entry
    seq: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the change log: a seq, and the random stamp of the change that bears it.

    A database that is restored to an earlier time gives out the same seqs again, and never the same stamp.
    stamp: None at seq 0, before all changes, and of generations that were published before changes had stamps.
    """

    seq: int
    stamp: str | None = None


#: Where who knows nothing stands.
START = Mark(0)


@dataclass(frozen=True, slots=True)
class Published:
    """Which generation: numbers come again after a restore too, so its place in the log is part of its name.

    manifest_sha256: all its files are held to it; None of one that an earlier release has published.
    """

    number: int
    mark: Mark
    manifest_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The newest state of one photo after a watermark; `vector` None means it is not in the index.

    metadata: as JSON text.
    """

    photo_id: int
    vector: Vector | None
    lat: float | None = None
    lon: float | None = None
    trusted: bool = False
    metadata: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened between two marks of the log, with the generations that serve at that moment (newest first).

    log_start: the oldest seq of the log; what was before is forgotten.
    continues: whether the log holds the change at `since`, so that nothing was missed. Else there are no items.
    """

    since: Mark
    mark: Mark
    items: list[Change]
    generations: list[Published]
    log_start: int
    continues: bool

    @property
    def other_history(self) -> bool:
        """Whether `since` is a place in another log: the database was restored to an earlier time."""
        return not self.continues and self.since.seq >= self.log_start


@dataclass(frozen=True, slots=True)
class Repeated:
    """What came of searches that a process has done again (worker.index.repeating)."""

    generation: int | None = None  #: that the recall is of
    recall_at_10: float | None = None  #: over the last searches of that generation; None before the first
    of: int = 0  #: searches that this is the mean of
    at_most: float | None = None  #: what the true mean surely lies below; None of too few
    searches: int = 0  #: that were repeated exactly, since the start
    flipped: float | None = None  #: share of questions whose first photo the newest generation changed; None of few
    compared: int = 0  #: questions that two generations were asked, since the start


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Photos by falling similarity, with the state of the index that gave them, of `count` photos."""

    ids: Ids
    similarities: npt.NDArray[np.float32]
    generation: int | None
    seq: int
    count: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a snapshot, ids rising over all chunks."""

    ids: Ids
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Facts:
    """What a snapshot knows of some photos. lat, lon: float64 [n], NaN where there is no position."""

    ids: Ids
    lat: npt.NDArray[np.float64]
    lon: npt.NDArray[np.float64]
    trusted: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Documents:
    """Metadata of some photos of a snapshot, each as JSON text."""

    ids: Ids
    texts: list[str]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Filter:
    """Which photos a question is about. One of each request: what is made for it goes when it goes.

    where: an object that the metadata contains, as jsonb does. trusted_only: by what the provenance is stored as.
    """

    near: Near | None = None
    where: Mapping[str, Any] | None = None
    trusted_only: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """A photo that should be in the index and has no vector of this model, or whose file is another one now."""

    photo_id: int
    path: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a photo could not be taken. photo_id None: the photo whose row has one of `spellings`, where one has."""

    photo_id: int | None
    spellings: tuple[str, ...]
    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A photo that is refused, or whose file is not as it was. code: why. since: ISO 8601, UTC, when
    that was seen first; None of a file of which an earlier release had seen it."""

    photo_id: int
    code: str
    message: str
    path: str
    since: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    photos: int
    with_coordinates: int
    valid_files: int
    indexed: int
    removed: int
    refused: int
    purges_pending: int
    seq: int
    changed: int
    gone: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """One photo with its vector. `row` is its row of `photos` where one was named; `fresh`: the model ran for it;
    `kept`: Postgres has it already. `picture` and `keypoints`, to be stored, None: Postgres has them already, or
    nobody asked for them. `finding`: a question's keypoints, maybe still looked for; None where nobody wants any."""

    ref: str
    content_sha256: str
    vector: Vector
    position: Reading
    row: PhotoRow | None
    fresh: bool
    kept: bool
    picture: Picture | None
    keypoints: Keypoints | None
    finding: Future[Keypoints | None] | None
    file: FileFacts | None
