"""Matches of two pictures: those that OpenCV's brute force finds with the same test of ratios, both ways."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from demo.scenes import render, viewpoints
from worker.core.keypoints import COMPONENTS, LEVELS, Keypoints
from worker.encoder.keypoints import keypoints
from worker.place.matching import matches, weighed_here, weighed_there

Pairs = set[tuple[int, int]]


def described(descriptions: NDArray[np.uint8]) -> Keypoints:
    return Keypoints(np.zeros((len(descriptions), 2), np.uint16), descriptions.astype(np.uint8), (640, 480))


def like_roots(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Descriptions of the lengths that RootSIFT's have, of nothing."""
    roots = np.random.default_rng(seed).gamma(0.5, size=(count, COMPONENTS)) ** 0.5
    scaled = roots / np.linalg.norm(roots, axis=1, keepdims=True) * 84
    levels: NDArray[np.uint8] = np.minimum(np.rint(scaled), LEVELS - 1).astype(np.uint8)
    return levels


def pairs(one: Keypoints, other: Keypoints) -> Pairs:
    here, there = matches(one, other)
    return set(zip(here.tolist(), there.tolist(), strict=True))


def clear(one: NDArray[np.float32], other: NDArray[np.float32]) -> Pairs:
    """What is much nearer than the second nearest, one way, by OpenCV."""
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(one, other, 2)
    return {(best.queryIdx, best.trainIdx) for best, second in found if best.distance < 0.8 * second.distance}


def by_opencv(one: Keypoints, other: Keypoints) -> Pairs:
    here, there = one.descriptions.astype(np.float32), other.descriptions.astype(np.float32)
    return clear(here, there) & {(ours, theirs) for theirs, ours in clear(there, here)}


def by_definition(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Pairs:
    """In numbers without bounds; the second nearest of one alone is infinitely far, and nothing is compared with it."""
    if len(one) < 2 or len(other) < 2:
        return set()
    squares = ((one[:, None].astype(int) - other[None].astype(int)) ** 2).sum(axis=2)
    found = set()
    for ours in range(len(one)):
        for theirs in range(len(other)):
            square = squares[ours, theirs]
            seconds = [*np.delete(squares[ours], theirs), *np.delete(squares[:, theirs], ours)]
            if 25 * square < 16 * min(seconds):
                found.add((ours, theirs))
    return found


@pytest.fixture(scope="module")
def drawn() -> list[Keypoints]:
    """Two views of each of two places."""
    return [keypoints(render(viewpoint, size=(640, 480))) for viewpoint in viewpoints(places=2, views=2)]


def test_the_pairs_are_those_of_opencvs_brute_force_both_ways(drawn: list[Keypoints]) -> None:
    for one, other in combinations_with_replacement(drawn, 2):
        assert pairs(one, other) == by_opencv(one, other)

    assert len(pairs(drawn[0], drawn[1])) > 5 * len(pairs(drawn[0], drawn[2]))


@pytest.mark.real_photos
def test_on_real_photos_too_but_for_a_pair_on_the_bound_itself(real_photos: Path) -> None:
    found = [keypoints(Image.open(path)) for path in sorted((real_photos / "lund").glob("*.jpg"))[:5]]
    ours = [pairs(one, other) for one, other in pairwise(found)]
    brute = [by_opencv(one, other) for one, other in pairwise(found)]

    assert sum(map(len, brute)) > 300
    assert sum(len(mine ^ its) for mine, its in zip(ours, brute, strict=True)) <= 1


descriptions = arrays.arrays(np.uint8, st.tuples(st.integers(0, 6), st.just(COMPONENTS)), elements=st.integers(0, 2))


@given(descriptions, descriptions)
def test_what_is_equal_or_equally_near_is_judged_as_by_definition(
    one: NDArray[np.uint8], other: NDArray[np.uint8]
) -> None:
    assert pairs(described(one), described(other)) == by_definition(one, other)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(2, 40))
def test_so_are_noisy_copies_of_each_other(seed: int, count: int, others: int) -> None:
    one = like_roots(count, seed)
    noise = np.random.default_rng(seed).integers(-2, 3, (count, COMPONENTS))
    other = np.vstack([(one + noise).clip(0, LEVELS - 1), like_roots(others, seed + 1)])

    assert pairs(described(one), described(other)) == by_definition(one, other)


@pytest.mark.parametrize(("here", "there"), [(0, 0), (0, 5), (5, 0), (1, 1), (1, 5), (5, 1)])
def test_fewer_than_two_keypoints_have_no_second_nearest_and_match_nothing(here: int, there: int) -> None:
    one, other = matches(described(like_roots(here)), described(like_roots(there)))

    assert one.tolist() == other.tolist() == []


def test_two_keypoints_each_are_enough() -> None:
    both = described(like_roots(2))

    assert pairs(both, both) == {(0, 0), (1, 1)}


def test_a_picture_matches_itself_but_for_what_it_shows_twice() -> None:
    unlike = like_roots(50)
    twice = described(np.vstack([unlike, unlike[:5]]))

    assert pairs(twice, twice) == {(n, n) for n in range(5, 50)}


def test_two_that_are_equally_near_to_one_match_it_neither() -> None:
    one = like_roots(10)
    twin = np.vstack([one, one[3]])

    assert pairs(described(twin), described(one)) == {(n, n) for n in range(10) if n != 3}
    assert pairs(described(one), described(twin)) == {(n, n) for n in range(10) if n != 3}


def test_descriptions_of_nothing_match_nothing() -> None:
    nothing = np.zeros((20, COMPONENTS), np.uint8)

    assert pairs(described(nothing), described(nothing)) == set()
    assert pairs(described(nothing), described(like_roots(20))) == set()
    assert pairs(
        described(np.vstack([nothing[:1], like_roots(20)])), described(np.vstack([nothing[:1], like_roots(20)]))
    ) == {(n, n) for n in range(21)}


def test_thousands_of_keypoints_match_as_few_do() -> None:
    one, other = like_roots(4_000), like_roots(3_000, seed=1)
    other[1_000:2_000] = one[3_000:4_000]

    assert pairs(described(one), described(other)) == {(n + 2_000, n) for n in range(1_000, 2_000)}


def test_no_sum_of_two_products_leaves_sixteen_bits() -> None:
    """What a CPU without VNNI adds up in 16 bits and cuts off (`vpmaddubsw`), whichever two it takes together."""
    longest = np.full((1, COMPONENTS), LEVELS - 1, np.uint8)
    for one in (longest, like_roots(200), np.zeros_like(longest)):
        for other in (longest, like_roots(200, seed=1), np.zeros_like(longest)):
            here, there = weighed_here(one).astype(int), weighed_there(other).astype(int)
            products = np.sort(here[:, :, None] * there[None], axis=1)

            assert products[:, :2].sum(axis=1).min() >= -(2**15)
            assert products[:, -2:].sum(axis=1).max() < 2**15


def test_threads_that_ask_at_a_time_get_what_one_gets(drawn: list[Keypoints]) -> None:
    alone = [pairs(drawn[0], other) for other in drawn]

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda n: pairs(drawn[0], drawn[n % 4]), range(32)))

    assert together == alone * 8
