"""What a backend asks of the workers, and the two messages that workers send themselves."""

from __future__ import annotations

import math
from typing import Any, Self, TypeVar

import msgspec

from producer_client.contract.values import Near, Photo, Refused, check_coordinates
from producer_client.contract.wire import Message, check_json, check_text, read
from producer_client.errors import BadRequest, quoted
from producer_client.words import (
    MAX_HEARD_CHARACTERS,
    MAX_PHOTOS_PER_MESSAGE,
    MAX_TEXT_CHARACTERS,
    MAX_TOP_K,
    VERSION,
    Code,
    ConflictState,
    Policy,
    Provenance,
)

_Item = TypeVar("_Item", "NewPhoto", "EmbedItem", "RejectItem")


class Request(Message, frozen=True):
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
        return read(cls, wire, cls.__name__)


class NewPhoto(Message, frozen=True):
    """One photo to add. `ref` is the caller's own name for it; its outcome carries the same name.

    Without coordinates the worker takes those of the row (`photo_id`), or what the file and what lies beside it say
    (PositionFrom). `provenance` says how given coordinates came to be and must come with them. They never replace
    stronger ones (see `Provenance.strength`); the outcome has what holds.

    A photo without a row gets one. A row that is there keeps its coordinates and address, unless `update_row` (or else
    the workers' SIGHTLINE_WRITE_ROWS) says that what is given is written to it, too.
    """

    ref: str
    photo: Photo
    lat: float | None = None
    lon: float | None = None
    provenance: Provenance | None = None
    address: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    update_row: bool | None = None

    def check(self) -> None:
        self.photo.check()
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
        check_json(f"{self.ref}: address", self.address)
        check_json(f"{self.ref}: metadata", self.metadata)


class AddToIndex(Request, frozen=True):
    """`photos` holds NewPhoto objects as plain JSON: each is read on its own, so that one bad item is refused
    and its neighbours are stored (see `read_new_photos`)."""

    photos: list[Any] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        check_batch("photos", self.photos)

    def read_new_photos(self) -> list[NewPhoto | Refused]:
        """Each item read strictly; a bad one becomes its Refused. Refs that occur twice are refused as well."""
        return _read_items(NewPhoto, self.photos)


class EmbedItem(Message, frozen=True):
    ref: str
    photo: Photo

    def check(self) -> None:
        self.photo.check()
        _check_ref(self.ref)


class Embed(Request, frozen=True):
    photos: list[Any] = msgspec.field(default_factory=list)
    return_vectors: bool = False

    def __post_init__(self) -> None:
        check_batch("photos", self.photos)

    def read_items(self) -> list[EmbedItem | Refused]:
        return _read_items(EmbedItem, self.photos)


class EmbedText(Request, frozen=True):
    """The vector of a text, to be compared with those of photos; for models that read text."""

    text: str = ""

    def __post_init__(self) -> None:
        _check_words(self.text)


class Remove(Request, frozen=True):
    photo_ids: list[int] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        check_batch("photo_ids", self.photo_ids)


class Purge(Remove, frozen=True):
    """Remove, and erase what is stored of these photos: vectors, positions, metadata, and every copy in an index."""


class Conflicts(Request, frozen=True):
    """Photos whose position something contradicts, by rising id after `after_id`. `photo_ids`: of these alone.
    `conflict_state` None: settled ones too."""

    photo_ids: list[int] | None = None
    conflict_state: ConflictState | None = ConflictState.OPEN
    after_id: int = -1
    limit: int = 100

    def __post_init__(self) -> None:
        if self.photo_ids is not None:
            check_batch("photo_ids", self.photo_ids)
        if not 1 <= self.limit <= MAX_TOP_K:
            raise BadRequest(Code.BAD_REQUEST, f"limit {self.limit} is not within 1 and {MAX_TOP_K}")


class Confirm(Remove, frozen=True):
    """The positions of these photos are right, whatever contradicts them: they are witnesses again."""


class RejectItem(Message, frozen=True):
    """A photo whose position is wrong. lat, lon: the right one, which a person vouches for."""

    ref: str
    photo_id: int
    lat: float | None = None
    lon: float | None = None

    def check(self) -> None:
        _check_ref(self.ref)
        if not 0 <= self.photo_id < 2**63:
            raise BadRequest(Code.BAD_REQUEST, f"photo_id {self.photo_id} is not a 64-bit row id")
        if (self.lat is None) != (self.lon is None):
            raise BadRequest(Code.BAD_COORDINATES, f"{self.ref}: give both lat and lon, or neither")
        if self.lat is not None and self.lon is not None:
            check_coordinates(self.lat, self.lon)


class Reject(Request, frozen=True):
    """`photos` holds RejectItem objects as plain JSON, each read on its own as in AddToIndex."""

    photos: list[Any] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        check_batch("photo_ids", self.photos)

    def read_items(self) -> list[RejectItem | Refused]:
        return _read_items(RejectItem, self.photos)


class Search(Request, frozen=True):
    """Exactly one of `photo`, `text`, `vector` (any length, scaled to 1 by the worker; with the `model_key` that it
    came with, a worker of another model refuses it instead of comparing apples and pears).

    `threshold` None means 0.75, and no threshold for text, whose similarities live on another scale.
    `where` keeps photos whose metadata contains these keys and values. `trusted_only` keeps those whose coordinates
    are evidence, `top_k` of them. `min_seq` waits for that write. `heard` is a word that the caller draws anew when it
    hears of a write. A worker that meets it for the first time reads the log before it answers, whatever the seqs say:
    after a restore of the database they come again. `allow_stale`: while the worker's database is away, answer by what
    the worker's process knows, whatever `min_seq` says; see SearchReply.stale_s.
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
    trusted_only: bool = False
    heard: str | None = None
    allow_stale: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("photo", "text", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise BadRequest(
                Code.BAD_REQUEST,
                f"search by one of photo, text, vector; got {', '.join(given) or 'none of them'}",
            )
        if self.photo is not None:
            self.photo.check()
        if self.text is not None:
            _check_words(self.text)
        if self.near is not None:
            self.near.check()
        check_json("where", self.where)
        if self.vector is not None and not all(map(math.isfinite, self.vector)):
            raise BadRequest(Code.BAD_VECTOR, "vector holds a number that is not finite")
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise BadRequest(Code.BAD_REQUEST, f"top_k {self.top_k} is not within 1 and {MAX_TOP_K}")
        _check_threshold(self.threshold)
        _check_min_seq(self.min_seq)
        _check_heard(self.heard)

    def to_wire(self) -> dict[str, Any]:
        """Without `allow_stale` where it says nothing: workers of the release before it take no field more."""
        return _without_no(super().to_wire(), "allow_stale")


class Locate(Request, frozen=True):
    """Where was `photo` taken? `near` restricts the evidence to a circle that the caller already knows. `min_seq` and
    `heard` as in Search. `policy`: another rule than ours."""

    photo: Photo | None = None
    threshold: float | None = None
    near: Near | None = None
    min_seq: int = 0
    heard: str | None = None
    policy: Policy | None = None

    def __post_init__(self) -> None:
        if self.photo is None:
            raise BadRequest(Code.BAD_REQUEST, "locate needs a photo")
        self.photo.check()
        if self.near is not None:
            self.near.check()
        _check_threshold(self.threshold)
        _check_min_seq(self.min_seq)
        _check_heard(self.heard)


class RebuildIndex(Request, frozen=True):
    """`force`: publish it also where its exam is clearly worse than the baseline."""

    force: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Without `force` where it says nothing: workers of the release before it take no field more."""
        return _without_no(super().to_wire(), "force")


class Stats(Request, frozen=True):
    pass


class Tick(Request, frozen=True):
    """The beat's own message: start what is due. Not for backends."""


class Fill(Request, frozen=True):
    """The index process's own message: embed photos of this share with the next model. Not for backends.

    `after_id`: where the message before in its chain ended.
    """

    model_key: str = ""
    slot: int = 0
    after_id: int = -1


def _without_no(wire: dict[str, Any], flag: str) -> dict[str, Any]:
    return wire if wire[flag] else {name: value for name, value in wire.items() if name != flag}


def check_batch(name: str, items: list[Any]) -> None:
    if not items:
        raise BadRequest(Code.BAD_REQUEST, f"{name} is empty")
    if len(items) > MAX_PHOTOS_PER_MESSAGE:
        raise BadRequest(Code.BAD_REQUEST, f"{len(items)} {name} in one message; the limit is {MAX_PHOTOS_PER_MESSAGE}")


def _check_ref(ref: str) -> None:
    check_text("ref", ref)
    if not ref:
        raise BadRequest(Code.BAD_REQUEST, "ref is empty: give every photo of a message a name of its own")


def _check_words(text: str) -> None:
    if not text.strip():
        raise BadRequest(Code.BAD_REQUEST, "text is empty")
    check_text("text", text)
    if len(text) > MAX_TEXT_CHARACTERS:
        characters, limit = len(text), MAX_TEXT_CHARACTERS
        raise BadRequest(Code.BAD_REQUEST, f"text has {characters} characters, the limit is {limit}")


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not -1 <= threshold <= 1:
        raise BadRequest(Code.BAD_REQUEST, f"threshold {threshold} is not a cosine between -1 and 1")


def _check_min_seq(min_seq: int) -> None:
    if min_seq < 0:
        raise BadRequest(Code.BAD_REQUEST, f"min_seq {min_seq} is negative")


def _check_heard(heard: str | None) -> None:
    # Workers keep them.
    if heard is not None and len(heard) > MAX_HEARD_CHARACTERS:
        raise BadRequest(
            Code.BAD_REQUEST, f"heard has {len(heard)} characters, the limit is {MAX_HEARD_CHARACTERS}: a word will do"
        )


def _read_items(cls: type[_Item], items: list[Any]) -> list[_Item | Refused]:
    outcomes: list[_Item | Refused] = []
    seen: set[str] = set()
    for number, wire in enumerate(items):
        named = wire.get("ref") if isinstance(wire, dict) else None
        ref = named if isinstance(named, str) and named else f"item {number}"
        try:
            if ref in seen:
                raise BadRequest(Code.BAD_REQUEST, f"ref {quoted(ref)} occurs twice in one message")
            outcomes.append(read(cls, wire, ref))
        except BadRequest as exc:
            outcomes.append(Refused(ref=ref, code=exc.code, message=exc.message))
        seen.add(ref)
    return outcomes
