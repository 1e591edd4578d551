"""Every metric: its name, what it is, its labels, and which values these may have. The table of docs/metrics.md.

No label has values that strangers, photos or time can add to: a series costs memory in every Prometheus that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from producer_client.contract import Answer, Code, ConfidenceKind, Queue, Reason, TaskName
from worker.core.observing import Stage

PREFIX = "sightline_"
#: Stands for a value that is none of those below.
OTHER = "other"
#: Label values, closed sets. Those of `sightline_process_info` are of the settings and of the release: one of each.
VALUES: Mapping[str, frozenset[str]] = {
    "task": frozenset(TaskName),
    "code": frozenset(Code) | {"ok", "again"},
    "queue": frozenset(Queue) | {OTHER},
    "stage": frozenset(get_args(Stage)),
    "urgency": frozenset({"urgent", "bulk"}),
    "result": frozenset({"hit", "miss"}),
    "status": frozenset({Answer.LOCATED, Answer.ABSTAINED}),
    "reason": frozenset(Reason) | {"none"},
    "kind": frozenset(ConfidenceKind) | {"own", "resident"},
    "role": frozenset({"serve", "index", "beat"}),
    "server": frozenset({"redis", "postgres"}),
    "state": frozenset({"known", "with_coordinates", "indexed", "refused", "changed", "gone", "removed"}),
    "folder": frozenset({"index", "data", "models"}),
}
INFO = ("role", "encoder", "backend", "device", "sandbox", "version")

#: Seconds of one stage or message: from what a look into memory takes to a bulk message of hundreds of photos.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: Seconds in a queue: up to a weekend without workers.
WAITS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
PHOTOS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """buckets: of a histogram."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    says: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _gauge(name: str, says: str, *labels: str) -> Metric:
    return Metric(PREFIX + name, "gauge", says, labels)


def _counter(name: str, says: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}_total", "counter", says, labels)


def _histogram(name: str, buckets: tuple[float, ...], says: str, *labels: str) -> Metric:
    return Metric(PREFIX + name, "histogram", says, labels, buckets)


#: Of each process, by what is counted and measured there (worker.core.observing).
HEARD: Mapping[str, Metric] = {
    "tasks": _counter("tasks", "messages that ended: `ok`, the reply's code, or `again`", "task", "code"),
    "task": _histogram("task_seconds", SECONDS, "from begun to ended", "task"),
    "queue_wait_seconds": _histogram("queue_wait_seconds", WAITS, "from sent, or due, to begun", "queue"),
    "wait_unknown": _counter("queue_wait_unknown", "messages of which nobody says when they were sent", "queue"),
    "clock_skew": _counter("clock_skew", "messages sent more than a second in the future; they count as sent now"),
    "stage": _histogram("stage_seconds", SECONDS, "parts of the work, see worker/core/observing.py", "stage"),
    "batch_photos": _histogram("batch_photos", PHOTOS, "photos in one pass of the model", "urgency"),
    "vectors": _counter("vectors", "photos whose vector was there, and that needed a pass", "result"),
    "photos_refused": _counter("photos_refused", "photos that were refused", "code"),
    "answers": _counter("answers", "photos that were located or not, and why not", "status", "reason"),
    "answer_confidence": _histogram("answer_confidence", SHARES, "confidence of answers, 0..1", "kind"),
}
#: Of each process, as it is when it is asked.
STATE: Mapping[str, Metric] = {
    "slots": _gauge("slots", "messages at once that it has room for"),
    "slots_busy": _gauge("slots_busy", "messages that it is at"),
    "applied_seq": _gauge("applied_seq", "last change of the log in its index; it lags by sightline_log_seq less this"),
    "index_photos": _gauge("index_photos", "photos in its index"),
    "index_delta_photos": _gauge("index_delta_photos", "of these, those that came after the generation"),
    "serving_generation": _gauge("serving_generation", "number of the generation that it searches"),
    "serving_generation_age_seconds": _gauge("serving_generation_age_seconds", "since that was built"),
    "recall_at_10": _gauge(
        "recall_at_10", "share of the true ten nearest that its searches find, 0..1 (decision 0060)"
    ),
    "recall_at_10_at_most": _gauge(
        "recall_at_10_at_most", "what that surely lies below, once a hundred searches tell of the generation, 0..1"
    ),
    "recall_gate": _gauge("recall_gate", "what is asked of it (`SIGHTLINE_INDEX_RECALL`), 0..1"),
    "recall_searches": _counter("recall_searches", "searches that were repeated exactly to tell"),
    "answers_flipped_ratio": _gauge(
        "answers_flipped_ratio",
        "of recent searches, twenty or more, those whose first photo the newest generation changed, 0..1",
    ),
    "answers_compared": _counter("answers_compared", "searches that two generations were asked"),
    "process_info": _gauge("process_info", "1", *INFO),
    "memory_bytes": _gauge("memory_bytes", "`resident` with mapped files, `own` without", "kind"),
    "disk_reachable": _gauge(
        "disk_reachable", "1 where the disk of the folder could be asked at this scrape; else no more is said", "folder"
    ),
    "disk_free_bytes": _gauge("disk_free_bytes", "of the disk that the folder lies on", "folder"),
    "disk_size_bytes": _gauge("disk_size_bytes", "of the disk that the folder lies on", "folder"),
}
#: Of what lies in Redis (`sightline metrics`).
REDIS: Mapping[str, Metric] = {
    "queue_ready": _gauge("queue_ready", "messages that wait", "queue"),
    "queue_in_hand": _gauge("queue_in_hand", "messages given out and not acknowledged", "queue"),
    "queue_oldest_age_seconds": _gauge(
        "queue_oldest_age_seconds", "since the oldest waiting message was sent, or is due; 0 where none waits", "queue"
    ),
    "queue_in_hand_oldest_age_seconds": _gauge(
        "queue_in_hand_oldest_age_seconds", "since the first of those in hand was given out; 0 where none is", "queue"
    ),
    "queue_unknown_age": _gauge("queue_unknown_age", "messages looked at that do not say when they were sent", "queue"),
    "queue_consumers": _gauge("queue_consumers", "live processes that take from it", "queue"),
    "queue_slots": _gauge("queue_slots", "messages at once that these have room for", "queue"),
    "queue_slots_busy": _gauge("queue_slots_busy", "messages that these are at, of whatever queue", "queue"),
    "processes": _gauge("processes", "live processes", "role"),
    "processes_without_port": _gauge(
        "processes_without_port", "of these, those that want a port for metrics and find all taken", "role"
    ),
    "least_applied_seq": _gauge("least_applied_seq", "the smallest watermark of the live processes that answer"),
    "parked_messages": _gauge("parked_messages", "items that were no message of ours, kept for a person"),
    "clock_skew": _counter("clock_skew", "looks at a message sent more than a second in the future"),
}
#: Of what lies in Postgres (`sightline metrics`).
POSTGRES: Mapping[str, Metric] = {
    "photos": _gauge("photos", "by state; `known` is all of the table", "state"),
    "missing_vectors": _gauge("missing_vectors", "photos that the model which serves has no vector of"),
    "missing_keypoints": _gauge("missing_keypoints", "photos without keypoints, where these are wanted"),
    "conflicts_open": _gauge("conflicts_open", "positions that something contradicts, and nobody has decided on"),
    "quarantined_photos": _gauge("quarantined_photos", "photos that are left alone as processes have died with them"),
    "purges_pending": _gauge("purges_pending", "purged photos that may still be in a generation"),
    "purge_oldest_age_seconds": _gauge("purge_oldest_age_seconds", "since the first of these was asked for; 0: none"),
    "log_seq": _gauge("log_seq", "newest change of the log"),
    "generation": _gauge("generation", "number of the published generation"),
    "generation_age_seconds": _gauge("generation_age_seconds", "since it was published"),
    "generation_recall_at_10": _gauge("generation_recall_at_10", "as it was measured when it was built, 0..1"),
    "generation_recall_promised": _gauge("generation_recall_promised", "what it promises for new photos, 0..1"),
    "exam_photos": _gauge("exam_photos", "known photos that it was asked about as if they were not there"),
    "exam_passed": _gauge("exam_passed", "1, or 0 where the exam holds a newer one back"),
    "exam_answered_ratio": _gauge("exam_answered_ratio", "of these, those that were located, 0..1"),
    "exam_false_ratio": _gauge("exam_false_ratio", "of those located, those at a wrong place, 0..1"),
    "rebuild_running": _gauge("rebuild_running", "whether one runs"),
    "rebuild_last_success_timestamp_seconds": _gauge("rebuild_last_success_timestamp_seconds", "Unix time"),
    "rebuild_last_failure_timestamp_seconds": _gauge("rebuild_last_failure_timestamp_seconds", "Unix time"),
}
REACHABLE = _gauge("reachable", "1 where it could be asked at this scrape; else nothing else is said of it", "server")
SCRAPE = _gauge("scrape_seconds", "how long it took to ask it", "server")


def allowed(label: str, value: str) -> str:
    """The value, or OTHER for one that is none of those that are known."""
    return value if value in VALUES[label] else OTHER
