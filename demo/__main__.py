"""`make demo`: the main job from end to end on this machine, by real processes.

Starts Postgres, Valkey, a worker, the index process and the beat; adds photos through the client; rebuilds; locates
photos that are not in the index, among them those of a place that it has never seen; searches; stops everything.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from demo import scenes
from demo.scenes import write_scenes
from producer_client import NewPhoto, Photo, Provenance, Refused, Sightline, SightlineError
from producer_client.contract import Answer, SearchReply
from worker.core.geo import distance_m
from worker.encoder.images import decode
from worker.encoder.load import best_available
from worker.errors import PhotoRefusal, WorkerError
from worker.manifest import photo_files, read_manifest
from worker.progress import progress_bar, rebuild_lines, wait_for_rebuild
from worker.settings import load as load_settings
from worker.stack import Stack, raise_on_signals

#: Photos without a named place belong together when they lie this near to one another.
SAME_PLACE_M = 500.0
#: Of a place that is known, one photo in so many is held back and asked for.
HOLD_BACK_EVERY = 4
#: What the words of a text search are, where the encoder reads text.
WORDS = "a street with a church tower"

#: Where the drawn scenes stay between runs, by the drawing's own text.
DRAWN = Path(".sightline") / (
    "scenes-"
    + hashlib.sha256(
        b"".join(file.read_bytes() for file in sorted(Path(scenes.__file__).parent.glob("[!_]*.py")))
    ).hexdigest()[:12]
)

#: The mark of photos that must not be located.
UNSEEN_CAPTION = "* a place that the index has never seen"
#: Says that a folder is the demo's own to delete.
MARKER = ".sightline-demo"

out = Console()


@dataclass(frozen=True)
class Case:
    """A photo with the truth about it."""

    item: NewPhoto
    place: str
    lat: float
    lon: float

    @property
    def path(self) -> str:
        return self.item.photo.path or ""


@dataclass(frozen=True)
class Asked:
    """What was answered about a held-back photo."""

    case: Case
    unseen: bool
    answer: Answer

    @property
    def error_m(self) -> float | None:
        point = self.answer.point
        return None if point is None else distance_m(point.lat, point.lon, self.case.lat, self.case.lon)


def main() -> int:
    arguments = _arguments()
    raise_on_signals()
    started = time.monotonic()
    try:
        result = _run(arguments, started)
    except KeyboardInterrupt:
        out.print("[yellow]stopped; everything that the demo started is stopped too[/]")
        return 130
    except (SightlineError, WorkerError, RuntimeError, OSError, ValueError) as exc:
        out.print(f"[bold red]the demo failed:[/] {escape(str(exc))}", highlight=False)
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["located"] >= 1 and result["abstained"] >= 1 else 1


def _run(arguments: argparse.Namespace, started: float) -> dict[str, Any]:
    data_dir: Path = arguments.data_dir
    if data_dir.exists() and not (data_dir / MARKER).exists():
        raise RuntimeError(
            f"{data_dir} is not a folder that the demo made; it would delete it. Pass another --data-dir"
        )
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    (data_dir / MARKER).touch()
    cases = _photos(arguments.photos)
    known, held_back, unseen = split(cases)
    encoder = _encoder(arguments.encoder)
    settings = load_settings(data_dir=data_dir, photo_roots=str(arguments.photos.resolve()), encoder=encoder)
    with Stack(settings, log_dir=data_dir / "logs", port=0) as stack:
        with out.status("Postgres and Valkey run; the worker loads its model") as status:
            stack.start_all()
            stack.wait_ready(
                lambda s: status.update(f"Postgres and Valkey run; the worker loads its model ({s:.0f} s)")
            )
        out.print(f"[green]up[/]     Postgres, Valkey, worker, index process, beat; logs in {data_dir / 'logs'}")
        with stack.client(timeout_s=120.0) as client:
            added = _add(client, known)
            with progress_bar("rebuild", out) as progress:
                rebuilt = wait_for_rebuild(client, progress, 600.0)
            out.print("[green]index[/]  " + "\n       ".join(rebuild_lines(rebuilt)), soft_wrap=True)
            asked = _locate(client, held_back, unseen)
            p50_ms = _search(client, held_back)
            dead = [process for process in stack.processes if process.exit_code is not None]
        if dead:
            raise RuntimeError(f"{dead[0].name} ended by itself:\n{dead[0].last_words()}")
        with out.status("stopping everything"):
            stack.stop()
    errors = [a.error_m for a in asked if a.error_m is not None]
    return {
        "encoder": encoder,
        "added": added,
        "indexed": rebuilt.indexed,
        "generation": rebuilt.generation,
        "located": len(errors),
        "abstained": len(asked) - len(errors),
        "median_error_m": round(statistics.median(errors), 2) if errors else None,
        "search_p50_ms": p50_ms,
        "seconds": round(time.monotonic() - started, 1),
    }


def split(cases: Sequence[Case]) -> tuple[list[Case], list[Case], list[Case]]:
    """(known, held back, unseen): one place is held out whole, the smallest; of the others every fourth photo.

    Every known place keeps two photos at least, so that its witnesses can agree.
    """
    places: dict[str, list[Case]] = {}
    for case in cases:
        places.setdefault(case.place, []).append(case)
    if len(places) < 2:
        raise RuntimeError("the photos show one place only; the demo holds one out and needs another to know")
    left_out = min(places, key=lambda place: (len(places[place]), place))
    known: list[Case] = []
    held_back: list[Case] = []
    for place, photos in places.items():
        if place == left_out:
            continue
        ask = photos[1::HOLD_BACK_EVERY][: max(0, len(photos) - 2)]
        held_back += ask
        known += [photo for photo in photos if photo not in ask]
    return known, held_back, places[left_out]


def _photos(folder: Path) -> list[Case]:
    source = str(folder)
    if folder == DRAWN:
        source = "street scenes of our own, drawn with GPS in their EXIF tags"
        # The manifest is written last, and the drawing is the same every time.
        if not (DRAWN / "manifest.csv").exists():
            with progress_bar("draw street scenes", out) as progress:
                write_scenes(DRAWN, progress=progress)
    if not folder.is_dir():
        raise RuntimeError(f"{folder} is not a folder")
    cases = _from_manifest(folder) if (folder / "manifest.csv").exists() else _from_exif(folder)
    places = {case.place for case in cases}
    out.print(f"[green]photos[/] {len(cases)} of {len(places)} places: {source}")
    return cases


def _from_manifest(folder: Path) -> list[Case]:
    cases = []
    for item in read_manifest(folder / "manifest.csv"):
        if item.lat is None or item.lon is None:
            continue
        place = str((item.metadata or {}).get("place") or Path(item.ref).parent)
        cases.append(Case(item, place, item.lat, item.lon))
    return cases


def _from_exif(folder: Path) -> list[Case]:
    """Photos with GPS tags; a place is a chain of photos each near the next."""
    found: list[tuple[Path, float, float]] = []
    for path in photo_files(folder):
        if not isinstance(path, Path):
            continue
        try:
            gps = decode(path.read_bytes(), side=32, max_megapixels=100).gps
        except PhotoRefusal:
            continue
        if gps is not None:
            found.append((path, *gps))
    if not found:
        raise RuntimeError(f"no photo under {folder} has GPS in its EXIF tags, and there is no manifest.csv")
    places: list[list[tuple[Path, float, float]]] = []
    for photo in found:
        near = [p for p in places if any(distance_m(*photo[1:], *other[1:]) <= SAME_PLACE_M for other in p)]
        places = [p for p in places if p not in near] + [[photo, *(other for p in near for other in p)]]
    return [
        Case(NewPhoto(ref=str(path), photo=Photo(path=str(path.resolve()))), f"place {number}", lat, lon)
        for number, photos in enumerate(places, 1)
        for path, lat, lon in sorted(photos)
    ]


def _encoder(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    with out.status("looking for CLIP weights on this machine"):
        chosen = best_available()
    if chosen.startswith("packaged"):
        why = "no CLIP weights here; with network access: make demo ENCODER=open_clip/ViT-B-32/openai"
    else:
        why = "its weights are in the local cache"
    out.print(f"[green]model[/]  {chosen} ({why})")
    return chosen


def _add(client: Sightline, known: Sequence[Case]) -> int:
    with progress_bar("add", out) as progress:
        outcomes = client.add_many([case.item for case in known], progress=progress)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    for outcome in refused:
        out.print(f"[yellow]refused[/] {escape(outcome.ref)}: {escape(outcome.message)} ({outcome.code})")
    out.print(f"[green]added[/]  {len(outcomes) - len(refused)} photos through the queue")
    return len(outcomes) - len(refused)


def _locate(client: Sightline, held_back: Sequence[Case], unseen: Sequence[Case]) -> list[Asked]:
    asked: list[Asked] = []
    with progress_bar("locate", out) as progress:
        for case in [*held_back, *unseen]:
            answer = client.locate(path=case.path).answer
            asked.append(Asked(case, case in unseen, answer))
            progress(len(asked), len(held_back) + len(unseen))
    table = Table(title="Photos that are not in the index", caption=UNSEEN_CAPTION)
    for column in ("place", "photo", "answer", "error", "witnesses", "best"):
        table.add_column(column, no_wrap=True)
    for a in asked:
        evidence, point = a.answer.evidence, a.answer.point
        table.add_row(
            _named(a),
            Path(a.case.path).stem[-8:],
            f"[green]{point.lat:.5f}, {point.lon:.5f}[/]" if point else f"[yellow]{a.answer.reason}[/]",
            "" if a.error_m is None else f"{'[red]' if a.unseen else ''}{a.error_m:.0f} m",
            str(len(evidence)) if a.answer.located else "",
            f"{evidence[0].similarity:.2f}" if evidence else "",
        )
    out.print(table)
    out.print(_by_place(asked))
    return asked


def _by_place(asked: Sequence[Asked]) -> Table:
    table = Table("place", "asked", "located", "abstained", "median error", title="By place", caption=UNSEEN_CAPTION)
    for place in dict.fromkeys(a.case.place for a in asked):
        of_place = [a for a in asked if a.case.place == place]
        errors = [a.error_m for a in of_place if a.error_m is not None]
        table.add_row(
            _named(of_place[0]),
            str(len(of_place)),
            str(len(errors)),
            str(len(of_place) - len(errors)),
            f"{statistics.median(errors):.1f} m" if errors else "",
        )
    return table


def _named(asked: Asked) -> str:
    return f"{asked.case.place} *" if asked.unseen else asked.case.place


def _search(client: Sightline, held_back: Sequence[Case]) -> float:
    """Search by every held-back photo; returns the median round trip in ms."""
    took_ms = []
    reply = None
    with progress_bar("search", out) as progress:
        for done, case in enumerate(held_back, 1):
            started = time.monotonic()
            reply = client.search(path=case.path, top_k=3)
            took_ms.append((time.monotonic() - started) * 1000)
            progress(done, len(held_back))
    if reply is not None:
        out.print(_hits(f"Most similar to {held_back[-1].place}/{Path(held_back[-1].path).name}", reply))
    if client.stats().has_text:
        out.print(_hits(f"Most similar to the words “{WORDS}”", client.search(text=WORDS, top_k=3)))
    else:
        out.print("[dim]this encoder reads no text, so there is no search by words[/]")
    return round(statistics.median(took_ms), 1)


def _hits(title: str, reply: SearchReply) -> Table:
    table = Table("photo", "similarity", "lat", "lon", "coordinates from", title=title)
    for hit in reply.hits:
        path = Path(hit.path or "")
        provenance = hit.provenance or Provenance.DERIVED
        table.add_row(
            f"{path.parent.name}/{path.name}",
            f"{hit.similarity:.3f}",
            f"{hit.lat:.5f}",
            f"{hit.lon:.5f}",
            provenance.value,
        )
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--photos",
        type=Path,
        default=DRAWN,
        help="a folder with a manifest.csv, or of photos with GPS in EXIF",
    )
    parser.add_argument("--encoder", default="auto", help="as SIGHTLINE_ENCODER, or auto: CLIP if it is here")
    parser.add_argument("--data-dir", type=Path, default=Path(".sightline/demo"), help="made anew at every run")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
