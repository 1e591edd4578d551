"""`make demo`: the main job from end to end on this machine, by real processes.

Starts Postgres, Valkey, a worker, the index process and the beat; adds photos through the client; rebuilds; locates
photos that are not in the index, among them those of a place that it has never seen; searches; stops everything.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from demo import scenes
from demo.folders import Case, Split, read_folder, split
from demo.scenes import write_scenes
from demo.shown import Asked, asked_table, example_shown, found_by_words_table, noted, places_table, similar_table
from demo.words import say
from producer_client import BadRequest, Pending, PhotoRefused, Refused, Sightline, SightlineError
from producer_client.contract import Code, ConfidenceKind
from producer_client.language import to_say
from worker.commands.terminal import with_code
from worker.embedded.private import DEMO_MARKER
from worker.encoder.load import best_available, check_name
from worker.errors import WorkerError
from worker.private import UMASK
from worker.progress import parted, progress_bar, rebuild_lines, wait_for_rebuild
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.signals import INTERRUPTED, ignore_signals, raise_on_signals
from worker.stack import Stack
from worker.words import in_language, told

#: What the words of a text search are, where the encoder reads text.
WORDS = "a street with a church tower"

#: Where the drawn scenes stay between runs, by the drawing's own text.
DRAWN = Path(".sightline") / (
    "scenes-"
    + hashlib.sha256(
        b"".join(file.read_bytes() for file in sorted(Path(scenes.__file__).parent.glob("[!_]*.py")))
    ).hexdigest()[:12]
)

#: Streets that are drawn: one of each style.
DRAWN_PLACES = 7
#: What is promised in the demo, which knows a few dozen photos: that of answers no more than one in seven is wrong
#: takes 6 places, and 15 answers without a mistake. A service promises one in twenty (SIGHTLINE_FALSE_ANSWERS).
FALSE_ANSWERS = 0.15
PROMISED = to_say(
    "of the answers with a probability no more than {share:.0%} may be wrong, on places like these. This is the limit, "
    "not what was found; it is so wide as few photos can prove no less. A service promises {usual:.0%} unless told "
    "otherwise."
)
#: Seconds for the worker to serve what was rebuilt; the demo goes on without.
SERVED_S = 30.0

#: What was held out, and what the answers show.
PLACES_HELD_OUT = to_say(
    "One place is held out whole: that it is not located shows that the demo can say that it does not know. Photos of "
    "the others are held back one in four."
)
PHOTOS_HELD_OUT = to_say(
    "There are not two places with photos enough, so single photos are held out: each is asked for with all others as "
    "evidence, and not found by its own file. It shows that places of this index are recognised, and nothing of what "
    "is said of a place that it has never seen."
)

out = Console()


def main() -> int:
    arguments = _arguments()
    raise_on_signals()
    started = time.monotonic()
    try:
        result = _run(arguments, started)
    except KeyboardInterrupt:
        ignore_signals()
        out.print(say("[yellow]stopped; everything that the demo started is stopped too[/]"))
        return INTERRUPTED
    except (SightlineError, WorkerError) as exc:
        return _failed(with_code(told(exc.code, exc.message), exc.code))
    except (RuntimeError, OSError, ValueError) as exc:
        return _failed(in_language(str(exc)))
    sys.stdout.write(json.dumps(result) + "\n")
    # Of the drawn streets it is known what must come of them.
    right = min(result["located"], result["abstained"], result["with_probability"]) >= 1
    return 0 if arguments.photos != DRAWN or right else 1


def _failed(why: str) -> int:
    out.print(say("[bold red]the demo failed:[/] {why}", why=escape(why)), highlight=False)
    return 1


def _run(arguments: argparse.Namespace, started: float) -> dict[str, Any]:
    # As `sightline up` keeps it: what is kept, above all .sightline itself, is nobody else's to read.
    os.umask(UMASK)
    data_dir: Path = arguments.data_dir
    if data_dir.exists() and not (data_dir / DEMO_MARKER).exists():
        words = to_say("{folder} is not a folder that the demo made, and it would delete it: pass another --data-dir")
        raise RuntimeError(say(words, folder=data_dir))
    encoder = _encoder(arguments.encoder)
    parts = split(_photos(arguments.photos))
    out.print(say(PHOTOS_HELD_OUT if parts.single else PLACES_HELD_OUT), style="dim")
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    (data_dir / DEMO_MARKER).touch()
    settings = load_settings(
        data_dir=data_dir,
        photo_roots=(arguments.photos.resolve(),),
        encoder=encoder,
        false_answers=FALSE_ANSWERS,
    )
    with Stack(settings, log_dir=data_dir / "logs", port=0) as stack:
        with out.status(say("starting Postgres and Valkey")) as status:
            stack.start_all()
            loading = to_say("Postgres and Valkey run; the worker loads its model, {seconds:.0f} s")
            stack.wait_ready(lambda seconds: status.update(say(loading, seconds=seconds)))
        words = say("Postgres, Valkey, worker, index process, beat; logs in {folder}", folder=data_dir / "logs")
        out.print(noted(say("up"), words))
        with stack.client(timeout_s=120.0) as client:
            added = _add(client, parts.known)
            with progress_bar(say("rebuild"), out) as progress:
                rebuilt = wait_for_rebuild(client, progress, 600.0)
            out.print(noted(say("index"), "\n".join(rebuild_lines(rebuilt))))
            usual = Settings.model_fields["false_answers"].default
            out.print(noted(say("promise"), say(PROMISED, share=FALSE_ANSWERS, usual=usual)))
            _wait_until_served(client, rebuilt.generation, parts.known[0])
            asked = _locate(client, parts)
            for shown in (*asked_table(asked, single=parts.single), *places_table(asked), *example_shown(asked)):
                out.print(shown)
            p50_ms = _search(client, [a.case for a in asked if not a.unseen])
            dead = [process for process in stack.processes if process.exit_code is not None]
        if dead:
            words = say("{name} ended by itself:", name=dead[0].name)
            raise RuntimeError(f"{words}\n{dead[0].last_words()}")
        with out.status(say("stopping everything")):
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
        "with_probability": sum(
            a.answer.located and a.answer.confidence_kind == ConfidenceKind.PROBABILITY for a in asked
        ),
        "median_error_m": round(statistics.median(errors), 2) if errors else None,
        "search_p50_ms": p50_ms,
        "seconds": round(time.monotonic() - started, 1),
    }


def _encoder(wanted: str) -> str:
    """Raises EncoderUnavailable for a name that there is not: before anything is drawn or started."""
    if wanted != "auto":
        with out.status(say("looking for this encoder")):
            check_name(wanted)
        return wanted
    with out.status(say("looking for CLIP weights on this machine")):
        chosen = best_available()
    if chosen.startswith("packaged"):
        command = "make demo ENCODER=open_clip/ViT-B-32/openai"
        why = say("no CLIP weights here; with network access: {command}", command=command)
    else:
        why = say("its weights are in the local cache")
    out.print(noted(say("model"), f"{chosen} ({why})"))
    return chosen


def _photos(folder: Path) -> list[Case]:
    source = str(folder)
    if folder == DRAWN:
        source = say("street scenes of our own, drawn with GPS in their EXIF tags")
        # The manifest is written last, and the drawing is the same every time.
        if not (DRAWN / "manifest.csv").exists():
            with progress_bar(say("draw street scenes"), out) as progress:
                write_scenes(DRAWN, places=DRAWN_PLACES, progress=progress)
    with progress_bar(say("look for positions"), out) as progress:
        found = read_folder(folder, progress)
    for remark in found.remarks:
        out.print(noted(say("note"), escape(remark), "yellow"))
    places = {case.place for case in found.cases}
    words = to_say("with a position: {count}, places: {places}; {source}")
    out.print(noted(say("photos"), say(words, count=len(found.cases), places=len(places), source=escape(source))))
    return found.cases


def _add(client: Sightline, known: Sequence[Case]) -> int:
    with progress_bar(say("add"), out) as progress:
        outcomes = client.add_many([case.item for case in known], progress=progress)
    stored, refused, pending = parted(outcomes)
    missing: list[Refused | Pending] = [*refused, *pending]
    for outcome in missing:
        _say_refused(outcome.ref, outcome.message, outcome.code)
    out.print(noted(say("added"), say("photos through the queue: {count}", count=len(stored))))
    return len(stored)


def _wait_until_served(client: Sightline, generation: int, known: Case) -> None:
    """What was learnt comes with the generation, which a process takes up a moment after it is published."""
    deadline = time.monotonic() + SERVED_S
    while client.search(path=known.path, top_k=1).generation != generation and time.monotonic() < deadline:
        time.sleep(0.2)


def _say_refused(ref: str, message: str, code: Code) -> None:
    out.print(noted(say("refused"), escape(f"{ref}: {told(code, message)} ({code})"), "yellow"))


def _locate(client: Sightline, parts: Split) -> list[Asked]:
    asked: list[Asked] = []
    todo = [(case, False) for case in parts.held_back] + [(case, True) for case in parts.unseen]
    with progress_bar(say("locate"), out) as progress:
        for done, (case, unseen) in enumerate(todo, 1):
            try:
                asked.append(Asked(case, unseen, client.locate(path=case.path).answer))
            except (PhotoRefused, BadRequest) as refused:
                _say_refused(case.item.ref, refused.message, refused.code)
            progress(done, len(todo))
    if not asked:
        raise RuntimeError(say("no photo that was held out could be read"))
    return asked


def _search(client: Sightline, held_back: Sequence[Case]) -> float | None:
    """Search by every held-back photo, and show what was found by one; returns the median round trip in ms."""
    took_ms = []
    example = None
    with progress_bar(say("search"), out) as progress:
        for done, case in enumerate(held_back, 1):
            started = time.monotonic()
            hits = client.search(path=case.path, top_k=3).hits
            took_ms.append((time.monotonic() - started) * 1000)
            if hits or example is None:
                example = case.path, hits
            progress(done, len(held_back))
    if example is not None:
        out.print(similar_table(*example))
    if client.stats().has_text:
        out.print(found_by_words_table(WORDS, client.search(text=WORDS, top_k=3).hits))
    else:
        out.print(say("[dim]this encoder reads no text, so there is no search by words[/]"))
    return round(statistics.median(took_ms), 1) if took_ms else None


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
