"""What people are told of positions that were not taken, or that are no evidence. Knows no command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from producer_client.contract import Doubt, Mistake, PositionIssue, Stored
from worker.words import say


def position_lines(stored: Iterable[Stored]) -> Iterator[str]:
    """A line for photos without a position and one for those whose position is never evidence: counts and reasons."""
    without: Counter[PositionIssue] = Counter()
    no_evidence: Counter[PositionIssue] = Counter()
    for outcome in stored:
        if outcome.position_issue is not None:
            (without if outcome.lat is None else no_evidence)[outcome.position_issue] += 1
    if without:
        reasons = _reasons(without)
        yield say("without a position: {count} ({reasons})", count=without.total(), reasons=reasons)
    if no_evidence:
        reasons = _reasons(no_evidence)
        yield say("[yellow]shown, but no evidence[/]: {count} ({reasons})", count=no_evidence.total(), reasons=reasons)


def _reasons(counted: Counter[PositionIssue]) -> str:
    return ", ".join(f"{issue_said(issue)}: {count}" for issue, count in counted.most_common())


def issue_said(issue: PositionIssue) -> str:
    match issue:
        case PositionIssue.ABSENT:
            return say("nothing says where")
        case PositionIssue.VOID:
            return say("the camera had no fix")
        case PositionIssue.ZEROS:
            return say("exactly 0, 0 in the file")
        case PositionIssue.HALF:
            return say("only half of it is there")
        case PositionIssue.NO_HEMISPHERE:
            return say("no hemisphere")
        case PositionIssue.BROKEN_NUMBERS:
            return say("broken numbers")
        case PositionIssue.MINUTES_OUT_OF_RANGE:
            return say("minutes out of range")
        case PositionIssue.OUT_OF_RANGE:
            return say("degrees out of range")
        case PositionIssue.CONTRADICTORY:
            return say("it can be read in two ways")
        case PositionIssue.UNREADABLE:
            return say("its XMP or JSON cannot be read")
        case PositionIssue.DEFAULT_POINT:
            return say("exactly 0, 0: a default, not a place")
        case PositionIssue.TOO_COARSE:
            return say("its error is too large")
        case PositionIssue.FILE_CHANGED:
            return say("its file has changed")
        case PositionIssue.FILE_GONE:
            return say("its file is gone")
        case PositionIssue.SUSPENDED:
            return say("something contradicts it")


def doubt_said(doubt: Doubt) -> str:
    match doubt:
        case Doubt.SAME_CONTENT:
            return say("the same file lies elsewhere, too")
        case Doubt.SAME_PICTURE:
            return say("copies of the picture lie elsewhere")
        case Doubt.SHARED_POINT:
            return say("many pictures of different things lie exactly here: a default?")
        case Doubt.SEEN_ELSEWHERE:
            return say("photos that show the same thing lie elsewhere")
        case Doubt.GPS_ELSEWHERE:
            return say("its GPS, and photos that show the same thing lie elsewhere")


def mistake_said(mistake: Mistake) -> str:
    match mistake:
        case Mistake.LAT_SIGN:
            return say("with the other sign of the latitude it fits")
        case Mistake.LON_SIGN:
            return say("with the other sign of the longitude it fits")
        case Mistake.BOTH_SIGNS:
            return say("with both signs turned it fits")
        case Mistake.SWAPPED:
            return say("with latitude and longitude exchanged it fits")
        case Mistake.MINUTES_AS_DECIMALS:
            return say("with its decimals read as minutes it fits")
        case Mistake.OF_ANOTHER_PHOTO:
            return say("it has the position of photos of something else")
