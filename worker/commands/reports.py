"""What a survey of photos found, as people read it. Knows no command."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from producer_client import Provenance
from producer_client.errors import short
from worker.commands.tables import Table
from worker.settings import Settings
from worker.words import say

if TYPE_CHECKING:
    from worker.points import SharedPoint
    from worker.survey import LegacyPhoto, Report

#: Of photos with something wrong, and of points that many share, those that are named.
NAMED = 10


def report_table(title: str, report: Report, *, opened: bool = False) -> Table:
    shown = Table("", say("photos"), title=escape(title))
    shown.add_row(say("in it"), str(report.photos))
    shown.add_row(say("with coordinates"), str(report.with_coordinates))
    shown.add_row(say("of these with a file"), str(report.with_file))
    shown.add_row(say("of these to be trusted"), str(report.trusted))
    if report.beside:
        shown.add_row(say("others, known beside their rows"), str(report.beside))
    if report.without_path:
        shown.add_row(say("without a path"), str(len(report.without_path)))
    shown.add_row(say("file missing"), str(len(report.missing)))
    shown.add_row(say("file unreadable"), str(len(report.unreadable)) if opened else say("not looked at"))
    shown.add_row(say("impossible coordinates"), str(len(report.bad_coordinates)))
    shown.add_row(say("files that occur again"), str(len(report.duplicates)))
    shown.add_row(say("of these in contradiction"), str(len(report.conflicts)))
    shown.add_row(say("at points that many share"), str(sum(len(point.numbers) for point in report.points)))
    return shown


def prefix_lines(report: Report) -> Iterator[str]:
    """What became of paths of other machines."""
    for use in report.prefixes:
        if use.photos:
            yield say(
                "{old} is {new} here; photos: {count}, with a file: {there}",
                old=escape(use.old),
                new=escape(use.new),
                count=use.photos,
                there=use.with_file,
            )
        else:
            yield say("[yellow]{old}: no path begins with it[/]", old=escape(use.old))


def named_lines(report: Report, photos: Sequence[LegacyPhoto]) -> Iterator[str]:
    """The first of those that something is wrong with, by name."""
    paths = {photo.number: photo.path for photo in photos}
    twice = [number for group in report.conflicts for number in group]
    for title, numbers in (
        (say("without a path"), report.without_path),
        (say("file missing"), report.missing),
        (say("impossible coordinates"), report.bad_coordinates),
        (say("of one file, in contradiction"), twice),
    ):
        if numbers:
            yield f"[bold]{title}[/]"
            yield from (f"  {number}  {escape(short(paths[number]))}".rstrip() for number in numbers[:NAMED])
        if len(numbers) > NAMED:
            yield say("  and {count} more; --json has all of them", count=len(numbers) - NAMED)


def none_there_line(report: Report) -> str:
    """What to do where every file is missing; nothing otherwise."""
    if not report.photos or len(report.missing) < report.photos:
        return ""
    return say(
        "None of its files is there. Relative paths start from --root; --path-prefix OLD=NEW says which folder here "
        "one of another machine is."
    )


def kept_line(reused: int, *, compared: bool) -> str:
    """What became of the vectors of an old pickle."""
    if reused:
        return say("vectors kept: {count}", count=reused)
    if compared:
        return say("all embedded again: its vectors are not of this model")
    return say("all embedded again: no file of it is as it was, to compare its vectors by")


def point_lines(report: Report, *, settings: Settings | None = None, trust: bool = False) -> Iterator[str]:
    """Points that many photos share, as questions with what is known; SQL only where all of it speaks for a default.

    settings: what the backend's table is called. trust: whether the photos without a method of their own were to be
    trusted.
    """
    for point in report.points[:NAMED]:
        yield say(
            "[yellow]{count} photos lie at exactly {lat}, {lon}[/]: one place, or a default?",
            count=len(point.numbers),
            lat=point.lat,
            lon=point.lon,
        )
        yield from (f"  {fact}" for fact in _facts(point))
        if point.is_default and point.trusted and settings is not None:
            yield say(
                "  All of it speaks for a default. If it is one, this makes them `fallback`, which is no evidence:"
            )
            yield f"  {escape(_as_fallback(point, settings))}"
        elif point.is_default:
            yield say("  All of it speaks for a default: they count as `fallback`, which is no evidence.")
    if len(report.points) > NAMED:
        yield say("such points besides: {count}; --json has all of them", count=len(report.points) - NAMED)
    if report.points and settings is not None:
        yield say(
            "Where a point is a default, give its rows a location_method that means `fallback` "
            "(SIGHTLINE_LOCATION_METHODS); where it is a place, there is nothing to do."
        )
    if report.at_points(default=False) and trust:
        yield say("--trust does not hold for them: they count as `derived` where the old file does not say more.")


def _facts(point: SharedPoint) -> Iterator[str]:
    yield say("of them counting as evidence: {count}", count=point.trusted)
    if point.days is None:
        yield say("their files: nothing is known of their times")
    elif point.days <= 1:
        yield say("their files: all within one day")
    else:
        yield say("their files: within {days} days", days=math.ceil(point.days))
    if point.alike is None or point.alike_others is None:
        yield say("their pictures: not compared, too few are embedded")
    else:
        yield say(
            "their pictures: a mean similarity of {alike:.2f} to each other, {others:.2f} to other photos",
            alike=point.alike,
            others=point.alike_others,
        )
    if point.nearby is not None:
        yield say("other photos within 1 km of it: {count}", count=point.nearby)


def _as_fallback(point: SharedPoint, settings: Settings) -> str:
    """SQL for the backend's own hands: its rows are never changed by what they look like."""
    lat, lon, method = (settings.photos_columns.get(name, name) for name in ("lat", "lon", "location_method"))
    return (
        f"UPDATE {settings.photos_table} SET {method} = '{Provenance.FALLBACK}' "
        f"WHERE {lat} = {point.lat} AND {lon} = {point.lon};"
    )
