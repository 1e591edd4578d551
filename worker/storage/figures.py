"""What an exporter of metrics asks: counts and moments, in a few statements that write nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import extract, func, select

from worker.storage.attempts import Attempts
from worker.storage.database import Database
from worker.storage.entries import Entries
from worker.storage.generations import Generations
from worker.storage.keypoints import KeptKeypoints
from worker.storage.tables import generations, purges, rebuilds, served, serving
from worker.storage.vectors import Vectors
from worker.storage.verdicts import Verdicts

#: Of an exam, by which path its JSON has them (worker.place.exam).
ANSWERED, RIGHT = "answered_seen", "right_of_given"


class Figures:
    def __init__(
        self,
        database: Database,
        *,
        entries: Entries,
        vectors: Vectors,
        keypoints: KeptKeypoints | None,
        verdicts: Verdicts,
        attempts: Attempts,
        generations: Generations,
    ) -> None:
        """keypoints: None where nobody wants any."""
        self._database = database
        self._entries = entries
        self._vectors = vectors
        self._keypoints = keypoints
        self._verdicts = verdicts
        self._attempts = attempts
        self._generations = generations

    def read(self, *, quarantine_after: int) -> dict[str, Any]:
        """By the names of worker.observe.names.POSTGRES, without what there is none of. Raises Transient."""
        with self._database.begin() as connection:
            model_key = connection.scalar(select(serving.c.model_key)) or ""
        counts = self._entries.counts(model_key)
        found: dict[str, Any] = {
            "photos": {
                ("known",): counts.photos,
                ("with_coordinates",): counts.with_coordinates,
                ("indexed",): counts.indexed,
                ("refused",): counts.refused,
                ("changed",): counts.changed,
                ("gone",): counts.gone,
                ("removed",): counts.removed,
            },
            "purges_pending": counts.purges_pending,
            "log_seq": counts.seq,
            "missing_vectors": self._vectors.missing_count(model_key) if model_key else None,
            "missing_keypoints": None if self._keypoints is None else self._keypoints.missing_count(),
            "conflicts_open": self._verdicts.count_open(),
            "quarantined_photos": self._attempts.quarantined_count(quarantine_after),
        }
        return {**found, **self._moments(), **self._generation(model_key)}

    def _moments(self) -> dict[str, Any]:
        def ended(state: str) -> Any:
            return extract("epoch", func.max(rebuilds.c.finished_at).filter(rebuilds.c.state == state))

        purged_s = extract("epoch", func.now() - func.min(purges.c.asked_at))
        with self._database.begin() as connection:
            purge = connection.scalar(select(purged_s).where(purges.c.erased_at.is_(None)))
            running = func.count().filter(rebuilds.c.state == "running")
            rebuilt = connection.execute(select(running, ended("done"), ended("failed"))).one()
        return {
            "purge_oldest_age_seconds": max(0.0, float(purge or 0)),
            "rebuild_running": int(rebuilt[0] > 0),
            "rebuild_last_success_timestamp_seconds": rebuilt[1],
            "rebuild_last_failure_timestamp_seconds": rebuilt[2],
        }

    def _generation(self, model_key: str) -> dict[str, Any]:
        g = generations.c
        figures = g.exam["figures"]["overall"]["figures"]
        query = (
            select(
                g.number,
                extract("epoch", func.now() - g.published_at).label("age_s"),
                g.recall_at_10,
                g.recall_at_10_at_least,
                g.exam["sample"].as_integer().label("sample"),
                g.verdict["passed"].as_boolean().label("passed"),
                figures[ANSWERED]["value"].as_float().label("answered"),
                figures[RIGHT]["value"].as_float().label("right"),
            )
            .where(*served(model_key))
            .order_by(g.number.desc())
            .limit(1)
        )
        with self._database.begin() as connection:
            row = connection.execute(query).first()
        if row is None:
            return {}
        held_back = self._generations.held_back(model_key) is not None
        return {
            "generation": row.number,
            "generation_age_seconds": max(0.0, float(row.age_s)),
            "generation_recall_at_10": row.recall_at_10,
            "generation_recall_promised": row.recall_at_10_at_least,
            "exam_photos": row.sample,
            "exam_passed": 0 if held_back else row.passed,
            "exam_answered_ratio": row.answered,
            "exam_false_ratio": None if row.right is None else 1 - row.right,
        }
