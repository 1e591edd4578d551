"""The whole move of a backend like the guide's: its own table, made by Flask-SQLAlchemy before Sightline was there."""

from __future__ import annotations

import csv
import json
import logging
import os
import pickle
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from PIL import Image
from sqlalchemy import JSON, ForeignKey, String, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from demo.scenes import write_scenes
from producer_client import Sightline
from producer_client.compat import CLIPSimilarityService
from producer_client.language import Language
from producer_client.sources import Chain, Source
from tests import commands
from tests.conftest import ENCODER, server_dir, without_torch
from worker.embedded import EmbeddedServers
from worker.settings import Settings
from worker.stack import Stack

#: The middle of Moscow, as the old system answered where it knew nothing.
DEFAULT_POINT = (55.7558, 37.6176)

Row = tuple[Path, float | None, float | None, str | None]


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class User(db.Model):  # type: ignore[name-defined, misc]  # made at run time (Flask-SQLAlchemy 3.1)
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)


class Photo(db.Model):  # type: ignore[name-defined, misc]
    __tablename__ = "photos"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    file_path: Mapped[str] = mapped_column(String(500))
    lat: Mapped[float | None]
    lon: Mapped[float | None]
    address_data: Mapped[Any | None] = mapped_column(JSON)
    location_method: Mapped[str | None] = mapped_column(String(50))
    created_at: Mapped[datetime | None] = mapped_column(default=lambda: datetime.now(UTC))


class CoordinateDetector:
    """A stand-in for the backend's own, which knows of CLIPSimilarityService what the guide says and no more."""

    def __init__(self, clip_service: CLIPSimilarityService) -> None:
        self.clip_service = clip_service
        self.reference_db: dict[str, tuple[float, float]] = {}

    def detect_coordinates_from_image(self, image_path: str) -> dict[str, Any]:
        found = self._by_reference(image_path) or self._by_clip(image_path)
        coordinates = (found or {}).get("coordinates")
        if coordinates and os.path.exists(image_path):  # noqa: PTH110  # as the guide has it
            self.clip_service.add_image_to_index(
                image_path,
                metadata={"lat": coordinates["latitude"], "lon": coordinates["longitude"], "address": {"city": "?"}},
            )
        return found or {"success": False, "coordinates": None}

    def _by_reference(self, image_path: str) -> dict[str, Any] | None:
        point = self.reference_db.get(image_path)
        return point and {"success": True, "coordinates": {"latitude": point[0], "longitude": point[1]}}

    def _by_clip(self, image_path: str) -> dict[str, Any] | None:
        similar = self.clip_service.find_similar_images(image_path, top_k=5, similarity_threshold=0.75)
        if not similar:
            return None
        best = similar[0]
        return {
            "success": True,
            "coordinates": {
                "latitude": best["metadata"]["lat"],
                "longitude": best["metadata"]["lon"],
                "source": "clip_similarity",
                "confidence": best["similarity"],
                "matched_image": best["image_path"],
            },
            "clip_similarity": {"similarity": best["similarity"], "all_matches": similar},
        }


@dataclass(frozen=True)
class Backend:
    stack: Stack
    known: list[Row]  #: rows of the table whose files are there
    unseen: list[Path]  #: photos of the first place that are in no table, without EXIF
    place: tuple[float, float]
    photos: Path


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A backend with photos in its table, and then Sightline on the same Postgres."""
    photos = tmp_path_factory.mktemp("backend")
    write_scenes(photos, places=2, views=8)
    with (photos / "manifest.csv").open(newline="") as file:
        views = [(photos / row["file"], float(row["lat"]), float(row["lon"])) for row in csv.DictReader(file)]
    first, second = views[:8], views[8:]
    for path, _, _ in views:
        # What the messengers have left of it: no EXIF.
        with Image.open(path) as image:
            image.load()
        image.save(path, "JPEG", quality=92)
    broken = photos / "broken.jpg"
    broken.write_bytes(b"not a photo")
    known: list[Row] = [(path, lat, lon, "gps") for path, lat, lon in first[:5]]
    known += [(path, *DEFAULT_POINT, "city_center") for path, _, _ in second[:5]]
    known += [(second[5][0], None, None, None)]
    others: list[Row] = [(photos / "gone.jpg", 56.1, 10.2, "gps"), (broken, 56.1, 10.2, "gps")]
    with server_dir() as data_dir:
        settings = Settings(
            data_dir=data_dir, photo_roots=(photos,), encoder=ENCODER, max_staleness_s=0, **without_torch()
        )
        with EmbeddedServers(data_dir) as servers:
            make_table(servers.database_url, known + others)
        with Stack(settings, log_dir=data_dir / "logs", port=0) as stack:
            stack.start("worker")
            stack.start("worker", "--role", "index")
            stack.wait_ready()
            yield Backend(stack, known, [path for path, _, _ in first[5:]], first[0][1:], photos)


def make_table(database_url: str, rows: list[Row]) -> None:
    app = Flask("backend")
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url
    db.init_app(app)
    with app.app_context():
        db.create_all()
        for path, lat, lon, method in rows:
            db.session.add(Photo(file_path=str(path), lat=lat, lon=lon, location_method=method))
        db.session.commit()
        db.session.remove()
        db.engine.dispose()


def command(backend: Backend, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.sightline(
        *arguments, env={**os.environ, **backend.stack.settings.as_env(), "COLUMNS": "200", "NO_COLOR": "1"}
    )


def test_a_backend_moves_in_an_afternoon(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    monkeypatch.setenv("SIGHTLINE_BROKER_URL", backend.stack.settings.broker_url)
    caplog.set_level(logging.INFO, "CLIP")

    # -- what is there, looked at and indexed where it is
    looked = json.loads(command(backend, "backfill", "--dry-run", "--json").stdout)
    filled = command(backend, "backfill")
    rebuilt = json.loads(command(backend, "rebuild", "--json").stdout)

    report = looked["report"]
    assert (report["photos"], report["with_coordinates"], report["with_file"]) == (13, 12, 11)
    assert (len(report["missing"]), [refused["code"] for refused in report["unreadable"]]) == (1, ["not_an_image"])
    (point,) = report["points"]
    assert (point["lat"], point["lon"], len(point["numbers"]), point["is_default"]) == (*DEFAULT_POINT, 5, False)
    assert [missing["path"] for missing in looked["missing_files"]] == [str(backend.photos / "gone.jpg")]
    assert looked["indexed"] == 0
    assert "10 indexed, 2 refused" in filled.stdout
    assert [line.split(":")[0].strip() for line in filled.stdout.splitlines()[-6:]] == [
        "index statistics", "photos in it", "dimension", "model", "device", "generation on disk",
    ]  # fmt: skip
    assert (rebuilt["with_coordinates"], rebuilt["valid_files"], rebuilt["indexed"]) == (12, 10, 10)

    # -- the detector, as it was: it finds, adds, and finds again
    clip_service = CLIPSimilarityService()
    detector = CoordinateDetector(clip_service)
    upload, next_upload, last_upload = backend.unseen

    found = detector.detect_coordinates_from_image(str(upload))
    again = clip_service.find_similar_images(str(next_upload), top_k=20)
    open_minded = CLIPSimilarityService(trusted_only=False)
    all_of_it = open_minded.find_similar_images(str(next_upload), top_k=20)
    open_minded.close()

    trusted = {str(path) for path, _, _, method in backend.known if method == "gps"}
    assert found["success"] is True
    assert found["coordinates"]["matched_image"] in trusted
    assert found["coordinates"]["latitude"] == pytest.approx(backend.place[0], abs=1e-3)
    # What the detector said of the upload is kept, and does not come back to the detector as a find.
    assert {match["image_path"] for match in again} <= trusted
    mine = [match for match in all_of_it if match["image_path"] == str(upload)]
    assert [match["metadata"]["provenance"] for match in mine] == ["derived"]
    assert clip_service.get_statistics()["total_images"] == 11
    words = [record.getMessage() for record in caplog.records if "CLIP" in f"{record.name} {record.getMessage()}"]
    assert any("CLIP: Found similar image with" in line for line in words)
    assert any("Starting CLIP similarity search" in line for line in words)

    # -- and the card, from all sources
    with Sightline(backend.stack.settings.broker_url) as client:
        seq = client.stats().seq
        chain = Chain(
            [
                Source("reference_db", lambda path: detector.reference_db.get(path), priority=2),
                Source(
                    "clip_similarity",
                    lambda path: client.locate(path=path, min_seq=seq),
                    priority=3,
                    title="🖼️ CLIP Image Similarity",
                ),
            ]
        )
        result = chain.locate(last_upload)
    print(result.card(Language.RU))
    clip_service.close()

    assert result.best is not None
    shown = capsys.readouterr().out
    for words_of_the_guide in (
        "📊 Результаты от всех источников:",
        "🖼️ CLIP Image Similarity",
        "✅ Успешно",
        "Найдено похожее здание",
        "🎯 ИТОГОВЫЙ РЕЗУЛЬТАТ:",
        "Источник: clip_similarity",
        f"Координаты: {result.best.lat:.6f}, {result.best.lon:.6f}",
    ):
        assert words_of_the_guide in shown


def test_rows_and_pickles_of_another_machine_are_looked_at_by_prefix_and_say_what_the_workers_need(
    backend: Backend, tmp_path: Path
) -> None:
    database = create_engine(backend.stack.settings.database_url)
    there = str(backend.unseen[0].relative_to(backend.photos)).replace("/", "\\")
    rows = [{"path": f"C:\\old\\{name}"} for name in (there, "absent.jpg")]
    pickled = tmp_path / "embeddings.pkl"
    old = {"paths": [row["path"] for row in rows], "metadata": [{}, {}], "embeddings": [[1.0, 0.0], [0.0, 1.0]]}
    pickled.write_bytes(pickle.dumps(old))
    options = ("--path-prefix", f"c:\\OLD={backend.photos}", "--path-prefix", "/none=/here", "--json")
    with database.begin() as connection:
        connection.execute(text("INSERT INTO photos (file_path) VALUES (:path)"), rows)
    try:
        looked = command(backend, "backfill", "--dry-run", *options[:-1])
        report = json.loads(command(backend, "backfill", "--dry-run", *options).stdout)["report"]
        told = command(backend, "backfill", *options)
        dry = json.loads(command(backend, "import-legacy", str(pickled), "--dry-run", *options).stdout)
        told_too = command(backend, "import-legacy", str(pickled), *options)
        wrong = command(backend, "backfill", "--path-prefix", "C:\\old")
    finally:
        with database.begin() as connection:
            left = connection.scalars(text("DELETE FROM photos WHERE file_path LIKE 'C:%' RETURNING file_path")).all()
        database.dispose()

    uses = [
        {"old": "c:\\OLD", "new": str(backend.photos), "photos": 2, "with_file": 1},
        {"old": "/none", "new": "/here", "photos": 0, "with_file": 0},
    ]
    assert f"c:\\OLD is {backend.photos} here; photos: 2, with a file: 1" in looked.stdout
    assert "/none: no path begins with it" in looked.stdout
    assert report["prefixes"] == dry["report"]["prefixes"] == uses
    assert (dry["to_import"], len(dry["missing_files"])) == (1, 1)
    for refused in (told, told_too):
        assert refused.returncode != 0
        assert "SIGHTLINE_PATH_PREFIXES=" in json.loads(refused.stdout)["error"]["message"]
    assert sorted(left) == sorted(row["path"] for row in rows)
    assert "is not OLD=NEW" in wrong.stderr


def test_a_place_that_is_known_by_a_default_point_alone_gives_no_coordinates(backend: Backend) -> None:
    """Five photos of the second place say the middle of Moscow; none of them is evidence."""
    second_place = next(path for path, lat, _, _ in backend.known if lat is None)

    with Sightline(backend.stack.settings.broker_url) as client:
        seq = client.stats().seq
        answer = client.locate(path=str(second_place), min_seq=seq, threshold=0.5).answer

    assert answer.point is None or (answer.point.lat, answer.point.lon) != DEFAULT_POINT
    assert {hit.provenance for hit in answer.evidence} <= {"exif_gps"}
