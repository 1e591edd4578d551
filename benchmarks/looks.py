"""What keypoints cost where they are found as photos are added: photos a second with and without them, side by side.

    python -m benchmarks.looks [FOLDER] [ENCODER]

FOLDER has photos with coordinates; drawn ones stand in. Prints one JSON object. Every photo is a content of its own, in
messages as the client sends them, four at a time as a worker takes them, into a Postgres of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import mean, median
from time import perf_counter, process_time

from sqlalchemy import func, select

from benchmarks.photos import views
from benchmarks.report import tell, workplace
from producer_client.contract import Locate, NewPhoto, Photo, Provenance, Stored
from worker.core.request import Request, current
from worker.embedded import EmbeddedServers
from worker.library import Library
from worker.runtime import Runtime
from worker.settings import Settings
from worker.storage.store import PostgresStore
from worker.storage.tables import keypoints

PACKAGED = "packaged/efficientnet-lite0"
#: Photos of one pass over them, of one message, and messages at a time.
PHOTOS, MESSAGE, AT_ONCE = 64, 16, 4
#: Passes with and without, in turn; the best of each counts.
PASSES = 2
#: Uploads that are located.
QUESTIONS = 12

#: Pictures whose keypoints a question reads at the most, and times that this is tried.
AT_A_TIME, READS = 20, 10

_numbers = count()


@dataclass(frozen=True, slots=True)
class Side:
    library: Library
    store: PostgresStore


def main(photos: Path | None = None, encoder: str = PACKAGED) -> dict[str, object]:
    with workplace("looks") as folder, EmbeddedServers(folder / "servers") as servers:
        pictures = [view.path.read_bytes() for view in views(photos, folder / "views", PHOTOS)]
        settings = Settings(
            database_url=servers.database_url,
            broker_url=servers.broker_url,
            data_dir=folder / "data",
            photo_roots=(folder,),
            encoder=encoder,
        )
        seconds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        asked: dict[bool, list[float]] = {True: [], False: []}
        with _library(settings, ()) as without, _library(settings, ("geometry",)) as with_them:
            sides = {True: with_them.library, False: without.library}
            for library in sides.values():
                _add(library, _new(pictures, folder, MESSAGE))
            for _ in range(PASSES):
                for wanted, library in sides.items():
                    seconds[wanted].append(_add(library, _new(pictures, folder, PHOTOS)))
            for number, path in enumerate(_new(pictures, folder, 2 * QUESTIONS)):
                wanted = bool(number % 2)
                started = perf_counter()
                sides[wanted].questions.locate(Locate(photo=Photo(path=str(path))))
                asked[wanted].append(perf_counter() - started)
            sizes, read_s = _stored(with_them.store)
        best = {
            name: [min(of) for of in zip(*seconds[wanted], strict=True)]
            for name, wanted in (("without", False), ("with", True))
        }
        return {
            "encoder": encoder,
            "backend": without.library.encoder.backend,
            "photos": "drawn" if photos is None else photos.name,
            "added_per_s": {name: round(PHOTOS / wall, 1) for name, (wall, _) in best.items()},
            "core_ms_a_photo": {name: round(1000 * spent / PHOTOS, 1) for name, (_, spent) in best.items()},
            "locate_p50_ms": {
                name: round(1000 * median(asked[wanted]), 1) for name, wanted in (("without", False), ("with", True))
            },
            f"read_{AT_A_TIME}_ms": round(1000 * read_s, 1),
            "bytes": {"mean": round(mean(sizes)), "most": max(sizes)},
        }


@contextmanager
def _library(settings: Settings, rungs: tuple[str, ...]) -> Iterator[Side]:
    number = next(_numbers)
    chosen = settings.model_copy(
        update={"rungs": rungs, "db_schema": f"looks_{number}", "photos_table": f"photos_{number}"}
    )
    runtime, store = Runtime(chosen), PostgresStore(chosen)
    try:
        store.migrate()
        runtime.start(follow=False)
        yield Side(runtime.library, store)
    finally:
        runtime.close()
        store.close()


def _new(pictures: Sequence[bytes], folder: Path, wanted: int) -> list[Path]:
    """JPEGs whose contents nobody has seen: one more segment in each."""
    paths = []
    for number in range(wanted):
        picture, own = pictures[number % len(pictures)], next(_numbers)
        path = folder / f"{own}.jpg"
        path.write_bytes(picture[:2] + b"\xff\xfe\x00\x0a" + f"{own:08d}".encode() + picture[2:])
        paths.append(path)
    return paths


def _add(library: Library, paths: Sequence[Path]) -> tuple[float, float]:
    """Seconds for all, as bulk messages: of the clock, and of this process's cores, which a busy machine changes
    less."""
    new = [NewPhoto(str(p), Photo(path=str(p)), 1.0, 2.0, Provenance.SURVEYED) for p in paths]
    messages = [new[start : start + MESSAGE] for start in range(0, len(new), MESSAGE)]

    def add(message: Sequence[NewPhoto]) -> None:
        current.set(Request(urgent=False))
        outcomes = library.photos.add_many(message).outcomes
        if not all(isinstance(outcome, Stored) for outcome in outcomes):
            raise RuntimeError(f"not all were stored: {outcomes}")

    with ThreadPoolExecutor(AT_ONCE) as threads:
        started, spent = perf_counter(), process_time()
        for done in [threads.submit(copy_context().run, add, message) for message in messages]:
            done.result()
        return perf_counter() - started, process_time() - spent


def _stored(store: PostgresStore) -> tuple[Sequence[int], float]:
    """Bytes of the keypoints of each photo, and the least seconds to read some of them, as a question does."""
    with store.database.begin() as connection:
        rows = connection.execute(select(keypoints.c.content_sha256, func.octet_length(keypoints.c.keypoints))).all()
    some = [content for content, _ in rows[:AT_A_TIME]]
    took = []
    for _ in range(READS):
        started = perf_counter()
        store.keypoints.known(some)
        took.append(perf_counter() - started)
    return [size for _, size in rows], min(took)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    tell(main(Path(arguments[0]) if arguments and arguments[0] else None, *arguments[1:2]))
