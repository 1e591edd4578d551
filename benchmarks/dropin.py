"""One located request in a fresh web process: the way of the guide's class, and Sightline's, in one run.

    python -m benchmarks.dropin [--quick] [--photos FOLDER]

JSON goes to stdout on one line, progress and tables to stderr. Exit status 1 if some request got no coordinates: the
figure would not be that of a located request.

**Both sides** have the same photos, the same checkpoint (ViT-B-32 of true shape in float32 with random weights, which
cost what trained ones cost), as many threads, and the CPU. They take turns, each time in a new process (web.py), so
that drift of the machine meets both; the service idles while the old side is asked. Times are taken in the web process.

- *Old* (guide.py): model, pickle and FAISS index are made for every request; then decode, encode, search.
- *New*: `Sightline.locate` and `to_guide_json`, against a worker that is up.
- *Unchanged*, in the processes of *new*: the old code with the class of producer_client.compat, made for every request.

A process's first request pays imports and connections and stands apart (`*_first_request_ms`); the reported figure is
the median over processes of the median of the later ones. Memory is the largest that was resident (VmHWM) of the web
process; the worker's, which any number of web processes share, is not in it.

**Photos.** Random weights do not recognise a place from another viewpoint, but they do see that two pictures are nearly
the same. So every view is indexed as a burst of crops that differ by a percent, at its coordinates, surveyed. Such a
burst is one picture, and so one witness, which here is enough. A query is another such crop, enlarged to MEGAPIXELS as
phones send them (photos.py). Each is asked for once by each side: a worker knows the vectors of photos that were added,
by content, and must have seen none of these.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Self

from benchmarks import photos
from benchmarks.measure import peak_rss_mb
from benchmarks.photos import Query
from benchmarks.processes import ROOT, alone, cores, threads_env
from benchmarks.report import console, machine, step, table, tell, workplace
from benchmarks.stack import ARCHITECTURE, Checkpoint, add, servers
from worker.commands.tables import Table
from worker.core.geo import distance_m

#: Processes of each side, by default and with --quick.
PROCESSES, QUICK_PROCESSES = 5, 2
#: Requests of one kind that a process answers after its first.
LATER = 3
#: Views that the photos are made from.
VIEWS = 12
MEGAPIXELS = 12.0
#: Seconds for the index to be published.
REBUILD_TIMEOUT_S = 120.0


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
    """Requests of one kind over all processes. `first`, where it is a process's very first; `later`, by process.

    rss: MB of each process at most.
    """

    first: list[Asked] = field(default_factory=list)
    later: list[list[Asked]] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)

    @property
    def all(self) -> list[Asked]:
        return self.first + [asked for some in self.later for asked in some]

    def figures(self, side: str) -> dict[str, Any]:
        later = [asked for some in self.later for asked in some]
        figures: dict[str, Any] = {
            "request_ms": _median(_median(asked.ms for asked in some) for some in self.later),
            "range_ms": [round(bound(asked.ms for asked in later), 1) for bound in (min, max)],
            "located": sum(asked.point is not None for asked in self.all),
        }
        if self.first:
            errors = [asked.error_m for asked in self.all if asked.error_m is not None]
            figures |= {
                "first_request_ms": _median(asked.ms for asked in self.first),
                "parts_ms": _parts_ms(later),
                "rss_mb": _median(self.rss),
                "rss_mb_max": max(self.rss),
                "median_error_m": _median(errors) if errors else None,
            }
        return {f"{side}_{name}": figure for name, figure in figures.items()}


class WebProcess:
    """A new interpreter that answers as web.py says. Ended on leaving."""

    def __init__(self, arguments: Sequence[str], *, threads: int, log: Path) -> None:
        self._log = log
        self._stderr: IO[bytes] = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.web", *arguments],
            cwd=ROOT,
            env=os.environ | threads_env(threads),
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
        return Asked(query, **said)

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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dropin", description="Measure a located request, the guide's way and Sightline's."
    )
    given = "make queries from these: a folder with a manifest.csv or GPS in EXIF (drawn ones)"
    parser.add_argument("--photos", type=Path, help=given)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PROCESSES} processes a side, not {PROCESSES}")
    options = parser.parse_args(arguments)
    with workplace("dropin") as folder:
        result = _measure(folder, options.photos, QUICK_PROCESSES if options.quick else PROCESSES)
    console.print(*_tables(result))
    tell(result)
    if said := not_located(result):
        sys.exit(said)


def not_located(result: dict[str, Any]) -> str:
    """Why these are not the figures of a located request; empty if they are."""
    lacking = {side: count - result[f"{side}_located"] for side, count in result["requests"].items()}
    named = ", ".join(f"{count} {side}" for side, count in lacking.items() if count)
    return f"requests without coordinates: {named}. These are not the times of a located request" if named else ""


def _measure(folder: Path, given: Path | None, processes: int) -> dict[str, Any]:
    about = machine("torch", "open-clip-torch", "faiss-cpu", "pillow", "celery")
    with step("photos: views, bursts to index, queries"):
        views = photos.views(given, folder / "views", VIEWS)
        indexed = photos.write_bursts(views, folder / "photos")
        wanted = processes * 2 * (1 + LATER)
        queries = photos.write_queries(views, folder / "queries", megapixels=MEGAPIXELS, wanted=wanted)
    checkpoint, pickled = Checkpoint(folder / "model"), folder / "embeddings.pkl"
    with step(f"old: checkpoint, and the pickle of {len(indexed)} photos"):
        known = [(query.path, {"lat": query.view.lat, "lon": query.view.lon}) for query in indexed]
        alone(checkpoint.write, pickled, known, threads=cores())
    old, new, unchanged = Kind(), Kind(), Kind()
    flask = True
    # A burst is one witness.
    with servers(folder, checkpoint, locate_min_witnesses=1) as stack:
        with step("new: start the service"):
            stack.start_all()
            stack.wait_ready()
        with step(f"new: index {len(indexed)} photos"), stack.client() as client:
            add(client, [(query.path, query.view.lat, query.view.lon) for query in indexed])
            client.rebuild_index(timeout_s=REBUILD_TIMEOUT_S)
        arguments = (str(checkpoint.path), str(pickled), stack.settings.broker_url)
        for number in range(processes):
            log = folder / "logs" / f"web-{number}.log"
            asked, others = queries[number :: 2 * processes], queries[number + processes :: 2 * processes]
            for side, kind, handler in (("old", old, "guide"), ("new", new, "locate")):
                with (
                    step(f"process {number + 1} of {processes}: {side}"),
                    WebProcess(arguments, threads=cores(), log=log) as web,
                ):
                    kind.first.append(web.ask(handler, asked[0]))
                    kind.later.append([web.ask(handler, query) for query in asked[1:]])
                    if kind is new:
                        unchanged.later.append([web.ask("unchanged", query) for query in others])
                    kind.rss.append(web.peak_rss_mb())
                    flask = flask and web.flask
    figures = old.figures("old") | new.figures("new") | unchanged.figures("unchanged")
    return {
        "ratio": round(figures["old_request_ms"] / figures["new_request_ms"], 2),
        "first_ratio": round(figures["old_first_request_ms"] / figures["new_first_request_ms"], 2),
        **figures,
        "old_first_parts_ms": _parts_ms(old.first),
        "requests": {"old": len(old.all), "new": len(new.all), "unchanged": len(unchanged.all)},
        "encoder": f"open_clip/{ARCHITECTURE}/random",
        "processes": processes,
        "photos": len(indexed),
        "photos_from": "drawn" if given is None else "folder",
        "megapixels": MEGAPIXELS,
        "query_file_mb": round(statistics.median(Path(query.path).stat().st_size / 1e6 for query in queries), 2),
        "threads": cores(),
        "flask": version("flask") if flask else None,
        "machine": about,
    }


def _tables(result: dict[str, Any]) -> Iterator[Table]:
    """The sides beside each other."""
    names = ("request_ms", "range_ms", "first_request_ms", "rss_mb", "located")
    sides = ("old", "new", "unchanged")
    title = f"One located request, {result['photos']} photos in the index, medians: {result['ratio']} times as fast"
    yield table(title, {name: {side: result.get(f"{side}_{name}") for side in sides} for name in names})
    yield table("Of an old request", {name: {"ms": ms} for name, ms in result["old_parts_ms"].items()})


def _parts_ms(some: Sequence[Asked]) -> dict[str, float]:
    """Median of each part."""
    return {part: _median(asked.parts_ms[part] for asked in some) for part in some[0].parts_ms}


def _median(values: Any) -> float:
    return round(float(statistics.median(values)), 1)


if __name__ == "__main__":
    main()
