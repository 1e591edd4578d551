"""Postgres is away: a search that may be stale is answered by what the process has read, every other one is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from producer_client import NewPhoto, Photo, Provenance, Stored, contract
from producer_client.contract import Code, Near
from tests.between import Between
from tests.conftest import Scene
from worker.errors import PhotoRefusal, Transient
from worker.library import Library
from worker.library.alone import SPARE, Alone
from worker.settings import Settings
from worker.storage.store import PostgresStore


@pytest.fixture
def away(between: Between) -> Callable[[], None]:
    return between.refuse


def of(scene: Scene) -> Photo:
    return Photo(path=str(scene.path))


def search(library: Library, photo: Photo, **more: Any) -> contract.SearchReply:
    return library.questions.search(contract.Search(photo=photo, threshold=-1.0, allow_stale=True, **more))


@pytest.fixture
def known(
    make_store: Callable[..., PostgresStore],
    make_library: Callable[..., Library],
    far: Settings,
    between: Between,
    scenes: list[Scene],
) -> tuple[Library, list[int], list[int]]:
    """A library that has a generation of four photos and one in the delta, with the ids of those that are there, and of
    two that it knows are removed: one from the log, one that it has removed and not read in the log yet."""
    make_store()
    library = make_library(settings=far, store=make_store(database_url=far.database_url))

    def add(some: list[Scene]) -> list[int]:
        new = [NewPhoto(str(s.path), of(s), s.lat, s.lon, Provenance.SURVEYED, metadata={"n": 1}) for s in some]
        return [o.photo_id for o in library.photos.add_many(new).outcomes if isinstance(o, Stored)]

    ids = add(scenes[:5])
    library.rebuilding.rebuild()
    ids += add(scenes[5:7])
    library.photos.remove_many([ids[1]])
    library.questions._live.settle()
    library.photos.remove_many([ids[6]])
    return library, [ids[i] for i in (0, 2, 3, 4, 5)], [ids[1], ids[6]]


def test_a_search_that_may_be_stale_finds_what_the_process_knows_and_says_how_old_that_is(
    known: tuple[Library, list[int], list[int]], away: Callable[[], None], between: Between, scenes: Any
) -> None:
    library, there, removed = known
    before = search(library, of(scenes[0]))

    away()
    first = search(library, of(scenes[0]), top_k=50)
    unseen = search(library, of(scenes[10]), top_k=50, min_seq=10_000)
    with pytest.raises(Transient) as refused:
        library.questions.search(contract.Search(photo=of(scenes[0])))
    between.listen()
    after = search(library, of(scenes[0]))

    assert before.stale_s is None is after.stale_s
    assert "stale_s" not in after.to_wire()
    assert first.stale_s is not None
    assert unseen.stale_s is not None
    assert 0 <= first.stale_s <= unseen.stale_s < 60
    assert sorted(hit.photo_id for hit in unseen.hits) == there
    assert not {hit.photo_id for hit in [*first.hits, *unseen.hits]} & set(removed)
    assert [hit.photo_id for hit in first.hits[:3]] == [hit.photo_id for hit in before.hits[:3]]
    assert there[0] not in {hit.photo_id for hit in first.hits}, "a photo does not look like itself"
    hit, known_hit = first.hits[0], before.hits[0]
    assert (hit.lat, hit.lon) == (known_hit.lat, known_hit.lon)
    assert math.isclose(hit.similarity, known_hit.similarity, abs_tol=0.01)
    assert (hit.path, hit.provenance) == (None, None)
    assert (refused.value.code, unseen.generation) == (Code.UNAVAILABLE, after.generation)


def test_filters_and_vectors_need_no_postgres_where_the_process_has_their_columns(
    known: tuple[Library, list[int], list[int]], away: Callable[[], None], scenes: list[Scene]
) -> None:
    library, there, _ = known
    vector = library.embedding.batcher.recent([library_content(library, scenes[2])]).popitem()[1].tolist()
    near = Near(scenes[5].lat, scenes[5].lon, 1.0)

    away()
    by_vector = library.questions.search(contract.Search(vector=vector, threshold=0.99, allow_stale=True))
    at_place = search(library, of(scenes[10]), top_k=50, near=near)
    nothing = search(library, of(scenes[10]), near=Near(-80.0, 0.0, 1.0))

    assert there[1] in {hit.photo_id for hit in by_vector.hits}
    assert {(hit.lat, hit.lon) for hit in at_place.hits} == {(scenes[5].lat, scenes[5].lon)}
    assert nothing.hits == []


def library_content(library: Library, scene: Scene) -> str:
    import hashlib

    return hashlib.sha256(scene.path.read_bytes()).hexdigest()


def test_what_postgres_alone_knows_is_to_be_asked_again(
    known: tuple[Library, list[int], list[int]], away: Callable[[], None], scenes: list[Scene]
) -> None:
    """Evidence, photos by their ids, and metadata that few photos have."""
    library, there, _ = known
    photo = of(scenes[10])
    asked: list[Callable[[], Any]] = [
        lambda: library.questions.locate(contract.Locate(photo=photo)),
        lambda: search(library, photo, trusted_only=True),
        lambda: search(library, Photo(photo_id=there[0])),
        lambda: search(library, photo, where={"n": 1}),
    ]

    away()

    for ask in asked:
        with pytest.raises(Transient) as refused:
            ask()
        assert refused.value.code == Code.UNAVAILABLE


def test_a_process_that_has_read_nothing_yet_has_nothing_to_say(
    make_store: Callable[..., PostgresStore],
    make_library: Callable[..., Library],
    far: Settings,
    away: Callable[[], None],
    scenes: list[Scene],
) -> None:
    make_store()
    library = make_library(settings=far, store=make_store(database_url=far.database_url))

    away()

    with pytest.raises(Transient):
        search(library, of(scenes[0]))


def test_a_photo_that_is_none_is_refused_as_ever(
    known: tuple[Library, list[int], list[int]], away: Callable[[], None], photo_root: Any
) -> None:
    text = photo_root / "no-photo.jpg"
    text.write_text("hello")

    away()

    for path, code in ((text, Code.NOT_AN_IMAGE), (photo_root / "none.jpg", Code.NOT_FOUND)):
        with pytest.raises(PhotoRefusal) as refused:
            search(known[0], Photo(path=str(path)))
        assert refused.value.code == code


class Known:
    """An index of a process, without one: photos 0 to 29 with similarities from 0.99 down, and no place."""

    age_s = 7.0
    unread = frozenset({3})

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def search(self, query: Any, k: int, **asked: Any) -> Any:
        self.asked = {"k": k, **asked}
        return SimpleNamespace(ids=np.arange(30), similarities=0.99 - np.arange(30) / 100, generation=4, seq=9)

    def places_of(self, ids: Any) -> Any:
        return np.full((2, len(ids)), math.nan)


def asked_alone(live: Any, **more: Any) -> contract.SearchReply | None:
    nothing: Any = None
    encoder: Any = SimpleNamespace(dimension=2, model_key="a model")
    alone = Alone(encoder=encoder, decode=nothing, source=nothing, batcher=nothing, live=live)
    return alone.search(contract.Search(vector=[1.0, 0.0], allow_stale=True, **more), 0.0)


def test_an_index_of_which_nobody_knows_how_old_it_is_answers_nothing() -> None:
    live = Known()
    live.age_s = math.inf

    assert asked_alone(live) is None
    assert not live.asked


def test_as_many_are_shown_as_were_asked_for_that_are_similar_enough_and_without_a_place_that_is_none() -> None:
    live = Known()

    reply, few = asked_alone(live, top_k=5, threshold=-1.0), asked_alone(live, top_k=5, threshold=0.975)

    assert reply is not None
    assert few is not None
    assert [hit.photo_id for hit in reply.hits] == [0, 1, 2, 3, 4]
    assert {(hit.lat, hit.lon) for hit in reply.hits} == {(None, None)}
    assert [hit.photo_id for hit in few.hits] == [0, 1]
    assert live.asked == {"k": 5 + SPARE, "among": None, "exclude": live.unread, "drop_copies": False}
    assert reply.stale_s == 7.0
