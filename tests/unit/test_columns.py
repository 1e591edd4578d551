"""Columns for filters: what is written is what is read, in lists or in bits, and views stay as they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from worker.core.types import START, Change, Chunk, Documents, Facts, Filter, Mark
from worker.core.vectors import Ids
from worker.index import columns as columns_module
from worker.index.columns import FILES, POSTINGS, Growing, open_columns, read, write
from worker.index.pairs import pairs_of, wanted

COUNT = 5_000


def pair(text: str) -> int:
    (only,) = pairs_of(text)
    return only


@dataclass
class Described:
    """A snapshot of photos 10, 20, 30 ... whose number has every Nth pair as N is a divisor of it."""

    count: int = COUNT
    mark: Mark = START
    divisors: tuple[int, ...] = (1, 2, 3, 20, 33, 40, 2_000)

    @property
    def ids(self) -> Ids:
        return np.arange(1, self.count + 1, dtype=np.int64) * 10

    def chunks(self) -> Iterator[Chunk]:
        yield from ()

    def sample(self, rows: int) -> Chunk:
        raise NotImplementedError

    def facts(self) -> Iterator[Facts]:
        """Turned round, and of some photos that no vector belongs to."""
        ids = np.append(self.ids, [5, 10 * self.count + 10])[::-1].copy()
        for part in np.array_split(ids, 3):
            yield Facts(part, part / 1e4, -part / 1e3, part % 20 == 0)

    def documents(self) -> Iterator[Documents]:
        for part in np.array_split(np.append(self.ids[::-1], 5), 4):
            texts = [f'{{"n": {[d for d in self.divisors if photo // 10 % d == 0]}}}' for photo in part.tolist()]
            yield Documents(part, texts)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 640, COUNT])
@pytest.mark.parametrize("common", [1, 20, 200])
def test_what_is_written_is_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, common: int
) -> None:
    monkeypatch.setattr(columns_module, "COMMON", common)
    snapshot = Described(count)

    write(tmp_path, read(snapshot, snapshot.ids))
    opened = open_columns(tmp_path, count)

    numbers = np.arange(1, count + 1)
    assert opened.places.tolist() == [(numbers / 1e3).tolist(), (-numbers / 1e2).tolist()]
    assert opened.passing(Filter(trusted_only=True), []).tolist() == (numbers % 2 == 0).tolist()
    for divisor in snapshot.divisors:
        having = numbers % divisor == 0
        asked = [pair(f'{{"n": [{divisor}]}}')]
        assert opened.knows(asked) == (having.sum() >= common)
        if opened.knows(asked):
            assert opened.passing(Filter(), asked).tolist() == having.tolist()
    assert not opened.knows([pair('{"n": [7]}')])


def test_a_pair_takes_no_more_than_four_bytes_a_photo_and_a_bit_where_that_is_less(tmp_path: Path) -> None:
    snapshot = Described(divisors=(1, 2, 20))
    write(tmp_path, read(snapshot, snapshot.ids))

    words = np.load(tmp_path / POSTINGS)

    assert len(words) == 3 * -(-COUNT // 32), "each is held by more than one photo of 32"
    (rare := tmp_path / "rare").mkdir()
    one = Described(20_000, divisors=(80,))
    write(rare, read(one, one.ids))
    assert np.load(rare / POSTINGS).tolist() == list(range(79, 20_000, 80))


@pytest.mark.parametrize("name", FILES)
def test_columns_of_another_count_are_refused(tmp_path: Path, name: str) -> None:
    for folder, count in ((tmp_path / "a", 100), (tmp_path / "b", 101)):
        folder.mkdir()
        snapshot = Described(count)
        write(folder, read(snapshot, snapshot.ids))
    if name in FILES[:3]:
        (tmp_path / "b" / name).rename(tmp_path / "a" / name)
        with pytest.raises(ValueError, match="100 photos"):
            open_columns(tmp_path / "a", 100)
    (tmp_path / "a" / name).write_bytes(b"torn")
    with pytest.raises((ValueError, OSError)):
        open_columns(tmp_path / "a", 100)


def test_columns_of_before_stay_as_they_are_while_others_grow() -> None:
    growing, start, stop = Growing(2), threading.Event(), threading.Event()
    wrong: list[str] = []

    def change(number: int) -> Change:
        return Change(number, None, lat=1.0, lon=2.0, trusted=number % 3 == 0, metadata=f'{{"n": {number % 5}}}')

    asked = wanted({"n": 3})
    assert asked is not None
    growing.put(0, [change(0)])
    seen = [growing.upto(1)]

    def look() -> None:
        start.set()
        while not stop.is_set():
            for columns in list(seen):
                count = len(columns.trusted)
                now = columns.passing(Filter(trusted_only=True), asked).tolist()
                if now != [number % 15 == 3 for number in range(count)]:
                    wrong.append(f"of {count}")

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    start.wait()
    for number in range(1, 600):
        growing.put(number, [change(number)])
        if number % 50 == 0:
            seen.append(growing.upto(number + 1))
    stop.set()
    for reader in readers:
        reader.join()

    assert wrong == []
    assert growing.upto(600).passing(Filter(), asked).sum() == 120
