"""What comes from the system before: its pickle, read without running anything in it, and what of it is taken over.

The pickle of the guide holds `paths`, `metadata` and `embeddings`, matched by position. A pickle is a program; the
reader here knows numpy arrays of numbers and plain containers and refuses every other name before it is looked up.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Never

import numpy as np

from producer_client.arguments import read_items
from producer_client.client import Sightline
from producer_client.contract import Code, Embedded, EmbedItem, NewPhoto, Photo, Provenance, Refused
from producer_client.errors import short
from producer_client.fields import LAT, LON, METHOD, take
from producer_client.plain import shown
from worker.core.vectors import Vector, unit_rows
from worker.errors import Permanent
from worker.prefixes import Prefixes
from worker.spelling import on_disk
from worker.survey import LegacyPhoto, Report

#: Cosine of an old vector and a new one of the same file by the same model.
SAME_MODEL = 0.999
#: Old vectors that are compared with new ones before any is kept.
SAMPLE = 16
#: What the pickle must hold, and all that it may.
NEEDED = ("paths", "embeddings")
NAMES = "paths, embeddings, metadata"
#: Of what it holds instead, as many as are named.
MOST_NAMES = 20
#: Kinds of numbers that an array may hold: floats, signed and unsigned integers, booleans.
NUMBERS = "fiub"


class NotThatPickle(Permanent):
    """The file is no pickle of the guide's, or more than that."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.BAD_REQUEST, message)


def read_pickle(
    path: Path,
    provenance_of: Callable[[str | None], Provenance],
    *,
    root: Path = Path("/"),
    prefixes: Mapping[str, str] | None = None,
) -> list[LegacyPhoto]:
    """Entries of the guide's `embeddings.pkl`. provenance_of: what a method's name means. root: where relative paths
    start. prefixes: of paths that another machine wrote, see worker.prefixes.

    Raises NotThatPickle naming what it refuses.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise NotThatPickle(f"{path} cannot be opened: {exc.strerror}") from exc
    try:
        found = _Reader(io.BytesIO(content)).load()
    except NotThatPickle:
        raise
    except Exception as exc:  # others' code: pickle, which raises a dozen types (its manual); the file is refused
        raise NotThatPickle(f"{path} is no pickle, or not a whole one") from exc
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise NotThatPickle(
            f"{path} holds no dictionary, but what is of type {kind}; build_clip_index.py writes one with {NAMES}"
        )
    if lacking := ", ".join(name for name in NEEDED if name not in found):
        names = short(", ".join(map(shown, islice(found, MOST_NAMES)))) or "nothing"
        raise NotThatPickle(f"{path} lacks {lacking}; it holds {names}, and build_clip_index.py writes {NAMES}")
    if not isinstance(found["paths"], list | tuple | np.ndarray):
        kind = type(found["paths"]).__name__
        raise NotThatPickle(f"its paths are no list, but of type {kind}")
    paths, vectors = list(found["paths"]), _vectors(found["embeddings"])
    metadata = _metadata(found.get("metadata"), paths)
    if not len(paths) == len(vectors) == len(metadata):
        raise NotThatPickle(
            f"{path} has {len(paths)} paths, {len(vectors)} embeddings and {len(metadata)} metadata: matched by "
            "position, which of them belong together cannot be known"
        )
    here = Prefixes(prefixes or {}).here
    return [
        replace(_photo(number, on_disk(str(root / here(str(name)))), facts, vector, provenance_of), written=str(name))
        for number, (name, facts, vector) in enumerate(zip(paths, metadata, vectors, strict=True))
    ]


def reusable_vectors(
    photos: Sequence[LegacyPhoto], new: Sequence[NewPhoto], client: Sightline, *, written_at: float
) -> tuple[dict[str, Vector], str]:
    """({SHA-256 of the file: its old vector}, model key): of all photos to add if those of a sample, embedded again by
    the workers, are the same; of none otherwise. A content that two photos have with different vectors is left out.

    written_at: when the pickle was, as st_mtime. A file that changed after it may be another picture.
    """
    new = [item for item in new if not _changed_after(written_at, Path(photos[int(item.ref)].path))]
    if not new:
        return {}, ""
    old = {photo.number: photo.vector for photo in photos if photo.vector is not None}
    chosen = [int(new[i].ref) for i in np.linspace(0, len(new) - 1, min(SAMPLE, len(new))).astype(int)]
    outcomes = client.embed_many(
        [EmbedItem(str(number), Photo(path=photos[number].path)) for number in dict.fromkeys(chosen)],
        return_vectors=True,
    )
    done = [outcome for outcome in outcomes if isinstance(outcome, Embedded) and outcome.vector is not None]
    fresh = {int(outcome.ref): np.array(outcome.vector, dtype=np.float32) for outcome in done}
    if not same_model({number: old[number] for number in fresh if number in old}, fresh):
        return {}, done[0].model_key if done else ""
    vectors: dict[str, Vector] = {}
    doubtful: set[str] = set()
    for item in new:
        vector = old.get(int(item.ref))
        if vector is None:
            continue
        try:
            content = hashlib.sha256(Path(photos[int(item.ref)].path).read_bytes()).hexdigest()
        except OSError:
            # Gone since the report; adding it will say so.
            continue
        if content in vectors and float(vectors[content] @ vector) < SAME_MODEL:
            doubtful.add(content)
        vectors[content] = vector
    return {content: vector for content, vector in vectors.items() if content not in doubtful}, done[0].model_key


def _changed_after(written_at: float, path: Path) -> bool:
    try:
        return path.stat().st_mtime > written_at
    except OSError:
        # Gone since the report; adding it will say so.
        return True


def same_model(old: Mapping[int, Vector], new: Mapping[int, Vector]) -> bool:
    """Whether the old vectors of a sample are those that the model of today makes of the same files.

    Both by the photo's number; what is in one alone does not count, and an empty sample proves nothing.
    """
    both = old.keys() & new.keys()
    return bool(both) and all(
        old[number].shape == new[number].shape and float(old[number] @ new[number]) >= SAME_MODEL for number in both
    )


def counted_as(
    photos: Sequence[LegacyPhoto], report: Report, *, trust: Provenance | None = None
) -> dict[int, Provenance]:
    """{number of a photo: what its coordinates count as}; none of those that have none, or none that can be told.

    Coordinates that contradict each other do not count, those of a default point as fallback. trust: what coordinates
    count as of which no rule says how they came to be; derived, which is never evidence, unless given. It does not hold
    for a point that many photos share: whether that is a place is a question.
    """
    unknown = {*report.bad_coordinates, *(number for group in report.conflicts for number in group)}
    default, doubtful = report.at_points(default=True), report.at_points(default=False)
    counted: dict[int, Provenance] = {}
    for photo in photos:
        if photo.lat is None or photo.number in unknown:
            continue
        counted[photo.number] = photo.provenance
        if photo.number in default:
            counted[photo.number] = Provenance.FALLBACK
        elif photo.provenance is Provenance.DERIVED and trust is not None and photo.number not in doubtful:
            counted[photo.number] = trust
    return counted


def to_add(
    photos: Sequence[LegacyPhoto], report: Report, *, trust: Provenance | None = None
) -> list[NewPhoto | Refused]:
    """What to send of them: each path once, no missing file; the ref is the photo's number. One that no message can
    carry is refused, and its neighbours are sent. trust: see `counted_as`, without which no coordinates are sent."""
    left_out = {*report.missing, *(number for group in report.duplicates for number in group[1:])}
    counted = counted_as(photos, report, trust=trust)
    new: list[NewPhoto] = []
    for photo in photos:
        if photo.number in left_out:
            continue
        provenance = counted.get(photo.number)
        place = (None, None, None) if provenance is None else (photo.lat, photo.lon, provenance)
        new.append(_new_photo(photo, *place))
    return read_items(NewPhoto, new)


def _new_photo(photo: LegacyPhoto, lat: float | None, lon: float | None, provenance: Provenance | None) -> NewPhoto:
    address = photo.metadata.get("address")
    rest = {name: value for name, value in photo.metadata.items() if name != "address"}
    return NewPhoto(
        ref=str(photo.number),
        photo=Photo(path=photo.path),
        lat=lat,
        lon=lon,
        provenance=provenance,
        address=address if isinstance(address, dict) else {"address": address} if address else None,
        metadata=rest or None,
    )


class _Reader(pickle.Unpickler):
    """Finds nothing but the parts of a numpy array of numbers."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _number_type,
            ("_codecs", "encode"): _latin1,
        }
        for core in ("numpy.core", "numpy._core"):
            allowed[f"{core}.multiarray", "_reconstruct"] = _empty_array
            allowed[f"{core}.multiarray", "scalar"] = _scalar
            allowed[f"{core}.numeric", "_frombuffer"] = _from_buffer
        try:
            return allowed[module, name]
        except KeyError:
            raise NotThatPickle(
                f"the pickle asks for {module}.{name}, which has no place in vectors, paths and plain metadata. "
                "Nothing of it was run"
            ) from None

    def persistent_load(self, pid: Any) -> Never:
        raise NotThatPickle("the pickle refers to objects outside of it")


class _Array:
    """Stands for numpy.ndarray, which could be called with any shape."""


def _number_type(name: Any, *_: Any) -> np.dtype[Any]:
    if not isinstance(name, str):
        raise NotThatPickle("the pickle holds an array of records")
    found = np.dtype(name)
    if found.kind not in NUMBERS:
        raise NotThatPickle(f"the pickle holds an array of {found}, not of numbers")
    return found


def _latin1(text: str, encoding: str) -> bytes:
    # How protocols 0 to 2 write bytes.
    if encoding != "latin1":
        raise NotThatPickle(f"the pickle holds bytes in {encoding}")
    return text.encode("latin1")


def _empty_array(kind: type, shape: Any, typecode: Any) -> np.ndarray[Any, Any]:
    # What numpy writes: always empty, its content comes after. A large shape here would only take memory.
    if kind is not _Array or shape != (0,):
        raise NotThatPickle("the pickle holds an array that numpy did not write")
    return np.ndarray((0,), dtype=np.float32)


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)
    return array


def _scalar(dtype: Any, content: bytes) -> float | int:
    number: float | int = np.frombuffer(content, dtype=dtype, count=1)[0].item()
    return number


def _vectors(embeddings: Any) -> list[Vector | None]:
    """Rows of length 1, None for one that is zero or not finite: its photo is embedded again."""
    try:
        rows = np.array(embeddings, dtype=np.float32)
    except (ValueError, TypeError) as exc:
        raise NotThatPickle("its embeddings are no matrix of numbers, one row for each photo") from exc
    if rows.ndim == 0:
        raise NotThatPickle("its embeddings are no matrix of numbers, one row for each photo")
    if rows.ndim == 3 and rows.shape[1] == 1:
        rows = rows[:, 0]  # a list of encode_image's [1, d]
    if len(rows) == 0:
        return []
    if rows.ndim != 2:
        raise NotThatPickle(f"its embeddings are an array of shape {rows.shape}, not one vector a photo")
    lengths = np.linalg.norm(rows, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    rows[usable] = unit_rows(rows[usable])
    return [row if good else None for row, good in zip(rows, usable, strict=True)]


def _metadata(given: Any, paths: Sequence[Any]) -> list[Any]:
    if given is None:
        return [{} for _ in paths]
    if isinstance(given, dict):
        return [given.get(path, {}) for path in paths]
    if not isinstance(given, list | tuple | np.ndarray):
        kind = type(given).__name__
        raise NotThatPickle(f"its metadata is no list or dictionary, but of type {kind}")
    return list(given)


def _photo(
    number: int, path: str, facts: Any, vector: Vector | None, provenance_of: Callable[[str | None], Provenance]
) -> LegacyPhoto:
    known = dict(facts) if isinstance(facts, dict) else {}
    lat, lon = _number(take(known, LAT)), _number(take(known, LON))
    method = take(known, METHOD)
    if lat is None or lon is None:
        lat = lon = None
    return LegacyPhoto(number, path, lat, lon, provenance_of(None if method is None else str(method)), known, vector)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
