"""A folder of photos asked about themselves: each as if it were not in the library, and each place as if it were not.

The service leaves a photo and its copies out by itself. What it has learnt from known photos it has learnt from these,
too, each of them left out in its turn. A place that is left out is out of the library when that is learnt.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ladder import Placed, Policy, Question, Reply, Shelf, at_once, serve
from benchmarks.photos import listed

#: The phone's GPS of such photos is 5 to 30 m off.
RIGHT_M = (50.0, 100.0)


def of_photos(shelf: Shelf, folder: Path, policies: Sequence[Policy]) -> dict[str, Any]:
    """folder: with a manifest.csv. Figures of each policy, shares of all questions or of given answers."""
    listed_photos = [item for item in listed(folder) if item.photo.path and item.lat is not None]
    names = [str((item.metadata or {}).get("place")) for item in listed_photos]
    places = list(dict.fromkeys(names))
    questions = [
        Question(number, Path(item.photo.path or ""), item.lat or 0.0, item.lon or 0.0, places.index(name), seen=True)
        for number, (item, name) in enumerate(zip(listed_photos, names, strict=True), start=1)
    ]
    ids = shelf.add(_placed(questions))
    generation = shelf.rebuild()
    with shelf.asked_by(policies, generation, questions[0].path) as runtimes:
        alone = at_once(runtimes, policies, questions)
        unseen: dict[str, list[Reply]] = {policy.name: [] for policy in policies}
        for place in range(len(places)):
            gone = [question for question in questions if question.place == place]
            shelf.remove([ids[question.path] for question in gone])
            generation = shelf.rebuild()
            for runtime in runtimes.values():
                serve(runtime, generation, questions[0].path)
            for name, replies in at_once(runtimes, policies, gone).items():
                unseen[name] += replies
            shelf.add(_placed(gone))
    return {
        "photos": len(questions),
        "places": len(places),
        "policies": {policy.name: figures_of(alone[policy.name], unseen[policy.name]) for policy in policies},
    }


def _placed(questions: Sequence[Question]) -> list[Placed]:
    return [Placed(question.path, question.lat, question.lon) for question in questions]


def figures_of(alone: Sequence[Reply], unseen: Sequence[Reply]) -> dict[str, Any]:
    errors = [reply.error_m for reply in alone if reply.answer.located and reply.error_m is not None]
    right = {
        f"right_within_{metres:.0f}m": _share(sum(error <= metres for error in errors), len(errors))
        for metres in RIGHT_M
    }
    return {
        "answered": _share(len(errors), len(alone)),
        **right,
        "median_error_m": round(statistics.median(errors), 1) if errors else None,
        "largest_error_m": round(max(errors), 1) if errors else None,
        "false_answers_unseen": _share(sum(reply.answer.located for reply in unseen), len(unseen)),
    }


def _share(some: int, of: int) -> float | None:
    return round(some / of, 4) if of else None
