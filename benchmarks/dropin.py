"""One located request in a fresh web process: the way of the guide's class, and Sightline's, in one run.

    python -m benchmarks.dropin [--quick] [--photos FOLDER]

JSON goes to stdout, progress and a table for people to stderr. Exit status 1 if some request got no coordinates:
the figure would not be that of a located request.

**Both sides** have the same photos, the same checkpoint (ViT-B-32 of true shape in float32, with random weights, which
cost what trained ones cost), the same number of threads and the CPU. Old and new take turns, each time in a new
process (web.py), so that drift of the machine meets both; the service runs all the while and idles while the old side
is asked. Times are taken inside the web process, around its handler.

- *Old* (guide.py): model, pickle and FAISS index are made for every request; then decode, encode, search.
- *New*: `Sightline.locate` and `to_guide_json`, against a worker that is up.
- *Unchanged* is the old code with the class of producer_client.compat, made for every request: `find_similar_images`,
  and the coordinates of the best. Asked in the same processes as *new*.

A process's first request pays imports and connections and stands apart (`*_first_request_ms`); its figure is the
median of the later ones, and the reported one the median over processes. Memory is the largest that was resident
(VmHWM) of the web process, after all its requests; the worker's, which any number of web processes share, is not in it.

**Photos.** Random weights do not recognise a place from another viewpoint, but they do see that two pictures are
nearly the same. So every view is indexed as a burst: NEAR_COPIES crops that differ by a percent, at the view's
coordinates, surveyed. A query is another such crop, enlarged to MEGAPIXELS as phones send them, with noise, without
which its JPEG would be small and quick to decode. Each is asked for once by each side: a worker knows the vectors of
photos that were added, by content, and must have seen none of these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from PIL import Image, ImageChops, ImageOps
from rich.markup import escape
from rich.table import Table

from benchmarks.measure import peak_rss_mb
from benchmarks.processes import alone
from benchmarks.report import console, machine, step
from demo.scenes import write_scenes
from producer_client import NewPhoto, Photo, Provenance, Refused
from worker.core.geo import distance_m
from worker.encoder.images import decode
from worker.errors import PhotoRefusal
from worker.manifest import PHOTO_SUFFIXES, read_manifest
from worker.settings import Settings
from worker.stack import Stack, raise_on_signals

ARCHITECTURE = "ViT-B-32"
#: Processes of each side, by default and with --quick.
PROCESSES, QUICK_PROCESSES = 5, 2
#: Requests of one kind that a process answers after its first.
LATER = 3
#: Views that the photos are made from.
VIEWS = 12
#: As many as the witnesses that are heard, so that those of a query can all be of its burst.
NEAR_COPIES = 8
#: Share of each side that a crop leaves out.
CROPPED = 0.01
#: Pixels of the drawn views, and of the indexed photos at most.
VIEW_SIZE = (1280, 960)
MEGAPIXELS = 12.0
#: Of 255, in each pixel of an enlarged photo. With this quality a JPEG of 12 MP has 3.6 MB, as those of phones have.
NOISE = 5.0
JPEG_QUALITY = 92
#: Seconds for the index to be published.
REBUILD_TIMEOUT_S = 120.0
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class View:
    """A picture and where it was taken."""

    path: Path
    lat: float
    lon: float


@dataclass(frozen=True, slots=True)
class Query:
    """A photo to ask for, by path, with the truth about it."""

    path: str
    view: View


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and its answer."""

    query: Query
    ms: float
    point: tuple[float, float] | None
    parts_ms: dict[str, float]

    @property
    def error_m(self) -> float | None:
        return None if self.point is None else distance_m(*self.point, self.query.view.lat, self.query.view.lon)


@dataclass(slots=True)
class Kind:
    """Requests of one kind over all processes. `first`, where it is a process's very first; `later`, by process."""

    first: list[Asked] = field(default_factory=list)
    later: list[list[Asked]] = field(default_factory=list)

    @property
    def all(self) -> list[Asked]:
        return self.first + [asked for some in self.later for asked in some]

    @property
    def located(self) -> int:
        return sum(asked.point is not None for asked in self.all)

    @property
    def request_ms(self) -> float:
        return _median(_median(asked.ms for asked in some) for some in self.later)

    @property
    def first_request_ms(self) -> float:
        return _median(asked.ms for asked in self.first)

    @property
    def range_ms(self) -> list[float]:
        every = [asked.ms for some in self.later for asked in some]
        return [round(min(every), 1), round(max(every), 1)]

    @property
    def median_error_m(self) -> float | None:
        errors = [asked.error_m for asked in self.all if asked.error_m is not None]
        return round(statistics.median(errors), 1) if errors else None

    @property
    def parts_ms(self) -> dict[str, float]:
        """Median of each part over the later requests."""
        every = [asked.parts_ms for some in self.later for asked in some]
        return {part: _median(parts[part] for parts in every) for part in every[0]}

    @property
    def first_parts_ms(self) -> dict[str, float]:
        return {part: _median(asked.parts_ms[part] for asked in self.first) for part in self.first[0].parts_ms}


class WebProcess:
    """A new interpreter that answers as web.py says. Ended on leaving."""

    def __init__(self, arguments: Sequence[str], *, threads: int, log: Path) -> None:
        self._log = log
        self._stderr: IO[bytes] = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.web", *arguments],
            cwd=ROOT,
            env=os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        self.flask = bool(self._read()["flask"])

    def ask(self, handler: str, query: Query) -> Asked:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"handler": handler, "photo": query.path}) + "\n")
        self._process.stdin.flush()
        said = self._read()
        point = None if said["point"] is None else (float(said["point"][0]), float(said["point"][1]))
        return Asked(query, said["ms"], point, said["parts_ms"])

    def peak_rss_mb(self) -> float:
        peak = peak_rss_mb(self._process.pid)
        if peak is None:
            raise RuntimeError("this kernel does not say how much memory a process has held (VmHWM)")
        return peak

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last_words = self._log.read_text(errors="replace").strip().splitlines()[-3:]
            raise RuntimeError("a web process ended by itself: " + "\n".join(last_words))
        said: dict[str, Any] = json.loads(line)
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        # Closes the pipes, too.
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._stderr.close()


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    raise_on_signals()
    try:
        result = _measure(options.photos, QUICK_PROCESSES if options.quick else PROCESSES)
    except KeyboardInterrupt:
        sys.exit("stopped; everything that the benchmark started is stopped, too")
    except (RuntimeError, OSError, ValueError) as exc:
        sys.exit(f"the benchmark failed: {exc}")
    console.print(_table(result))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    if said := not_located(result):
        sys.exit(said)


def not_located(result: dict[str, Any]) -> str:
    """Why these are not the figures of a located request; empty if they are."""
    lacking = {side: count - result[f"{side}_located"] for side, count in result["requests"].items()}
    named = ", ".join(f"{count} {side}" for side, count in lacking.items() if count)
    return f"requests without coordinates: {named}. These are not the times of a located request" if named else ""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dropin", description="Measure a located request, the guide's way and Sightline's."
    )
    parser.add_argument(
        "--photos", type=Path, help="make queries from these: a folder with a manifest.csv or GPS in EXIF (drawn ones)"
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PROCESSES} processes a side, not {PROCESSES}")
    return parser.parse_args(arguments)


def _measure(photos: Path | None, processes: int) -> dict[str, Any]:
    threads = len(os.sched_getaffinity(0))
    about = machine("torch", "open-clip-torch", "faiss-cpu", "pillow", "celery")
    folder = Path(tempfile.mkdtemp(prefix="sightline-dropin-"))
    # Postgres runs as a user of its own when started by root.
    folder.chmod(0o755)
    try:
        with step("photos: views, bursts to index, queries"):
            views = _views(photos, folder / "views")
            indexed = _bursts(views, folder / "photos")
            queries = _queries(views, folder / "queries", processes * 2 * (1 + LATER))
        checkpoint, pickled = folder / "model" / f"{ARCHITECTURE}.safetensors", folder / "embeddings.pkl"
        checkpoint.parent.mkdir()
        with step(f"old: checkpoint, and the pickle of {len(indexed)} photos"):
            known = [(query.path, {"lat": query.view.lat, "lon": query.view.lon}) for query in indexed]
            alone(_prepare, checkpoint, pickled, known, threads=threads)
        settings = Settings(
            data_dir=folder / "service",
            photo_roots=(folder,),
            encoder=f"open_clip/{ARCHITECTURE}/{checkpoint}",
            encoder_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            device="cpu",
            model_threads=threads,
        )
        with Stack(settings, log_dir=folder / "logs", port=0) as stack:
            with step("new: start the service"):
                stack.start_all()
                stack.wait_ready()
            with step(f"new: index {len(indexed)} photos"):
                _index(stack, indexed)
            arguments = (str(checkpoint), str(pickled), stack.settings.broker_url)
            old, new, unchanged = Kind(), Kind(), Kind()
            old_rss, new_rss, flask = [], [], True
            for number in range(processes):
                log = folder / "logs" / f"web-{number}.log"
                asked, others = queries[number :: 2 * processes], queries[number + processes :: 2 * processes]
                with (
                    step(f"process {number + 1} of {processes}: old"),
                    WebProcess(arguments, threads=threads, log=log) as web,
                ):
                    old.first.append(web.ask("guide", asked[0]))
                    old.later.append([web.ask("guide", query) for query in asked[1:]])
                    old_rss.append(web.peak_rss_mb())
                with (
                    step(f"process {number + 1} of {processes}: new"),
                    WebProcess(arguments, threads=threads, log=log) as web,
                ):
                    new.first.append(web.ask("locate", asked[0]))
                    new.later.append([web.ask("locate", query) for query in asked[1:]])
                    unchanged.later.append([web.ask("unchanged", query) for query in others])
                    new_rss.append(web.peak_rss_mb())
                    flask = flask and web.flask
                stack.check()
        sizes = [Path(query.path).stat().st_size / 1e6 for query in queries]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "old_request_ms": old.request_ms,
        "new_request_ms": new.request_ms,
        "ratio": round(old.request_ms / new.request_ms, 2),
        "first_ratio": round(old.first_request_ms / new.first_request_ms, 2),
        "old_rss_mb": _median(old_rss),
        "new_rss_mb": _median(new_rss),
        "old_first_request_ms": old.first_request_ms,
        "new_first_request_ms": new.first_request_ms,
        "unchanged_request_ms": unchanged.request_ms,
        "old_range_ms": old.range_ms,
        "new_range_ms": new.range_ms,
        "unchanged_range_ms": unchanged.range_ms,
        "old_rss_mb_max": max(old_rss),
        "new_rss_mb_max": max(new_rss),
        "old_parts_ms": old.parts_ms,
        "old_first_parts_ms": old.first_parts_ms,
        "new_parts_ms": new.parts_ms,
        "requests": {"old": len(old.all), "new": len(new.all), "unchanged": len(unchanged.all)},
        "old_located": old.located,
        "new_located": new.located,
        "unchanged_located": unchanged.located,
        "old_median_error_m": old.median_error_m,
        "new_median_error_m": new.median_error_m,
        "encoder": f"open_clip/{ARCHITECTURE}/random",
        "processes": processes,
        "photos": len(indexed),
        "photos_from": "drawn" if photos is None else "folder",
        "megapixels": MEGAPIXELS,
        "query_file_mb": round(statistics.median(sizes), 2),
        "threads": threads,
        "flask": version("flask") if flask else None,
        "machine": about,
    }


def _prepare(checkpoint: Path, pickled: Path, photos: Sequence[tuple[str, dict[str, Any]]]) -> None:
    # The import takes seconds and half a gigabyte, which only this process and the old side's have to spend.
    from benchmarks.guide import prepare

    prepare(checkpoint, pickled, photos)


def _views(photos: Path | None, folder: Path) -> list[View]:
    """At most VIEWS pictures with coordinates, spread over the folder; drawn where none is given."""
    if photos is None:
        drawn = write_scenes(folder, places=6, views=VIEWS // 6, size=VIEW_SIZE)
        return [View(photo.path, photo.viewpoint.lat, photo.viewpoint.lon) for photo in drawn]
    manifest = photos / "manifest.csv"
    found = list(_listed(manifest) if manifest.exists() else _tagged(photos))
    if not found:
        raise RuntimeError(f"no photo under {photos} has coordinates, in a manifest.csv or in its EXIF tags")
    return [found[number * len(found) // VIEWS] for number in range(VIEWS)] if len(found) > VIEWS else found


def _listed(manifest: Path) -> Iterator[View]:
    for item in read_manifest(manifest):
        if item.photo.path is not None and item.lat is not None and item.lon is not None:
            yield View(Path(item.photo.path), item.lat, item.lon)


def _tagged(folder: Path) -> Iterator[View]:
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES):
        with suppress(PhotoRefusal):
            gps = decode(path.read_bytes(), side=32, max_megapixels=100).gps
            if gps is not None:
                yield View(path, *gps)


def _bursts(views: Sequence[View], folder: Path) -> list[Query]:
    """Write the photos to index: NEAR_COPIES of every view."""
    folder.mkdir()
    random = np.random.default_rng(0)
    written = []
    for number, view in enumerate(views):
        picture = _picture(view)
        for copy in range(NEAR_COPIES):
            path = folder / f"{number:02d}-{copy}.jpg"
            near = _cropped(picture, random)
            near.thumbnail(VIEW_SIZE)
            near.save(path, "JPEG", quality=JPEG_QUALITY)
            written.append(Query(str(path), view))
    return written


def _queries(views: Sequence[View], folder: Path, count: int) -> list[Query]:
    """Write `count` photos to ask for, each of its own bytes, of the views in turn."""
    folder.mkdir()
    random = np.random.default_rng(1)
    noise: dict[tuple[int, int], Image.Image] = {}
    pictures = [_picture(view) for view in views]
    written = []
    for number in range(count):
        view, picture = views[number % len(views)], pictures[number % len(views)]
        enlarged = picture.width * picture.height < MEGAPIXELS * 1e6
        width = round(math.sqrt(MEGAPIXELS * 1e6 * picture.width / picture.height))
        size = (width, round(MEGAPIXELS * 1e6 / width))
        query = _cropped(picture, random).resize(size, Image.Resampling.BICUBIC)
        if enlarged:
            if size not in noise:
                noise[size] = Image.effect_noise(size, NOISE).convert("RGB")
            moved = ImageChops.offset(noise[size], *random.integers(size).tolist())
            query = ImageChops.add(query, moved, offset=-128)
        path = folder / f"{number:03d}.jpg"
        query.save(path, "JPEG", quality=JPEG_QUALITY)
        written.append(Query(str(path), view))
    return written


def _picture(view: View) -> Image.Image:
    with Image.open(view.path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _cropped(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    left, top, right, bottom = random.uniform(0, CROPPED, 4)
    width, height = picture.size
    return picture.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def _index(stack: Stack, photos: Sequence[Query]) -> None:
    """Add the photos with surveyed coordinates, and publish a generation."""
    new = [
        NewPhoto(q.path, Photo(path=q.path), lat=q.view.lat, lon=q.view.lon, provenance=Provenance.SURVEYED)
        for q in photos
    ]
    with stack.client() as client:
        for outcome in client.add_many(new):
            if isinstance(outcome, Refused):
                raise RuntimeError(f"{outcome.ref} was not taken: {outcome.message}")
        client.rebuild_index(timeout_s=REBUILD_TIMEOUT_S)


def _table(result: dict[str, Any]) -> Table:
    """The two sides beside each other."""
    table = Table(title=f"One located request, {result['photos']} photos in the index, medians")
    for heading in ("", "old", "new", "new, code unchanged"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    rows = {"request ms": "request_ms", "fastest, slowest ms": "range_ms", "first request ms": "first_request_ms"}
    rows |= {"peak memory MB": "rss_mb", "located": "located"}
    for name, key in rows.items():
        table.add_row(name, *(_shown(result.get(f"{side}_{key}")) for side in ("old", "new", "unchanged")))
    parts = ", ".join(f"{part} {ms:g}" for part, ms in result["old_parts_ms"].items())
    table.caption = escape(f"{result['ratio']} times as fast. Of an old request, ms: {parts}")
    table.caption_justify = "left"
    return table


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "" if value is None else f"{value:,}"


def _median(values: Any) -> float:
    return round(float(statistics.median(values)), 1)


if __name__ == "__main__":
    main()
