"""What a locate asks and answers with: its rule, what a position counts as by the settings, and answers for clients of
earlier releases."""

from __future__ import annotations

from msgspec.structs import replace

from producer_client.contract import Answer, PositionIssue, Provenance, Reason
from worker.core.types import Entry
from worker.place.evidence import counts_as
from worker.place.rule import Rule
from worker.settings import Settings

#: What clients of the release before the later reasons are told instead.
FORMER_REASONS = {
    Reason.LOOK_ALIKE_PLACES: Reason.NEIGHBOURS_DISAGREE,
    Reason.UNVERIFIED: Reason.TOO_FEW_WITNESSES,
    Reason.ONLY_OWN_COPIES: Reason.NOTHING_SIMILAR,
    Reason.OUTSIDE_COVERAGE: Reason.NOTHING_SIMILAR,
    Reason.NO_PLACE_IN_PICTURE: Reason.NOTHING_SIMILAR,
    Reason.WITHHELD: Reason.NO_TRUSTED_EVIDENCE,
}


def rule_of(settings: Settings, threshold: float | None = None) -> Rule:
    """threshold: the similarity that a caller asks for, of all evidence; else what has keypoints needs none."""
    return Rule(
        threshold=settings.locate_threshold if threshold is None else threshold,
        window=settings.locate_similarity_window,
        agree_m=settings.locate_agree_m,
        min_share=settings.locate_min_share,
        min_witnesses=settings.locate_min_witnesses,
        neighbours=settings.locate_neighbours,
        floor=-1.0 if threshold is None else threshold,
        pairs=settings.locate_pairs,
    )


def counted(entry: Entry, settings: Settings) -> tuple[Provenance | None, PositionIssue | None]:
    """What a photo's position counts as here, and why it is not what is stored."""
    return counts_as(entry, agree_m=settings.locate_agree_m, stale_files_count=settings.stale_files_count)


def for_former(answer: Answer) -> Answer:
    """For clients of the release before: in its words, and without the fields that it does not know."""
    return replace(
        answer,
        reason=FORMER_REASONS.get(answer.reason, answer.reason) if answer.reason else None,
        evidence=[replace(hit, inliers=None, apart_s=None) for hit in answer.evidence],
        contrary=None,
        within={},
        timings_ms={},
    )
