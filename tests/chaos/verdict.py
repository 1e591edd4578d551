"""What was found at the end, beside what is owed: counted, and said of each. Knows neither service nor faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.chaos.ledger import Owed, Photo
from worker.core.vectors import Vector

#: Cosine of two vectors of the same pixels, at the least: a pass of other photos beside it, and an index that rounds.
SAME = 0.999
#: Difference of a similarity that a search says to the one of the photo's own vector, at the most.
SAID = 2e-3


@dataclass(frozen=True)
class Entry:
    """A photo of the index as Postgres has it, removed or not. content: its SHA-256; vector: that of its content."""

    photo_id: int
    path: str | None
    content: str
    removed: bool
    vector: Vector | None


@dataclass(frozen=True)
class Generation:
    """One that is kept. fault: what is wrong with its files, as a sentence. absent: there are none. vectors: by photo
    id, as it has them."""

    number: int
    absent: bool = False
    fault: str | None = None
    ids: Sequence[int] = ()
    vectors: Mapping[int, Vector] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """rows: paths of the backend's table, by photo id. searches: (photo id, similarity) of every hit, of each search
    that was asked for all. generations: those that are kept, the newest last, built after the last write. messages: by
    key of Redis. files, processes: those that should not be there."""

    rows: Mapping[int, str]
    entries: Sequence[Entry]
    searches: Sequence[Sequence[tuple[int, float]]]
    generations: Sequence[Generation]
    messages: Mapping[str, int]
    files: Sequence[str] = ()
    #: Contents of which anything is kept.
    contents: Collection[str] = ()
    #: Photos with a row that had no vector two minutes after the last fault, before any rebuild.
    waiting: Collection[int] = ()
    #: The highest number of a generation that a restore has brought back: later ones have deleted the files of those
    #: before them, and the table names them again.
    restored: int = 0


@dataclass
class Verdict:
    """Sentences of each kind, one for each photo, generation or thing."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    wrong_vector: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not any(vars(self).values())


def judge(photos: Sequence[Photo], vectors: Mapping[str, Vector], asked: Vector, found: Found) -> Verdict:
    """photos: what was sent, and is owed. vectors: by content, as the model gives them here. asked: what searches were
    asked with."""
    verdict = Verdict()
    entries = {entry.photo_id: entry for entry in found.entries}
    ids_of = _ids_by_path(found)
    shown = [Counter(photo_id for photo_id, _ in hits) for hits in found.searches]
    newest = found.generations[-1] if found.generations else None
    for photo in photos:
        name = f"photo {photo.photo_id} ({photo.path.name})"
        ids = ids_of.get(str(photo.path), [])
        if len(ids) > 1:
            verdict.duplicated.append(f"{name} has {len(ids)} rows: {ids}")
        there = [i for i in {*ids, photo.photo_id} if i in entries and not entries[i].removed]
        if photo.owed is Owed.PRESENT:
            _look_for(verdict, photo, name, there, shown, newest)
        elif photo.owed is Owed.ABSENT:
            _look_out_for(verdict, photo, name, there, shown, found, entries)
        for photo_id in there:
            _compare(verdict, name, entries[photo_id], photo.sha256, vectors)
    contents = {photo.path.name: photo.sha256 for photo in photos}
    own = {entry.photo_id: contents.get(str(entry.path).rpartition("/")[2], "") for entry in found.entries}
    _compare_searches(verdict, found, own, vectors, asked)
    if newest is not None:
        _compare_generation(verdict, newest, entries, own, vectors)
    else:
        verdict.torn.append("no generation is kept")
    verdict.torn += [
        generation.fault
        for generation in found.generations
        if generation.fault is not None and not (generation.absent and generation.number <= found.restored)
    ]
    verdict.lost += [f"photo {photo_id} has a row, and no message for two minutes" for photo_id in found.waiting]
    verdict.left += [f"{count} in {key}" for key, count in found.messages.items() if count]
    verdict.left += found.files
    return verdict


def _ids_by_path(found: Found) -> dict[str, list[int]]:
    ids: dict[str, set[int]] = {}
    for photo_id, path in found.rows.items():
        ids.setdefault(path, set()).add(photo_id)
    for entry in found.entries:
        if entry.path is not None:
            ids.setdefault(entry.path, set()).add(entry.photo_id)
    return {path: sorted(of_path) for path, of_path in ids.items()}


def _look_for(
    verdict: Verdict,
    photo: Photo,
    name: str,
    there: Sequence[int],
    shown: Sequence[Counter[int]],
    newest: Generation | None,
) -> None:
    if not there:
        verdict.lost.append(f"{name} is in no entry")
    elif len(there) > 1:
        verdict.duplicated.append(f"{name} has {len(there)} entries: {there}")
    elif any(not hits[there[0]] for hits in shown):
        verdict.lost.append(
            f"{name} is shown by {sum(bool(hits[there[0]]) for hits in shown)} of {len(shown)} searches"
        )
    elif any(hits[there[0]] > 1 for hits in shown):
        verdict.duplicated.append(f"{name} is shown twice by a search")
    elif newest is not None and newest.fault is None and (times := list(newest.ids).count(there[0])) != 1:
        (verdict.duplicated if times else verdict.lost).append(f"{name} is {times} times in generation {newest.number}")


def _look_out_for(
    verdict: Verdict,
    photo: Photo,
    name: str,
    there: Sequence[int],
    shown: Sequence[Counter[int]],
    found: Found,
    entries: Mapping[int, Entry],
) -> None:
    if there:
        verdict.resurrected.append(f"{name} is in the index again")
    elif any(hits[photo.photo_id or 0] for hits in shown):
        verdict.resurrected.append(f"{name} is shown by a search")
    # A generation before the last may have a photo that was removed, and none one that was purged.
    elif held := [g.number for g in (found.generations if photo.purging else found.generations[-1:]) if _has(g, photo)]:
        verdict.resurrected.append(f"{name} is in generations {held}")
    elif photo.purging and (photo.sha256 in found.contents or _kept(entries.get(photo.photo_id or 0))):
        verdict.resurrected.append(f"{name} was purged, and something of it is kept")


def _has(generation: Generation, photo: Photo) -> bool:
    return photo.photo_id in set(generation.ids)


def _kept(entry: Entry | None) -> bool:
    return entry is not None and (entry.content != "" or entry.path is not None)


def _compare(verdict: Verdict, name: str, entry: Entry, content: str, vectors: Mapping[str, Vector]) -> None:
    if entry.content != content:
        verdict.wrong_vector.append(f"{name} is stored with the content of another photo")
    elif entry.vector is None:
        verdict.lost.append(f"{name} has no vector")
    elif (cosine := float(entry.vector @ vectors[content])) < SAME:
        verdict.wrong_vector.append(f"{name} has a vector of cosine {cosine:.4f} to its own")


def _compare_searches(
    verdict: Verdict, found: Found, own: Mapping[int, str], vectors: Mapping[str, Vector], asked: Vector
) -> None:
    for hits in found.searches:
        for photo_id, similarity in hits:
            content = own.get(photo_id, "")
            if content not in vectors:
                verdict.wrong_vector.append(f"a search shows photo {photo_id}, which nobody has sent")
            elif abs(similarity - float(vectors[content] @ asked)) > SAID:
                verdict.wrong_vector.append(f"a search says {similarity:.4f} of photo {photo_id}: of another vector")


def _compare_generation(
    verdict: Verdict,
    newest: Generation,
    entries: Mapping[int, Entry],
    own: Mapping[int, str],
    vectors: Mapping[str, Vector],
) -> None:
    for photo_id, vector in newest.vectors.items():
        if photo_id not in entries or own[photo_id] not in vectors:
            verdict.torn.append(f"generation {newest.number} has photo {photo_id}, which Postgres does not know")
        elif (cosine := float(vector @ vectors[own[photo_id]] / np.linalg.norm(vector))) < SAME:
            verdict.wrong_vector.append(
                f"generation {newest.number} has a vector of cosine {cosine:.4f} to the own one of photo {photo_id}"
            )
