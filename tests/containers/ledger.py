"""What was sent, what was answered, and what Postgres has in the end: whether anything is lost. Knows no service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass
class Sent:
    """A photo that was handed to the queue. photo_id: as the reply says it; None while nobody has answered."""

    path: str
    photo_id: int | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of the backend's table, and how many vectors lie under it in the index: one, where all is well."""

    photo_id: int
    path: str
    vectors: int


@dataclass
class Verdict:
    """Sentences for what must not be. gone: sent, not answered, and neither waiting nor there."""

    lost: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def judge(sent: Iterable[Sent], rows: Iterable[Row], *, waiting: int = 0) -> Verdict:
    """Every photo that was answered or still waits is there exactly once, with the id that was told and one vector.

    waiting: messages that nobody has taken up in the end. What is gone without an answer is what a kill in the moment
    of taking a message may take (deploy/README.md): its sender sends it again.
    """
    by_path: dict[str, list[Row]] = {}
    for row in rows:
        by_path.setdefault(row.path, []).append(row)
    verdict = Verdict([f"{waiting} messages wait, and nobody takes them"] if waiting else [])
    for one in sent:
        there = by_path.get(one.path, [])
        if one.refused:
            verdict.lost.append(f"{one.path} was refused: {one.refused}")
        elif len(there) > 1:
            verdict.lost.append(f"{one.path} is there {len(there)} times")
        elif not there:
            (verdict.gone if one.photo_id is None else verdict.lost).append(f"{one.path} is not there")
        elif one.photo_id not in (None, there[0].photo_id):
            verdict.lost.append(f"{one.path} was answered as photo {one.photo_id} and is photo {there[0].photo_id}")
        elif there[0].vectors != 1:
            verdict.lost.append(f"{one.path} has {there[0].vectors} vectors")
    return verdict


def lacking(before: Mapping[str, int], after: Iterable[Row]) -> list[str]:
    """What a restart, an upgrade or a restore has changed of what was there: ids by path."""
    now = {row.path: row.photo_id for row in after if row.vectors == 1}
    twice = Counter(row.path for row in after)
    wrong = [
        f"{path} is photo {now.get(path)}, and was {number}"
        for path, number in before.items()
        if now.get(path) != number
    ]
    return wrong + [f"{path} is there {count} times" for path, count in twice.items() if count > 1]
