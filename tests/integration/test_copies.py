"""Many files of one picture: a search for it finds what else there is, in one look at the index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measure import VectorFile, Vectors
from benchmarks.service import MODEL_KEY, Service, fill, service, sql
from producer_client import contract
from producer_client.contract import Near, Photo
from worker.core.vectors import SAME_PIXELS, unit_rows
from worker.index import view as view_module
from worker.index.generation import COPIES as FILE
from worker.index.generation import MANIFEST
from worker.settings import Settings

DIM = 32
COPIES = 600
OTHERS = 1_000
CENTRE = unit_rows(np.random.default_rng(5).normal(size=(1, DIM)))[0]
K = 10


def of_one_picture(count: int, noise: float, seed: int = 1) -> Vectors:
    return unit_rows(CENTRE + noise * np.random.default_rng(seed).normal(size=(count, DIM)))


def rows() -> Vectors:
    """Photo ids 1 to COPIES are of one picture, the others are not; the first ten of these are hardly others."""
    others = unit_rows(np.random.default_rng(2).normal(size=(OTHERS, DIM)))
    return np.concatenate([of_one_picture(COPIES, 1e-6), of_one_picture(10, 2e-3, 3), others])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without a look for what a thousand photos at random points say of each other."""
    return settings.model_copy(update={"rungs": ()})


@pytest.fixture(params=["exact", "ivf", "hnsw"])
def shelf(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Service]:
    chosen = settings.model_copy(update={"index_kind": request.param, "index_recall": 0.0})
    fill(chosen, VectorFile.write(tmp_path / "rows.f32", [rows()]))
    with service(chosen, DIM) as own:
        own.library.rebuilding.rebuild()
        own.live.settle()
        assert own.live.kind == request.param
        yield own


def by_photo(photo_id: int, **how: Any) -> contract.Search:
    return contract.Search(photo=Photo(photo_id=photo_id), top_k=K, threshold=-1.0, **how)


def hits_of(own: Service, request: contract.Search) -> list[tuple[int, float]]:
    return [(hit.photo_id, hit.similarity) for hit in own.library.questions.search(request).hits]


def right_hits(own: Service, settings: Settings, photo_id: int, among: range | None = None) -> list[tuple[int, float]]:
    """What stored vectors say: all photos that are there, without copies, best first."""
    with sql(settings.database_url) as cursor:
        cursor.execute(f"SELECT photo_id FROM {settings.db_schema}.entries WHERE NOT removed")
        ids = [found for (found,) in cursor.fetchall()]
    stored = own.library.questions._entries.known(ids, MODEL_KEY)
    query = stored[photo_id][1]
    cosines = {other: float(vector @ query) for other, (_, vector) in stored.items()}
    others = [i for i, cosine in cosines.items() if cosine < SAME_PIXELS and (among is None or i in among)]
    best = sorted(others, key=lambda i: (-cosines[i], i))[:K]
    return [(i, round(cosines[i], 6)) for i in best]


@contextmanager
def counted(own: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many photos each look asked the index for."""
    asked: list[int] = []
    search = own.live.search

    def count(query: Any, k: int, **how: Any) -> Any:
        asked.append(k)
        return search(query, k, **how)

    with monkeypatch.context() as patched:
        patched.setattr(own.live, "search", count)
        yield asked


def test_hundreds_of_copies_are_passed_over_in_one_look(
    shelf: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(shelf, monkeypatch) as looks:
        hits = hits_of(shelf, by_photo(1))

    assert hits == right_hits(shelf, settings, 1)
    assert len(looks) == 1


def test_copies_that_came_since_the_rebuild_are_passed_over_in_one_look(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, VectorFile.write(tmp_path / "rows.f32", [rows()]))
    with service(settings, DIM) as own:
        own.live.settle()
        assert own.live.generation is None
        with counted(own, monkeypatch) as looks:
            hits = hits_of(own, by_photo(1))
        assert hits == right_hits(own, settings, 1)
        assert len(looks) == 1


def test_copies_in_a_generation_of_an_earlier_release_are_passed_over_in_few_looks(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, VectorFile.write(tmp_path / "rows.f32", [rows()]))
    with service(settings, DIM) as own:
        built = own.library.rebuilding.rebuild()
        assert built.generation is not None
        folder = own.folder.path(built.generation)
        (folder / FILE).unlink()
        manifest = json.loads((folder / MANIFEST).read_text())
        del manifest["sha256"][FILE]
        (folder / MANIFEST).write_text(json.dumps(manifest | {"format": 2}))
    with sql(settings.database_url) as cursor:
        cursor.execute(f"UPDATE {settings.db_schema}.generations SET manifest_sha256 = NULL")
    with service(settings, DIM) as own:
        own.live.settle()
        assert own.live.generation == built.generation
        with counted(own, monkeypatch) as looks:
            hits = hits_of(own, by_photo(1))
        assert hits == right_hits(own, settings, 1)
        assert len(looks) <= 5, looks


def test_a_photo_that_is_located_passes_over_its_copies(shelf: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(shelf, monkeypatch) as looks:
        answer = shelf.library.questions.locate(contract.Locate(photo=Photo(photo_id=2))).answer

    assert not {witness.photo_id for witness in answer.evidence} & set(range(1, COPIES + 1))
    # Each widening asks once.
    assert looks == sorted(set(looks)), looks


def test_copies_that_become_other_pictures_are_found_again(shelf: Service, settings: Settings) -> None:
    with sql(settings.database_url) as cursor:
        cursor.execute(f"SET search_path = {settings.db_schema}")
        cursor.execute(
            """UPDATE entries SET content_sha256 = (SELECT content_sha256 FROM entries WHERE photo_id = %s)
            WHERE photo_id = 77""",
            (COPIES + 1,),
        )
        cursor.execute("UPDATE entries SET removed = true WHERE photo_id = %s", (COPIES + 2,))
        for photo_id in (77, COPIES + 2):
            cursor.execute("INSERT INTO changes (seq, photo_id) VALUES (nextval('change_seq'), %s)", (photo_id,))
    shelf.live.catch_up()

    hits = hits_of(shelf, by_photo(1))

    assert hits == right_hits(shelf, settings, 1)
    assert 77 in dict(hits)
    assert COPIES + 2 not in dict(hits)


def test_a_filter_that_lets_hardly_more_than_copies_pass_finds_the_others(shelf: Service, settings: Settings) -> None:
    with sql(settings.database_url) as cursor:
        cursor.execute(f"SET search_path = {settings.db_schema}")
        cursor.execute("UPDATE entries SET lat = 2, lon = 2")
        cursor.execute("UPDATE entries SET lat = 1, lon = 1 WHERE photo_id <= %s OR photo_id IN (620, 700)", (COPIES,))
        cursor.execute("INSERT INTO changes (seq, photo_id) SELECT nextval('change_seq'), photo_id FROM entries")
    shelf.live.catch_up()

    hits = hits_of(shelf, by_photo(1, near=Near(1.0, 1.0, 100.0)))

    assert {found for found, _ in hits} == {620, 700}


def test_a_filter_that_lets_many_pass_finds_what_lies_behind_the_copies(
    shelf: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "EXACT_FILTER", 0)
    with sql(settings.database_url) as cursor:
        cursor.execute(f"SET search_path = {settings.db_schema}, public")
        cursor.execute(f"UPDATE {settings.photos_table} SET lat = 1, lon = 1")
    shelf.library.rebuilding.rebuild()
    shelf.live.settle()

    hits = hits_of(shelf, by_photo(1, near=Near(1.0, 1.0, 100.0)))

    assert hits == right_hits(shelf, settings, 1)


def test_a_library_of_copies_alone_has_no_hits(settings: Settings, tmp_path: Path) -> None:
    fill(settings, VectorFile.write(tmp_path / "rows.f32", [of_one_picture(400, 1e-6)]))
    with service(settings, DIM) as own:
        assert hits_of(own, by_photo(1)) == [], "without a generation"
        own.library.rebuilding.rebuild()
        own.live.settle()

        assert [hits_of(own, by_photo(photo_id)) for photo_id in (1, 2)] == [[], []]


def test_an_id_that_is_excluded_twice_is_left_out_once(shelf: Service) -> None:
    everything = np.arange(1, COPIES + 10 + OTHERS + 1)
    for left in (0, 1, 5):
        twice = np.concatenate([everything[left:], everything[left:]])
        found = shelf.live.search(CENTRE, K, exclude=twice)
        assert set(found.ids.tolist()) == set(everything[:left].tolist())


def test_a_library_that_is_half_copies_passes_the_gate(settings: Settings, tmp_path: Path) -> None:
    """Which ten of a thousand equal ones are found says nothing of an index."""
    rng = np.random.default_rng(2)
    # Like photos, which lie in clouds. Among as few that lie anywhere lists miss the gate in one build of seven.
    clouds = rng.normal(size=(50, DIM)).repeat(40, axis=0)
    others = unit_rows(clouds + 0.5 * rng.normal(size=clouds.shape))
    fill(settings, VectorFile.write(tmp_path / "rows.f32", [of_one_picture(2_000, 1e-7), others]))
    with service(settings.model_copy(update={"index_kind": "ivf"}), DIM) as own:
        own.library.rebuilding.rebuild()
        own.library.rebuilding.rebuild()  # is compared with the one before, too
        own.live.settle()
        assert own.live.generation == 2
        assert own.live.recall_at_10 is not None
        assert own.live.recall_at_10 >= settings.index_recall
