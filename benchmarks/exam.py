"""How long it takes to ask about 1,000 of a library's photos as if they were not there, as each rebuild does.

    python -m benchmarks.exam [--size 100000] [--photos 1000]

JSON goes to stdout on one line, progress and a table to stderr.

**What is real.** Postgres, the index, its search, the reading of entries and keypoints, their comparison and what is
learnt of it are the service's own: `Examining` on the generation that a rebuild has written. Keypoints are those that
the service finds in drawn photos of look-alike places (lookalikes.py), mostly the 1,500 that are kept at the most.

**What is not.** Vectors are drawn (vectors.py), some 20 photos to a place. Behind all contents stand the keypoints of
some 100 drawn photos: a view joins them, so that Postgres has what it reads in memory, where a library of this size has
up to 12.6 GB of them. How often answers are right says nothing here; benchmarks.place measures that.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from benchmarks import lookalikes
from benchmarks.lookalikes import Known
from benchmarks.measure import VectorFile, copy_rows, peak_rss_mb
from benchmarks.processes import alone, cores
from benchmarks.report import console, machine, step, table, tell, workplace
from benchmarks.service import MODEL_KEY, fill, rebuild, service, sql
from benchmarks.vectors import ClusteredVectors
from worker.core.keypoints import VERSION, Keypoints
from worker.embedded import EmbeddedServers
from worker.encoder.keypoints import keypoints
from worker.library import comparing
from worker.place.geometry import Seen, seen_in_both
from worker.settings import Settings

DIMENSION = 512
SIZE, PHOTOS = 100_000, 1_000
#: Seconds that are aimed at.
AIM_S = 300.0
#: What is drawn; pictures of a place, which its photos share.
DRAWN = lookalikes.Size(styles=3, known=6, asked=1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exam", description="Measure exams.")
    parser.add_argument("--size", type=int, default=SIZE, help=f"photos of the library (default: {SIZE:,})")
    parser.add_argument("--photos", type=int, default=PHOTOS, help=f"photos that are asked about (default: {PHOTOS:,})")
    options = parser.parse_args(arguments)
    with workplace("exam") as folder, EmbeddedServers(folder / "servers", with_valkey=False) as servers:
        # Nothing is asked while the generation is written, and nothing is looked for: that is measured by itself.
        settings = Settings(
            database_url=servers.database_url, data_dir=folder, exam_photos=0, rungs=("places", "geometry")
        )
        result = of_library(settings, folder, options.size, options.photos)
    console.print(table(f"{result['photos']:,} photos asked about", {name: {"": one} for name, one in result.items()}))
    tell(result | {"machine": machine("numpy", "faiss-cpu", "onnxruntime", "opencv-python-headless")})


def of_library(
    settings: Settings, folder: Path, size: int, photos: int, drawn: lookalikes.Size = DRAWN
) -> dict[str, Any]:
    made = ClusteredVectors(size, dimension=DIMENSION)
    with step(f"{size:,} vectors into Postgres"):
        vectors = VectorFile.write(folder / "vectors.f32", made.chunks())
        alone(fill, settings, vectors)
        vectors.path.unlink()
        places = np.concatenate(list(made.places()))
        _take_places(settings, places)
    with step("rebuild"):
        built = alone(rebuild, settings, DIMENSION, threads=cores())
    with step("draw photos and find their keypoints"):
        (folder / "drawn").mkdir()
        known = lookalikes.draw(folder / "drawn", drawn, processes=cores()).known
        pictures = alone(_keypoints_of, known)
    with step(f"keypoints of {sum(map(len, pictures))} pictures for all"):
        _stand_behind(settings, pictures, places)
    with step(f"ask about {photos:,} photos"):
        return {"size": size, **alone(_examined, settings, built["generation"], photos, threads=cores())}


# ---------------------------------------------------------------------------------------------- below


def _take_places(settings: Settings, places: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """Each place has a point of its own, around which its photos lie up to 40 m apart."""
    ids = np.arange(1, len(places) + 1)
    where = {
        "id": ids.astype(">i8"),
        "lat": (places * 7919 % 1_200_000 / 1e4 - 60 + ids % 8 * 5e-5).astype(">f8"),
        "lon": (places * 104_729 % 3_600_000 / 1e4 - 180).astype(">f8"),
    }
    with sql(settings.database_url) as cursor:
        cursor.execute(f"SET search_path = {settings.db_schema}, public")
        cursor.execute("CREATE TEMP TABLE taken (id bigint, lat float8, lon float8)")
        cursor.copy_expert("COPY taken FROM STDIN (FORMAT binary)", io.BytesIO(copy_rows(**where)))
        for name, key in (("entries", "photo_id"), (settings.photos_table, "id")):
            cursor.execute(f"UPDATE {name} AS t SET lat = w.lat, lon = w.lon FROM taken AS w WHERE w.id = t.{key}")
        cursor.execute("VACUUM ANALYZE")


def _keypoints_of(known: Sequence[Known]) -> list[list[bytes]]:
    """Of each drawn place's pictures, as they are stored."""
    return [
        [keypoints(Image.open(photo.path)).to_bytes() for photo in some]
        for _, some in groupby(known, key=lambda photo: photo.place)
    ]


def _stand_behind(
    settings: Settings, pictures: Sequence[Sequence[bytes]], places: np.ndarray[Any, np.dtype[np.int64]]
) -> None:
    """In place of the table of keypoints, a view that has some for every content: the photos of a place have those of
    one drawn place."""
    first = np.cumsum([0, *map(len, pictures)])
    of_place = np.array([len(some) for some in pictures])
    ids = np.arange(1, len(places) + 1)
    drawn = places % len(pictures)
    shown = {"id": ids.astype(">i8"), "picture": (first[drawn] + ids % of_place[drawn]).astype(">i8")}
    with sql(settings.database_url) as cursor:
        cursor.execute(f"SET search_path = {settings.db_schema}, public")
        cursor.execute(f"""
            DROP TABLE keypoints;
            CREATE TABLE drawn (picture bigint PRIMARY KEY, keypoints bytea NOT NULL);
            ALTER TABLE drawn ALTER COLUMN keypoints SET STORAGE EXTERNAL;
            CREATE TEMP TABLE shown (id bigint, picture bigint);
            CREATE TABLE shows (content_sha256 text PRIMARY KEY, picture bigint NOT NULL);
            CREATE VIEW keypoints AS
                SELECT content_sha256, {VERSION} AS version, keypoints FROM shows JOIN drawn USING (picture)""")
        for picture, content in enumerate(content for some in pictures for content in some):
            cursor.execute("INSERT INTO drawn VALUES (%s, %s)", (picture, content))
        cursor.copy_expert("COPY shown FROM STDIN (FORMAT binary)", io.BytesIO(copy_rows(**shown)))
        cursor.execute("INSERT INTO shows SELECT content_sha256, picture FROM shown JOIN entries ON photo_id = id")
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def _examined(settings: Settings, generation: int, photos: int) -> dict[str, Any]:
    """As Rebuilding does it."""
    compared = [0]

    def counted(query: Keypoints, other: Keypoints) -> Seen:
        compared[0] += 1
        return seen_in_both(query, other)

    with service(settings, DIMENSION) as own, patch.object(comparing, "seen_in_both", counted):
        index = own.folder.to_examine(generation, model_key=MODEL_KEY, sha256=None)
        began, worked = time.monotonic(), time.process_time()
        found = own.library.examining.examine(index, lambda *_: None, photos=photos)
        seconds, core_s = time.monotonic() - began, time.process_time() - worked
    if found.photos != photos or len(found.questions) != 2 * photos:
        raise RuntimeError(f"{len(found.questions)} questions about {found.photos} photos, not 2 of each of {photos}")
    return {
        "photos": photos,
        "exam_s": round(seconds, 1),
        "aim_s": AIM_S,
        "core_s": round(core_s, 1),
        "pairs_compared": compared[0],
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1),
        "peak_rss_mb": peak_rss_mb(),
    }


if __name__ == "__main__":
    main()
