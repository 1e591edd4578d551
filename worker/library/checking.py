"""Which files of indexed photos are not as they were when these were embedded. Reads only where size and time leave
it open; concludes nothing where the disk does not answer. Knows no SQL."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

from producer_client.contract import Code, Photo
from worker.core.ports import KnownFiles, PhotoSource, Progress
from worker.core.types import FileFacts, FileState, KnownFile, UnknownFile
from worker.errors import PhotoRefusal, Transient
from worker.logs import ms_since

log = logging.getLogger(__name__)

#: Files that are looked up and noted at once, and that one thread asks the disk for in a row.
PAGE, SHARE = 5000, 250
#: Questions at the same time to a disk that takes longer than this for one: a network share answers many at once. For
#: one that answers from memory, threads that wait for each other take twice the time of a single one.
THREADS, SLOW_S = 8, 1e-4
#: Bytes that one check reads at the most, a quarter of an hour of a slow disk. A library whose files all have new
#: times, or are not known yet, is read over several nights; what is open till then stays as it was.
READ_BYTES = 50_000_000_000
#: The same of a bite: below ten seconds of a slow disk.
BITE_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Checked:
    """Photos by what has become of their files. `open`: not read yet. `unknown`: the disk does not say; why of one."""

    files: int
    changed: int
    gone: int
    open: int
    unknown: int
    why: str | None


@dataclass(frozen=True, slots=True)
class Bite:
    """Of the next files: how many were looked at, up to which photo (-1: from the beginning again), and the photos that
    are marked."""

    files: int
    after_id: int
    changed: list[int]
    gone: list[int]
    unknown: int
    why: str | None


@dataclass(frozen=True, slots=True)
class _Unread:
    """Size and time do not tell whether it has its content still."""

    file: KnownFile
    facts: FileFacts


_Seen = KnownFile | _Unread | UnknownFile


class Checking:
    """read_bytes: see READ_BYTES."""

    def __init__(self, *, files: KnownFiles, source: PhotoSource, read_bytes: int = READ_BYTES) -> None:
        self._files = files
        self._source = source
        self._read_bytes = read_bytes

    def all(self, note: Progress) -> Checked:
        """Look at every file, and keep what is new of it."""
        started = time.monotonic()
        total = self._files.count()
        done, left, after_id = 0, self._read_bytes, -1
        counted: Counter[str] = Counter()
        why: str | None = None
        note("check", 0, total)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as pool:
            while page := self._files.after(after_id, PAGE):
                after_id = page[-1].photo_id
                now, left = self._read(self._looked_at(page, pool), left, pool)
                before = {file.photo_id: file for file in page}
                known = [found for found in now if isinstance(found, KnownFile)]
                if news := [file for file in known if file != before[file.photo_id]]:
                    self._files.note(news)
                counted.update(file.state for file in known if file.state is not None)
                counted["open"] += sum(isinstance(found, _Unread) for found in now)
                reasons = [found.why for found in now if isinstance(found, UnknownFile)]
                counted["unknown"] += len(reasons)
                why = why or (reasons[0] if reasons else None)
                done += len(page)
                note("check", done, total)
        checked = Checked(
            files=done,
            changed=counted[FileState.CHANGED],
            gone=counted[FileState.GONE],
            open=counted["open"],
            unknown=counted["unknown"],
            why=why,
        )
        facts = {"files": done, "changed": checked.changed, "gone": checked.gone, "unread": checked.open}
        log.info("files checked", extra=facts | {"took_ms": ms_since(started)})
        if checked.unknown:
            log.warning(
                "nothing is concluded of files that cannot be looked at",
                extra={"files": checked.unknown, "why_one": checked.why},
            )
        return checked

    def some(self, after_id: int, *, files: int, most: int, dry_run: bool) -> Bite:
        """Look at the next files, and keep what is new of them. most: photos that may be marked as changed or gone;
        those behind them are left to the next bite. dry_run: keep nothing."""
        page = self._files.after(after_id, files)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as pool:
            now, _ = self._read(self._looked_at(page, pool), BITE_BYTES, pool) if page else ([], 0)
        news: list[KnownFile] = []
        marked: dict[FileState, list[int]] = {FileState.CHANGED: [], FileState.GONE: []}
        looked = 0
        for before, found in zip(page, now, strict=True):
            if isinstance(found, KnownFile) and found != before:
                if found.state is not None and found.state != before.state:
                    if sum(map(len, marked.values())) == most:
                        break
                    marked[found.state].append(found.photo_id)
                news.append(found)
            looked += 1
        if news and not dry_run:
            self._files.note(news)
        reasons = [found.why for found in now[:looked] if isinstance(found, UnknownFile)]
        at_the_end = looked == len(page) < files
        return Bite(
            files=looked,
            after_id=-1 if at_the_end else (page[looked - 1].photo_id if looked else after_id),
            changed=marked[FileState.CHANGED],
            gone=marked[FileState.GONE],
            unknown=len(reasons),
            why=reasons[0] if reasons else None,
        )

    # ---------------------------------------------------------------------------------------- below

    def _looked_at(self, page: Sequence[KnownFile], pool: Executor) -> list[_Seen]:
        first, *others = (page[start : start + SHARE] for start in range(0, len(page), SHARE))
        started = time.monotonic()
        seen = self._look_at(first)
        is_slow = time.monotonic() - started > SLOW_S * len(first)
        return [*seen, *chain.from_iterable((pool.map if is_slow else map)(self._look_at, others))]

    def _look_at(self, files: Sequence[KnownFile]) -> list[_Seen]:
        facts = self._source.facts([file.path for file in files])
        return [_seen(file, found) for file, found in zip(files, facts, strict=True)]

    def _read(self, seen: Sequence[_Seen], left: int, pool: Executor) -> tuple[list[_Seen], int]:
        """The same with what reading those that are open says, as far as the bytes go; and the bytes left."""
        to_read = []
        for found in seen:
            if isinstance(found, _Unread) and found.facts.size <= left:
                left -= found.facts.size
                to_read.append(found)
        read = dict(zip((found.file.photo_id for found in to_read), pool.map(self._compare, to_read), strict=True))
        return [read.get(found.file.photo_id, found) if isinstance(found, _Unread) else found for found in seen], left

    def _compare(self, unread: _Unread) -> _Seen:
        file = unread.file
        try:
            content = self._source.fetch(Photo(path=file.path))
        except (PhotoRefusal, Transient) as exc:
            return file._replace(state=FileState.CHANGED) if exc.code is Code.EMPTY_FILE else UnknownFile(exc.message)
        if hashlib.sha256(content).hexdigest() == file.content_sha256:
            return file._replace(facts=unread.facts, state=None)
        return file._replace(state=FileState.CHANGED)


def _seen(file: KnownFile, found: FileFacts | UnknownFile | None) -> _Seen:
    if isinstance(found, UnknownFile):
        return found
    if found is None:
        return file._replace(state=FileState.GONE)
    if found == file.facts:
        return file if file.state is None else file._replace(state=None)
    if file.facts is not None and found.size != file.facts.size:
        return file._replace(state=FileState.CHANGED)
    return _Unread(file, found)
