"""What a locate asks and answers with: its rule, what is compared, and answers for clients of earlier releases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from producer_client.contract import DEFAULT_THRESHOLD, Answer, Hit, Reason
from worker.core.keypoints import Keypoints
from worker.core.ports import StoredKeypoints
from worker.library.comparing import Comparing
from worker.place.geometry import Seen
from worker.place.rule import Rule
from worker.place.strength import LEAST_INLIERS
from worker.place.weighing import Compare
from worker.settings import Settings

#: What clients of the release before the later reasons are told instead.
FORMER_REASONS = {
    Reason.LOOK_ALIKE_PLACES: Reason.NEIGHBOURS_DISAGREE,
    Reason.UNVERIFIED: Reason.TOO_FEW_WITNESSES,
    Reason.ONLY_OWN_COPIES: Reason.NOTHING_SIMILAR,
    Reason.OUTSIDE_COVERAGE: Reason.NOTHING_SIMILAR,
    Reason.NO_PLACE_IN_PICTURE: Reason.NOTHING_SIMILAR,
}


def rule_of(settings: Settings, threshold: float | None = None) -> Rule:
    """threshold: the similarity that a caller asks for, of all evidence; else what has keypoints needs none."""
    return Rule(
        threshold=DEFAULT_THRESHOLD if threshold is None else threshold,
        window=settings.locate_similarity_window,
        agree_m=settings.locate_agree_m,
        min_share=settings.locate_min_share,
        min_witnesses=settings.locate_min_witnesses,
        neighbours=settings.locate_neighbours,
        floor=-1.0 if threshold is None else threshold,
        pairs=settings.locate_pairs,
    )


def compare_with(own: Keypoints | None, hits: Sequence[Hit], stored: StoredKeypoints) -> Compare | None:
    """How a photo is compared with hits; None where it has not been looked at. With fewer keypoints than it takes to be
    verified it has nothing in common with any, and nothing is read."""
    if own is None:
        return None
    if len(own) < LEAST_INLIERS:
        return _nothing_in_common
    comparing = Comparing(stored, own)
    comparing.expect(hits)
    return comparing


def for_former(answer: Answer) -> Answer:
    """For clients of the release before: in its words, and without the fields that it does not know."""
    return replace(
        answer,
        reason=FORMER_REASONS.get(answer.reason, answer.reason) if answer.reason else None,
        evidence=[replace(hit, inliers=None) for hit in answer.evidence],
        contrary=None,
        within={},
        timings_ms={},
    )


def _nothing_in_common(_: Hit) -> Seen:
    return Seen(0, 0, 0, np.zeros(0, dtype=np.intp))
