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
from demo.folders import Case, Split, read_folder, split
from demo.scenes import write_scenes
from producer_client import BadRequest, Pending, PhotoRefused, Provenance, Refused, Sightline, SightlineError
from producer_client.contract import Answer, SearchReply
from worker.core.geo import distance_m
from worker.encoder.load import best_available
from worker.errors import WorkerError
from worker.progress import progress_bar, rebuild_lines, wait_for_rebuild
from worker.settings import load as load_settings
from worker.signals import raise_on_signals
from worker.stack import Stack

#: What the words of a text search are, where the encoder reads text.
WORDS = "a street with a church tower"

#: Where the drawn scenes stay between runs, by the drawing's own text.
DRAWN = Path(".sightline") / (
    "scenes-"
    + hashlib.sha256(
        b"".join(file.read_bytes() for file in sorted(Path(scenes.__file__).parent.glob("[!_]*.py")))
    ).hexdigest()[:12]
)

#: Photos that are shown one by one.
SHOWN = 40
#: What was held out, and what the answers show.
PLACES_HELD_OUT = (
    "One place is held out whole: that it is not located shows that the demo can say that it does not know. Photos of "
    "the others are held back one in four."
)
PHOTOS_HELD_OUT = (
    "There are not two places with photos enough, so single photos are held out: each is asked for with all others as "
    "evidence, and not found by its own file. It shows that places of this index are recognised, and nothing of what "
    "is said of a place that it has never seen."
)
#: The mark of photos that must not be located.
UNSEEN_CAPTION = "* a place that the index has never seen"
#: Says that a folder is the demo's own to delete.
MARKER = ".sightline-demo"

out = Console()


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
    # Of the drawn streets it is known what must come of them.
    return 0 if arguments.photos != DRAWN or (result["located"] >= 1 and result["abstained"] >= 1) else 1


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
    parts = split(cases)
    out.print(PHOTOS_HELD_OUT if parts.single else PLACES_HELD_OUT, style="dim")
    encoder = _encoder(arguments.encoder)
    settings = load_settings(data_dir=data_dir, photo_roots=(arguments.photos.resolve(),), encoder=encoder)
    with Stack(settings, log_dir=data_dir / "logs", port=0) as stack:
        with out.status("Postgres and Valkey run; the worker loads its model") as status:
            stack.start_all()
            stack.wait_ready(
                lambda s: status.update(f"Postgres and Valkey run; the worker loads its model ({s:.0f} s)")
            )
        out.print(f"[green]up[/]     Postgres, Valkey, worker, index process, beat; logs in {data_dir / 'logs'}")
        with stack.client(timeout_s=120.0) as client:
            added = _add(client, parts.known)
            with progress_bar("rebuild", out) as progress:
                rebuilt = wait_for_rebuild(client, progress, 600.0)
            out.print("[green]index[/]  " + "\n       ".join(rebuild_lines(rebuilt)), soft_wrap=True)
            asked = _locate(client, parts)
            p50_ms = _search(client, [a.case for a in asked if not a.unseen])
            dead = [process for process in stack.processes if process.exit_code is not None]
        if dead:
            raise RuntimeError(f"{dead[0].name} ended by itself:\n{dead[0].last_words()}")
        with out.status("stopping everything"):
            stack.stop()
    errors = [a.error_m for a in asked if a.error_m is not None]
    return {
        "encoder": encoder,
        "held_out": "photos" if parts.single else "places",
        "added": added,
        "indexed": rebuilt.indexed,
        "generation": rebuilt.generation,
        "located": len(errors),
        "abstained": len(asked) - len(errors),
        "median_error_m": round(statistics.median(errors), 2) if errors else None,
        "search_p50_ms": p50_ms,
        "seconds": round(time.monotonic() - started, 1),
    }


def _photos(folder: Path) -> list[Case]:
    source = str(folder)
    if folder == DRAWN:
        source = "street scenes of our own, drawn with GPS in their EXIF tags"
        # The manifest is written last, and the drawing is the same every time.
        if not (DRAWN / "manifest.csv").exists():
            with progress_bar("draw street scenes", out) as progress:
                write_scenes(DRAWN, progress=progress)
    with progress_bar("look for positions", out) as progress:
        found = read_folder(folder, progress)
    for remark in found.remarks:
        out.print(f"[yellow]note[/]   {escape(remark)}", highlight=False)
    places = {case.place for case in found.cases}
    out.print(f"[green]photos[/] {len(found.cases)} of {_counted(len(places), 'place')}: {escape(source)}")
    return found.cases


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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
    missing = [outcome for outcome in outcomes if isinstance(outcome, (Refused, Pending))]
    for outcome in missing:
        _say_refused(outcome.ref, outcome.message, outcome.code)
    out.print(f"[green]added[/]  {len(outcomes) - len(missing)} photos through the queue")
    return len(outcomes) - len(missing)


def _say_refused(ref: str, message: str, code: str) -> None:
    out.print(f"[yellow]refused[/] {escape(ref)}: {escape(message)} ({code})")


def _locate(client: Sightline, parts: Split) -> list[Asked]:
    asked: list[Asked] = []
    todo = [(case, False) for case in parts.held_back] + [(case, True) for case in parts.unseen]
    with progress_bar("locate", out) as progress:
        for done, (case, unseen) in enumerate(todo, 1):
            try:
                asked.append(Asked(case, unseen, client.locate(path=case.path).answer))
            except (PhotoRefused, BadRequest) as refused:
                _say_refused(case.item.ref, refused.message, refused.code)
            progress(done, len(todo))
    if not asked:
        raise RuntimeError("no photo that was held out could be read")
    caption = UNSEEN_CAPTION if parts.unseen else None
    title = "Photos, each asked for without itself" if parts.single else "Photos that are not in the index"
    table = Table(title=title, caption=caption)
    for column in ("place", "photo", "answer", "error", "witnesses", "best"):
        table.add_column(column, no_wrap=True)
    for a in asked[: SHOWN // 2] + asked[SHOWN // 2 :][-SHOWN // 2 :]:
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
    if len(asked) > SHOWN:
        out.print(f"[dim]the first and the last {SHOWN // 2} of {len(asked)}[/]")
    out.print(_by_place(asked, caption))
    if not any(a.answer.located for a in asked):
        out.print(
            "[yellow]note[/]   none was located: no two photos of the index are like enough to one that was asked"
        )
    return asked


def _by_place(asked: Sequence[Asked], caption: str | None) -> Table:
    table = Table("place", "asked", "located", "abstained", "median error", title="By place", caption=caption)
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


def _search(client: Sightline, held_back: Sequence[Case]) -> float | None:
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
    return round(statistics.median(took_ms), 1) if took_ms else None


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
