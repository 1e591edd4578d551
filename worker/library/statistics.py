"""What the service knows and how it is: photos, index, model, last rebuild."""

from __future__ import annotations

from collections.abc import Sequence

from producer_client import contract
from worker.core.index_ports import LiveIndex, PublishedGenerations
from worker.core.ports import Encoder, Entries, Runs, StoredKeypoints, StoredVectors, Verdicts
from worker.core.types import Repeated
from worker.embedding import Embedding


class Statistics:
    """keypoints: None where nobody is told how many photos lack them. tell_exam: whether of the exam, too, and of all
    that clients of the release before do not know."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        embedding: Embedding,
        entries: Entries,
        vectors: StoredVectors,
        keypoints: StoredKeypoints | None,
        verdicts: Verdicts | None,
        published: PublishedGenerations,
        runs: Runs,
        live: LiveIndex,
        tell_exam: bool,
    ) -> None:
        self._encoder = encoder
        self._embedding = embedding
        self._entries = entries
        self._vectors = vectors
        self._keypoints = keypoints
        self._verdicts = verdicts
        self._published = published
        self._runs = runs
        self._live = live
        self._tell_exam = tell_exam

    def stats(
        self,
        *,
        rss_mb: float,
        next_model_key: str | None = None,
        sandbox: str | None = None,
        stuck: Sequence[contract.Stuck] = (),
    ) -> contract.StatsReply:
        """sandbox: what confines the decoders of this process, in words. stuck: what was found so lately."""
        counts = self._entries.counts(self._encoder.model_key)
        self._live.settle()
        number = self._live.generation
        published_at, at_least = (None, None) if number is None else self._published.published(number)
        repeated = self._live.repeated if self._tell_exam else Repeated()
        told = next((g for g in self._published.kept() if g.number == number), None) if self._tell_exam else None
        return contract.StatsReply(
            model=self._encoder.name,
            model_key=self._encoder.model_key,
            dimension=self._encoder.dimension,
            device=self._encoder.device,
            has_text=self._encoder.has_text,
            photos=counts.photos,
            with_coordinates=counts.with_coordinates,
            indexed=self._live.count,
            refused=counts.refused,
            generation=number,
            generation_count=self._live.count - self._live.delta_count,
            kind=self._live.kind,
            recall_at_10=self._live.recall_at_10,
            generation_published_at=published_at,
            delta=self._live.delta_count,
            next_model_key=next_model_key,
            next_model_missing=None if next_model_key is None else self._vectors.missing_count(next_model_key),
            removed=counts.removed,
            purges_pending=counts.purges_pending,
            # The index may have counted more meanwhile than Postgres before.
            seq=max(counts.seq, self._live.seq),
            cache_hits=self._embedding.cache_hits,
            cache_misses=self._embedding.computed,
            rss_mb=rss_mb,
            last_rebuild=self._runs.last(),
            changed=counts.changed,
            gone=counts.gone,
            recall_at_10_at_least=at_least,
            without_keypoints=None if self._keypoints is None else self._keypoints.missing_count(),
            conflicts=0 if self._verdicts is None else self._verdicts.count_open(),
            learnt_places=None if told is None else told.learnt_places,
            examined=None if told is None else told.examined,
            exam_passed=None if told is None else told.exam_passed,
            sandbox=sandbox if self._tell_exam else None,
            stuck=list(stuck) if self._tell_exam else [],
            live_recall_at_10=None if repeated.recall_at_10 is None else round(repeated.recall_at_10, 4),
            live_recall_searches=repeated.of or None,
            answers_flipped=None if repeated.flipped is None else round(repeated.flipped, 4),
        )
