"""The benchmark of filtered searches asks what it says, and "before" finds what is found now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import search
from benchmarks.measure import VectorFile
from benchmarks.service import fill, service
from worker.core.vectors import unit_rows
from worker.settings import Settings
from worker.storage.store import PostgresStore

SIZE = 2_000
#: Share of the photos that each filter passes.
SHARES = {
    "near_0_01": 0.0001,
    "near_1": 0.01,
    "near_30": 0.3,
    "near_100": 1.0,
    "where_one": 1 / SIZE,
    "where_0_1": 0.001,
    "where_50": 0.5,
    "where_100": 1.0,
    "both": 0.15,
}


def test_each_filter_passes_its_share_before_and_now(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = unit_rows(np.random.default_rng(0).normal(size=(SIZE, 16)))
    monkeypatch.setattr(search, "DIMENSION", 16)
    # Photos at random points contradict one another, and nobody asks about them here.
    settings = settings.model_copy(update={"rungs": ()})
    fill(settings, VectorFile.write(tmp_path / "vectors.f32", [vectors.astype(np.float32)]), search.METADATA)
    store = PostgresStore(settings)
    with service(settings, 16) as own:
        own.library.rebuilding.rebuild()
        own.live.settle()

        asked = search._asked(store)

        assert asked.keys() == SHARES.keys()
        for name, share in SHARES.items():
            among = asked[name]()
            found = own.live.search(vectors[0], SIZE, among=among).ids.tolist()
            assert sorted(found) == sorted(search._ids_as_objects(store, among).tolist()), name
            assert len(found) == pytest.approx(SIZE * share, rel=0.2, abs=2), name
            search._search(own, vectors[1], among)
            search._search_by_ids(own, store, vectors[1], among)
    store.close()
