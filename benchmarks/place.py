"""How often each policy is right about where photos were taken, how sure it says it is, and how long it takes.

    python -m benchmarks.place [--quick] [--photos FOLDER]
    python -m benchmarks.place --set floors|corridor|apart|series|small

JSON goes to stdout on one line, progress and tables to stderr.

**The drawn photos** (lookalikes.py) are such as it is easy to be wrong about: streets of one style at several
addresses, storeys of one building, questions by night, in rain, cropped, zoomed and half hidden. One of fifty known
photos has a wrong position. All views of places that nobody has seen are asked about. Nothing is learnt from what is
asked: these are other photos than those of the library. *Right* is within 100 m: addresses lie 2.2 km apart, storeys
220 m on the map. `--set` asks another library instead (sets.py), by the guide, today's rule and the last policy alone.

**The policies** (ladder.py) are one library, asked with the service's own switches: the guide's rule (the nearest photo
above a cosine of 0.75), today's rule (the share of votes), and each rung in turn on top of those before it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from benchmarks import lookalikes, sets
from benchmarks.again import Again
from benchmarks.heldout import of_photos
from benchmarks.ladder import (
    Placed,
    Policy,
    Question,
    Reply,
    Shelf,
    at_once,
    default_of,
    in_turns,
    policies,
    settings_of,
)
from benchmarks.lookalikes import ONE_WRONG_OF, Drawn, Known, Size, with_wrong_ones
from benchmarks.matching import matching
from benchmarks.planted import planted
from benchmarks.processes import cores
from benchmarks.report import console, machine, step, table, tell, workplace
from benchmarks.sets import SETS, Library
from worker.commands.tables import Table
from worker.embedded import EmbeddedServers
from worker.place.measures import measured
from worker.settings import Settings

RIGHT_M, NEAR_M = 100.0, 25.0
#: Questions that are asked one at a time, for their times.
TIMED, QUICK_TIMED = 20, 10
QUICK = Size(styles=2, addresses=3, storeys=4, unseen_storeys=1, known=6, asked=3)
#: Seeds of the plantings of wrong positions, the first of which is that of the library that is asked.
PLANTINGS = (0, 1, 2)
#: Places, and pictures of each, that are matched by their keypoints.
MATCHED = (12, 2)
#: What is asked for its times alone: the last policy without keypoints, and with fewer pairs of pictures than it has.
WITHOUT, FEW_PAIRS = Policy("without keypoints", {"rungs": ("places",)}), Policy("8 pairs", {"locate_pairs": 8})
#: Policies that another library than look-alikes is asked by, beside the last.
OF_SETS = ("guide", "today")
#: Figures that are about radii, of which the guide's rule names none.
OF_RADII = ("radius_coverage", "ece")
FIGURES = (
    "answered_seen",
    "right_of_given",
    "false_answers_unseen",
    "auc_pr",
    "aurc",
    "ece",
    "ece_right",
    "radius_coverage",
    "error_m_p50",
)
PLANTED = ("planted_found", "good_suspended")
#: Of the JSON, what the table shows, by the heads of its columns.
SHOWN = {
    "answered": "answered_seen",
    "right": "right_of_given",
    "false": "false_answers_unseen",
    "AUC-PR": "auc_pr",
    "ECE": "ece",
    "radius": "radius_coverage",
    "p50 ms": "locate_p50_ms",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.place", description="Measure answers.")
    parser.add_argument("--photos", type=Path, help="leave one out of these, too: a folder with a manifest.csv")
    parser.add_argument("--quick", action="store_true", help="fewer places and photos")
    parser.add_argument("--set", choices=SETS, help="ask another library of drawn photos")
    options = parser.parse_args(arguments)
    size, timed = (QUICK, QUICK_TIMED) if options.quick else (Size(), TIMED)
    with workplace("place") as folder, EmbeddedServers(folder / "servers", with_valkey=False) as servers:
        settings = settings_of(servers, folder, options.photos)
        if options.set is None:
            result = of_drawn(settings, folder / "drawn", size, timed=timed, compared=policies())
        else:
            few = [policy for policy in policies() if policy.name in OF_SETS or not policy.changes]
            library = SETS[options.set]
            result = {"set": options.set, **of_set(settings, folder / "drawn", library, timed=timed, compared=few)}
        if options.photos is not None:
            own = {"db_schema": "given", "photos_table": "photos_given", "data_dir": folder / "given"}
            with step("photos of the folder"), closing(Shelf(settings.model_copy(update=own))) as shelf:
                result["given"] = of_photos(shelf, options.photos, policies())
    for one in tables(result):
        console.print(one)
    tell(result | {"machine": machine("numpy", "torch", "faiss-cpu", "pillow")})


def of_drawn(settings: Settings, folder: Path, size: Size, *, timed: int, compared: Sequence[Policy]) -> dict[str, Any]:
    """folder: to draw into. timed: questions that are asked one at a time. compared: as `policies` has them."""
    folder.mkdir()
    with step("draw"):
        drawn = lookalikes.draw(folder, size, processes=cores())
    known, questions = with_wrong_ones(drawn.known, PLANTINGS[0]), asked_of(drawn)
    again = Again()
    with closing(Shelf(settings)) as shelf:
        with step(f"{len(known)} photos into the library"):
            shelf.add(Placed(photo.path, photo.lat, photo.lon) for photo in known)
        with step(f"wrong positions, planted {len(PLANTINGS)} times"), again.kept():
            found = planted(shelf, drawn.known, PLANTINGS)
        result = _asked(shelf, questions, timed, known, compared, RIGHT_M, again)
    with step("match keypoints, ours and OpenCV's way"):
        return result | found | matching(_some_of_each(known))


def of_set(
    settings: Settings, folder: Path, library: Library, *, timed: int, compared: Sequence[Policy]
) -> dict[str, Any]:
    """See `of_drawn`. With fewer photos than one of which is wrong, all positions are true."""
    folder.mkdir()
    with step("draw"):
        drawn = sets.draw(folder, library, processes=cores())
    known = drawn.known if len(drawn.known) < ONE_WRONG_OF else with_wrong_ones(drawn.known, PLANTINGS[0])
    with closing(Shelf(settings)) as shelf:
        with step(f"{len(known)} photos into the library"):
            shelf.add(Placed(photo.path, photo.lat, photo.lon) for photo in known)
        return _asked(shelf, asked_of(drawn), timed, known, compared, library.right_m, Again())


def asked_of(drawn: Drawn) -> list[Question]:
    places = list(dict.fromkeys(asked.place for asked in drawn.asked))
    return [
        Question(
            number,
            asked.path,
            asked.lat,
            asked.lon,
            places.index(asked.place),
            asked.seen,
            (asked.kind, asked.spoiled or "as it was", asked.timed),
        )
        for number, asked in enumerate(drawn.asked, start=1)
    ]


def _some_of_each(known: Sequence[Known]) -> list[Path]:
    """Pictures of some places, one place after the other."""
    of_place = groupby(known, key=lambda photo: photo.place)
    return [photo.path for _, some in islice(of_place, MATCHED[0]) for photo in islice(some, MATCHED[1])]


def _asked(
    shelf: Shelf,
    questions: Sequence[Question],
    timed: int,
    known: Sequence[Known],
    compared: Sequence[Policy],
    right_m: float,
    again: Again,
) -> dict[str, Any]:
    """Figures of each policy, also by what is asked, and what keypoints add to a locate, by the pairs that it may
    compare."""
    alone = questions[:: max(1, len(questions) // timed)][:timed]
    others = [question for question in questions if question not in alone]
    figures: dict[str, Any] = {}
    added: dict[str, float] = {}
    by_kind: dict[str, Any] = {}
    default = default_of(compared)
    for learnt, some in groupby(compared, key=lambda policy: policy.learnt):
        named = list(some)
        with step(f"learn from {len(known)} photos, for {', '.join(policy.name for policy in named)}"), again.kept():
            generation = shelf.rebuild(**learnt)
        asking = [*named, *([WITHOUT, FEW_PAIRS] if default in named else [])]
        with (
            step(f"{len(questions)} questions to {len(named)} policies"),
            shelf.asked_by(asking, generation, known[0].path) as runtimes,
        ):
            by_turns = in_turns(runtimes, asking, alone)
            with again.kept():
                rest = at_once(runtimes, named, others)
        figures |= {
            policy.name: figures_of(
                [*by_turns[policy.name], *rest[policy.name]], by_turns[policy.name], policy, right_m
            )
            for policy in named
        }
        by_kind |= {p.name: _by_kind([*by_turns[p.name], *rest[p.name]], right_m) for p in named}
        if WITHOUT in asking:
            added = {
                "8": adds_ms(by_turns[FEW_PAIRS.name], by_turns[WITHOUT.name]),
                "20": adds_ms(by_turns[default.name], by_turns[WITHOUT.name]),
            }
    return {
        "policies": figures | {"default": figures[default.name]},
        "by_kind": by_kind | {"default": by_kind[default.name]},
        "geometry_adds_ms": added,
        "photos": len(known),
        "questions": {"seen": sum(q.seen for q in questions), "unseen": sum(not q.seen for q in questions)},
        "right_m": right_m,
    }


def figures_of(
    replies: Sequence[Reply], timed: Sequence[Reply], policy: Policy, right_m: float = RIGHT_M
) -> dict[str, Any]:
    """By their names; None where there is none to have."""
    examined = [reply.examined for reply in replies]
    found = {name: figure.value for name, figure in measured(examined, right_m=right_m).overall.figures.items()}
    chosen = {name: None if policy.guide and name in OF_RADII else found[name] for name in FIGURES}
    chosen["right_within_25m"] = measured(examined, right_m=NEAR_M).overall.figures["right_of_given"].value
    rounded = {name: None if value is None else round(value, 4) for name, value in chosen.items()}
    return rounded | {"locate_p50_ms": round(statistics.median(reply.ms for reply in timed), 1)}


def _by_kind(replies: Sequence[Reply], right_m: float) -> dict[str, Any]:
    """Of streets and storeys, and of what was done to the photos: the three first figures of a policy."""
    kinds = dict.fromkeys(kind for reply in replies for kind in reply.question.kinds)
    found = {}
    for kind in sorted(kinds):
        some = [reply.examined for reply in replies if kind in reply.question.kinds]
        of = measured(some, right_m=right_m).overall
        found[kind] = {name: _rounded(of.figures[name].value) for name in FIGURES[:3]} | {"questions": len(some)}
    return found


def adds_ms(these: Sequence[Reply], those: Sequence[Reply]) -> float:
    """Median over the same questions."""
    return round(statistics.median(one.ms - other.ms for one, other in zip(these, those, strict=True)), 1)


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """Of 80 columns. `answered` is of seen places, `false` of others, `right` of all that was answered."""
    questions = result["questions"]
    title = f"{questions['seen']} questions about seen places, {questions['unseen']} about others"
    yield table(title, {name: _shown(policy) for name, policy in result["policies"].items()})
    others = [*result["geometry_adds_ms"].items()]
    rows = {f"keypoints of {pairs} pairs add, ms": {"": added} for pairs, added in others}
    rows |= {name: {"": result[name]} for name in result if name.startswith("match_")}
    rows |= {name: {"": result[name]} for name in PLANTED if name in result}
    yield table("Keypoints, and planted positions", rows)
    heads = list(SHOWN.items())[:3]
    for policy in ("default", "+time"):
        if kinds := result["by_kind"].get(policy):
            yield table(
                f"{policy}, by what is asked",
                {
                    kind: {"questions": of["questions"], **{head: of[name] for head, name in heads}}
                    for kind, of in kinds.items()
                },
            )
    if "given" in result:
        given = result["given"]
        rows = {name: _of_photos(policy) for name, policy in given["policies"].items()}
        yield table(f"{given['photos']} photos of {given['places']} places, each left out in its turn", rows)


def _shown(policy: Mapping[str, Any]) -> dict[str, Any]:
    return {head: _rounded(policy[name]) for head, name in SHOWN.items()}


def _of_photos(policy: Mapping[str, Any]) -> dict[str, Any]:
    heads = {"answered": "answered", "in 50 m": "right_within_50m", "in 100 m": "right_within_100m"}
    heads |= {"median m": "median_error_m", "largest m": "largest_error_m", "false": "false_answers_unseen"}
    return {head: _rounded(policy[name]) for head, name in heads.items()}


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3)


if __name__ == "__main__":
    main()
