"""The soak's own checks: what is planted is counted, and nothing else is."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.chaos.disk import full, small_disk
from tests.chaos.ledger import Ledger, Owed, Photo, draw
from tests.chaos.load import Probes
from tests.chaos.plan import BEFORE_S, Kind, plan
from tests.chaos.soak import quantile
from tests.chaos.verdict import Entry, Found, Generation, Verdict, judge
from worker.core.vectors import unit_rows

VECTORS = dict(zip("abcdefq", unit_rows(np.random.default_rng(7).normal(size=(7, 16))), strict=True))
ASKED = VECTORS["q"]


def photo(name: str, photo_id: int, **state: object) -> Photo:
    return replace(Photo(photo_id, Path(f"/p/{name}.jpg"), name, photo_id, added=1.0), **state)  # type: ignore[arg-type]


#: a and b are there, c was removed, d purged, e was never acknowledged, f has a row and was not acknowledged.
PHOTOS = (
    photo("a", 1),
    photo("b", 2),
    photo("c", 3, removing=True, gone=2.0),
    photo("d", 4, removing=True, purging=True, gone=2.0),
    replace(photo("e", 5), added=None, photo_id=None),
    photo("f", 6, added=None, rowed=1.0),
)


def entry(name: str, photo_id: int, **state: object) -> Entry:
    return replace(Entry(photo_id, f"/p/{name}.jpg", name, False, VECTORS[name]), **state)  # type: ignore[arg-type]


def hit(name: str, photo_id: int) -> tuple[int, float]:
    return photo_id, float(VECTORS[name] @ ASKED)


HITS = [hit("a", 1), hit("b", 2), hit("f", 6)]
WELL = Found(
    rows={number: f"/p/{name}.jpg" for number, name in enumerate("abcdef", 1) if name != "e"},
    entries=(
        entry("a", 1),
        entry("b", 2),
        entry("c", 3, removed=True),
        Entry(4, None, "", True, None),
        entry("f", 6),
    ),
    searches=[HITS, HITS],
    generations=[
        Generation(1, ids=[1, 2, 3], vectors={1: VECTORS["a"], 2: VECTORS["b"], 3: VECTORS["c"]}),
        Generation(2, ids=[1, 2, 6], vectors={1: VECTORS["a"], 2: VECTORS["b"], 6: VECTORS["f"]}),
    ],
    messages={"interactive": 0, "unacked": 0},
    contents={"a", "b", "c", "f"},
)


GONE = Generation(1, absent=True, fault="generation 1: no manifest.json")


def judged(found: Found) -> Verdict:
    return judge(PHOTOS, VECTORS, ASKED, found)


def entries_but(name: str, *instead: Entry) -> tuple[Entry, ...]:
    return (*(one for one in WELL.entries if one.path != f"/p/{name}.jpg"), *instead)


def newest(**changed: object) -> list[Generation]:
    return [WELL.generations[0], replace(WELL.generations[1], **changed)]  # type: ignore[arg-type]


def test_a_service_that_kept_everything_is_found_without_fault() -> None:
    assert judged(WELL) == Verdict()
    assert judged(WELL).holds


def test_a_restore_may_name_generations_whose_files_later_ones_have_deleted() -> None:
    assert judged(replace(WELL, generations=[GONE, WELL.generations[1]], restored=1)) == Verdict()


def test_what_nobody_acknowledged_may_be_there_or_not() -> None:
    found = replace(
        WELL, rows={**WELL.rows, 5: "/p/e.jpg"}, entries=(*WELL.entries, entry("e", 5)), contents={*WELL.contents, "e"}
    )

    assert judged(found) == Verdict()


def without(name: str, photo_id: int) -> Found:
    """A photo that is nowhere."""
    last = WELL.generations[1]
    return replace(
        WELL,
        entries=entries_but(name),
        searches=[[one for one in HITS if one[0] != photo_id]] * 2,
        generations=newest(
            ids=[i for i in last.ids if i != photo_id],
            vectors={i: vector for i, vector in last.vectors.items() if i != photo_id},
        ),
    )


LOST: dict[str, Callable[[], Found]] = {
    "no entry": lambda: without("a", 1),
    "a removed entry": lambda: replace(WELL, entries=entries_but("a", entry("a", 1, removed=True))),
    "no entry of one with a row": lambda: without("f", 6),
    "no vector": lambda: replace(WELL, entries=entries_but("a", entry("a", 1, vector=None))),
    "not shown by one search of two": lambda: replace(WELL, searches=[HITS, HITS[1:]]),
    "not in the last generation": lambda: replace(WELL, generations=newest(ids=[2, 6])),
    "a row that no message comes for": lambda: replace(WELL, waiting={6}),
}
DUPLICATED: dict[str, Callable[[], Found]] = {
    "two rows": lambda: replace(WELL, rows={**WELL.rows, 9: "/p/a.jpg"}),
    "two entries": lambda: replace(WELL, entries=(*WELL.entries, entry("a", 9))),
    "shown twice": lambda: replace(WELL, searches=[[*HITS, HITS[0]]]),
    "twice in the last generation": lambda: replace(WELL, generations=newest(ids=[1, 1, 2, 6])),
}
WRONG: dict[str, Callable[[], Found]] = {
    "the vector of another": lambda: replace(WELL, entries=entries_but("a", entry("a", 1, vector=VECTORS["b"]))),
    "the content of another": lambda: replace(WELL, entries=entries_but("a", entry("a", 1, content="b"))),
    "said by a search": lambda: replace(WELL, searches=[[(1, HITS[0][1] + 0.1), *HITS[1:]]]),
    "in the last generation": lambda: replace(
        WELL, generations=newest(vectors={1: VECTORS["b"], 2: VECTORS["b"], 6: VECTORS["f"]})
    ),
}
RESURRECTED: dict[str, Callable[[], Found]] = {
    "removed, and in the index": lambda: replace(WELL, entries=entries_but("c", entry("c", 3))),
    "removed, and shown": lambda: replace(WELL, searches=[[*HITS, hit("c", 3)]]),
    "removed, and in the last generation": lambda: replace(WELL, generations=newest(ids=[1, 2, 3, 6])),
    "purged, and in a generation before": lambda: replace(
        WELL, generations=[replace(WELL.generations[0], ids=[1, 2, 4]), WELL.generations[1]]
    ),
    "purged, and something is kept of its content": lambda: replace(WELL, contents={*WELL.contents, "d"}),
    "purged, and its path is kept": lambda: replace(
        WELL, entries=(*(e for e in WELL.entries if e.photo_id != 4), Entry(4, "/p/d.jpg", "", True, None))
    ),
}
TORN: dict[str, Callable[[], Found]] = {
    "a generation does not open": lambda: replace(WELL, generations=newest(fault="SHA-256 differs", ids=())),
    "a photo that Postgres does not know": lambda: replace(
        WELL, generations=newest(vectors={**WELL.generations[1].vectors, 77: VECTORS["a"]})
    ),
    "there is none": lambda: replace(WELL, generations=[]),
    "the files of one are gone": lambda: replace(WELL, generations=[GONE, WELL.generations[1]]),
    "the files of one that is newer than a restore are gone": lambda: replace(
        WELL, generations=[*WELL.generations, replace(GONE, number=3)], restored=2
    ),
    "one that a restore brought back is damaged": lambda: replace(
        WELL, generations=[replace(GONE, absent=False), WELL.generations[1]], restored=1
    ),
}
LEFT: dict[str, Callable[[], Found]] = {
    "a message": lambda: replace(WELL, messages={"unacked": 1}),
    "a file": lambda: replace(WELL, files=[".building-000003-17 in the folder of generations"]),
}
PLANTED = {
    "lost": LOST,
    "duplicated": DUPLICATED,
    "wrong_vector": WRONG,
    "resurrected": RESURRECTED,
    "torn": TORN,
    "left": LEFT,
}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        pytest.param(kind, make(), id=f"{kind}: {name}")
        for kind, cases in PLANTED.items()
        for name, make in cases.items()
    ],
)
def test_what_is_planted_is_counted(kind: str, found: Found) -> None:
    verdict = judged(found)

    assert len(vars(verdict)[kind]) >= 1
    assert not verdict.holds
    assert [name for name, sentences in vars(verdict).items() if sentences and name != kind] == []


def test_a_photo_owes_what_was_acknowledged() -> None:
    assert [one.owed for one in PHOTOS] == [
        Owed.PRESENT,
        Owed.PRESENT,
        Owed.ABSENT,
        Owed.ABSENT,
        Owed.EITHER,
        Owed.PRESENT,
    ]
    assert photo("a", 1, removing=True).owed is Owed.EITHER, "a removal that nobody acknowledged"


def test_the_same_seed_plans_the_same_faults_and_all_kinds() -> None:
    planned = plan(120, 1)

    assert planned == plan(120, 1) != plan(120, 2)
    assert len(planned) >= 40
    assert {fault.kind for fault in planned} == set(Kind)
    assert all(BEFORE_S <= fault.at_s < 120 for fault in planned)


def test_a_kind_that_may_come_twice_comes_twice_in_however_long_a_soak() -> None:
    kinds = Counter(fault.kind for fault in plan(600, 1))

    assert kinds[Kind.RESTORE_POSTGRES] == 2
    assert kinds[Kind.KILL_WORKER] > 5
    assert plan(60, 1, kinds=(Kind.RESTORE_POSTGRES, Kind.CUT_VALKEY))[5].kind is Kind.CUT_VALKEY


def test_a_photo_is_drawn_alike_from_the_same_seed_and_is_no_other(tmp_path: Path) -> None:
    assert draw(tmp_path, 1, 1) == draw(tmp_path, 1, 1)
    assert len({draw(tmp_path, number, seed).sha256 for number in range(5) for seed in (1, 2)}) == 10


def test_recovery_is_counted_to_the_later_of_a_search_and_a_write_that_were_sent_after_the_end() -> None:
    probes = Probes(search=[(9.0, 10.5), (10.6, 11.0)], write=[(10.1, 10.2), (12.0, 12.5)])

    assert probes.recovery_s(10.0) == pytest.approx(1.0)
    assert probes.recovery_s(10.3) == pytest.approx(2.2)
    assert probes.recovery_s(11.0) is None


def test_a_recovery_that_never_came_is_the_slowest() -> None:
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([float(number) for number in range(1, 101)], 0.99) == 99.0
    assert quantile([1.0, None], 0.99) is None
    assert quantile([], 0.99) is None


# ------------------------------------------------------------------------------------------- over a restore


def sent(name: str) -> Photo:
    return Photo(ord(name), Path(f"/p/{name}.jpg"), name)


class Restored:
    """a was added, b removed and c's row written before a backup; d was added, a removed and e's row written after it.
    Then the database is set back."""

    def __init__(self, *, before: Callable[[Ledger], None] = lambda _: None) -> None:
        self.books = Ledger()
        self.a, self.b, self.c, self.d, self.e = self.photos = [sent(name) for name in "abcde"]
        for photo in self.photos:
            self.books.note(photo)
        self.added(self.a, 1)
        self.added(self.b, 2)
        self.removed(self.b)
        assert self.books.has_row(self.c, 3, 0)
        self.books.back_up()
        before(self.books)
        self.added(self.d, 4)
        self.removed(self.a)
        assert self.books.has_row(self.e, 5, 0)
        self.books.turn_back()

    def added(self, photo: Photo, photo_id: int) -> None:
        assert self.books.stored(photo, photo_id, self.books.restores)

    def removed(self, photo: Photo) -> None:
        photo.removing = True
        assert self.books.removed(photo, self.books.restores)

    def verdict(self, *entries: Entry) -> Verdict:
        """Of a service that has these, and shows them."""
        there = {one.photo_id: one for one in entries if not one.removed}
        ids = [one.photo_id for one in there.values()]
        found = Found(
            rows={one.photo_id: str(one.path) for one in entries},
            entries=entries,
            searches=[[hit(one.content, one.photo_id) for one in there.values()]],
            generations=[Generation(1, ids=ids, vectors={i: VECTORS[there[i].content] for i in ids})],
            messages={},
        )
        return judge(self.photos, VECTORS, ASKED, found)


A, B, C, D, E = (entry(name, number) for number, name in enumerate("abcde", 1))


def test_what_a_restore_takes_back_may_be_there_or_not() -> None:
    after = Restored()

    assert [photo.owed for photo in after.photos] == [
        Owed.EITHER,
        Owed.ABSENT,
        Owed.PRESENT,
        Owed.EITHER,
        Owed.EITHER,
    ]
    assert after.verdict(C) == after.verdict(A, C) == after.verdict(A, C, D, E) == Verdict()


def test_what_was_acknowledged_before_the_backup_is_owed_after_a_restore() -> None:
    after = Restored()
    after.books.stored(after.c, 3, 1)

    assert len(after.verdict().lost) == 1
    assert len(after.verdict(B, C).resurrected) == 1


def test_what_is_acknowledged_again_is_owed_again() -> None:
    after = Restored()
    again = after.books.lost()
    assert again is after.d
    assert after.books.lost() is None
    after.added(again, 7)
    assert after.books.take(Random(1)) is after.a
    after.removed(after.a)

    assert after.verdict(C, replace(D, photo_id=7)) == Verdict()
    assert len(after.verdict(C).lost) == 1
    assert len(after.verdict(A, C, replace(D, photo_id=7)).resurrected) == 1


def test_what_was_sent_before_a_restore_is_acknowledged_to_nobody_after_it() -> None:
    after = Restored()

    assert not after.books.stored(after.d, 4, 0)
    assert not after.books.has_row(after.e, 5, 0)
    assert not after.books.removed(after.a, 0)
    assert after.verdict(C) == Verdict()


def test_an_id_that_is_given_out_again_is_judged_by_the_photo_that_has_it_now() -> None:
    after = Restored()
    after.added(after.e, 4)
    now = replace(E, photo_id=4)

    assert after.verdict(C, now) == Verdict()
    assert len(after.verdict(C, replace(now, vector=VECTORS["d"])).wrong_vector) == 1
    assert len(after.verdict(C, replace(now, content="d")).wrong_vector) >= 1
    assert len(after.verdict(C, now, E).duplicated) >= 1


def test_before_a_restore_nothing_is_removed_whose_id_it_may_give_to_another() -> None:
    taken: list[Photo | None] = []

    def take(books: Ledger) -> None:
        new = sent("f")
        books.note(new)
        assert books.stored(new, 6, 0)
        taken.extend(books.take(Random(number)) for number in range(9))

    after = Restored(before=take)

    assert taken == [after.a, *[None] * 8]


def test_a_disk_that_is_filled_is_full_until_a_rebuild_has_met_that_and_has_its_room_again(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with small_disk(folder) as mounted:
        if not mounted:
            pytest.skip("this user may not mount a disk")
        (folder / "kept").write_text("before")
        course = full(folder, 0.0)
        next(course)
        building = folder / ".building-000001-1"
        building.mkdir()
        with pytest.raises(OSError, match="No space left"):
            (building / "index.faiss").write_bytes(bytes(1 << 20))
        next(course)
        shutil.rmtree(building)

        assert next(course, "over") == "over"
        (folder / "more").write_bytes(bytes(1 << 20))

    assert sorted(path.name for path in folder.iterdir()) == ["kept", "more"]
    assert str(folder) not in subprocess.run(["mount"], capture_output=True, text=True).stdout
