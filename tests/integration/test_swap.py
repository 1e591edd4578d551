"""A new generation comes in while searches run: nobody waits, nothing is missed, and the old one is let go."""

from __future__ import annotations

import gc
import hashlib
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from producer_client.contract import Code
from tests.conftest import until
from tests.integration.test_index import KEY, entry, live_on, publish, vectors
from worker.core.types import Changes, Mark, Neighbours
from worker.core.vectors import Vector, Vectors
from worker.errors import Transient
from worker.index import generation as generation_module
from worker.index import searching
from worker.index.folder import GenerationFolder
from worker.index.generation import Generation
from worker.index.live import FaissLiveIndex
from worker.storage.store import PostgresStore

#: float16 moves the cosine of two unit vectors by less than 0.0005.
ROUNDING = 1e-3


@pytest.fixture
def folder(tmp_path: Path) -> GenerationFolder:
    return GenerationFolder(tmp_path / "index")


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """What is held in a test goes on at its end, whatever became of it."""
    event = threading.Event()
    yield event
    event.set()


def put(store: PostgresStore, name: str, vector: Vector) -> tuple[int, int]:
    """(photo id, seq) of a stored photo, whose file holds what its vector says: the same name may come again."""
    content = hashlib.sha256(vector.tobytes()).hexdigest()
    (written,) = store.entries.put_many([replace(entry(name, vector), content_sha256=content)], KEY)
    return written.entry.photo_id, written.seq


def threads_named(*names: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in names]


# ------------------------------------------------------------------------------------------- under load


@dataclass
class History:
    """Every write with its seq, so that what was true at any seq can be told afterwards."""

    writes: list[tuple[int, int, Vector | None]] = field(default_factory=list)

    def add(self, store: PostgresStore, name: str, vector: Vector) -> int:
        photo_id, seq = put(store, name, vector)
        self.writes.append((seq, photo_id, vector))
        return photo_id

    def remove(self, store: PostgresStore, photo_id: int) -> None:
        ((seq, _),) = store.entries.remove_many([photo_id]).values()
        self.writes.append((seq, photo_id, None))

    def at(self, seq: int) -> dict[int, Vector]:
        photos: dict[int, Vector] = {}
        for written, photo_id, vector in self.writes:
            if written <= seq and vector is not None:
                photos[photo_id] = vector
            elif written <= seq:
                photos.pop(photo_id, None)
        return photos


@dataclass
class Searcher:
    """A thread that searches without a pause, and keeps what it found."""

    live: FaissLiveIndex
    query: Vector
    stop: threading.Event
    found: list[Neighbours] = field(default_factory=list)
    failure: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.live.catch_up(max_age_s=0.05)
                self.found.append(self.live.search(self.query, 5))
        except Exception as exc:  # noqa: BLE001  # whatever it is, the test names it
            self.failure.append(exc)


def test_searches_under_load_see_one_moment_each_and_never_go_back(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, history = make_store(), History()
    rows = vectors(80, seed=1)
    steady = [history.add(store, f"steady {i}", rows[i]) for i in range(3)]
    live = live_on(make_store(), folder)
    live.catch_up()
    stop = threading.Event()

    searchers = [Searcher(live, rows[i], stop) for i in range(3)]
    published = []
    try:
        for i in range(4, 50):
            photo_id = history.add(store, f"photo {i}", rows[i])
            if i % 3 == 0:
                history.remove(store, photo_id)
            if i % 5 == 0:
                history.add(store, f"photo {i - 1}", rows[i])
            if i % 7 == 0:
                published.append(publish(store, folder, keep=1 + i % 2))
        until(lambda: live.generation == published[-1])
        so_far = [len(searcher.found) for searcher in searchers]
        until(lambda: all(len(s.found) > before for s, before in zip(searchers, so_far, strict=True)))
    finally:
        stop.set()
        for searcher in searchers:
            searcher.thread.join()

    seen: set[int | None] = set()
    for searcher, photo_id in zip(searchers, steady, strict=True):
        assert searcher.failure == []
        assert {found.ids[0] for found in searcher.found} == {photo_id}
        seqs, numbers = zip(*((found.seq, found.generation or 0) for found in searcher.found), strict=True)
        assert list(seqs) == sorted(seqs)
        assert list(numbers) == sorted(numbers)
        seen |= set(numbers)
        # One for each moment that was seen: its answer is the truth of that moment.
        for found in {(found.seq, found.generation): found for found in searcher.found}.values():
            assert_is_the_truth_of(history.at(found.seq), searcher.query, found)
    assert len(seen) > 2, "generations came in while they searched"
    live.close()


def assert_is_the_truth_of(photos: dict[int, Vector], query: Vector, found: Neighbours) -> None:
    truth = {photo_id: float(vector @ query) for photo_id, vector in photos.items()}
    best = sorted(truth.values(), reverse=True)[:5]
    assert len(set(found.ids.tolist())) == len(found.ids) == len(best)
    assert set(found.ids.tolist()) <= set(truth), "a photo that was not there, or not any more"
    assert np.abs(found.similarities - best).max() < ROUNDING
    assert np.abs(found.similarities - [truth[photo_id] for photo_id in found.ids.tolist()]).max() < ROUNDING


def test_rolling_back_under_load_takes_the_generation_back_and_nothing_else(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, history = make_store(), History()
    rows = vectors(12, seed=2)
    first_id = history.add(store, "first", rows[0])
    older = publish(store, folder)
    history.remove(store, history.add(store, "gone", rows[1]))
    newer = publish(store, folder)
    live = live_on(make_store(), folder)
    live.settle()
    stop = threading.Event()

    searcher = Searcher(live, rows[0], stop)
    reached = []
    try:
        for i, number in enumerate([older, newer, older], start=2):
            history.add(store, f"photo {i}", rows[i])
            store.generations.roll_back(number)
            until(lambda wanted=number: live.generation == wanted)  # type: ignore[misc]  # mypy and defaults
            reached.append(live.search(rows[i], 1))
    finally:
        stop.set()
        searcher.thread.join()

    assert searcher.failure == []
    assert {found.ids[0] for found in searcher.found} == {first_id}
    assert [found.generation for found in reached] == [older, newer, older]
    assert [found.similarities[0] for found in reached] == pytest.approx([1.0] * 3, abs=ROUNDING)
    seqs = [found.seq for found in searcher.found]
    assert seqs == sorted(seqs)
    for found in {(found.seq, found.generation): found for found in searcher.found}.values():
        assert_is_the_truth_of(history.at(found.seq), searcher.query, found)
    live.close()


# ---------------------------------------------------------------------------------- a generation that is slow


class SlowFolder(GenerationFolder):
    """Opens at once, until it is told to be slow."""

    def __init__(self, folder: Path, go_on: threading.Event) -> None:
        super().__init__(folder)
        self.slow_from: int | None = None
        self.arrived = threading.Event()
        self.go_on = go_on
        self.opened: list[int] = []

    def open(self, number: int, **which: Any) -> Generation:
        self.opened.append(number)
        if self.slow_from is not None and number >= self.slow_from:
            self.arrived.set()
            assert self.go_on.wait(20)
        return super().open(number, **which)


def assert_serves_and_keeps_up(live: FaissLiveIndex, store: PostgresStore, rows: Vectors, times: int) -> None:
    """Photos that are added are found at once, those that are removed are gone at once."""
    for i, row in enumerate(rows[:times]):
        photo_id, seq = put(store, f"new {i}", row)
        assert live.catch_up() >= seq
        found = live.search(row, 1)
        assert (found.ids.tolist(), found.seq) == ([photo_id], seq)
        if i % 5 == 0:
            store.entries.remove_many([photo_id])
            live.catch_up()
            assert photo_id not in live.search(row, 3).ids


@pytest.mark.parametrize("slow", ["open", "warm"])
def test_nobody_waits_for_a_generation_that_is_slow_to_come(
    make_store: Callable[..., PostgresStore],
    folder: GenerationFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    go_on: threading.Event,
    slow: str,
) -> None:
    store, rows = make_store(), vectors(53, seed=3)
    put(store, "old 0", rows[50])
    first = publish(store, folder)
    slow_folder = SlowFolder(tmp_path / "index", go_on)
    live = live_on(make_store(), slow_folder)
    live.settle()
    put(store, "old 1", rows[51])
    second = publish(store, folder)
    if slow == "open":
        slow_folder.slow_from = second
    else:
        warm = Generation.warm

        def warm_slowly(generation: Generation) -> None:
            slow_folder.arrived.set()
            assert go_on.wait(20)
            warm(generation)

        monkeypatch.setattr(Generation, "warm", warm_slowly)

    live.catch_up()
    assert slow_folder.arrived.wait(10)
    assert_serves_and_keeps_up(live, store, rows, times=50)
    third = publish(store, folder)
    live.catch_up()

    assert live.generation == first
    assert slow_folder.opened == [first, second], "one is brought at a time"
    go_on.set()
    until(lambda: (live.catch_up(), live.generation)[1] == third)
    assert slow_folder.opened == [first, second, third]
    assert live.count == 42
    assert all(live.search(rows[i], 1).similarities[0] > 1 - ROUNDING for i in (1, 2, 49, 50, 51))
    live.close()


def test_what_comes_while_a_generation_is_brought_is_on_it_at_the_swap(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, tmp_path: Path, go_on: threading.Event
) -> None:
    """No search in between asks for it: the view that is swapped in is not older than the one it takes the place of."""
    store, rows = make_store(), vectors(5, seed=4)
    gone_id, _ = put(store, "gone", rows[0])
    slow_folder = SlowFolder(tmp_path / "index", go_on)
    live = live_on(make_store(), slow_folder)
    live.catch_up()
    slow_folder.slow_from = publish(store, folder)
    live.catch_up()
    assert slow_folder.arrived.wait(10)
    new_id, _ = put(store, "new", rows[1])
    store.entries.remove_many([gone_id])
    seq = live.catch_up()

    go_on.set()
    until(lambda: live.generation is not None)
    found = live.search(rows[0], 9)

    assert (found.generation, found.seq) == (slow_folder.slow_from, seq)
    assert found.ids.tolist() == [new_id]


class WatchedLock:
    """A lock that tells when somebody has to wait for it."""

    def __init__(self) -> None:
        self.lock, self.waited_for = threading.Lock(), threading.Event()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.waited_for.set()
            self.lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self.lock.release()


def test_a_swap_waits_for_a_catch_up_that_has_read_the_log(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, tmp_path: Path, go_on: threading.Event
) -> None:
    """Applied to the new layers, what it has read would take the index back to an older seq."""
    store, reader, rows = make_store(), make_store(), vectors(3, seed=17)
    ids = [put(store, "a", rows[0])[0]]
    slow_folder = SlowFolder(tmp_path / "index", go_on)
    live = live_on(reader, slow_folder)
    lock = live._writer = WatchedLock()  # type: ignore[assignment]
    live.catch_up()
    slow_folder.slow_from = publish(store, folder)
    live.catch_up()
    assert slow_folder.arrived.wait(10)
    has_read, apply_it, read = threading.Event(), threading.Event(), reader.log.changes_after

    def read_and_wait(since: Mark, model_key: str, dimension: int, *, items: bool = True) -> Changes:
        changes = read(since, model_key, dimension, items=items)
        if threading.current_thread() is catching_up:
            has_read.set()
            assert apply_it.wait(10)
        return changes

    reader.log.changes_after = read_and_wait  # type: ignore[method-assign]
    catching_up = threading.Thread(target=live.catch_up)
    catching_up.start()
    assert has_read.wait(10)
    new_id, seq = put(store, "b", rows[1])

    go_on.set()
    until(lambda: lock.waited_for.is_set() or live.generation is not None)
    apply_it.set()
    catching_up.join()
    until(lambda: threads_named("generation") == [])

    assert (live.generation, live.seq) == (slow_folder.slow_from, seq)
    assert sorted(live.search(rows[0], 9).ids.tolist()) == [*ids, new_id]


def test_a_process_that_starts_serves_what_is_whole_though_the_newest_cannot_be_had(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, rows = make_store(), vectors(3, seed=5)
    ids = [put(store, "a", rows[0])[0]]
    older = publish(store, folder)
    ids.append(put(store, "b", rows[1])[0])
    newer = publish(store, folder)
    shutil.rmtree(folder.path(newer))
    ids.append(put(store, "c", rows[2])[0])

    live = live_on(make_store(), folder)
    live.settle()

    assert live.generation == older
    assert sorted(live.search(rows[0], 9).ids.tolist()) == ids


def test_a_generation_waits_while_postgres_is_away_and_comes_later(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, reader, rows = make_store(), make_store(), vectors(2, seed=6)
    put(store, "a", rows[0])
    live = live_on(reader, folder)
    live.catch_up()
    number = publish(store, folder)
    away = AwayFor.a_thread(reader, "generation", times=2)

    live.settle()
    first_try = (live.generation, away.times_left)
    live.settle()
    second_try = (live.generation, away.times_left)
    live.settle()

    assert first_try == (None, 1)
    assert second_try == (None, 0)
    assert live.generation == number
    assert live.search(rows[0], 1).similarities[0] > 1 - ROUNDING


# ---------------------------------------------------------------------------------- the old one is let go


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_the_old_generation_is_let_go_when_its_last_search_has_ended(
    make_store: Callable[..., PostgresStore],
    folder: GenerationFolder,
    monkeypatch: pytest.MonkeyPatch,
    go_on: threading.Event,
) -> None:
    store, rows = make_store(), vectors(300, seed=7)
    old_ids = [put(store, f"old {i}", rows[i])[0] for i in range(3)]
    old = publish(store, folder, keep=1)
    live = live_on(make_store(), folder)
    live.settle()
    assert live._view is not None
    assert live._view.base is not None
    index = weakref.ref(live._view.base.index)
    search, arrived = searching.search, threading.Event()
    answers: list[Neighbours] = []

    def search_slowly(*args: Any, **options: Any) -> Any:
        if threading.current_thread() is late:
            arrived.set()
            assert go_on.wait(20)
        return search(*args, **options)

    monkeypatch.setattr(searching, "search", search_slowly)
    late = threading.Thread(target=lambda: answers.append(live.search(rows[0], 9)))

    late.start()
    assert arrived.wait(10)
    new_id, _ = put(store, "new", rows[10])
    store.entries.remove_many([old_ids[0]])
    new = publish(store, folder, keep=1)
    live.settle()
    now = live.search(rows[10], 9)
    gc.collect()

    assert not folder.path(old).exists()
    assert (now.generation, sorted(now.ids.tolist())) == (new, [*old_ids[1:], new_id])
    assert index() is not None, "a search is still running on it"
    assert is_mapped(folder.path(old))

    go_on.set()
    late.join()

    assert (answers[0].generation, sorted(answers[0].ids.tolist())) == (old, old_ids)
    gc.collect()
    assert index() is None
    assert not is_mapped(folder.path(old))
    assert is_mapped(folder.path(new))


def test_many_generations_leave_one_mapped(make_store: Callable[..., PostgresStore], folder: GenerationFolder) -> None:
    store, rows = make_store(), vectors(6, seed=8)
    live = live_on(make_store(), folder)

    for i in range(6):
        put(store, f"p{i}", rows[i])
        number = publish(store, folder, keep=2)
        live.settle()
        live.search(rows[i], 3)
    gc.collect()

    mapped = [i for i in range(1, number + 1) if is_mapped(folder.path(i))]
    assert mapped == [number]


def test_a_view_from_before_the_swap_answers_as_it_did(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, rows = make_store(), vectors(9, seed=9)
    gone_id, _ = put(store, "gone", rows[8])
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(3)]
    publish(store, folder, keep=1)
    store.entries.remove_many([gone_id])
    ids += [put(store, f"p{i}", rows[i])[0] for i in range(3, 5)]
    put(store, "p4", rows[7])
    live = live_on(make_store(), folder)
    live.settle()
    before, said = live._view, live.search(rows[0], 99)

    # Photos of its base and of its delta change one by one, until a generation takes its place.
    for act in (
        lambda: store.entries.remove_many([ids[0]]),
        lambda: put(store, "p1", rows[5]),
        lambda: store.entries.remove_many([ids[3]]),
        lambda: put(store, "p4", rows[6]),
        lambda: publish(store, folder, keep=1),
    ):
        act()
        live.settle()

    old = live_on(store, folder)
    old._view = before
    again = old.search(rows[0], 99)
    assert again.ids.tolist() == said.ids.tolist()
    assert again.similarities.tolist() == said.similarities.tolist()
    assert (again.seq, again.generation) == (said.seq, said.generation)
    assert sorted(again.ids.tolist()) == ids
    assert sorted(live.search(rows[0], 99).ids.tolist()) == [ids[1], ids[2], ids[4]]


# ------------------------------------------------------------------------------------ following by itself


@dataclass
class AwayFor:
    """Postgres is away for the next few reads of the log."""

    times_left: int = 0
    only_thread: str | None = None

    @classmethod
    def a_thread(cls, store: PostgresStore, name: str | None, times: int) -> AwayFor:
        away = cls(times, name)
        original = store.log.changes_after

        def maybe_away(since: Mark, model_key: str, dimension: int, *, items: bool = True) -> Changes:
            if away.times_left > 0 and away.only_thread in (None, threading.current_thread().name):
                away.times_left -= 1
                raise Transient(Code.UNAVAILABLE, "Postgres is away")
            return original(since, model_key, dimension, items=items)

        store.log.changes_after = maybe_away  # type: ignore[method-assign]
        return away


@pytest.fixture
def following(make_store: Callable[..., PostgresStore], folder: GenerationFolder) -> Iterator[FaissLiveIndex]:
    live = live_on(make_store(), folder)
    live.follow(every_s=0.02)
    yield live
    live.close()


def test_who_follows_keeps_up_without_a_search(
    store: PostgresStore, folder: GenerationFolder, following: FaissLiveIndex
) -> None:
    rows = vectors(3, seed=10)

    photo_id, seq = put(store, "a", rows[0])
    numbers = [publish(store, folder, keep=2)]
    until(lambda: following.generation == numbers[-1])
    assert following.seq == seq
    first = folder.path(numbers[0])
    put(store, "b", rows[1])
    numbers += [publish(store, folder, keep=2), publish(store, folder, keep=2)]
    until(lambda: following.generation == numbers[-1])

    until(lambda: gc.collect() >= 0 and not is_mapped(first))
    assert following.search(rows[0], 1).ids.tolist() == [photo_id]
    ((removed_seq, _),) = store.entries.remove_many([photo_id]).values()
    until(lambda: following.seq >= removed_seq)
    assert photo_id not in following.search(rows[0], 3).ids


def test_who_follows_looks_at_once(make_store: Callable[..., PostgresStore], folder: GenerationFolder) -> None:
    store = make_store()
    put(store, "a", vectors(1)[0])
    number = publish(store, folder)
    live = live_on(make_store(), folder)

    live.follow(every_s=600)
    try:
        until(lambda: live.ready)
    finally:
        live.close()

    assert live.generation == number


def test_who_follows_survives_postgres_being_away(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    store, reader, rows = make_store(), make_store(), vectors(2, seed=11)
    first_id, _ = put(store, "a", rows[0])
    live = live_on(reader, folder)
    live.catch_up()
    away = AwayFor.a_thread(reader, None, times=4)

    live.follow(every_s=0.02)
    _, seq = put(store, "b", rows[1])
    until(lambda: away.times_left < 4)
    assert live.search(rows[0], 1).ids.tolist() == [first_id]
    until(lambda: live.seq >= seq)
    live.close()

    assert away.times_left == 0
    assert [record.message for record in caplog.records].count("index not caught up") == 4


def test_who_follows_from_a_database_that_is_away_begins_when_it_is_there(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, reader, rows = make_store(), make_store(), vectors(1, seed=12)
    photo_id, seq = put(store, "a", rows[0])
    publish(store, folder)
    AwayFor.a_thread(reader, None, times=3)
    live = live_on(reader, folder)

    live.follow(every_s=0.02)
    try:
        until(lambda: live.seq >= seq)
    finally:
        live.close()

    assert live.search(rows[0], 1).ids.tolist() == [photo_id]


def test_an_index_that_is_closed_leaves_no_thread(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, tmp_path: Path, go_on: threading.Event
) -> None:
    store = make_store()
    put(store, "a", vectors(1)[0])
    slow_folder = SlowFolder(tmp_path / "index", go_on)
    live = live_on(make_store(), slow_folder)
    live.catch_up()
    live.follow(every_s=0.02)
    slow_folder.slow_from = publish(store, folder)
    assert slow_folder.arrived.wait(10)
    assert threads_named("follow", "generation") != []

    closing = threading.Thread(target=live.close)
    closing.start()
    go_on.set()
    closing.join(10)

    assert threads_named("follow", "generation") == []


# ------------------------------------------------------------------------------ what is not there any more


class Vanishing(GenerationFolder):
    """One generation is deleted by another process while this one opens it."""

    def __init__(self, folder: Path, number: int, when: str, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self.number, self.when, self.patch = number, when, patch
        self.tried: list[int] = []

    def open(self, number: int, **which: Any) -> Generation:
        self.tried.append(number)
        if number != self.number:
            return super().open(number, **which)
        with self.patch.context() as patch:
            if self.when == "before its manifest is read":
                self.vanish()
            elif self.when == "between its hashes":
                self.vanish_after(patch, generation_module, "file_sha256")
            elif self.when == "before it is mapped":
                vanish, original = self.vanish, generation_module.map_files

                def vanish_before(*args: Any, **options: Any) -> Any:
                    vanish()
                    return original(*args, **options)

                patch.setattr(generation_module, "map_files", vanish_before)
            else:
                self.vanish_after(patch, faiss, "read_index")
            return super().open(number, **which)

    def vanish(self) -> None:
        shutil.rmtree(self.path(self.number), ignore_errors=True)

    def vanish_after(self, patch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        original = getattr(module, name)

        def call_and_vanish(*args: Any, **options: Any) -> Any:
            value = original(*args, **options)
            self.vanish()
            return value

        patch.setattr(module, name, call_and_vanish)


moments = pytest.mark.parametrize(
    "when",
    [
        "before its manifest is read",
        "between its hashes",
        "before it is mapped",
        "between its index and its ids",
    ],
)


@moments
def test_a_generation_that_vanishes_while_a_process_starts_is_passed_over(
    make_store: Callable[..., PostgresStore],
    folder: GenerationFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    store, rows = make_store(), vectors(3, seed=13)
    ids = [put(store, "a", rows[0])[0]]
    older = publish(store, folder)
    ids.append(put(store, "b", rows[1])[0])
    newer = publish(store, folder)
    ids.append(put(store, "c", rows[2])[0])

    vanishing = Vanishing(tmp_path / "index", newer, when, monkeypatch)
    live = live_on(make_store(), vanishing)
    live.settle()

    assert vanishing.tried == [newer, older]
    assert live.generation == older
    assert sorted(live.search(rows[0], 9).ids.tolist()) == ids


@moments
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_generation_that_vanishes_while_it_is_brought_is_passed_over_once(
    make_store: Callable[..., PostgresStore],
    folder: GenerationFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    store, rows = make_store(), vectors(4, seed=14)
    ids = [put(store, "a", rows[0])[0]]
    older = publish(store, folder)
    vanishing = Vanishing(tmp_path / "index", older + 1, when, monkeypatch)
    live = live_on(make_store(), vanishing)
    live.settle()
    ids.append(put(store, "b", rows[1])[0])
    assert publish(store, folder) == older + 1

    for _ in range(3):
        live.settle()
    ids.append(put(store, "c", rows[2])[0])
    live.settle()

    assert live.generation == older
    assert vanishing.tried == [older, older + 1], "what was refused once is not tried at every search"
    assert sorted(live.search(rows[0], 9).ids.tolist()) == ids
    ids.append(put(store, "d", rows[3])[0])
    newest = publish(store, folder)
    live.settle()
    assert live.generation == newest
    assert sorted(live.search(rows[0], 9).ids.tolist()) == ids


def test_generations_that_all_vanished_leave_postgres(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, tmp_path: Path
) -> None:
    store, rows = make_store(), vectors(3, seed=15)
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(3)]
    publish(store, folder)
    live = live_on(make_store(), folder)
    live.settle()
    store.entries.remove_many([ids[0]])
    publish(store, folder)
    shutil.rmtree(tmp_path / "index")

    live.settle()
    restarted = live_on(make_store(), folder)
    restarted.settle()

    assert sorted(live.search(rows[0], 9).ids.tolist()) == ids[1:]
    assert restarted.generation is None
    assert sorted(restarted.search(rows[0], 9).ids.tolist()) == ids[1:]
