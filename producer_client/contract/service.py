"""What the workers answer about the service itself: rebuilds, and how it is."""

from __future__ import annotations

from typing import Any

import msgspec

from producer_client.contract.wire import Reply, without_nothing


class RebuildReply(Reply, frozen=True):
    """What a rebuild did: `with_coordinates` rows seen, `valid_files` of them readable, `indexed` vectors. Of
    `unknown_files` the disk did not say whether they are there and as they were; `unknown_why` is the reason of one."""

    generation: int
    seq: int
    with_coordinates: int
    valid_files: int
    embedded: int
    refused: int
    indexed: int
    dimension: int
    model: str
    model_key: str
    device: str
    seconds: float
    kind: str  #: exact, ivf or hnsw
    recall_at_10: float  #: share of the true ten nearest that the index finds, measured on a sample
    index_bytes: int
    recall_at_10_at_least: float | None = None  #: what it promises to photos that it has not seen, and is published for
    unknown_files: int = 0
    unknown_why: str | None = None
    suspended: int = 0  #: photos whose position was found to be contradicted, which are no witnesses from now on
    exam: str | None = None  #: what its exam says beside the baseline, as a sentence
    exam_passed: bool | None = None  #: None where there was nothing to compare

    def to_wire(self) -> dict[str, Any]:
        """Without the last three where they say nothing: clients of the release before them take no field more."""
        wire = super().to_wire()
        if not self.suspended:
            del wire["suspended"]
        return without_nothing(wire, "exam", "exam_passed")


class TickReply(Reply, frozen=True):
    """`ran`: this tick ran a rebuild that was due."""

    ran: bool


class FillReply(Reply, frozen=True):
    """`after_id`: the last photo that was tried, from which the chain goes on; None ends it."""

    after_id: int | None


class RebuildRun(Reply, frozen=True):
    """One run of the rebuild as `stats` shows it. `state` is running, done or failed. Times are ISO 8601, UTC."""

    run_id: int
    state: str
    phase: str
    done: int
    total: int
    started_at: str
    finished_at: str | None
    summary: dict[str, Any] | None
    error: str | None


class Stuck(Reply, frozen=True):
    """A message that a thread of a worker was at for longer than SIGHTLINE_STUCK_S. at: when that was found, ISO 8601,
    UTC; where: what the thread was calling, the innermost first."""

    task: str
    task_id: str
    for_s: int
    at: str
    where: str


class StatsReply(Reply, frozen=True):
    model: str
    model_key: str
    dimension: int
    device: str
    has_text: bool
    photos: int
    with_coordinates: int
    indexed: int
    refused: int
    generation: int | None
    generation_count: int
    generation_published_at: str | None
    kind: str | None  #: of the generation: exact, ivf or hnsw
    recall_at_10: float | None  #: of the generation, measured when it was built
    delta: int
    next_model_key: str | None  #: the model that is being filled to take over (SIGHTLINE_NEXT_ENCODER)
    next_model_missing: int | None  #: photos that lack its vector
    removed: int
    purges_pending: int  #: purged photos that a kept generation on disk may still hold
    seq: int
    cache_hits: int
    cache_misses: int
    rss_mb: float
    last_rebuild: RebuildRun | None
    changed: int = 0  #: photos whose file has another content than when they were embedded
    gone: int = 0  #: photos whose file is not there any more
    recall_at_10_at_least: float | None = None  #: as a rebuild says it; None of a generation of an earlier release
    without_keypoints: int | None = None  #: photos whose picture the next rebuild looks at; None where none is wanted
    conflicts: int = 0  #: photos that are no witnesses until somebody has confirmed or rejected their position
    learnt_places: int | None = None  #: of how many its own photos have taught what answers are worth; None: of none
    examined: int | None = None  #: photos that the generation was asked about; None where it was not
    exam_passed: bool | None = None  #: whether it is no worse than the baseline; None where nothing was compared
    #: What confines the processes that decode photos; `off`, or `none` where it is not to be had.
    sandbox: str | None = None
    #: What was found stuck within the last week, the newest first, 20 at the most.
    stuck: list[Stuck] = msgspec.field(default_factory=list)

    #: Of the process that answers, and of one generation: share of the true ten nearest that its searches have found,
    #: and how many of them were repeated by comparing with all to tell (SIGHTLINE_RECALL_SAMPLE), a thousand at the
    #: most; None before the first.
    live_recall_at_10: float | None = None
    live_recall_searches: int | None = None
    answers_flipped: float | None = None  #: share of recent searches whose first photo the newest generation changed

    def to_wire(self) -> dict[str, Any]:
        """Without the last ten where they say nothing: clients of the release before them take no field more."""
        wire = super().to_wire()
        if self.without_keypoints is None:
            del wire["without_keypoints"]
        if not self.conflicts:
            del wire["conflicts"]
        said_if_known = ("learnt_places", "examined", "exam_passed", "sandbox", "stuck")
        return without_nothing(wire, *said_if_known, "live_recall_at_10", "live_recall_searches", "answers_flipped")
