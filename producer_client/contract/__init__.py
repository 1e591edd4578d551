"""The contract between a backend and the workers: task names, queues, messages, replies, codes.

Both sides import this page and `errors`; they need only the standard library. Every message and reply
is a frozen dataclass. `to_wire()` makes plain JSON of it and `from_wire()` reads it back strictly: an unknown
field, a wrong type or a value out of range is a BadRequest with a code, never a guess.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

from producer_client.errors import BadRequest

#: Version of this contract. A worker refuses a message of any other version with `unknown_version`.
VERSION = 1

#: Photos in one message at the most: a bulk message stays some tens of kB and some seconds of work.
MAX_PHOTOS_PER_MESSAGE = 256
MAX_TOP_K = 1000
#: Size of a photo's address or metadata as JSON: notes, not documents.
MAX_JSON_CHARACTERS = 65_536
DEFAULT_THRESHOLD = 0.75


_Any = TypeVar("_Any")
_Item = TypeVar("_Item", "NewPhoto", "EmbedItem")


class TaskName(StrEnum):
    EMBED = "sightline.embed"
    EMBED_TEXT = "sightline.embed_text"
    ADD_TO_INDEX = "sightline.add_to_index"
    REMOVE = "sightline.remove"
    PURGE = "sightline.purge"
    SEARCH = "sightline.search"
    LOCATE = "sightline.locate"
    REBUILD_INDEX = "sightline.rebuild_index"
    STATS = "sightline.stats"
    TICK = "sightline.tick"
    FILL = "sightline.fill"


class Queue(StrEnum):
    INTERACTIVE = "interactive"  #: somebody waits
    BULK = "bulk"  #: many photos, nobody waits
    INDEX = "index"  #: rebuilds; its own process


class Code(StrEnum):
    """Why something was not done. A code is part of the contract; the sentence beside it may change."""

    # the message
    BAD_REQUEST = "bad_request"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_VERSION = "unknown_version"
    BAD_COORDINATES = "bad_coordinates"
    BAD_VECTOR = "bad_vector"
    NO_TEXT_ENCODER = "no_text_encoder"
    # the photo
    NOT_FOUND = "not_found"
    NOT_A_FILE = "not_a_file"
    OUTSIDE_ROOTS = "outside_roots"
    URL_NOT_ALLOWED = "url_not_allowed"
    EMPTY_FILE = "empty_file"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    TOO_THIN = "too_thin"
    NOT_AN_IMAGE = "not_an_image"
    DAMAGED_IMAGE = "damaged_image"
    UNKNOWN_PHOTO = "unknown_photo"
    ROW_REJECTED = "row_rejected"
    QUARANTINED = "quarantined"
    # the service
    MODEL_MISMATCH = "model_mismatch"
    ENCODER_UNAVAILABLE = "encoder_unavailable"
    NOT_READY = "not_ready"
    STALE = "stale"
    ALREADY_RUNNING = "already_running"
    RECALL_TOO_LOW = "recall_too_low"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    INTERNAL = "internal"


#: What may succeed when it is sent again unchanged. Everything else needs a change first.
RETRYABLE = frozenset({Code.STALE, Code.ALREADY_RUNNING, Code.OVERLOADED, Code.UNAVAILABLE, Code.TIMED_OUT})


class Provenance(StrEnum):
    """How a photo's coordinates came to be. Only the trusted ones are ever evidence for another photo."""

    EXIF_GPS = "exif_gps"
    SURVEYED = "surveyed"
    CONFIRMED = "confirmed"
    DERIVED = "derived"  #: some detector said so, ours included
    FALLBACK = "fallback"  #: a city centre, a default

    @property
    def trusted(self) -> bool:
        return self in (Provenance.EXIF_GPS, Provenance.SURVEYED, Provenance.CONFIRMED)


#: What a backend's `location_method` means unless it says otherwise (SIGHTLINE_LOCATION_METHODS).
LOCATION_METHODS: Mapping[str, Provenance] = {
    "exif": Provenance.EXIF_GPS,
    "gps": Provenance.EXIF_GPS,
    "manual": Provenance.CONFIRMED,
    "user": Provenance.CONFIRMED,
    "city_center": Provenance.FALLBACK,
    "default": Provenance.FALLBACK,
}


def provenance_of(location_method: str | None, methods: Mapping[str, Provenance]) -> Provenance:
    """The provenance behind a `location_method`, which may be one itself; `derived` when it says nothing known."""
    if location_method in set(Provenance):
        return Provenance(location_method)
    return methods.get(location_method or "", Provenance.DERIVED)


class Reason(StrEnum):
    """Why a photo was not located."""

    EMPTY_INDEX = "empty_index"
    NOTHING_SIMILAR = "nothing_similar"
    NO_TRUSTED_EVIDENCE = "no_trusted_evidence"
    TOO_FEW_WITNESSES = "too_few_witnesses"
    NEIGHBOURS_DISAGREE = "neighbours_disagree"


# ---------------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class Message:
    """Base of everything on the wire."""

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON values; enums as strings, nested messages as objects."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Raises BadRequest with `unknown_field` or `bad_request` (or the code of a failed range check)."""
        return _read(cls, wire, cls.__name__)


@dataclass(frozen=True, slots=True)
class Request(Message):
    """Base of the messages that a backend sends; carries the version. Fields have defaults after this one."""

    v: int = VERSION

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        if isinstance(wire, dict) and wire.get("v") != VERSION:
            raise BadRequest(
                Code.UNKNOWN_VERSION,
                f"message version {wire.get('v')!r}; this worker speaks version {VERSION}. "
                "Use the client library of the same release as the workers.",
            )
        return _read(cls, wire, cls.__name__)


@dataclass(frozen=True, slots=True)
class Photo(Message):
    """A reference to one photo: exactly one of the four fields. Pixels travel only as small inline bytes."""

    photo_id: int | None = None  #: id of a row of the backend's `photos` table
    path: str | None = None  #: file under one of the workers' allowed roots
    url: str | None = None  #: only hosts and schemes that the workers allow
    inline: str | None = None  #: base64 of the file's bytes

    def __post_init__(self) -> None:
        given = [name for name in ("photo_id", "path", "url", "inline") if getattr(self, name) is not None]
        if len(given) != 1:
            raise BadRequest(
                Code.BAD_REQUEST,
                f"a photo is one of photo_id, path, url, inline; got {' and '.join(given) or 'none of them'}",
            )
        for name in ("path", "url", "inline"):
            if getattr(self, name) == "":
                raise BadRequest(Code.BAD_REQUEST, f"{name} is empty")
            _check_text(name, getattr(self, name))
        if self.photo_id is not None and not 0 <= self.photo_id < 2**63:
            raise BadRequest(Code.BAD_REQUEST, f"photo_id {self.photo_id} is not a 64-bit row id")

    @classmethod
    def of_bytes(cls, content: bytes) -> Photo:
        return cls(inline=base64.b64encode(content).decode("ascii"))

    def inline_bytes(self) -> bytes:
        """The decoded `inline` field. Raises BadRequest when it is not base64."""
        try:
            return base64.b64decode(self.inline or "", validate=True)
        except (binascii.Error, ValueError) as exc:
            raise BadRequest(Code.BAD_REQUEST, f"inline is not base64: {exc}") from exc

    @property
    def name(self) -> str:
        """What to call this photo in a message to people; never its content."""
        if self.photo_id is not None:
            return f"photo {self.photo_id}"
        return self.path or self.url or f"inline photo of {len(self.inline or '') * 3 // 4} bytes"


@dataclass(frozen=True, slots=True)
class Point(Message):
    """WGS 84 degrees. `lat = 0.0` is a coordinate."""

    lat: float
    lon: float

    def __post_init__(self) -> None:
        check_coordinates(self.lat, self.lon)


@dataclass(frozen=True, slots=True)
class Near(Message):
    """A circle to search in: WGS 84 degrees and metres."""

    lat: float
    lon: float
    radius_m: float

    def __post_init__(self) -> None:
        check_coordinates(self.lat, self.lon)
        if not (math.isfinite(self.radius_m) and self.radius_m > 0):
            raise BadRequest(Code.BAD_REQUEST, f"radius_m {self.radius_m} must be a positive number of metres")


def check_coordinates(lat: float, lon: float) -> None:
    """Raises BadRequest(bad_coordinates) unless -90 <= lat <= 90 and -180 <= lon <= 180 (so NaN fails)."""
    if not (-90 <= lat <= 90 and -180 <= lon <= 180):
        raise BadRequest(
            Code.BAD_COORDINATES,
            f"latitude {lat}, longitude {lon}: latitude runs from -90 to 90 and longitude from -180 to 180 degrees",
        )


# -------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class NewPhoto(Message):
    """One photo to add. `ref` is the caller's own name for it; its outcome carries the same name.

    Without coordinates the worker takes those of the row (`photo_id`) or of the EXIF GPS tags. `provenance`
    says how given coordinates came to be and must come with them.
    """

    ref: str
    photo: Photo
    lat: float | None = None
    lon: float | None = None
    provenance: Provenance | None = None
    address: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_ref(self.ref)
        if (self.lat is None) != (self.lon is None):
            raise BadRequest(Code.BAD_COORDINATES, f"{self.ref}: give both lat and lon, or neither")
        if self.lat is not None and self.lon is not None:
            check_coordinates(self.lat, self.lon)
            if self.provenance is None:
                raise BadRequest(
                    Code.BAD_REQUEST,
                    f"{self.ref}: coordinates need a provenance, one of {', '.join(Provenance)}",
                )
        elif self.provenance is not None:
            raise BadRequest(Code.BAD_REQUEST, f"{self.ref}: a provenance needs the coordinates that it is about")
        _check_json(f"{self.ref}: address", self.address)
        _check_json(f"{self.ref}: metadata", self.metadata)


@dataclass(frozen=True, slots=True)
class AddToIndex(Request):
    """`photos` holds NewPhoto objects as plain JSON: each is read on its own, so that one bad item is refused
    and its neighbours are stored (see `read_new_photos`)."""

    photos: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_batch("photos", self.photos)

    def read_new_photos(self) -> list[NewPhoto | Refused]:
        """Each item read strictly; a bad one becomes its Refused. Refs that occur twice are refused as well."""
        return _read_items(NewPhoto, self.photos)


@dataclass(frozen=True, slots=True)
class EmbedItem(Message):
    ref: str
    photo: Photo

    def __post_init__(self) -> None:
        _check_ref(self.ref)


@dataclass(frozen=True, slots=True)
class Embed(Request):
    photos: list[Any] = field(default_factory=list)
    return_vectors: bool = False

    def __post_init__(self) -> None:
        _check_batch("photos", self.photos)

    def read_items(self) -> list[EmbedItem | Refused]:
        return _read_items(EmbedItem, self.photos)


@dataclass(frozen=True, slots=True)
class EmbedText(Request):
    """The vector of a text, to be compared with those of photos; for models that read text."""

    text: str = ""

    def __post_init__(self) -> None:
        _check_words(self.text)


@dataclass(frozen=True, slots=True)
class Remove(Request):
    photo_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_batch("photo_ids", self.photo_ids)


@dataclass(frozen=True, slots=True)
class Purge(Remove):
    """Remove, and erase what is stored of these photos: vectors, positions, metadata, and every copy in an index."""


@dataclass(frozen=True, slots=True)
class Search(Request):
    """Exactly one of `photo`, `text`, `vector` (any length, scaled to 1 by the worker; with the `model_key` that it
    came with, a worker of another model refuses it instead of comparing apples and pears).

    `threshold` None means 0.75, and no threshold for text, whose similarities live on another scale.
    `where` keeps photos whose metadata contains these keys and values. `min_seq` waits for that write.
    """

    photo: Photo | None = None
    text: str | None = None
    vector: list[float] | None = None
    model_key: str | None = None
    top_k: int = 5
    threshold: float | None = None
    near: Near | None = None
    where: dict[str, Any] | None = None
    min_seq: int = 0

    def __post_init__(self) -> None:
        given = [name for name in ("photo", "text", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise BadRequest(
                Code.BAD_REQUEST,
                f"search by one of photo, text, vector; got {' and '.join(given) or 'none of them'}",
            )
        if self.text is not None:
            _check_words(self.text)
        _check_json("where", self.where)
        if self.vector is not None and not all(map(math.isfinite, self.vector)):
            raise BadRequest(Code.BAD_VECTOR, "vector holds a number that is not finite")
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise BadRequest(Code.BAD_REQUEST, f"top_k {self.top_k} is not within 1 and {MAX_TOP_K}")
        _check_threshold(self.threshold)
        _check_min_seq(self.min_seq)


@dataclass(frozen=True, slots=True)
class Locate(Request):
    """Where was `photo` taken? `near` restricts the evidence to a circle that the caller already knows."""

    photo: Photo | None = None
    threshold: float | None = None
    near: Near | None = None
    min_seq: int = 0

    def __post_init__(self) -> None:
        if self.photo is None:
            raise BadRequest(Code.BAD_REQUEST, "locate needs a photo")
        _check_threshold(self.threshold)
        _check_min_seq(self.min_seq)


@dataclass(frozen=True, slots=True)
class RebuildIndex(Request):
    pass


@dataclass(frozen=True, slots=True)
class Stats(Request):
    pass


@dataclass(frozen=True, slots=True)
class Tick(Request):
    """The beat's own message: start what is due. Not for backends."""


@dataclass(frozen=True, slots=True)
class Fill(Request):
    """The index process's own message: embed photos of this share with the next model. Not for backends.

    `after_id`: where the message before in its chain ended.
    """

    model_key: str = ""
    slot: int = 0
    after_id: int = -1


# --------------------------------------------------------------------------------------------- replies


@dataclass(frozen=True, slots=True)
class Refused(Message):
    """One photo that was not taken, with the reason. Sending it again unchanged helps only if `retryable`."""

    ref: str
    code: Code
    message: str
    status: str = "refused"

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE


@dataclass(frozen=True, slots=True)
class Stored(Message):
    """One photo that is in Postgres and visible to every search with `min_seq >= seq`."""

    ref: str
    photo_id: int
    seq: int
    content_sha256: str
    lat: float | None = None
    lon: float | None = None
    provenance: Provenance | None = None
    embedded: bool = True  #: False when the vector was known already and no forward pass was needed
    status: str = "stored"


@dataclass(frozen=True, slots=True)
class Embedded(Message):
    """One photo whose vector is stored under (content_sha256, model_key)."""

    ref: str
    content_sha256: str
    photo_id: int | None = None
    model_key: str = ""
    vector: list[float] | None = None
    embedded: bool = True
    status: str = "embedded"


@dataclass(frozen=True, slots=True)
class Removed(Message):
    """`was_indexed` is False when there was nothing to remove; the photo is out of the index either way."""

    ref: str
    photo_id: int
    seq: int
    was_indexed: bool
    status: str = "removed"


@dataclass(frozen=True, slots=True)
class Purged(Message):
    """The photo is in no answer and in no table of Sightline's from now on; its row in `photos` is the backend's.

    `generations` are the kept index generations that may still hold its vector on disk. They are deleted when the next
    rebuild is published, which this asks for; `stats` counts those that wait as `purges_pending`.
    """

    ref: str
    photo_id: int
    seq: int
    was_indexed: bool
    generations: list[int]
    status: str = "purged"


@dataclass(frozen=True, slots=True)
class AddReply(Message):
    outcomes: list[Stored | Refused]
    model_key: str


@dataclass(frozen=True, slots=True)
class EmbedReply(Message):
    outcomes: list[Embedded | Refused]
    model_key: str
    dimension: int


@dataclass(frozen=True, slots=True)
class TextVector(Message):
    """Length 1, of the same space as the photos' vectors of this model."""

    vector: list[float]
    model_key: str


@dataclass(frozen=True, slots=True)
class RemoveReply(Message):
    outcomes: list[Removed | Refused]


@dataclass(frozen=True, slots=True)
class PurgeReply(Message):
    outcomes: list[Purged | Refused]


@dataclass(frozen=True, slots=True)
class Hit(Message):
    """One similar photo. `similarity` is the cosine of the two vectors; it is not a probability of anything."""

    photo_id: int
    similarity: float
    path: str | None
    lat: float | None
    lon: float | None
    provenance: Provenance | None
    address: Any = None
    metadata: dict[str, Any] | None = None
    content_sha256: str = ""


@dataclass(frozen=True, slots=True)
class SearchReply(Message):
    """`generation` and `seq` say which state of the index answered."""

    hits: list[Hit]
    generation: int | None
    seq: int
    model_key: str
    took_ms: float


@dataclass(frozen=True, slots=True)
class Answer(Message):
    """`located` with point, radius and evidence, or `abstained` with a reason and a sentence.

    `confidence` is the share of the witnesses' votes that fell on this point (`confidence_kind = "vote_share"`).
    It is not calibrated: 0.9 does not mean right nine times out of ten.
    """

    status: str
    point: Point | None = None
    radius_m: float | None = None
    confidence: float | None = None
    confidence_kind: str = "vote_share"
    reason: Reason | None = None
    message: str = ""
    evidence: list[Hit] = field(default_factory=list)

    LOCATED: ClassVar[str] = "located"
    ABSTAINED: ClassVar[str] = "abstained"

    @property
    def located(self) -> bool:
        return self.status == self.LOCATED


@dataclass(frozen=True, slots=True)
class LocateReply(Message):
    answer: Answer
    generation: int | None
    seq: int
    model_key: str
    took_ms: float


@dataclass(frozen=True, slots=True)
class RebuildReply(Message):
    """What a rebuild did: `with_coordinates` rows seen, `valid_files` of them readable, `indexed` vectors."""

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


@dataclass(frozen=True, slots=True)
class TickReply(Message):
    """`ran`: this tick ran a rebuild that was due."""

    ran: bool


@dataclass(frozen=True, slots=True)
class FillReply(Message):
    """`after_id`: the last photo that was tried, from which the chain goes on; None ends it."""

    after_id: int | None


@dataclass(frozen=True, slots=True)
class RebuildRun(Message):
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


@dataclass(frozen=True, slots=True)
class StatsReply(Message):
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


@dataclass(frozen=True, slots=True)
class Failure(Message):
    code: Code
    message: str


def ok(reply: Message) -> dict[str, Any]:
    """The envelope of a reply that carries something."""
    return {"v": VERSION, "ok": True, "reply": reply.to_wire()}


def failed(code: Code, message: str) -> dict[str, Any]:
    """The envelope of a reply that carries a code and a sentence."""
    return {"v": VERSION, "ok": False, "error": Failure(code, message).to_wire()}


# ------------------------------------------------------------------------------------ reading and writing


def _check_batch(name: str, items: list[Any]) -> None:
    if not items:
        raise BadRequest(Code.BAD_REQUEST, f"{name} is empty")
    if len(items) > MAX_PHOTOS_PER_MESSAGE:
        raise BadRequest(Code.BAD_REQUEST, f"{len(items)} {name} in one message; the limit is {MAX_PHOTOS_PER_MESSAGE}")


def _check_ref(ref: str) -> None:
    _check_text("ref", ref)
    if not ref:
        raise BadRequest(Code.BAD_REQUEST, "ref is empty: give every photo of a message a name of its own")


def _check_text(name: str, value: str | None) -> None:
    """Postgres and file systems take no NUL, and nothing takes half a surrogate pair."""
    if value is not None and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        raise BadRequest(Code.BAD_REQUEST, f"{name} contains a NUL or a broken character")


def _check_words(text: str) -> None:
    if not text.strip():
        raise BadRequest(Code.BAD_REQUEST, "text is empty")
    _check_text("text", text)


def _check_json(name: str, value: dict[str, Any] | None) -> None:
    if value is None:
        return
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError) as exc:
        raise BadRequest(Code.BAD_REQUEST, f"{name} is not JSON: {exc}") from exc
    if len(written) > MAX_JSON_CHARACTERS:
        raise BadRequest(Code.BAD_REQUEST, f"{name} has {len(written)} characters, the limit is {MAX_JSON_CHARACTERS}")
    # Pairs of backslashes first: they are written ones, and what follows them is text.
    _check_text(name, written.replace("\\\\", "").replace("\\u0000", "\0"))


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not -1 <= threshold <= 1:
        raise BadRequest(Code.BAD_REQUEST, f"threshold {threshold} is not a cosine between -1 and 1")


def _check_min_seq(min_seq: int) -> None:
    if min_seq < 0:
        raise BadRequest(Code.BAD_REQUEST, f"min_seq {min_seq} is negative")


def _read_items(cls: type[_Item], items: list[Any]) -> list[_Item | Refused]:
    read: list[_Item | Refused] = []
    seen: set[str] = set()
    for number, wire in enumerate(items):
        named = wire.get("ref") if isinstance(wire, dict) else None
        ref = named if isinstance(named, str) and named else f"item {number}"
        try:
            if ref in seen:
                raise BadRequest(Code.BAD_REQUEST, f"ref {ref!r} occurs twice in one message")
            read.append(_read(cls, wire, ref))
        except BadRequest as exc:
            read.append(Refused(ref=ref, code=exc.code, message=exc.message))
        seen.add(ref)
    return read


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_wire()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(cls: type[_Any], wire: object, where: str) -> _Any:
    """Read one dataclass from plain JSON, by its own type hints."""
    if not isinstance(wire, dict):
        raise BadRequest(Code.BAD_REQUEST, f"{where} must be an object, not {_kind(wire)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # every cls here is a dataclass
    for name in wire:
        if name not in fields:
            raise BadRequest(Code.UNKNOWN_FIELD, f"{where} has no field {name!r}; it has {', '.join(fields)}")
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    values = {name: _value(hints[name], wire[name], f"{where}.{name}") for name in wire}
    for name, f in fields.items():
        optional = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if name not in values and not optional:
            raise BadRequest(Code.BAD_REQUEST, f"{where} lacks {name!r}")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is list and isinstance(value, list):
        return [_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return value
    if isinstance(hint, type):
        if issubclass(hint, Message):
            return _read(hint, value, where)
        if issubclass(hint, StrEnum) and isinstance(value, str):
            if value not in set(hint):
                raise BadRequest(Code.BAD_REQUEST, f"{where}: {value!r} is not one of {', '.join(hint)}")
            return hint(value)
        if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
            return _float(value, where)
        if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
            return value
    wanted = getattr(hint, "__name__", None) or str(hint)
    raise BadRequest(Code.BAD_REQUEST, f"{where} must be {wanted}, not {_kind(value)}")


def _float(value: float, where: str) -> float:
    try:
        return float(value)
    except OverflowError as exc:
        raise BadRequest(Code.BAD_REQUEST, f"{where} is a whole number too large for a float") from exc


def _union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    """`X | None`, or outcomes that tell themselves apart by `status`."""
    if value is None and type(None) in members:
        return None
    members = tuple(m for m in members if m is not type(None))
    if len(members) > 1 and isinstance(value, dict):
        by_status = {m.__dataclass_fields__["status"].default: m for m in members}
        status = value.get("status")
        if not isinstance(status, str) or status not in by_status:
            raise BadRequest(Code.BAD_REQUEST, f"{where}.status: {status!r} is not one of {', '.join(by_status)}")
        members = (by_status[status],)
    return _value(members[0], value, where)


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "a boolean",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
