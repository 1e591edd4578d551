"""What `make bench-place` measures with: a library in this process that each policy is asked of."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks import again, place
from benchmarks.again import Again
from benchmarks.ladder import Placed, Policy, Question, Shelf, at_once, default_of, in_turns, policies
from benchmarks.lookalikes import Known, Size
from benchmarks.planted import planted
from benchmarks.sets import SETS, Library
from tests.conftest import Scene
from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.encoder import keypoints as finding
from worker.encoder.base import ModelEncoder, Preprocessing, Spec
from worker.library import comparing
from worker.place import geometry
from worker.settings import Settings

#: The first and the last of each generation.
COMPARED = [policy for policy in policies() if policy.name in ("guide", "+geometry", "+time") or not policy.changes]
TINY = Size(styles=1, addresses=2, storeys=1, unseen_storeys=0, known=4, asked=2, picture=(320, 240))


@pytest.fixture(scope="module")
def folder(photo_root: Path) -> Path:
    return photo_root / "lookalikes"


def test_figures_of_every_policy_are_finite_and_told_in_80_columns(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "PLANTINGS", (0,))
    result = place.of_drawn(settings, folder, TINY, timed=2, compared=COMPARED)

    assert list(result["policies"]) == [*(policy.name for policy in COMPARED), "default"]
    assert result["questions"] == {"seen": 4, "unseen": 12}
    assert result["policies"]["guide"]["answered_seen"] > 0
    for figures in result["policies"].values():
        assert set(place.SHOWN.values()) <= figures.keys()
        assert figures["locate_p50_ms"] > 0
        assert all(value is None or math.isfinite(value) for value in figures.values())
    json.dumps(result, allow_nan=False)
    for table in place.tables(result):
        shown = io.StringIO()
        Console(file=shown, width=200).print(table)
        assert max(map(len, shown.getvalue().splitlines())) <= 80


def test_another_library_is_asked_by_the_same_figures(settings: Settings, photo_root: Path) -> None:
    stretches = tuple(
        replace(stretch, known=min(stretch.known, 3), asked=2) for stretch in SETS["small"].stretches[-3:]
    )
    library = Library(stretches, right_m=25.0, picture=(320, 240))

    result = place.of_set(settings, photo_root / "set", library, timed=2, compared=COMPARED)

    assert list(result["policies"]) == [*(policy.name for policy in COMPARED), "default"]
    assert result["questions"] == {"seen": 2, "unseen": 4}
    assert (result["photos"], result["right_m"]) == (3, 25.0)
    assert result["by_kind"]["default"]["street"]["questions"] == 6
    for table in place.tables(json.loads(json.dumps(result, allow_nan=False))):
        shown = io.StringIO()
        Console(file=shown, width=200).print(table)
        assert max(map(len, shown.getvalue().splitlines())) <= 80


def test_a_set_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[Library, list[str]]] = []

    def of_set(_: Settings, folder: Path, library: Library, *, timed: int, compared: list[Policy]) -> dict[str, object]:
        asked.append((library, [policy.name for policy in compared]))
        return {"policies": {}, "questions": {"seen": 0, "unseen": 0}, "geometry_adds_ms": {}, "by_kind": {}}

    monkeypatch.setattr(place, "of_set", of_set)
    place.main(["--set", "corridor"])

    assert asked == [(SETS["corridor"], ["guide", "today", default_of(policies()).name])]
    assert json.loads(capsys.readouterr().out)["set"] == "corridor"


def test_a_policy_answers_by_its_own_settings(settings: Settings, scenes: list[Scene]) -> None:
    street = [scene for scene in scenes if scene.place == scenes[0].place]
    compared = [Policy("guide", guide=True), Policy("one", {"locate_min_witnesses": 1}), Policy("many", MANY)]
    asked = [Question(1, street[0].path, street[0].lat, street[0].lon, 0, seen=True)]

    with closing(Shelf(settings)) as shelf:
        shelf.add(Placed(scene.path, scene.lat, scene.lon) for scene in street[1:])
        generation = shelf.rebuild()
        with shelf.asked_by(compared, generation, street[1].path) as runtimes:
            replies = in_turns(runtimes, compared, asked)
            again = at_once(runtimes, compared, asked)

    located = {name: reply.answer.located for name, (reply,) in replies.items()}
    assert located == {"guide": True, "one": True, "many": False}
    assert located == {name: reply.answer.located for name, (reply,) in again.items()}
    (guided,) = replies["guide"]
    assert guided.examined.right(100)
    assert guided.error_m == guided.examined.error_m


def test_what_is_planted_is_counted_in_libraries_of_their_own(
    settings: Settings, scenes: list[Scene], photo_root: Path
) -> None:
    twice = photo_root / "twice.jpg"
    shutil.copy(scenes[0].path, twice)
    known = [Known(scene.path, scene.place, scene.lat, scene.lon) for scene in scenes[:10]]

    with closing(Shelf(settings)) as shelf:
        shelf.add(Placed(photo.path, photo.lat, photo.lon) for photo in known)
        # What the service finds without a look at neighbours: one content with two positions.
        found = planted(shelf, [*known, replace(known[0], path=twice, lat=known[0].lat + 1)], seeds=[0, 1])

        assert shelf.suspected() == set()
    assert sum(of for _, of in found["planted"].values()) == 2
    assert 0 <= found["planted_found"] <= 1
    # Two of the ten good photos of each planting, or one where the other was planted itself; and who else is doubted.
    assert 0.1 <= found["good_suspended"] <= 1


def test_what_is_found_again_is_what_was_found_before_and_costs_nothing(
    scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [Image.open(scene.path).convert("RGB") for scene in scenes[:3]]
    one, other, third = (finding.keypoints(picture) for picture in pictures)
    seen = {(a, b): geometry.seen_in_both(a, b).here.tolist() for a, b in ((one, other), (other, one), (one, third))}
    worked: list[str] = []
    before = vars(comparing)["seen_in_both"]
    for room, name in ((finding, "keypoints"), (again, "seen_in_both")):
        monkeypatch.setattr(room, name, _noted(worked, name, getattr(room, name)))

    known = Again()
    for _ in range(2):
        with known.kept():
            assert [finding.keypoints(picture).to_bytes() for picture in pictures[:2]] == [
                one.to_bytes(),
                other.to_bytes(),
            ]
            for (a, b), here in seen.items():
                assert vars(comparing)["seen_in_both"](a, b).here.tolist() == here

    assert worked == ["keypoints"] * 2 + ["seen_in_both"] * 3
    assert vars(comparing)["seen_in_both"] is before


def test_a_picture_of_which_the_vector_was_found_goes_through_no_model_again() -> None:
    passes: list[int] = []

    def run(squares: Pixels) -> Vectors:
        passes.append(len(squares))
        return squares.reshape(len(squares), -1)[:, :4].astype(np.float32) + 1.0

    def encoder(spec: Spec = SPEC) -> ModelEncoder:
        return ModelEncoder(spec, Noted(run), device="cpu", batch=8)

    squares = list(np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8))
    asked = encoder().encode_images  # held from before, as a process of the service holds it
    truth = asked(squares)
    passes.clear()

    known = Again()
    with known.kept():
        assert np.array_equal(asked(squares[:2]), truth[:2])
        assert np.array_equal(encoder().encode_images([*squares[1:], squares[0]]), truth[[1, 2, 0]])
        assert passes == [2, 1]
        encoder(replace(SPEC, model_key="another")).encode_images(squares)
    assert passes == [2, 1, 3]
    assert np.array_equal(asked(squares), truth)
    assert passes == [2, 1, 3, 3]


@dataclass
class Noted:
    """A backend of the model."""

    run: Callable[[Pixels], Vectors]
    backend: str = "by hand"

    def __call__(self, squares: Pixels) -> Vectors:
        return self.run(squares)


def _noted(worked: list[str], name: str, find: Callable[..., Any]) -> Callable[..., Any]:
    def found(*values: Any) -> Any:
        worked.append(name)
        return find(*values)

    return found


SPEC = Spec("by hand", "by-hand@1", 4, Preprocessing(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), has_text=False)
#: More witnesses than there are photos.
MANY = {"locate_min_witnesses": 8, "rungs": ()}
