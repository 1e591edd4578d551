"""The words of the contract: task names, queues, codes, reasons, provenance, limits. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Self

#: Version of this contract. A worker refuses a message of any other version with `unknown_version`.
VERSION = 1

#: What every key in Redis begins with, unless workers and clients are told otherwise.
DEFAULT_KEY_PREFIX = "sightline:"
#: Nothing, or letters, digits and _ . : - with one of these at the end: Celery puts one there by itself otherwise, and
#: only for replies.
KEY_PREFIXES = r"^([A-Za-z0-9_.:-]*[_.:-])?$"
#: Photos in one message at the most: a bulk message stays some tens of kB and some seconds of work.
MAX_PHOTOS_PER_MESSAGE = 256
MAX_TOP_K = 1000
MAX_HEARD_CHARACTERS = 64
#: Linux takes no longer path (PATH_MAX), and few servers a longer URL (RFC 9110, section 4.1).
MAX_PATH_CHARACTERS, MAX_URL_CHARACTERS = 4_096, 8_192
#: Of a text that is searched for. Models read some seventy words of it, and longer ones take long to cut into words.
MAX_TEXT_CHARACTERS = 10_000
#: Size of a photo's address or metadata as JSON: notes, not documents.
MAX_JSON_CHARACTERS = 65_536
#: Objects and lists within each other in it: notes need a handful. Python reads and writes some 900, fewer the deeper
#: its own stack is, so that what a client still writes a worker could not read.
MAX_JSON_DEPTH = 64
DEFAULT_THRESHOLD = 0.75


class TaskName(StrEnum):
    EMBED = "sightline.embed"
    EMBED_TEXT = "sightline.embed_text"
    ADD_TO_INDEX = "sightline.add_to_index"
    REMOVE = "sightline.remove"
    PURGE = "sightline.purge"
    CONFLICTS = "sightline.conflicts"
    CONFIRM = "sightline.confirm"
    REJECT = "sightline.reject"
    QUARANTINED = "sightline.quarantined"
    RELEASE = "sightline.release"
    SEARCH = "sightline.search"
    LOCATE = "sightline.locate"
    REBUILD_INDEX = "sightline.rebuild_index"
    STATS = "sightline.stats"
    TICK = "sightline.tick"
    FILL = "sightline.fill"
    RECONCILE = "sightline.reconcile"
    EMBED_MISSING = "sightline.embed_missing"


class Queue(StrEnum):
    INTERACTIVE = "interactive"  #: somebody waits
    BULK = "bulk"  #: many photos, nobody waits
    INDEX = "index"  #: rebuilds; its own process


class _Growing(StrEnum):
    """Words of replies alone, to which later releases add. One that this release does not know is kept as it is."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or not value.isidentifier():
            return None
        word = str.__new__(cls, value)
        word._name_, word._value_ = value.upper(), value
        return word


class Code(_Growing):
    """Why something was not done. A code is part of the contract; the sentence beside it may change."""

    # the message
    BAD_REQUEST = "bad_request"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_VERSION = "unknown_version"
    BAD_COORDINATES = "bad_coordinates"
    BAD_VECTOR = "bad_vector"
    NO_TEXT_ENCODER = "no_text_encoder"
    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    REPLAYED = "replayed"
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
    DECODER_FAILED = "decoder_failed"
    UNKNOWN_PHOTO = "unknown_photo"
    ROW_MISMATCH = "row_mismatch"
    ROW_REJECTED = "row_rejected"
    QUARANTINED = "quarantined"
    SUPERSEDED = "superseded"  #: a request about the photo that was sent later has been carried out
    NO_CONFLICT = "no_conflict"
    WITHHELD = "withheld"  #: the answer would tell what the settings keep from who asks
    # the service
    MODEL_MISMATCH = "model_mismatch"
    ENCODER_UNAVAILABLE = "encoder_unavailable"
    NOT_READY = "not_ready"
    STALE = "stale"
    ALREADY_RUNNING = "already_running"
    RECALL_TOO_LOW = "recall_too_low"
    EXAM_FAILED = "exam_failed"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    INTERNAL = "internal"


#: What may succeed when it is sent again unchanged. Everything else needs a change first.
RETRYABLE = frozenset(
    {Code.STALE, Code.ALREADY_RUNNING, Code.OVERLOADED, Code.UNAVAILABLE, Code.TIMED_OUT, Code.EXPIRED}
)


class Provenance(StrEnum):
    """How a photo's coordinates came to be. Only the trusted ones are ever evidence for another photo."""

    EXIF_GPS = "exif_gps"
    SURVEYED = "surveyed"
    CONFIRMED = "confirmed"
    DERIVED = "derived"  #: some detector said so, ours included
    FALLBACK = "fallback"  #: a city centre, a default

    @property
    def trusted(self) -> bool:
        return self in TRUSTED

    @property
    def strength(self) -> int:
        """Coordinates never give way to weaker ones: a default to a detector's, these to the camera's, these to those
        that a person vouches for."""
        return _STRENGTH[self]


#: What is evidence.
TRUSTED = frozenset({Provenance.EXIF_GPS, Provenance.SURVEYED, Provenance.CONFIRMED})
_STRENGTH = {
    Provenance.FALLBACK: 0,
    Provenance.DERIVED: 1,
    Provenance.EXIF_GPS: 2,
    Provenance.SURVEYED: 3,
    Provenance.CONFIRMED: 3,
}


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


class Reason(_Growing):
    """Why a photo was not located."""

    EMPTY_INDEX = "empty_index"
    NOTHING_SIMILAR = "nothing_similar"
    NO_TRUSTED_EVIDENCE = "no_trusted_evidence"
    TOO_FEW_WITNESSES = "too_few_witnesses"
    NEIGHBOURS_DISAGREE = "neighbours_disagree"
    LOOK_ALIKE_PLACES = "look_alike_places"  #: another place shows nearly as much of it
    UNVERIFIED = "unverified"  #: similar photos show other things, point by point
    ONLY_OWN_COPIES = "only_own_copies"  #: nothing is known but the photo itself and copies of it
    OUTSIDE_COVERAGE = "outside_coverage"  #: no photo is known where it was asked to look
    NO_PLACE_IN_PICTURE = "no_place_in_picture"  #: a blank frame, a document, a screenshot
    WITHHELD = "withheld"  #: its place lies where nothing is told


class ConfidenceKind(_Growing):
    """What the confidence of an answer is."""

    PROBABILITY = "probability"  #: that the photo was taken within the radius, learnt from this library's own photos
    UNCALIBRATED = "uncalibrated"  #: orders answers, and promises nothing
    VOTE_SHARE = "vote_share"  #: of similar photos, where none could be compared point by point
    COSINE = "cosine"  #: the similarity of the most similar photo, as the guide shows it


class Policy(StrEnum):
    """Another rule to locate by than ours."""

    GUIDE = "guide"  #: the most similar photo's position from a least cosine on, for comparison


class PositionFrom(_Growing):
    """Who has said the position of a photo that holds, whenever that was."""

    GIVEN = "given"  #: a call, this one or an earlier one, or its manifest
    ROW = "row"  #: the backend, in its own table
    EXIF = "exif"
    XMP = "xmp"  #: the packet inside the file
    XMP_SIDECAR = "xmp_sidecar"  #: photo.jpg.xmp or photo.xmp beside it
    TAKEOUT = "takeout"  #: Google Takeout's JSON beside it


class PositionIssue(_Growing):
    """Why a stored photo has no position, or, of the last five, why the one that it has is no evidence."""

    ABSENT = "absent"  #: nothing says where it was taken
    VOID = "void"  #: the camera says itself that it had no fix
    ZEROS = "zeros"  #: exactly 0, 0 in the file, as cameras without a fix write it
    HALF = "half"  #: a latitude without a longitude, or the other way round
    NO_HEMISPHERE = "no_hemisphere"
    BROKEN_NUMBERS = "broken_numbers"  #: undefined, too few or too many, or no numbers at all
    MINUTES_OUT_OF_RANGE = "minutes_out_of_range"  #: minutes or seconds of 60 and more
    OUT_OF_RANGE = "out_of_range"  #: beyond 90 or 180 degrees
    CONTRADICTORY = "contradictory"  #: it can be read in two ways
    UNREADABLE = "unreadable"  #: the XMP or JSON that should say it is broken, too large or not to be trusted

    DEFAULT_POINT = "default_point"  #: exactly 0, 0 was given: a default, not a place
    TOO_COARSE = "too_coarse"  #: its stated error is larger than the distance within which witnesses agree
    FILE_CHANGED = "file_changed"  #: its file has another content by now, and has not been embedded again
    FILE_GONE = "file_gone"  #: its file is not there any more
    SUSPENDED = "suspended"  #: something contradicts it, and nobody has confirmed it since


class Doubt(_Growing):
    """What speaks against the position of a photo."""

    SAME_CONTENT = "same_content"  #: other photos of the same file lie elsewhere
    SAME_PICTURE = "same_picture"  #: copies of the same picture lie elsewhere
    SHARED_POINT = "shared_point"  #: many pictures of different things lie at exactly this point: a default
    SEEN_ELSEWHERE = "seen_elsewhere"  #: photos that show the same thing lie elsewhere, and none that lies here does
    GPS_ELSEWHERE = "gps_elsewhere"  #: the same, of a position that its camera wrote


class Mistake(_Growing):
    """What would explain a wrong position: put right, it lies where the evidence does."""

    LAT_SIGN = "lat_sign"  #: south for north
    LON_SIGN = "lon_sign"  #: west for east
    BOTH_SIGNS = "both_signs"
    SWAPPED = "swapped"  #: latitude and longitude in each other's place
    MINUTES_AS_DECIMALS = "minutes_as_decimals"  #: 55 degrees 41.9 minutes written as 55.419
    OF_ANOTHER_PHOTO = "of_another_photo"  #: exactly where photos of something else lie


class ConflictState(StrEnum):
    """What people have said of a conflict. The photo is a witness again where they have confirmed its position."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
