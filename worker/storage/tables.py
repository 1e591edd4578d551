"""Sightline's own tables, in a schema of their own. The migrations make them; this page reads and writes them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Double,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    Uuid,
    exists,
    func,
    or_,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import NullType

#: Stands for SIGHTLINE_DB_SCHEMA; the engine translates it.
SCHEMA = "sightline"

metadata = MetaData(schema=SCHEMA)

change_seq = Sequence("change_seq", schema=SCHEMA, metadata=metadata)

#: One unit vector per photo content and model, little-endian float32.
embeddings = Table(
    "embeddings",
    metadata,
    Column("content_sha256", Text, primary_key=True),
    Column("model_key", Text, primary_key=True),
    Column("vector", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    #: Where the row lies; Postgres has it of every row.
    Column("ctid", NullType(), system=True),
)

#: One hash per photo content: what the picture looks like, whatever the model. Empty where it shows too little to be
#: known again by a hash; no row where no worker has decoded it since there are hashes.
pictures = Table(
    "pictures",
    metadata,
    Column("content_sha256", Text, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    #: Digest of the camera (worker.core.shot), empty where the file names none or no time; NULL where nobody has
    #: looked.
    Column("camera", LargeBinary),
    #: Seconds by that camera's clock.
    Column("taken_s", Double),
)

#: Keypoints per photo content, as worker.core.keypoints writes them, and its version. A row without any where a picture
#: is plain or cannot be looked at.
keypoints = Table(
    "keypoints",
    metadata,
    Column("content_sha256", Text, primary_key=True),
    Column("version", SmallInteger, nullable=False),
    Column("keypoints", LargeBinary, nullable=False),
)

#: What the index knows of a photo. A removed photo keeps its row, so that no rebuild brings it back.
entries = Table(
    "entries",
    metadata,
    Column("photo_id", BigInteger, primary_key=True, autoincrement=False),
    Column("content_sha256", Text, nullable=False),
    Column("path", Text),
    Column("lat", Double),
    Column("lon", Double),
    Column("provenance", Text),
    Column("from_exif", Boolean, nullable=False),
    #: A PositionFrom. NULL where there is no position, or of releases before this column.
    Column("position_from", Text),
    #: Metres, as the camera states it. NULL where nobody does.
    Column("position_error_m", Double),
    Column("metadata", JSONB),
    #: What the row said of the position when a caller's was taken instead; NULL where it is the row's or the file's.
    Column("row_point", Text),
    #: A caller's address, and a digest of the row's at that time. It holds until the row's changes.
    Column("own_address", JSONB(none_as_null=True)),
    Column("row_address", Text),
    #: What the row said of the position when Sightline had written the file's into it: as long as it says so, that goes
    #: with the file's content. Of a purged photo only that there was something ('').
    Column("file_point", Text),
    #: Of the file with this content: bytes, and its time of change. NULL where it is not known.
    Column("file_size", BigInteger),
    Column("file_mtime_ns", BigInteger),
    #: A FileState; NULL where nothing speaks against the file's being as it was.
    Column("file_state", Text),
    #: When that was seen first. NULL with a file_state of releases before this column.
    Column("file_state_at", DateTime(timezone=True)),
    Column("removed", Boolean, nullable=False),
    #: When the request was sent that has decided so, by its sender's clock: milliseconds of Unix time. NULL where it
    #: did not say.
    Column("asked_ms", BigInteger),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)

#: What speaks against a photo's position, and what people have said of it. It is about the content and the point that
#: the photo had then (see worker.storage.filters.is_suspended). A photo that is removed keeps it, one that is purged
#: does not.
conflicts = Table(
    "conflicts",
    metadata,
    Column("photo_id", BigInteger, primary_key=True, autoincrement=False),
    Column("content_sha256", Text, nullable=False),
    Column("lat", Double, nullable=False),
    Column("lon", Double, nullable=False),
    #: A Doubt, and a Mistake or NULL.
    Column("doubt", Text, nullable=False),
    Column("mistake", Text),
    #: Photos that contradict it, and where they lie; NULL where that is no one place.
    Column("other_ids", ARRAY(BigInteger), nullable=False),
    Column("other_lat", Double),
    Column("other_lon", Double),
    #: A ConflictState.
    Column("state", Text, nullable=False),
    #: The model whose neighbours said so; NULL where none was asked.
    Column("model_key", Text),
    Column("found_at", DateTime(timezone=True), nullable=False),
    Column("settled_at", DateTime(timezone=True)),
)

#: How far the look for conflicts has come, by model: a large library takes several nights.
examined = Table(
    "examined",
    metadata,
    Column("model_key", Text, primary_key=True),
    Column("after_id", BigInteger, nullable=False),
)

#: The change log. The order of `seq` is the order of commits (see ChangeLog.append).
changes = Table(
    "changes",
    metadata,
    Column("seq", BigInteger, change_seq, primary_key=True),
    Column("photo_id", BigInteger, nullable=False),
    #: The model whose vector alone is new; NULL concerns every model.
    Column("model_key", Text),
    Column("at", DateTime(timezone=True), nullable=False),
    #: Random: after a restore the same seq is given out again, with another stamp.
    Column("stamp", Uuid(as_uuid=False), nullable=False, server_default=func.gen_random_uuid()),
)

#: Photos that could not be taken, with the reason of the last try.
refusals = Table(
    "refusals",
    metadata,
    Column("photo_id", BigInteger, primary_key=True, autoincrement=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

#: Tries of a photo content that have begun and not ended, of one process: committed before the work, so that a death
#: counts. Of a process that is gone each is a death.
attempts = Table(
    "attempts",
    metadata,
    Column("content_sha256", Text, primary_key=True),
    #: Word of the process: a part of the name of its connections, by which it is known to live.
    Column("process", Text, primary_key=True),
    #: Not yet of one that waits until it is tried alone.
    Column("begun", Boolean, nullable=False),
    #: As the photo was named, and the message that named it.
    Column("photo_id", BigInteger),
    Column("path", Text),
    Column("task_id", Text),
    #: How the process ended, where somebody saw it.
    Column("signal", Text),
    Column("error", Text),
    Column("at", DateTime(timezone=True), nullable=False),
)

#: Photos that lack a vector, since when that is seen, how often they were sent again, and until when no more.
lacking = Table(
    "lacking",
    metadata,
    Column("photo_id", BigInteger, primary_key=True, autoincrement=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
    Column("times", Integer, nullable=False),
    Column("until", DateTime(timezone=True), nullable=False),
)

#: When the reconciler ran last, and the photo whose file it looked at last.
reconciled = Table(
    "reconciled",
    metadata,
    Column("only", Boolean, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("after_id", BigInteger, nullable=False),
)

#: Messages that came back because their worker died, by task id.
deliveries = Table(
    "deliveries",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("times", Integer, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

generations = Table(
    "generations",
    metadata,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("model_key", Text),
    Column("seq", BigInteger),
    #: Of the change at `seq`.
    Column("stamp", Uuid(as_uuid=False)),
    Column("count", BigInteger),
    Column("kind", Text),
    Column("parameters", JSONB),
    Column("recall_at_10", Double),
    Column("recall_at_10_at_least", Double),
    Column("index_bytes", BigInteger),
    #: Through the hashes in it, all files are held to it. NULL of one that an earlier release has published.
    Column("manifest_sha256", Text),
    #: What its own photos taught of evidence, or why nothing (worker.library.learning); NULL where nobody was asked.
    Column("learnt", JSONB(none_as_null=True)),
    #: Figures of the exam that it was learnt from.
    Column("exam", JSONB(none_as_null=True)),
    #: What that says beside the baseline (worker.place.gate); of one that was held back, too, which is not published.
    Column("verdict", JSONB(none_as_null=True)),
    Column("published_at", DateTime(timezone=True)),
    Column("withdrawn_at", DateTime(timezone=True)),
    Column("dropped_at", DateTime(timezone=True)),
)

#: The exam that those of a model's generations are compared with.
exam_baselines = Table(
    "exam_baselines",
    metadata,
    Column("model_key", Text, primary_key=True),
    Column("baseline", JSONB, nullable=False),
    Column("frozen_at", DateTime(timezone=True), nullable=False),
)

#: Photos that must leave every kept generation, too, with the generation that was the first without them.
purges = Table(
    "purges",
    metadata,
    Column("photo_id", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("asked_at", DateTime(timezone=True), nullable=False),
    Column("erased_at", DateTime(timezone=True)),
    Column("generation", BigInteger),
)

#: Who has asked where photos were taken, with what was told (worker.core.audit).
audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("until", DateTime(timezone=True), nullable=False),
    Column("producer", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("task_id", Text),
    Column("content_sha256", Text),
    Column("photo_id", BigInteger),
    Column("answer", Text, nullable=False),
    Column("lat", Double),
    Column("lon", Double),
    Column("radius_m", Double),
    Column("told", ARRAY(BigInteger), nullable=False),
)

#: The one model whose vectors are searched.
serving = Table(
    "serving",
    metadata,
    Column("only", Boolean, primary_key=True),
    Column("model_key", Text, nullable=False),
    Column("since", DateTime(timezone=True), nullable=False),
)

#: Chains of messages that fill a model's vectors, each with its share of the photos and a lease.
fillers = Table(
    "fillers",
    metadata,
    Column("model_key", Text, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("until", DateTime(timezone=True), nullable=False),
)

rebuilds = Table(
    "rebuilds",
    metadata,
    Column("run_id", BigInteger, Identity(), primary_key=True),
    Column("state", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("summary", JSONB),
    Column("error", Text),
)

#: One row per due time of a job: any number of tickers may look, one wins.
schedule = Table(
    "schedule",
    metadata,
    Column("name", Text, primary_key=True),
    Column("scheduled_for", DateTime(timezone=True), primary_key=True),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)


def kept() -> list[ColumnElement[bool]]:
    """Generations that are published and not dropped, of all models."""
    return [generations.c.published_at.is_not(None), generations.c.dropped_at.is_(None)]


def served(model_key: str | None = None) -> list[ColumnElement[bool]]:
    """Generations that are published, kept, not rolled back from and built from this log, of one model or of all."""
    of_all = [*kept(), generations.c.withdrawn_at.is_(None), in_log()]
    return of_all if model_key is None else [*of_all, generations.c.model_key == model_key]


def in_log() -> ColumnElement[bool]:
    """Whether the log holds the change at which a generation was built. The log is kept behind those that are kept, so
    one that it does not hold is of another history: not all of the database was restored."""
    same = or_(generations.c.stamp.is_(None), generations.c.stamp == changes.c.stamp)
    held = exists().where(changes.c.seq == generations.c.seq, same).correlate(generations)
    return or_(generations.c.seq == 0, held)
