"""Searches done again beside those that are answered: what they say of the index, and that nobody waits for them."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import until
from tests.integration.test_index import KEY, publish
from tests.integration.test_kinds import DIM, build, photos_of_places
from tests.integration.test_swap import put as put_in
from worker.core.types import Change, Mark, Repeated
from worker.core.vectors import Vector, Vectors, unit_rows
from worker.index import repeating as repeating_module
from worker.index.building import Build
from worker.index.folder import GenerationFolder
from worker.index.generation import Generation
from worker.index.kinds import Kind
from worker.index.live import FaissLiveIndex
from worker.index.repeating import FEWEST, KEPT, LEAST, NICENESS, ROUNDING, WAITING, Repeating, flips, found_share
from worker.index.searching import Parameters
from worker.index.view import Layers, Passing, View
from worker.library import Library
from worker.observe.process import registry_of
from worker.runtime import Runtime
from worker.settings import Settings
from worker.storage.store import PostgresStore

GATE = 0.97
MARK = Mark(7, None)
TOLD = Repeated(7, recall_at_10=0.98764321, of=110, at_most=0.99, searches=120, flipped=0.25, compared=40)


@pytest.fixture(autouse=True)
def not_the_last_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests wait for what others need not."""
    monkeypatch.setattr(repeating_module, "NICENESS", 0)
    monkeypatch.setattr(repeating_module, "REST", 0.0)


@pytest.fixture(scope="module")
def stored() -> Vectors:
    return photos_of_places(4_000, seed=1)


@pytest.fixture(scope="module", params=list(Kind))
def any_kind(request: pytest.FixtureRequest, stored: Vectors, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return build(tmp_path_factory.mktemp("index"), stored, how=Build(kind=request.param))


@pytest.fixture(scope="module")
def lists(stored: Vectors, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return build(tmp_path_factory.mktemp("lists"), stored, how=Build(kind=Kind.IVF))


def view_of(base: Generation, *changes: Change) -> View:
    layers = Layers(base, DIM)
    layers.apply(changes)
    return layers.view(MARK)


def broken(base: Generation, number: int = 2) -> Generation:
    """Looks at few lists, which have no more than is asked for: at one, it would find too few and look farther."""
    few: Parameters = {"nprobe": 4, "k_factor": 1}
    return replace(base, manifest=replace(base.manifest, number=number, parameters=few), _ready={})


@pytest.fixture
def repeating() -> Iterator[Repeating]:
    made = Repeating(one_in=1, gate=GATE)
    yield made
    made.close()


def search_again(repeating: Repeating, view: View, query: Vector) -> None:
    """One search, and it is repeated."""
    done = repeating.told.searches
    note(repeating, view, query)
    until(lambda: repeating.told.searches > done)


def note(repeating: Repeating, view: View, query: Vector, k: int = 10) -> None:
    found = view.search(query, k)
    repeating.note(view, query, k, found, passing=None, exclude=None, drop_copies=False)


# ------------------------------------------------------------------------------------------- the recall


def test_an_exact_search_sees_base_delta_and_tombstones_as_comparing_all_does(
    any_kind: Generation, stored: Vectors
) -> None:
    newer = photos_of_places(60, seed=3)
    gone = [Change(10 * i, None) for i in range(1, 200, 2)]
    replaced = [Change(10 * i, vector) for i, vector in enumerate(newer[:20], 300)]
    added = [Change(10**6 + i, vector) for i, vector in enumerate(newer[20:])]
    view = view_of(any_kind, *gone, *replaced, *added)
    photos = {10 * i: row for i, row in enumerate(stored, 1)}
    photos |= {change.photo_id: change.vector for change in [*replaced, *added] if change.vector is not None}
    for change in gone:
        del photos[change.photo_id]
    ids, rows = np.array(list(photos)), np.stack(list(photos.values()))

    for query in photos_of_places(20, seed=4):
        left_out = ids[np.argsort(-(rows @ query))[:3]]
        found = view.search(query, 10, exclude=left_out, exact=True)

        wanted = [i for i in ids[np.argsort(-(rows @ query))].tolist() if i not in left_out][:10]
        # The graph's 8-bit numbers may order near equals otherwise; the lists' own are of 16 bits.
        assert len(set(found.ids.tolist()) & set(wanted)) >= (7 if any_kind.manifest.kind == Kind.HNSW else 10)
        assert view.vectors_of(found.ids) @ query == pytest.approx(found.similarities, abs=ROUNDING)
        assert np.isnan(view.vectors_of(np.array([10, 5]))).all()


def test_lists_that_are_broken_show_their_recall_and_are_warned_of_once(
    lists: Generation, repeating: Repeating, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger=repeating_module.__name__)
    queries = photos_of_places(LEAST + 20, seed=5)

    for query in queries:
        search_again(repeating, view_of(lists), query)
    as_built = repeating.told
    assert caplog.messages == []
    for query in queries[: LEAST - 1]:
        search_again(repeating, view_of(broken(lists)), query)
    too_few = list(caplog.messages)
    for query in queries[LEAST - 1 :]:
        search_again(repeating, view_of(broken(lists)), query)

    assert as_built.recall_at_10 == pytest.approx(lists.manifest.recall_at_10, abs=0.02)
    # Of the new generation alone.
    assert repeating.told.recall_at_10 is not None
    assert repeating.told.recall_at_10 < 0.9
    assert repeating.told.searches == 2 * len(queries)
    assert too_few == []
    (warning,) = caplog.messages
    assert "SIGHTLINE_INDEX_RECALL" in warning


def test_photos_that_are_as_similar_are_no_miss(tmp_path: Path) -> None:
    """Of a thousand copies, an approximate index finds others first than a comparison with all."""
    random = np.random.default_rng(0)
    picture = unit_rows(random.normal(size=(1, DIM)))
    copies = unit_rows(picture + random.normal(size=(1_000, DIM)) * 1e-5)
    view = view_of(build(tmp_path, np.concatenate([copies, photos_of_places(1_000, seed=1)])))
    query = unit_rows(picture + 0.02 * random.normal(size=(1, DIM)))[0]
    found = view.search(query, 26)
    others = replace(found, ids=np.arange(900, 910) * 10)

    assert found_share(view, query, found) == 1.0
    assert found_share(view, query, others) == 1.0
    assert found_share(view, query, replace(found, ids=np.arange(1_900, 1_910) * 10)) == 0.0


def test_a_filter_that_leaves_few_is_measured_by_those(lists: Generation) -> None:
    view = view_of(lists, Change(10, None))
    query = photos_of_places(1, seed=6)[0]
    none = np.zeros(len(view.hidden), dtype=np.bool_)
    few = none.copy()
    few[:4] = True
    some, nobody = (Passing(base, view.delta_hidden) for base in (few & ~view.hidden, none))

    found = view.search(query, 26, passing=some)

    assert sorted(found.ids.tolist()) == [20, 30, 40]
    assert found_share(view, query, found, passing=some) == 1.0
    assert found_share(view, query, replace(found, ids=found.ids[:1]), passing=some) == pytest.approx(1 / 3)
    assert found_share(view, query, found, passing=nobody) is None


# ----------------------------------------------------------------------------------------- nobody waits


def test_searches_that_come_while_one_is_repeated_are_left_out(
    lists: Generation, repeating: Repeating, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begun = threading.Event(), threading.Event()
    niceness: list[int] = []

    def slow(*_: object, **__: object) -> float:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        begun.set()
        assert go_on.wait(20)
        return 1.0

    monkeypatch.setattr(repeating_module, "found_share", slow)
    monkeypatch.setattr(repeating_module, "NICENESS", NICENESS)
    view, queries = view_of(lists), photos_of_places(30, seed=7)
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    note(repeating, view, queries[0])
    assert begun.wait(20)
    for query in queries[1:]:
        note(repeating, view, query)
    go_on.set()
    until(lambda: repeating.told.searches == 1 + WAITING)
    search_again(repeating, view, queries[0])

    assert repeating.told.searches == 2 + WAITING
    assert set(niceness) == {NICENESS}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours


def test_a_repeated_search_is_followed_by_a_rest(
    lists: Generation, repeating: Repeating, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    def slow(*_: object, **__: object) -> float:
        begun.append(time.monotonic())
        time.sleep(0.05)
        return 1.0

    monkeypatch.setattr(repeating_module, "found_share", slow)
    monkeypatch.setattr(repeating_module, "REST", 4.0)
    for query in photos_of_places(2, seed=14):
        note(repeating, view_of(lists), query)
    until(lambda: len(begun) == 2)

    assert begun[1] - begun[0] > 0.24


def test_of_a_generation_s_searches_the_first_are_all_repeated_and_then_one_in_so_many(
    lists: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeating, view, query = Repeating(one_in=10**9, gate=GATE), view_of(lists), photos_of_places(1, seed=8)[0]
    done: list[Callable[[], None]] = []

    def do(work: Callable[[], None]) -> None:
        done.append(work)
        work()

    monkeypatch.setattr(repeating, "_do", do)
    monkeypatch.setattr(repeating_module, "found_share", lambda *_, **__: 1.0)

    def repeated_of(view: View, searches: int) -> int:
        before = len(done)
        for _ in range(searches):
            note(repeating, view, query)
        return len(done) - before

    first = repeated_of(view, LEAST - 1)
    assert (repeating.told.at_most, repeating.told.of) == (None, LEAST - 1), "so few tell nothing for sure"
    assert (first, repeated_of(view, LEAST)) == (LEAST - 1, 1)
    assert (repeating.told.at_most, repeating.told.of) == (1.0, LEAST)
    repeating.taken_over(view, another := view_of(broken(lists)))
    assert (repeating.told.recall_at_10, repeating.told.at_most, repeating.told.of) == (None, None, 0)
    assert repeated_of(another, 2 * LEAST) == LEAST, "of each generation"
    assert repeating.told.searches == 2 * LEAST
    assert repeated_of(view_of(broken(lists, number=3)), LEAST) == LEAST, "as after a restore, which takes none over"


def test_one_in_so_many_is_repeated_and_none_where_that_is_off(lists: Generation) -> None:
    view, query = view_of(lists), photos_of_places(1, seed=8)[0]
    found = view.search(query, 26)
    counted: dict[int, int] = {}
    for one_in in (0, 10):
        repeating = Repeating(one_in=one_in, gate=GATE, first=0)
        begun: list[Callable[[], None]] = []
        repeating._do = begun.append  # type: ignore[assignment,method-assign]  # nothing is done, so that all are taken
        for _ in range(2_000):
            repeating.note(view, query, 26, found, passing=None, exclude=None, drop_copies=False)
        counted[one_in] = len(begun)
        assert len(repeating._asked) == (1 if one_in else 0)

    assert counted[0] == 0
    assert 120 < counted[10] < 280


def test_a_view_is_let_go_when_it_was_repeated(lists: Generation, repeating: Repeating) -> None:
    view = view_of(lists)
    kept = weakref.ref(view.hidden)
    search_again(repeating, view, photos_of_places(1, seed=9)[0])

    del view
    until(lambda: kept() is None)


# -------------------------------------------------------------------------------- between two generations


def test_the_same_photos_found_by_another_generation_are_no_flip(lists: Generation) -> None:
    before, now = view_of(lists), view_of(replace(lists, manifest=replace(lists.manifest, number=2)))

    assert [flips(before, now, query, 10) for query in photos_of_places(50, seed=10)] == [False] * 50


def test_another_first_photo_is_a_flip_and_one_that_came_meanwhile_is_not_compared(
    lists: Generation, stored: Vectors
) -> None:
    before, now = view_of(lists), view_of(broken(lists))
    flipped = {}
    for number, query in enumerate(photos_of_places(100, seed=11)):
        tops = [int(view.search(query, 10).ids[0]) for view in (before, now)]
        then, since = (float(stored[top // 10 - 1] @ query) for top in tops)
        # float16 does not tell those between.
        if tops[0] == tops[1] or abs(then - since) > 1e-3:
            assert flips(before, now, query, 10) == (tops[0] != tops[1]), number
            flipped[tops[0] != tops[1]] = query, tops[0]

    query, first = flipped[True]
    without = view_of(lists, Change(first, None))
    assert flips(before, without, query, 10) is None
    assert flips(without, before, query, 10) is None
    assert flips(before, view_of(lists, Change(10**6, query)), query, 10) is None


@pytest.mark.parametrize(("apart", "is_flip"), [(3e-3, False), (0.1, True)])
def test_a_copy_that_is_found_first_instead_is_no_flip(lists: Generation, apart: float, is_flip: bool) -> None:
    random = np.random.default_rng(0)
    first, stranger = unit_rows(random.normal(size=(2, DIM)))
    way = random.normal(size=(1, DIM)) / np.sqrt(DIM)
    other = unit_rows(first + apart * way)[0]
    before, now = (view_of(lists, Change(10, first), Change(20, second)) for second in (stranger, other))
    # Beyond the other photo, seen from the first one.
    query = unit_rows(first + 2 * apart * way)[0]

    assert [view.search(query, 1).ids.tolist() for view in (before, now)] == [[10], [20]]
    assert flips(before, now, query, 10) is is_flip


def test_what_was_asked_long_ago_is_forgotten(lists: Generation) -> None:
    repeating = Repeating(one_in=10**9, gate=GATE)
    note(repeating, view_of(lists), photos_of_places(1, seed=13)[0])

    repeating.forget(3_600.0)
    assert len(repeating._asked) == 1
    repeating.forget()
    assert len(repeating._asked) == 0


def test_answers_that_broken_lists_change_are_counted(lists: Generation, repeating: Repeating) -> None:
    queries = photos_of_places(KEPT + 10, seed=12)
    before, now = view_of(lists), view_of(broken(lists))
    expected, of_fewer = ([bool(flips(before, now, query, k)) for query in queries[10:]] for k in (26, 10))
    for query in queries:
        note(repeating, before, query, 26)
        note(repeating, before, query, 26)

    repeating.taken_over(before, now)
    until(lambda: repeating.told.compared > 0)

    assert repeating.told.compared == KEPT
    assert repeating.told.flipped == sum(expected) / KEPT > 0
    assert sum(expected) < sum(of_fewer), "as many candidates are compared as the searches compared"
    repeating.taken_over(before, now)
    search_again(repeating, now, queries[0])
    assert repeating.told.compared == KEPT, "questions are asked once, and forgotten"


@pytest.mark.parametrize("count", [FEWEST - 1, FEWEST])
def test_of_few_questions_no_share_is_told(count: int, lists: Generation, repeating: Repeating) -> None:
    queries = photos_of_places(2 * FEWEST, seed=12)
    before, now = view_of(lists), view_of(broken(lists))
    # The one of the generation before does not stay.
    for some in (queries, queries[:count]):
        expected = repeating.told.compared + len(some)
        for query in some:
            note(repeating, before, query)
        repeating.taken_over(before, now)
        until(lambda expected=expected: repeating.told.compared == expected)  # type: ignore[misc]

    assert (repeating.told.flipped is None) == (count < FEWEST)


# ------------------------------------------------------------------------------------ as a process has it


@pytest.fixture
def live(make_store: Callable[..., PostgresStore], tmp_path: Path) -> Iterator[FaissLiveIndex]:
    folder = GenerationFolder(tmp_path / "index")
    repeating = Repeating(one_in=1, gate=GATE)
    made = FaissLiveIndex(make_store().log, folder, model_key=KEY, dimension=16, repeating=repeating)
    yield made
    made.close()


def test_a_process_that_follows_tells_of_its_searches_and_forgets_them_when_a_photo_goes(
    store: PostgresStore, live: FaissLiveIndex, tmp_path: Path
) -> None:
    folder = GenerationFolder(tmp_path / "index")
    rows = unit_rows(np.random.default_rng(1).normal(size=(12, 16)))
    ids = [put_in(store, str(i), row)[0] for i, row in enumerate(rows)]
    publish(store, folder)
    live.settle()
    live.search(rows[0], 26)
    assert live.repeated.searches == 0, "this process answers nobody"
    live.follow(60.0)

    live.search(rows[0], 26)
    until(lambda: live.repeated.searches == 1)
    assert live.repeated.recall_at_10 == 1.0
    publish(store, folder)
    live.settle()
    until(lambda: live.repeated.compared == 1)
    assert live.repeated.flipped is None, "of one question"

    live.search(rows[1], 26)
    until(lambda: live.repeated.searches == 2)
    store.entries.purge_many([ids[1]])
    live.catch_up()
    publish(store, folder)
    live.settle()
    live.search(rows[0], 26)
    until(lambda: live.repeated.searches == 3)

    assert live.repeated.compared == 1, "the purged photo was asked for, and its vector was still here"


def test_metrics_tell_of_it(
    make_library: Callable[..., Library], settings: Settings, live: FaissLiveIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, runtime = make_library(live=live), Runtime(settings)
    monkeypatch.setattr(runtime, "_libraries", {library.model_key: library})
    registry, _ = registry_of(settings, runtime.figures, role="serve", slots=1)
    names = (
        *("recall_at_10", "recall_at_10_at_most", "recall_gate"),
        *("recall_searches_total", "answers_flipped_ratio", "answers_compared_total"),
    )

    before = [registry.get_sample_value(f"sightline_{name}") for name in names]
    monkeypatch.setattr(live._repeating, "_told", TOLD)

    assert before == [None, None, settings.index_recall, 0.0, None, 0.0]
    assert [registry.get_sample_value(f"sightline_{name}") for name in names] == [
        *(0.98764321, 0.99, settings.index_recall),
        *(120.0, 0.25, 40.0),
    ]


def test_stats_tell_of_it_but_clients_of_the_release_before(
    make_library: Callable[..., Library], settings: Settings, live: FaissLiveIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"live_recall_at_10", "live_recall_searches", "answers_flipped"}
    library, former = (
        make_library(live=live, settings=settings.model_copy(update={"key_prefix": prefix}))
        for prefix in (settings.key_prefix, "")
    )

    before = library.statistics.stats(rss_mb=1.0).to_wire()
    monkeypatch.setattr(live._repeating, "_told", TOLD)
    now = library.statistics.stats(rss_mb=1.0).to_wire()

    assert not told & before.keys()
    assert {name: now[name] for name in told} == {
        "live_recall_at_10": 0.9876,
        "live_recall_searches": 110,
        "answers_flipped": 0.25,
    }
    assert not told & former.statistics.stats(rss_mb=1.0).to_wire().keys()
