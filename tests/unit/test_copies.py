"""Groups of almost equal vectors, found in one pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.vectors import SAME_PIXELS, Vectors, unit_rows
from worker.index import copies as copies_module
from worker.index.copies import CROWD, LEAST, NONE, Copies, Seen
from worker.index.tuning import Truth, found_shares

DIM = 48


def strangers(count: int, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, DIM)))


def around(centre: Vectors, count: int, noise: float, seed: int = 1) -> Vectors:
    return unit_rows(centre + noise * np.random.default_rng(seed).normal(size=(count, DIM)))


def seen(vectors: Vectors, chunk: int = 100) -> Copies:
    passing = Seen(DIM)
    for start in range(0, len(vectors), chunk):
        passing.see(start, vectors[start : start + chunk])
    return passing.copies()


@pytest.mark.parametrize("chunk", [7, 100, 10_000])
def test_copies_of_a_vector_are_found_whatever_comes_between(chunk: int) -> None:
    one, other = strangers(2, seed=9)
    vectors = np.concatenate(
        [strangers(300), around(one, 200, 1e-7), strangers(300, 1), around(other, 50, 1e-7), around(one, 100, 1e-7, 2)]
    )
    order = np.random.default_rng(3).permutation(len(vectors))
    found = seen(vectors[order], chunk).of(one, SAME_PIXELS)

    same = np.flatnonzero(vectors[order] @ one >= SAME_PIXELS)
    assert set(found.tolist()) <= set(same.tolist())
    assert len(found) >= len(same) - CROWD
    assert found.tolist() == sorted(found.tolist())


def test_strangers_and_small_groups_are_no_copies() -> None:
    vectors = np.concatenate([strangers(2_000), *(around(row, LEAST - 1, 1e-7) for row in strangers(5, seed=4))])

    assert len(seen(vectors).positions) == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-7, 1e-5, 1e-4, 2e-3]), st.floats(3e-4, 8e-4))
def test_what_is_called_a_copy_is_one(seed: int, noise: float, away: float) -> None:
    """The distance from the group's centre and that of the query bound the cosine, whatever lies in the group."""
    vectors = around(strangers(1)[0], 300, noise, seed)
    groups = seen(vectors)

    for query in (*vectors[:5], *around(vectors[0], 20, away, seed + 1)):
        same = np.flatnonzero(vectors.astype(np.float64) @ query >= SAME_PIXELS)
        assert set(groups.of(query, SAME_PIXELS).tolist()) <= set(same.tolist())


def test_they_come_back_from_their_file(tmp_path: Path) -> None:
    one = strangers(1)[0]
    for groups in (seen(around(one, 100, 1e-7)), NONE):
        groups.write(tmp_path / "copies.npz")
        again = Copies.read(tmp_path / "copies.npz")

        assert again.of(one, SAME_PIXELS).tolist() == groups.of(one, SAME_PIXELS).tolist()


def test_crowds_without_end_take_bounded_memory_and_the_large_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies_module, "MOST_GROUPS", 3)
    small = [around(row, CROWD, 1e-7) for row in strangers(20, seed=5)]
    large = strangers(2, seed=6)
    vectors = np.concatenate([around(large[0], 40, 1e-7), *small[:10], around(large[1], 40, 1e-7), *small[10:]])
    passing = Seen(DIM)
    for start in range(0, len(vectors), 8):
        passing.see(start, vectors[start : start + 8])
        assert len(passing._groups) <= 3

    for picture in large:
        assert len(passing.copies().of(picture, SAME_PIXELS)) >= 40 - CROWD


def test_which_of_the_copies_is_found_does_not_matter_but_how_many_does() -> None:
    one, other = strangers(2, seed=9)
    vectors = np.concatenate([around(one, 40, 1e-7), strangers(10), around(other, 40, 1e-7)])
    truth = Truth(strangers(1, seed=8))
    truth.are_copies(seen(vectors), len(vectors))

    def share(found: list[int], true: list[int]) -> float:
        rows = [truth.alike(np.array([row + [-1] * (20 - len(row))])) for row in (found, true)]
        return float(found_shares(*rows)[1][0, 0])

    assert share([1, 2, 3, 44], [7, 9, 5, 44]) == 1.0
    assert share([1, 2, 44, 45], [7, 9, 5, 44]) == 0.75
    assert share([60, 61, 62, 44], [7, 9, 5, 44]) == 0.25
    assert share([44, 45], [44, 46]) == 0.5
    assert share([], [1, 2]) == 0.0


def test_without_copies_positions_are_compared_as_they_are() -> None:
    truth = Truth(strangers(1))
    truth.are_copies(NONE, 10)
    rows = np.array([[3, 4, -1]])

    assert truth.alike(rows).tolist() == rows.tolist()
