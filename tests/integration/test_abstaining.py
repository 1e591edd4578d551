"""Every reason for no answer, reached by real files in a real Postgres, and what is said of it in both languages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image

from producer_client.contract import Locate, LocateReply, Near, NewPhoto, Photo, Provenance, Reason
from tests.conftest import Scene
from tests.integration.test_locating import FAR_DEG, add, new, places
from worker.core.geo import distance_m
from worker.library import Library
from worker.settings import Settings
from worker.words import in_language

#: Asked without keypoints: what the votes say.
VOTES: dict[str, Any] = {"rungs": ()}
#: Drawn photos of one place are as similar at the least.
LEAST = 0.5


@dataclass(frozen=True)
class Setting:
    """A library in which a photo is asked about. query: of the place of `here`. root: a folder that may be read."""

    library: Library
    with_settings: Callable[..., Library]
    query: Scene
    here: list[Scene]
    there: list[Scene]
    root: Path

    def ask(self, path: Path | None = None, *, by: dict[str, Any] | None = None, **options: Any) -> LocateReply:
        """by: settings of the process that is asked, where they are others."""
        library = self.library if by is None else self.with_settings(**by)
        return library.questions.locate(Locate(photo=Photo(path=str(path or self.query.path)), **options))

    def add(self, *items: NewPhoto) -> None:
        add(self.library, items)


@pytest.fixture
def setting(
    make_library: Callable[..., Library], settings: Settings, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> Setting:
    root = photo_root / f"abstaining {tmp_path.name}"
    root.mkdir()

    def with_settings(**changed: Any) -> Library:
        return make_library(settings=settings.model_copy(update=changed))

    return Setting(make_library(), with_settings, *places(scenes), root)


def empty(of: Setting) -> LocateReply:
    return of.ask()


def nothing_similar(of: Setting) -> LocateReply:
    of.add(*map(new, of.there))
    return of.ask(threshold=1.0)


def derived(of: Setting) -> LocateReply:
    of.add(*(new(scene, Provenance.DERIVED) for scene in of.here))
    return of.ask()


def at_a_default_point(of: Setting) -> LocateReply:
    of.add(*(replace(new(scene), lat=0.0, lon=0.0) for scene in of.here))
    return of.ask()


def contradicted(of: Setting) -> LocateReply:
    """Both uploads of one file are suspended."""
    copy = of.root / "copy.jpg"
    copy.write_bytes(of.here[0].path.read_bytes())
    of.add(new(of.here[0]), replace(new(of.here[0], off=FAR_DEG), ref="copy", photo=Photo(path=str(copy))))
    assert of.library.suspecting.look(lambda *_: None) == 2
    return of.ask(threshold=LEAST)


def one_witness(of: Setting) -> LocateReply:
    of.add(new(of.here[0]))
    return of.ask(by=VOTES, threshold=LEAST)


def two_places(of: Setting) -> LocateReply:
    of.add(*(new(scene, off=FAR_DEG * (n % 2)) for n, scene in enumerate(of.here)))
    return of.ask(by=VOTES | {"locate_similarity_window": 0.5}, threshold=LEAST)


def torn_copies(of: Setting) -> LocateReply:
    """Saved again with another position: nobody knows which is right, and neither is heard."""
    again = of.root / "again.jpg"
    Image.open(of.here[0].path).save(again, quality=80)
    of.add(new(of.here[0]), replace(new(of.here[0], off=FAR_DEG), ref="again", photo=Photo(path=str(again))))
    return of.ask(by=VOTES, threshold=LEAST)


def look_alikes(of: Setting) -> LocateReply:
    """Half of the place's photos say that they lie elsewhere: keypoints know both as well."""
    of.add(*(new(scene, off=FAR_DEG * (n % 2)) for n, scene in enumerate(of.here)))
    return of.ask()


def another_place(of: Setting) -> LocateReply:
    of.add(*map(new, of.there))
    return of.ask(threshold=0.1)


def own_copy(of: Setting) -> LocateReply:
    smaller = of.root / "smaller.jpg"
    Image.open(of.query.path).resize((400, 300)).save(smaller, quality=80)
    of.add(replace(new(of.query), photo=Photo(path=str(smaller))))
    return of.ask()


def elsewhere(of: Setting) -> LocateReply:
    of.add(*map(new, of.here))
    return of.ask(near=Near(-of.query.lat, of.query.lon, 1_000.0))


def blank(of: Setting) -> LocateReply:
    of.add(*map(new, of.here))
    path = of.root / "blank.jpg"
    Image.new("RGB", (640, 480), (120, 121, 119)).save(path)
    return of.ask(path)


CASES: dict[Reason, list[Callable[[Setting], LocateReply]]] = {
    Reason.EMPTY_INDEX: [empty],
    Reason.NOTHING_SIMILAR: [nothing_similar],
    Reason.NO_TRUSTED_EVIDENCE: [derived, at_a_default_point, contradicted],
    Reason.TOO_FEW_WITNESSES: [one_witness],
    Reason.NEIGHBOURS_DISAGREE: [two_places, torn_copies],
    Reason.LOOK_ALIKE_PLACES: [look_alikes],
    Reason.UNVERIFIED: [another_place],
    Reason.ONLY_OWN_COPIES: [own_copy],
    Reason.OUTSIDE_COVERAGE: [elsewhere],
    Reason.NO_PLACE_IN_PICTURE: [blank],
}


def test_every_reason_has_a_case() -> None:
    assert CASES.keys() == {*Reason} - {Reason.WITHHELD}, "which settings ask for: test_telling.py"


@pytest.mark.parametrize(
    ("reason", "reached"),
    [pytest.param(reason, case, id=case.__name__) for reason, cases in CASES.items() for case in cases],
)
def test_each_reason_is_reached_and_says_why_in_both_languages(
    reason: Reason, reached: Callable[[Setting], LocateReply], setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = reached(setting)
    found = reply.answer
    monkeypatch.setenv("SIGHTLINE_LANG", "en")
    english = in_language(found.message)
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    russian = in_language(found.message)

    assert (found.status, found.reason) == ("abstained", reason), found.message
    assert (found.point, found.radius_m, found.confidence) == (None, None, None)
    assert english == found.message
    assert english.strip()
    assert any("а" <= letter <= "я" for letter in russian.lower())
    json.dumps(reply.to_wire(), allow_nan=False)


# ------------------------------------------------------------------------------------------- the edges of the map


@pytest.mark.parametrize(
    "at",
    [
        pytest.param([(-16.8, 180.0), (-16.8, -180.0)], id="one meridian by both names"),
        pytest.param([(-16.8, 179.9999), (-16.8, -179.9999)], id="both sides of the date line"),
        pytest.param([(90.0, -180.0), (90.0, 0.0), (90.0, 77.7)], id="the pole by any longitude"),
        pytest.param([(-90.0, 12.0), (-89.9999, -168.0)], id="around the other pole"),
    ],
)
@pytest.mark.parametrize("by", [None, VOTES], ids=["keypoints", "votes"])
def test_a_place_at_an_edge_of_the_map_is_one_place(
    setting: Setting, at: list[tuple[float, float]], by: dict[str, Any] | None
) -> None:
    points = [at[n % len(at)] for n in range(len(setting.here))]
    setting.add(
        *(replace(new(s), lat=lat, lon=lon) for s, (lat, lon) in zip(setting.here, points, strict=True)),
        *map(new, setting.there),
    )

    reply = setting.ask(by=by)
    near = setting.ask(by=by, near=Near(*at[0], 100.0))

    for found in (reply.answer, near.answer):
        assert found.located, found.message
        assert found.point is not None
        assert distance_m(found.point.lat, found.point.lon, *at[0]) <= 25.0
        assert -90 <= found.point.lat <= 90
        assert -180 <= found.point.lon <= 180
        assert (found.radius_m or 0) < 100
    json.dumps([reply.to_wire(), near.to_wire()], allow_nan=False)
