"""Photos to vectors and their pictures' hashes: read, looked up, decoded, sent through the model. Joins ports; knows no
SQL, file or model.

Many at once is a list of outcomes by ref. One photo's failure is its own outcome.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import PurePath

from producer_client.contract import Code, Photo, PositionIssue, Refused
from producer_client.errors import BadRequest
from producer_client.positions import Position, Reading, first
from worker.core import sidecars
from worker.core.batcher import Batcher, Expected, as_ours
from worker.core.here import here
from worker.core.observing import carried, count, stage
from worker.core.ports import Decode, Encoder, FindKeypoints, PhotoSource, Rows, StoredKeypoints, StoredVectors
from worker.core.request import current
from worker.core.shot import Picture
from worker.core.tries import Try
from worker.core.types import Fetched, FileFacts, PhotoRow, is_on_disk
from worker.core.vectors import Vector
from worker.errors import PhotoRefusal, Transient, WorkerError
from worker.looks import Looks, Wanted
from worker.quarantine import Quarantine
from worker.settings import Settings

#: Photos of one bulk pass on a CPU: below a second of work.
CPU_BULK_BATCH = 8
#: Longest wait of a pass for photos that are being decoded.
CPU_LINGER_MS, GPU_LINGER_MS = 100.0, 2.0
#: Photos of one message that are read while those before are decoded and encoded: their files are in memory.
READ_AHEAD = 16
#: Seconds that vectors and hashes outside Postgres are remembered: an upload is located, then added. No longer, because
#: what is purged should be gone everywhere.
REMEMBER_S = 900.0


@dataclass(frozen=True, slots=True)
class _Read:
    """A photo's file, and its row where one was named. path: where it lies, if it came from a path. file: how it was
    before it was read, if it lies on a disk of ours."""

    ref: str
    row: PhotoRow | None
    path: str | None
    content: bytes
    content_sha256: str
    file: FileFacts | None


@dataclass(frozen=True, slots=True)
class _Step:
    """Some photos of a request between being read and being done. known: vectors that are there; kept: of those, the
    ones that Postgres has. decoding: by ref, those that are decoded."""

    photos: list[tuple[str, str, PhotoRow | None, FileFacts | None]]  #: ref, content, row, file
    known: dict[str, Vector]
    kept: dict[str, Vector]
    wanted: Wanted
    expected: Expected
    decoding: dict[str, Future[Reading]]


class Embedding:
    """One per process and model, shared by its threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        encoder: Encoder,
        decode: Decode,
        source: PhotoSource,
        rows: Rows,
        vectors: StoredVectors,
        keypoints: StoredKeypoints,
        find_keypoints: FindKeypoints | None,
        quarantine: Quarantine,
    ) -> None:
        """find_keypoints: None where nobody wants any."""
        self._photos_table = settings.photos_table
        self._encoder = encoder
        self._decode = decode
        self._source = source
        self._rows = rows
        self._stored = vectors
        self._quarantine = quarantine
        on_cpu = encoder.device == "cpu"
        self.batcher = Batcher(
            encoder.encode_images,
            batch=settings.encode_batch,
            bulk_batch=settings.encode_bulk_batch or (CPU_BULK_BATCH if on_cpu else settings.encode_batch),
            linger_s=(settings.encode_linger_ms or (CPU_LINGER_MS if on_cpu else GPU_LINGER_MS)) / 1000,
            patience_s=settings.encode_patience_s,
            capacity=settings.encode_queue,
            remembered=settings.recent_vectors,
            remember_s=REMEMBER_S,
        )
        #: For photos of messages with more than one, by whether somebody waits for them: these are not held up by bulk.
        self._pools = {
            urgent: ThreadPoolExecutor(settings.decoders, thread_name_prefix=f"decode-{name}")
            for urgent, name in ((True, "urgent"), (False, "bulk"))
        }
        self._looks = Looks(
            vectors=vectors,
            keypoints=keypoints,
            find=find_keypoints,
            remembered=settings.recent_vectors,
            remember_s=REMEMBER_S,  # as the batcher remembers vectors
            aside=settings.decoders,
            hold=quarantine.hold,
        )
        #: Guards what is below.
        self._lock = threading.Lock()
        #: Photos that needed no pass.
        self.cache_hits = 0

    @property
    def computed(self) -> int:
        """Photos that went through the model."""
        return self.batcher.computed

    def picture(self, content: str) -> Picture | None:
        """Of a photo that was decoded by this process lately."""
        return self._looks.picture_of(content)

    def close(self) -> None:
        """End the threads when what they have taken is done."""
        for pool in self._pools.values():
            pool.shutdown()
        self._looks.close()
        self.batcher.close()

    def vectors(
        self, photos: dict[str, Photo], *, need_gps: set[str], to_keep: bool, keypoints: bool = False
    ) -> tuple[dict[str, Fetched], dict[str, Refused]]:
        """Every photo's vector by ref, and the refusals. A known content costs no forward pass.

        to_keep: the photos are to be stored, so that their pictures' hashes are wanted where Postgres lacks them.
        keypoints: these are wanted too: to be stored where Postgres lacks them, or all of a question's, which are found
        meanwhile and after that. While the model works on some photos, the next ones are read and decoded.
        """
        fetched: dict[str, Fetched] = {}
        refused: dict[str, Refused] = {}
        ids = [photo.photo_id for photo in photos.values() if photo.photo_id is not None]
        rows = self._rows.get(ids) if ids else {}
        # One photo is done by the thread that asks for it.
        pool = here if len(photos) == 1 else self._pools[current.get().urgent]
        want = partial(self._looks.want, to_keep=to_keep, keypoints=keypoints)
        steps: deque[_Step] = deque()
        with ExitStack() as stack:
            items = list(photos.items())
            for start in range(0, len(items), READ_AHEAD):
                reading = [pool.submit(carried(self._read), *item, rows) for item in items[start : start + READ_AHEAD]]
                steps.append(self._begin(_sort_out(refused, reading), need_gps, want, pool, stack))
                reading.clear()  # the files' bytes: up to READ_AHEAD times max_photo_bytes
                if len(steps) > 1:
                    self._end(steps.popleft(), fetched, refused)
            while steps:
                self._end(steps.popleft(), fetched, refused)
        for outcome in refused.values():
            count("photos_refused", code=str(outcome.code))
        return fetched, refused

    def _begin(
        self,
        read: list[_Read],
        need_gps: set[str],
        want: Callable[[set[str]], Wanted],
        pool: Executor,
        stack: ExitStack,
    ) -> _Step:
        """Look up which vectors are there, and have the other photos decoded and sent to the model."""
        contents = {r.content_sha256 for r in read}
        with stage("lookup"):
            kept = self._stored.known(contents, self._encoder.model_key)
        known = self.batcher.recent(contents) | kept
        expected = stack.enter_context(self.batcher.expect(contents - known.keys()))
        wanted = stack.enter_context(want(contents))
        # Whoever brings a photo to the model notes its hash.
        to_look_at = (wanted.unhashed & known.keys()) | wanted.mine.keys()
        hits = sum(r.content_sha256 in known for r in read)
        with self._lock:
            self.cache_hits += hits
        count("vectors", hits, result="hit")
        count("vectors", len(read) - hits, result="miss")
        to_bring = set(expected.mine)
        to_decode: list[tuple[_Read, bool]] = []
        for r in read:
            mine, unseen = r.content_sha256 in to_bring, r.content_sha256 in to_look_at
            to_bring.discard(r.content_sha256)  # a second ref of the same content
            to_look_at.discard(r.content_sha256)
            if mine or unseen or r.ref in need_gps:
                to_decode.append((r, mine))
        task_id = current.get().task_id
        tried = stack.enter_context(
            self._quarantine.trying(
                [Try(r.content_sha256, r.row.photo_id if r.row else None, r.path, task_id) for r, _ in to_decode]
            )
        )
        decoding: dict[str, Future[Reading]] = {}
        for r, mine in to_decode:
            sent_to = expected if mine else None
            act: Callable[[], Reading]
            if mine or r.ref in need_gps:
                act = partial(self._decode_one, r, wanted, sent_to, look_beside=r.ref in need_gps)
            else:
                act = partial(self._look_at, r, wanted)
            decoding[r.ref] = pool.submit(carried(tried.guarded(r.content_sha256, act, sent_to)))
        # Before `expected` gives up what is not there.
        stack.callback(wait, decoding.values())
        photos = [(r.ref, r.content_sha256, r.row, r.file) for r in read]
        return _Step(photos, known, kept, wanted, expected, decoding)

    def _end(self, step: _Step, fetched: dict[str, Fetched], refused: dict[str, Refused]) -> None:
        # What is none of ours goes up from here; its photo would be waited for below.
        for done in step.decoding.values():
            with suppress(WorkerError):
                done.result()
        fresh, failures = step.expected.vectors()
        for ref, content, row, file in step.photos:
            try:
                position = step.decoding[ref].result() if ref in step.decoding else PositionIssue.ABSENT
            except WorkerError as exc:
                refused[ref] = Refused(ref, exc.code, exc.message)
                continue
            vector = step.known.get(content, fresh.get(content))
            if vector is None:
                failure = failures[content]
                refused[ref] = Refused(ref, failure.code, failure.message)
                continue
            fetched[ref] = Fetched(
                ref,
                content,
                vector,
                position,
                row,
                fresh=content in fresh,
                kept=content in step.kept,
                picture=step.wanted.picture_of(content),
                keypoints=step.wanted.keypoints_of(content),
                finding=step.wanted.finding_of(content),
                file=file,
            )

    def _read(self, ref: str, photo: Photo, rows: dict[int, PhotoRow]) -> _Read | Refused:
        try:
            row = None
            if photo.photo_id is not None:
                row = rows.get(photo.photo_id)
                if row is None:
                    raise PhotoRefusal(
                        Code.UNKNOWN_PHOTO,
                        f"photo {photo.photo_id} is not in {self._photos_table} of the workers' database "
                        "(SIGHTLINE_DATABASE_URL)",
                    )
                if not row.path:
                    raise PhotoRefusal(Code.NOT_FOUND, f"photo {photo.photo_id} has no file_path")
                if photo.path is not None and not self._is_one_file(photo.path, row.path):
                    raise PhotoRefusal(
                        Code.ROW_MISMATCH,
                        f"photo {photo.photo_id} of {self._photos_table} is {row.path}, not {photo.path}. Is the id "
                        "one of another database than the workers' (SIGHTLINE_DATABASE_URL)? Else send the path alone",
                    )
                photo = Photo(path=row.path)
            file = self._facts(photo.path)
            with stage("read"):
                content = self._source.fetch(photo)
        # A source that does not answer is its own photo's trouble, not that of the others in the message: a code to try
        # again with. What Postgres raises goes on and sends the whole message round.
        except (PhotoRefusal, BadRequest, Transient) as exc:
            return Refused(ref, exc.code, exc.message)
        return _Read(ref, row, photo.path, content, hashlib.sha256(content).hexdigest(), file)

    def _facts(self, path: str | None) -> FileFacts | None:
        """How the file is before it is read: if it changes meanwhile, the next look at it sees another time."""
        if not is_on_disk(path):
            return None
        (facts,) = self._source.facts([path])
        # Reading it says what the matter is.
        return facts if isinstance(facts, FileFacts) else None

    def _is_one_file(self, path: str, other: str) -> bool:
        return path == other or self._source.spellings(path)[-1] == self._source.spellings(other)[-1]

    def _decode_one(self, read: _Read, wanted: Wanted, expected: Expected | None, *, look_beside: bool) -> Reading:
        """The photo as the model sees it goes on to the model, where it is expected; meanwhile its picture is looked
        at. Returns what is said of where it was taken, in the file or, if wanted, in those beside it. Raises
        WorkerError.
        """
        try:
            with stage("decode"):
                decoded = self._decode(read.content)
                square = self._encoder.prepare(decoded.pixels)
        except Exception as exc:  # others' code: decoders, which raise what they like; refused, so that nobody waits
            failure = as_ours(exc, "decoding")
            if expected is not None:
                expected.supply(read.content_sha256, failure)
            wanted.cannot_look(read.content_sha256, failure)
            raise failure from exc
        # Before the vector: who has waited for that finds the hash.
        self._looks.note_picture(read.content_sha256, decoded.picture_hash, decoded.shot)
        if expected is not None:
            expected.supply(read.content_sha256, square)
        wanted.look(read.content_sha256, read.content, decoded)
        if isinstance(decoded.position, Position) or not look_beside or read.path is None:
            return decoded.position
        name = PurePath(read.path).name
        beside = self._source.beside(read.path, sidecars.names(name), limit=sidecars.MAX_BYTES)
        return first(chain([decoded.position], (sidecars.read(origin, name, content) for origin, content in beside)))

    def _look_at(self, read: _Read, wanted: Wanted) -> Reading:
        """For a photo that lacks nothing but what its picture shows. That it cannot be decoded keeps no photo out,
        whose vector is there; it is not tried again, unless the worker was short of something."""
        with suppress(WorkerError):
            self._decode_one(read, wanted, None, look_beside=False)
        return PositionIssue.ABSENT


def _sort_out(refused: dict[str, Refused], outcomes: Iterable[Future[_Read | Refused]]) -> list[_Read]:
    going_on = []
    for outcome in outcomes:
        match outcome.result():
            case Refused() as no:
                refused[no.ref] = no
            case read:
                going_on.append(read)
    return going_on
