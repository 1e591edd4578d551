"""The soak's own checks: what is planted is counted, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.chaos.ledger import Owed, Photo, draw
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
    photo("f", 6, added=None, row=True),
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


def judged(found: Found) -> Verdict:
    return judge(PHOTOS, VECTORS, ASKED, found)


def entries_but(name: str, *instead: Entry) -> tuple[Entry, ...]:
    return (*(one for one in WELL.entries if one.path != f"/p/{name}.jpg"), *instead)


def newest(**changed: object) -> list[Generation]:
    return [WELL.generations[0], replace(WELL.generations[1], **changed)]  # type: ignore[arg-type]


def test_a_service_that_kept_everything_is_found_without_fault() -> None:
    assert judged(WELL) == Verdict()
    assert judged(WELL).holds


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
