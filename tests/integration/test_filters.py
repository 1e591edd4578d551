"""Filters over a real Postgres: what the columns beside an index let pass is what Postgres says passes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text, update

from benchmarks.service import NoModel
from producer_client.contract import Locate, Near, Photo, Provenance, Search
from tests.integration.test_index import as_of_an_earlier_release, entry
from tests.integration.test_kinds import DIM, KEY, fill, photos_of_places, publish
from worker.core.geo import distance_m
from worker.core.types import Filter, Neighbours
from worker.core.vectors import Ids, Vector, Vectors, unit_rows
from worker.index import view as view_module
from worker.index.building import Build
from worker.index.columns import FILES
from worker.index.folder import GenerationFolder
from worker.index.generation import MANIFEST
from worker.index.live import FaissLiveIndex
from worker.index.pairs import pairs_of, wanted
from worker.index.view import Passing, View
from worker.library import Library
from worker.settings import Settings
from worker.storage import tables
from worker.storage.store import PostgresStore

COUNT = 3_000

# ------------------------------------------------------------------------------------- pairs and jsonb's @>

#: Few, so that documents often have something in common, and all that are easily taken for one another.
NUMBERS = [0, 1, 1.0, -0.0, 10, 10.0, 0.1, 1e22, 10**22, 2**53 + 1, float(2**53), 1e-7]
scalars = st.sampled_from([None, True, False, *NUMBERS, "", "1", "a", "A", "é", "e\u0301", "n1", "\u0001", "[", ".a"])
keys = st.sampled_from(["a", "b", "", "[", ".a", "é", "a\u0001b"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
documents = st.dictionaries(keys, values, min_size=1, max_size=4)


@st.composite
def parts_of(draw: st.DrawFn, document: Any) -> Any:
    """Something that the document contains, or nearly so."""
    if isinstance(document, dict):
        kept = draw(st.lists(st.sampled_from(sorted(document)), min_size=1, unique=True)) if document else []
        return {key: draw(parts_of(document[key])) for key in kept}
    if isinstance(document, list):
        return [
            draw(parts_of(element))
            for element in draw(st.permutations(document))[: draw(st.sampled_from([1, 1, 2, 0]))]
        ]
    return draw(st.sampled_from([True, True, False]).flatmap(lambda same: st.just(document) if same else scalars))


pairs_of_documents = documents.flatmap(lambda document: st.tuples(st.just(document), parts_of(document) | documents))


def test_pairs_say_what_postgres_says_of_documents(store: PostgresStore) -> None:
    says = text("SELECT CAST(:document AS jsonb) @> CAST(:part AS jsonb), CAST(CAST(:document AS jsonb) AS text)")
    told: list[bool] = []
    with store.database.engine.connect() as connection:

        @hypothesis_settings(derandomize=True, max_examples=1_500, suppress_health_check=list(HealthCheck))
        @example(({"a": [1]}, {"a": 1}))
        @example(({"a": 1}, {"a": [1]}))
        @example(({"a": {"b": 1}}, {"a": {"b": 1.0}}))
        @example(({"a": [1, True]}, {"a": [True, 1.0]}))
        @example(({"a": [[1]]}, {"a": [1]}))
        @example(({"a": {"": 1}}, {"a": {"": 1}}))
        @given(pairs_of_documents)
        def holds(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
            document, part = both
            contains, stored = connection.execute(
                says, {"document": json.dumps(document), "part": json.dumps(part)}
            ).one()
            pairs = wanted(part)
            if pairs is not None:
                assert (set(pairs) <= set(pairs_of(stored))) == contains, (document, part)
                told.append(contains)

        holds()

    assert min(told.count(True), told.count(False)) > 200, "both answers are looked at"


@pytest.mark.parametrize(
    "where", [{}, {"a": {}}, {"a": []}, {"a": [[]]}, {"a": [1, {"b": 2}]}, {"a": 1, "b": {"c": {}}}]
)
def test_what_pairs_cannot_say_is_left_to_postgres(where: dict[str, Any]) -> None:
    assert wanted(where) is None


@pytest.mark.parametrize("document", ["null", "[1]", "1", '"a"', "{}", '{"a":' * 5_000 + "1" + "}" * 5_000])
def test_metadata_without_pairs_stops_nobody(document: str) -> None:
    assert pairs_of(document) == ()


# ------------------------------------------------------------------------------ thousands of photos, all filters


def told(photo: int) -> dict[str, Any] | None:
    if photo % 7 == 0:
        return None
    return {
        "walk": photo % 3,
        "camera": {"make": ["x", "y"][photo % 2], "serial": photo},
        "tags": [tag for tag, every in (("all", 1), ("half", 2), ("some", 10), ("few", 500)) if photo % every == 0],
        "steps": [{"n": photo % 4}],
    }


FILTERS: dict[str, dict[str, Any]] = {
    "all": {"where": {"tags": ["all"]}},
    "half": {"where": {"tags": ["half"]}},
    "nested": {"where": {"camera": {"make": "y"}, "walk": 2.0}},
    "common and rare": {"where": {"tags": ["half", "few"]}},
    "unique": {"where": {"camera": {"serial": 1_000_100}}},
    "nobody": {"where": {"walk": "1"}},
    "unknown key": {"where": {"flight": None}},
    "empty": {"where": {"tags": []}},
    "objects in arrays": {"where": {"steps": [{"n": 2}], "walk": 1}},
    "small circle": {"near": Near(10.0, 179.9, 30_000.0)},
    "over the date line": {"near": Near(10.0, 180.0, 600_000.0)},
    "around the pole": {"near": Near(90.0, 0.0, 3_000_000.0)},
    "half the Earth": {"near": Near(0.0, 0.0, 10_000_000.0)},
    "the Earth": {"near": Near(0.0, 0.0, 20_100_000.0)},
    "trusted": {"trusted_only": True},
    "all of them": {"near": Near(20.0, 170.0, 5e6), "where": {"tags": ["all"], "walk": 1}, "trusted_only": True},
    "circle and rare": {"near": Near(0.0, 0.0, 1.5e7), "where": {"tags": ["few"]}},
}


def describe(store: PostgresStore, ids: Ids, seed: int) -> None:
    """Positions of all kinds, from the date line to the poles; some photos have none."""
    random = np.random.default_rng(seed)
    lats = np.degrees(np.arcsin(random.uniform(-1, 1, len(ids))))
    lons = random.uniform(-180, 180, len(ids))
    near_date_line = random.random(len(ids)) < 0.3
    lats[near_date_line], lons[near_date_line] = 10.0, 179.5 + random.random(int(near_date_line.sum()))
    lons = (lons + 180) % 360 - 180
    provenances = list(Provenance)
    rows = [
        {
            "photo": photo,
            "lat": None if photo % 11 == 0 else lat,
            "lon": None if photo % 11 == 0 else lon,
            "provenance": None if photo % 11 == 0 else provenances[photo % len(provenances)].value,
        }
        for photo, lat, lon in zip(ids.tolist(), lats.tolist(), lons.tolist(), strict=True)
    ]
    entries = store.settings.db_schema + ".entries"
    with store.database.engine.begin() as connection:
        connection.execute(
            text(f"UPDATE {entries} SET lat = :lat, lon = :lon, provenance = :provenance WHERE photo_id = :photo"), rows
        )
        connection.execute(
            text(
                f"INSERT INTO {store.settings.db_schema}.changes (seq, photo_id, at) "
                f"SELECT nextval('{store.settings.db_schema}.change_seq'), :photo, now()"
            ),
            rows,
        )


def passing(store: PostgresStore, among: Filter) -> set[int]:
    """By Postgres' own operator and distance_m, one photo after the other."""
    schema = store.settings.db_schema
    query = f"SELECT photo_id, lat, lon, provenance FROM {schema}.entries WHERE NOT removed"
    where = {} if not among.where else {"where": json.dumps(among.where)}
    if where:
        query += " AND metadata @> CAST(:where AS jsonb)"
    with store.database.engine.connect() as connection:
        rows = connection.execute(text(query), where).all()
    near = among.near
    return {
        row.photo_id
        for row in rows
        if (near is None or (row.lat is not None and distance_m(near.lat, near.lon, row.lat, row.lon) <= near.radius_m))
        and (not among.trusted_only or (row.provenance is not None and Provenance(row.provenance).trusted))
    }


@dataclass
class Shelf:
    """Photos in Postgres and a live index over them."""

    store: PostgresStore
    folder: GenerationFolder
    live: FaissLiveIndex
    vectors: dict[int, Vectors]

    def check(self) -> None:
        """Every filter finds all that pass, and the nearest of them; where they are many, nearly so."""
        for name, asked in FILTERS.items():
            among = Filter(**asked)
            right = passing(self.store, among) & set(self.vectors)
            query = photos_of_places(1, seed=5, places=30)[0]
            everything = self.live.search(query, len(self.vectors), among=among).ids.tolist()
            assert set(everything) == right, name
            assert len(everything) == len(right), name
            nearest = sorted(right, key=lambda photo: -float(self.vectors[photo] @ query))[:10]
            found = self.live.search(query, 10, among=among)
            assert len(set(found.ids.tolist()) & set(nearest)) >= 0.8 * len(nearest), name


@pytest.fixture(params=["exact", "ivf", "hnsw"])
def shelf(
    request: pytest.FixtureRequest, store: PostgresStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shelf]:
    monkeypatch.setattr("worker.index.building.QUERIES", 50)
    vectors = photos_of_places(COUNT, seed=3, places=30)
    ids = np.arange(1_000_000, 1_000_000 + COUNT)
    assert fill(store, vectors, metadata=[told(photo) or {} for photo in ids.tolist()]).tolist() == ids.tolist()
    describe(store, ids, seed=1)
    folder = GenerationFolder(tmp_path / "index", build=Build(kind=request.param, gate=0.9))
    publish(store, folder)
    live = FaissLiveIndex(store.log, folder, model_key=KEY, dimension=DIM)
    live.settle()
    yield Shelf(store, folder, live, dict(zip(ids.tolist(), vectors, strict=True)))
    live.close()


def change_some(shelf: Shelf, seed: int) -> None:
    """Some photos come, some go, some are told otherwise, some are elsewhere."""
    random = np.random.default_rng(seed)
    ids = np.array(sorted(shelf.vectors))
    gone = random.choice(ids, 60, replace=False).tolist()
    shelf.store.entries.remove_many(gone)
    for photo in gone:
        del shelf.vectors[photo]
    left = np.array(sorted(shelf.vectors))
    moved = np.sort(random.choice(left, 200, replace=False))
    describe(shelf.store, moved, seed)
    retold = random.choice(left, 200, replace=False).tolist()
    with shelf.store.database.engine.begin() as connection:
        for photo in retold:
            connection.execute(
                update(tables.entries)
                .where(tables.entries.c.photo_id == photo)
                .values(metadata=told(photo + 1) or {"other": True})
            )
        shelf.store.log.append(connection, retold)
    new = photos_of_places(150, seed=seed, places=30)
    ids = fill(shelf.store, new, first_id=1_000_000 * (seed + 2), metadata=[told(n) or {} for n in range(150)])
    describe(shelf.store, ids, seed + 1)
    shelf.vectors |= dict(zip(ids.tolist(), new, strict=True))


@pytest.mark.parametrize("exact_up_to", [100, 20_000])
def test_every_filter_passes_whom_postgres_passes(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, exact_up_to: int
) -> None:
    monkeypatch.setattr(view_module, "EXACT_FILTER", exact_up_to)
    shelf.check()
    change_some(shelf, seed=1)
    shelf.live.catch_up()
    shelf.check()
    publish(shelf.store, shelf.folder)
    shelf.live.settle()
    shelf.check()
    change_some(shelf, seed=2)
    (_, first) = shelf.store.generations.kept()
    shelf.store.generations.roll_back(first.number)
    shelf.live.settle()
    shelf.live.settle()
    assert shelf.live.generation == first.number
    shelf.check()
    nothing_built = GenerationFolder(shelf.folder.path(0).parent / "none")
    from_postgres = FaissLiveIndex(shelf.store.log, nothing_built, model_key=KEY, dimension=DIM)
    Shelf(shelf.store, nothing_built, from_postgres, shelf.vectors).check()
    assert from_postgres.generation is None


def without_columns(folder: Path) -> None:
    """As an earlier release wrote it."""
    manifest = json.loads((folder / MANIFEST).read_text()) | {"format": 2}
    for name in (*FILES, "copies.npz"):
        (folder / name).unlink()
        del manifest["sha256"][name]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_generation_of_an_earlier_release_is_filtered_by_postgres(shelf: Shelf) -> None:
    number = shelf.live.generation
    assert number is not None
    without_columns(shelf.folder.path(number))
    as_of_an_earlier_release(shelf.store)
    earlier = FaissLiveIndex(shelf.store.log, shelf.folder, model_key=KEY, dimension=DIM)

    earlier.settle()
    assert earlier.generation == number
    Shelf(shelf.store, shelf.folder, earlier, shelf.vectors).check()
    change_some(shelf, seed=3)
    earlier.catch_up()
    Shelf(shelf.store, shelf.folder, earlier, shelf.vectors).check()

    publish(shelf.store, shelf.folder)
    earlier.settle()
    assert earlier.generation != number
    Shelf(shelf.store, shelf.folder, earlier, shelf.vectors).check()


# ----------------------------------------------------------------------------------------------- whole questions


@dataclass
class Asked:
    """Questions of a process that hears of nothing by itself, and a writer in another one."""

    library: Library
    live: FaissLiveIndex
    writer: PostgresStore
    folder: GenerationFolder
    vectors: Vectors

    def put(self, which: Sequence[int] | Ids | None = None, **told: Any) -> tuple[Ids, int]:
        """All photos, or some, told so; (their ids, the seq of the last)."""
        chosen = range(len(self.vectors)) if which is None else which
        new = [replace(entry(f"photo {i}", self.vectors[i]), **told) for i in chosen]
        written = self.writer.entries.put_many(new, KEY)
        return np.array([w.entry.photo_id for w in written]), max(w.seq for w in written)

    def found(self, *, top_k: int = 10, **asked: Any) -> list[int]:
        vector = self.vectors[0].tolist()
        reply = self.library.questions.search(Search(vector=vector, top_k=top_k, threshold=-1.0, **asked))
        return [hit.photo_id for hit in reply.hits]


@pytest.fixture
def ask(
    make_library: Callable[..., Library], make_store: Callable[..., PostgresStore], settings: Settings, tmp_path: Path
) -> Callable[..., Asked]:
    def make(vectors: Vectors, **parts: Any) -> Asked:
        reader, folder = make_store(), GenerationFolder(tmp_path / "index")
        live = FaissLiveIndex(reader.log, folder, model_key=KEY, dimension=DIM)
        library = make_library(
            settings=settings.model_copy(update={"max_staleness_s": 3600.0}),
            encoder=NoModel(DIM, model_key=KEY),
            store=reader,
            live=live,
            generations=folder,
            **parts,
        )
        return Asked(library, live, make_store(), folder, vectors)

    return make


HERE, ELSEWHERE = (55.0, 12.0, Provenance.SURVEYED), (56.0, 12.0, Provenance.SURVEYED)
NEAR_HERE = Near(*HERE[:2], 1_000.0)


def test_a_write_is_found_by_its_new_filter_at_once(ask: Callable[..., Asked]) -> None:
    asked = ask(photos_of_places(5, seed=1))
    assert asked.found(where={"walk": 1}) == []

    ids, seq = asked.put(metadata={"walk": 1}, given=HERE)
    assert set(asked.found(where={"walk": 1}, near=NEAR_HERE, min_seq=seq)) == set(ids.tolist())

    _, seq = asked.put(metadata={"walk": 2}, given=ELSEWHERE)
    assert asked.found(where={"walk": 1}, min_seq=seq) == []
    assert asked.found(near=NEAR_HERE, min_seq=seq) == []
    assert set(asked.found(where={"walk": 2}, min_seq=seq)) == set(ids.tolist())


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize("changed", [1, 100])
def test_a_photo_that_passes_no_more_is_shown_by_no_process(
    ask: Callable[..., Asked], rebuilt: bool, changed: int
) -> None:
    """One is passed over; where many are, the process hears of the changes first and finds those that still pass."""
    asked = ask(photos_of_places(150, seed=1))
    ids, _ = asked.put(metadata={"walk": 1}, given=HERE)
    if rebuilt:
        publish(asked.writer, asked.folder)
    asked.live.settle()
    everybody = asked.found(where={"walk": 1}, near=NEAR_HERE)
    order = np.argsort(-(asked.vectors @ asked.vectors[0]))
    nearest = ids[order]
    assert everybody == nearest[:10].tolist()

    for change in ({"metadata": {"walk": 2}}, {"given": ELSEWHERE}):
        asked.put(order[:changed], **{"metadata": {"walk": 1}, "given": HERE, **change})
        assert asked.found(where={"walk": 1}, near=NEAR_HERE) == nearest[changed : changed + 10].tolist()


def test_questions_and_the_index_agree_on_every_filter(shelf: Shelf, make_library: Callable[..., Library]) -> None:
    library = make_library(
        encoder=NoModel(DIM, model_key=KEY), store=shelf.store, live=shelf.live, generations=shelf.folder
    )
    query = photos_of_places(1, seed=6)[0]
    for name, asked in FILTERS.items():
        right = passing(shelf.store, Filter(**asked))
        hits = library.questions.search(Search(vector=query.tolist(), top_k=20, threshold=-1.0, **asked)).hits
        assert len(hits) == min(20, len(right)), name
        assert {hit.photo_id for hit in hits} <= right, name


def test_who_passes_is_asked_once_for_a_request_however_wide_it_looks(
    ask: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So similar that the rule would hear of a witness after hundreds of others.
    asked = ask(unit_rows(1 + 0.1 * np.random.default_rng(0).normal(size=(600, DIM))))
    ids, _ = asked.put(given=(*HERE[:2], Provenance.DERIVED))
    looks: list[int] = []
    made: list[bool] = []
    search, passing = FaissLiveIndex.search, View.passing

    def count_looks(live: FaissLiveIndex, query: Vector, k: int, **which: Any) -> Neighbours:
        looks.append(k)
        return search(live, query, k, **which)

    def count_made(view: View, among: Filter, ids_where: Callable[[Filter], Ids]) -> Passing:
        made.append(True)
        return passing(view, among, ids_where)

    monkeypatch.setattr(FaissLiveIndex, "search", count_looks)
    monkeypatch.setattr(View, "passing", count_made)

    asked.library.questions.locate(Locate(photo=Photo(photo_id=int(ids[0])), near=NEAR_HERE))

    assert len(looks) > 1
    assert len(made) == 1
    assert len(asked.live._passing) == 0, "and goes with the request"


def test_what_another_models_filling_learns_of_a_photo_the_serving_index_hears(
    store: PostgresStore, tmp_path: Path
) -> None:
    """Its file is read again for the other vector, and has a position now."""
    live = FaissLiveIndex(store.log, GenerationFolder(tmp_path / "index"), model_key=KEY, dimension=DIM)
    row = photos_of_places(1, seed=1)[0]
    plain = replace(entry("photo", row), given=None)
    (written,) = store.entries.put_many([plain], KEY)
    live.catch_up()
    assert live.search(row, 1, among=Filter(NEAR_HERE)).ids.tolist() == []

    store.entries.put_many([replace(plain, exif=HERE[:2])], "next@1", filling=True)
    live.catch_up()

    assert live.search(row, 1, among=Filter(NEAR_HERE)).ids.tolist() == [written.entry.photo_id]
