"""The class that Sightline replaces, over the queue: its constructor, methods and shapes. Needs what the client needs.

    from producer_client.compat import CLIPSimilarityService

    clip_service = CLIPSimilarityService()
    matches = clip_service.find_similar_images("/photos/2.jpg", top_k=5, similarity_threshold=0.75)

Nothing is loaded and nothing is connected to before the first call. What the old class answered with None, False or
[] still is, and the log says why; `strict=True` raises instead (see `errors`).
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from producer_client import plain
from producer_client.arguments import provenance_given
from producer_client.bulk import Pending
from producer_client.client import Sightline
from producer_client.contract import (
    DEFAULT_KEY_PREFIX,
    LOCATION_METHODS,
    Code,
    NewPhoto,
    Photo,
    Provenance,
    Refused,
    Stored,
    provenance_of,
)
from producer_client.errors import BadRequest, PhotoRefused, SightlineError, short
from producer_client.fields import ADDRESS, LAT, LON, METHOD, PATH, as_json, as_mapping, take
from producer_client.guide import SENT_AS, SOURCE, match, to_guide_json

__all__ = ["SOURCE", "CLIPSimilarityService", "match", "to_guide_json"]

#: Named after what it replaces, so that `grep CLIP` finds the same events.
log = logging.getLogger("CLIP")

T = TypeVar("T")
U = TypeVar("U")

DEFAULT_BROKER_URL = "redis://127.0.0.1:6379/5"
#: The workers' own limit of a photo that travels in its message (SIGHTLINE_MAX_INLINE_BYTES) unless they set another.
INLINE_BYTES = 1_000_000
#: The service cannot see the file, and the caller may.
NOT_SEEN = frozenset({Code.NOT_FOUND, Code.OUTSIDE_ROOTS, Code.NOT_A_FILE})


class CLIPSimilarityService:
    """One per process is enough; threads may share it.

    model_name, cache_dir: taken for the sake of old calls and without effect, as the workers hold model and index.
    broker_url, result_backend, key_prefix: the workers' Redis; SIGHTLINE_BROKER_URL, SIGHTLINE_RESULT_BACKEND and
    SIGHTLINE_KEY_PREFIX unless given. signing_keys_file: keys as the workers have them; SIGHTLINE_SIGNING_KEYS_FILE.
    timeout_s: how long a method waits for its answer. strict: raise SightlineError instead of answering None, False,
    0, {} or []. trusted_only: show only photos whose coordinates can be trusted, as callers take those of the first one
    for an answer; with False also those that a detector has derived, defaults, and photos without coordinates.
    update_rows: whether what is given with a photo is written to its row in the backend's table, which the old class
    never did; None leaves it to the workers (SIGHTLINE_WRITE_ROWS). location_methods: what values of `location_method`
    mean, as `contract.LOCATION_METHODS` says unless given; all others are `derived`. session: of another process, whose
    photos are to be found too.
    """

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        cache_dir: str | os.PathLike[str] = "data/clip_cache",
        *,
        broker_url: str | None = None,
        result_backend: str | None = None,
        timeout_s: float = 30.0,
        strict: bool = False,
        trusted_only: bool = True,
        update_rows: bool | None = None,
        location_methods: Mapping[str, Provenance | str] | None = None,
        session: int = 0,
        key_prefix: str | None = None,
        signing_keys_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model_name = model_name
        self.cache_dir = Path(cache_dir)
        self.strict = strict
        self.trusted_only = trusted_only
        self.update_rows = update_rows
        given = LOCATION_METHODS if location_methods is None else location_methods
        self._methods = {name: provenance_given(meaning) for name, meaning in given.items()}
        self._client = Sightline(
            broker_url or os.environ.get("SIGHTLINE_BROKER_URL") or DEFAULT_BROKER_URL,
            result_backend=result_backend or os.environ.get("SIGHTLINE_RESULT_BACKEND") or None,
            timeout_s=timeout_s,
            session=session,
            key_prefix=os.environ.get("SIGHTLINE_KEY_PREFIX", DEFAULT_KEY_PREFIX) if key_prefix is None else key_prefix,
            signing_keys_file=signing_keys_file or os.environ.get("SIGHTLINE_SIGNING_KEYS_FILE") or None,
        )

    @property
    def session(self) -> int:
        """As that of `Sightline`: what this object added, its next search finds, as in the old class; whichever worker
        answers."""
        return self._client.session

    def find_similar_images(
        self, image_path: str | os.PathLike[str], top_k: int = 5, similarity_threshold: float = 0.75
    ) -> list[dict[str, Any]]:
        """Similar photos of the index, best first: [{image_path, similarity, metadata}]; metadata has what was given
        with the photo, `lat` and `lon` where they are known, and their `provenance`.

        Their coordinates can be trusted, all of them, unless the service was made with `trusted_only=False`. The photo
        itself and its copies are not among them.
        """
        log.info("🔍 Starting CLIP similarity search...")

        def find() -> list[dict[str, Any]]:
            most = plain.whole("top_k", top_k)
            threshold = plain.number("similarity_threshold", similarity_threshold)
            reply = self._by_path_or_content(
                image_path,
                lambda photo: self._client.search(
                    top_k=most, threshold=threshold, trusted_only=self.trusted_only, **photo
                ),
            )
            return [match(hit) for hit in reply.hits]

        found = self._or(None, f"search for {image_path}", find)
        if found is None:
            # It was not searched, and the log says why: that nothing is similar nobody knows.
            return []
        if found:
            log.info("🖼️ CLIP: Found similar image with %.2f similarity", found[0]["similarity"])
        else:
            log.info("🖼️ CLIP: No similar image")
        return found

    def add_image_to_index(self, image_path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> bool:
        """Add a photo, or give it new metadata. Coordinates are `lat`/`lon` or `latitude`/`longitude` in the metadata,
        an address `address` or `address_data`.

        How the coordinates came to be is `provenance`, `location_method` or `coordinate_source` in the metadata. If it
        says nothing, they count as derived: they are shown with the photo and are never evidence for another one.
        Coordinates that are known already give way only to those of an equal or better provenance.
        """

        def add() -> bool:
            if not isinstance(metadata, Mapping | None):
                raise BadRequest(Code.BAD_REQUEST, f"metadata must be a mapping, not {plain.shown(metadata)}")
            facts = self._facts(dict(metadata or {}))

            def send(photo: dict[str, Any]) -> Stored:
                # A photo that travels has no path of its own on the workers' side.
                sent_as = {SENT_AS: plain.path("image_path", image_path)} if "content" in photo else {}
                return self._client.add_to_index(
                    **photo, **facts | {"metadata": (facts["metadata"] or {}) | sent_as or None}
                )

            stored = self._by_path_or_content(image_path, send)
            log.info("CLIP: Added photo %d to the index", stored.photo_id)
            return True

        return self._or(False, f"add {image_path}", add)

    def build_index_from_database(self, photos: Iterable[Any]) -> int:
        """Add many photos by bulk messages; returns how many of them were stored. The log says why others were not.

        photos: rows of the backend's table, as mappings or objects. One with an `id` is read by the workers from the
        table itself, coordinates and all, and refused where its row there has another file: the id is then one of
        another database. Others are added by their `file_path` with what they say.
        """

        def build() -> int:
            if not isinstance(photos, Iterable):
                raise BadRequest(Code.BAD_REQUEST, f"photos must be rows of a table, not {plain.shown(photos)}")
            new: dict[str, NewPhoto] = {}
            refused: list[Refused] = []
            for number, row in enumerate(photos):
                read = self._new_photo(number, as_mapping(row))
                if isinstance(read, Refused):
                    refused.append(read)
                else:
                    new[read.ref] = read
            log.info("🏗️ Building CLIP index from %d photos...", len(new) + len(refused))
            stored = 0
            pending: list[Pending] = []
            for outcome in self._client.add_many(new.values(), progress=_say_progress):
                if isinstance(outcome, Refused):
                    refused.append(outcome)
                elif isinstance(outcome, Pending):
                    pending.append(outcome)
                else:
                    stored += 1
            if pending:
                log.warning("CLIP: %d images are still on their way: %s", len(pending), pending[0].message)
            for refusal in refused:
                log.warning("CLIP: %s was not taken: %s [%s]", refusal.ref, refusal.message, refusal.code)
            log.info("✅ CLIP: Built index with %d images", stored)
            return stored

        return self._or(0, "build the index", build)

    def encode_image(self, image_path: str | os.PathLike[str]) -> Any:
        """The photo's vector of length 1: a numpy float32 array [dimension], or a list where numpy is not installed."""

        def encode() -> Any:
            reply = self._by_path_or_content(image_path, lambda photo: self._client.embed(return_vector=True, **photo))
            return _as_array(reply.vector or [])

        return self._or(None, f"encode {image_path}", encode)

    def encode_text(self, text: str) -> Any:
        """The text's vector of length 1, to be compared with those of photos; shaped as that of `encode_image`."""
        return self._or(None, "encode text", lambda: _as_array(self._client.embed_text(text).vector))

    def get_statistics(self) -> dict[str, Any]:
        """`total_images`, `dimension`, `model`, `device`, `cache_exists` (a generation of the index is published), and
        all that `Sightline.stats` says."""

        def count() -> dict[str, Any]:
            stats = self._client.stats()
            return stats.to_wire() | {
                "total_images": stats.indexed,
                "dimension": stats.dimension,
                "model": stats.model,
                "device": stats.device,
                "cache_exists": stats.generation is not None,
            }

        return self._or({}, "statistics", count)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    # ------------------------------------------------------------------------------------------- below

    def _or(self, otherwise: U, what: str, act: Callable[[], T]) -> T | U:
        """What `act` returns, or `otherwise` where the old class swallowed an error; the log has it."""
        try:
            return act()
        except (SightlineError, OSError) as exc:
            if self.strict:
                raise
            log.error("CLIP: %s was not possible: %s", short(what), short(str(exc)))
            return otherwise

    def _by_path_or_content(self, image_path: str | os.PathLike[str], ask: Callable[[dict[str, Any]], T]) -> T:
        """Ask by path; by content where the workers cannot see a file that lies here, as an upload in /tmp."""
        path = Path(plain.path("image_path", image_path)).absolute()
        try:
            return ask({"path": str(path)})
        except (BadRequest, PhotoRefused) as exc:
            if exc.code not in NOT_SEEN or not path.is_file():
                raise
            size = path.stat().st_size
            if size > INLINE_BYTES:
                raise PhotoRefused(
                    exc.code,
                    f"{exc.message}. It lies here, but {size} bytes are too many for a message (limit {INLINE_BYTES}): "
                    "share its folder with the workers (SIGHTLINE_PHOTO_ROOTS)",
                    str(path),
                ) from exc
            return ask({"content": path.read_bytes()})

    def _facts(self, row: dict[str, Any]) -> dict[str, Any]:
        """Coordinates, provenance and address out of what is known of a photo; all the rest is its metadata."""
        lat, lon = take(row, LAT), take(row, LON)
        method, address = take(row, METHOD), take(row, ADDRESS)
        if address is not None and not isinstance(address, Mapping):
            address = {"address": str(address)}
        facts: dict[str, Any] = {
            "address": None if address is None else as_json("address", address),
            # None leaves the metadata of a photo that is added again as it is.
            "metadata": as_json("metadata", row) or None,
            "update_row": self.update_rows,
        }
        if lat is not None and lon is not None:
            for name, given in (("lat", lat), ("lon", lon)):
                facts[name] = plain.number(name, given, Code.BAD_COORDINATES)
            facts["provenance"] = provenance_of(None if method is None else str(method), self._methods)
        return facts

    def _new_photo(self, number: int, row: dict[str, Any]) -> NewPhoto | Refused:
        photo_id, path = row.get("id"), take(row, PATH)
        ref = f"photo {photo_id}" if photo_id is not None else f"row {number}: {path}"
        try:
            file = None if path is None else plain.path("file_path", path)
            if photo_id is not None:
                # The path as the table has it: only the workers know what a relative one starts from.
                return NewPhoto(ref=ref, photo=Photo(photo_id=plain.whole("id", photo_id), path=file))
            if file is None:
                raise BadRequest(Code.BAD_REQUEST, f"it has no id and none of {', '.join(PATH)}")
            return NewPhoto(ref=ref, photo=Photo(path=str(Path(file).absolute())), **self._facts(row))
        except BadRequest as exc:
            return Refused(ref, exc.code, exc.message)


def _as_array(vector: Sequence[float]) -> Any:
    try:
        # Not an import statement: the client needs no numpy, and most of its callers have none.
        numpy = importlib.import_module("numpy")
    except ImportError:
        return list(vector)
    return numpy.asarray(vector, dtype=numpy.float32)


def _say_progress(done: int, total: int) -> None:
    log.info("CLIP: Processed %d of %d images", done, total)
