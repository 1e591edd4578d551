"""What a purge takes out of the tables, and what is left of a photo: its bare id."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, case, delete, exists, func, or_, select, text, update

from worker.storage.audit import forget_photos
from worker.storage.conflicts import forget_conflicts
from worker.storage.database import Database
from worker.storage.settling import FORGOTTEN, NO_POSITION
from worker.storage.tables import (
    attempts,
    audit,
    conflicts,
    embeddings,
    entries,
    exam_baselines,
    keypoints,
    lacking,
    pictures,
    refusals,
)
from worker.storage.vectors import forget_contents

#: What has rows of a photo, or names it in a row of another's.
ERASED_FROM = (entries, embeddings, pictures, keypoints, attempts, lacking, conflicts, refusals, exam_baselines, audit)


def erase(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Erase what is kept of photos that are removed already; returns those of which anything was kept."""
    of = select(entries.c.photo_id, entries.c.content_sha256, entries.c.path).where(entries.c.photo_id.in_(ids))
    known = connection.execute(of).all()
    contents = {row.photo_id: row.content_sha256 for row in known if row.content_sha256 != ""}
    connection.execute(
        update(entries)
        .where(entries.c.photo_id.in_(ids))
        .values(
            content_sha256="",
            path=None,
            **NO_POSITION,
            from_exif=False,
            metadata=None,
            row_point=None,
            own_address=None,
            row_address=None,
            file_point=case((entries.c.file_point.is_not(None), FORGOTTEN)),
            file_size=None,
            file_mtime_ns=None,
            file_state=None,
            file_state_at=None,
            updated_at=func.now(),
        )
    )
    forget_contents(connection, contents.values())
    paths = [row.path for row in known if row.path]
    named = (
        attempts.c.photo_id.in_(ids),
        attempts.c.content_sha256.in_(contents.values()),
        attempts.c.path.in_(paths),
    )
    connection.execute(delete(attempts).where(or_(*named)))
    connection.execute(delete(lacking).where(lacking.c.photo_id.in_(ids)))
    forget_conflicts(connection, ids)
    _forget_outcomes(connection, ids)
    forget_photos(connection, ids, contents.values())
    return set(contents)


def clean(database: Database) -> None:
    """Free the rows that were erased, and have Postgres forget what its statistics took of them: values of columns,
    which a dump may have, too (`pg_dump --statistics`). Raises Transient where the tables are another role's."""
    with database.guard(), database.engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        names = ", ".join(f'"{database.schema}".{table.name}' for table in ERASED_FROM)
        alone.execute(text(f"VACUUM (ANALYZE) {names}"))
    with database.begin() as connection:
        # Statistics are dumped, and can be taken away, since this release. ANALYZE leaves those of an empty table.
        if (connection.dialect.server_version_info or ()) < (18,):
            return
        for table in ERASED_FROM:
            if connection.scalar(select(~exists(select(table)))):
                for column in (column for column in table.c if not column.system):
                    named = (database.schema, table.name, column.name, False)
                    connection.execute(select(func.pg_clear_attribute_stats(*named)))


def _forget_outcomes(connection: Connection, ids: Sequence[int]) -> None:
    """What exams are compared with has the ids of the photos that one has asked about, and what came of them."""
    for row in connection.execute(select(exam_baselines)).all():
        outcomes = row.baseline["outcomes"]
        left = [outcome for outcome in outcomes if outcome["photo_id"] not in ids]
        if len(left) < len(outcomes):
            connection.execute(
                update(exam_baselines)
                .where(exam_baselines.c.model_key == row.model_key)
                .values(baseline={**row.baseline, "outcomes": left})
            )
