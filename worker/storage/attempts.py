"""What failed or took its worker down, counted before it is tried again: photos and messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    table,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import Code, LeftAlone
from worker.core.tries import STUCK, Deaths, Try
from worker.core.types import NotTaken, Refusal
from worker.errors import Transient
from worker.storage.database import SESSION, Database, hold, iso, words_of
from worker.storage.rows import Rows
from worker.storage.tables import attempts, deliveries, entries, refusals
from worker.storage.vectors import Vectors

#: Of a statement: SHA-256 of photos.
CONTENTS = cast(bindparam("contents"), ARRAY(Text))


class Attempts:
    """See worker.core.ports.Attempts."""

    def __init__(self, database: Database, rows: Rows, vectors: Vectors) -> None:
        self._database = database
        self._rows = rows
        self._vectors = vectors
        # Made once: to put them together takes longer than Postgres does.
        self._asking = self._died(attempts.c.content_sha256 == any_(CONTENTS))
        self._noting = self._asking_and_noting()
        mine = attempts.c.process == database.process
        ended = delete(attempts).where(attempts.c.content_sha256 == any_(CONTENTS), _unsynced())
        self._ending, self._clearing = ended.where(mine), ended.where(or_(mine, ~_lives()))

    def begin(self, tries: Collection[Try], *, after: int) -> dict[str, Deaths]:
        """Count tries before they are made. Returns the contents with which processes have died, and how often: of
        these none is counted, and none noted that has `after` deaths."""
        tries = sorted({one.content_sha256: one for one in tries}.values(), key=lambda one: one.content_sha256)
        asked = {
            "contents": [one.content_sha256 for one in tries],
            "photo_ids": [one.photo_id for one in tries],
            "paths": [one.path for one in tries],
            "task_ids": [one.task_id for one in tries],
            "after": after,
        }
        try:
            with self._database.begin() as connection:
                found = connection.execute(self._noting, asked).all()
        except Transient:
            # A question may be all that a database can do that is read-only; one that is away says so again.
            with self._database.begin() as connection:
                found = connection.execute(self._asking, {"contents": asked["contents"]}).all()
        return {row.content_sha256: Deaths(row.times, row.signal) for row in found}

    def alone(self, content: str) -> None:
        """Count the try of a content with which processes have died."""
        row = {"content_sha256": content, "process": self._database.process, "begun": True, "at": func.now()}
        with self._database.begin() as connection:
            connection.execute(
                upsert(attempts)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["content_sha256", "process"],
                    set_={"begun": True, "at": func.now()},
                )
            )

    def end(self, contents: Collection[str], *, cleared: bool = False) -> None:
        """This process has outlived its tries of these. cleared: they are cleared of the deaths of others, too."""
        with self._database.begin() as connection:
            connection.execute(self._clearing if cleared else self._ending, {"contents": list(contents)})

    def leave(self, handed_back: Collection[str], stuck: Mapping[str, str]) -> None:
        """This process ends in order, and these messages, by task id, are handed out again without anybody's fault.
        stuck: messages that a thread is stuck at, and where: what they have in hand counts as if it had ended the
        process."""
        rows = [{"task_id": task_id, "times": -1, "at": func.now()} for task_id in handed_back]
        mine = attempts.c.process == self._database.process
        blameless = or_(attempts.c.task_id.is_(None), attempts.c.task_id.not_in(stuck))
        with self._database.begin() as connection:
            connection.execute(delete(attempts).where(mine, blameless))
            for task_id, where in stuck.items():
                named = {"signal": STUCK, "error": where}
                connection.execute(update(attempts).where(mine, attempts.c.task_id == task_id).values(named))
            if rows:
                connection.execute(
                    upsert(deliveries)
                    .values(rows)
                    .on_conflict_do_update(index_elements=["task_id"], set_={"times": deliveries.c.times - 1})
                )

    def quarantined(
        self, after: int, contents: Collection[str] | None = None, limit: int | None = None
    ) -> list[LeftAlone]:
        """Contents that are left alone, the newest first. contents: of those that begin so."""
        among = true() if contents is None else or_(*(attempts.c.content_sha256.startswith(c) for c in contents))
        died = self._died(among, least=after).order_by(text("at DESC"))
        with self._database.begin() as connection:
            return [
                LeftAlone(
                    row.content_sha256, row.times, iso(row.at) or "", row.signal, row.error, row.photo_id, row.path
                )
                for row in connection.execute(died if limit is None else died.limit(limit))
            ]

    def quarantined_count(self, after: int) -> int:
        died = self._died(true(), least=after).subquery()
        with self._database.begin() as connection:
            return connection.scalar(select(func.count()).select_from(died)) or 0

    def retry(self, contents: Collection[str], after: int) -> None:
        """Let each of these be tried once more. Where one has a row, the refusal goes, so that it is sent again."""
        nth = func.row_number().over(partition_by=attempts.c.content_sha256, order_by=attempts.c.at.desc())
        mine = attempts.c.content_sha256.in_(contents)
        ranked = select(attempts.c.content_sha256, attempts.c.process, nth.label("nth")).where(mine).subquery()
        too_many = and_(
            attempts.c.content_sha256 == ranked.c.content_sha256,
            attempts.c.process == ranked.c.process,
            ranked.c.nth >= after,
        )
        refused = and_(
            refusals.c.photo_id.in_(select(attempts.c.photo_id).where(mine)),
            refusals.c.code == Code.QUARANTINED.value,
        )
        with self._database.begin() as connection:
            connection.execute(delete(refusals).where(refused))
            connection.execute(delete(attempts).where(too_many))

    def forget(self, contents: Collection[str]) -> None:
        """What was counted of these, as if no process had died with them. Nothing is sent again for that."""
        with self._database.begin() as connection:
            connection.execute(delete(attempts).where(attempts.c.content_sha256.in_(contents)))

    def note_end(self, signal: str, error: str, *, pid: int | None = None, task_id: str | None = None) -> None:
        """How a process of this machine has ended that had tries in hand; pid: its own, or task_id: its message's."""
        mine = attempts.c.task_id == task_id if pid is None else attempts.c.process.startswith(words_of(pid))
        with self._database.begin() as connection:
            connection.execute(
                update(attempts).where(mine, attempts.c.signal.is_(None)).values(signal=signal, error=error)
            )

    def refuse(self, refused: Sequence[Refusal], model_key: str) -> None:
        """Remember why photos could not be taken, and since when for this reason.

        Of photos that have a row: others have nothing to be listed by. Not of one that is in the index by this model
        as its file was, whatever a caller has tried since, nor of one that was removed.
        """
        p = self._rows.table
        with self._database.begin() as connection:
            known = self._rows.ids_by_path(connection, refused)
            newest: dict[int, Refusal] = {}
            for one in refused:
                photo_id = one.photo_id
                if photo_id is None:
                    photo_id = next((known[path] for path in one.spellings if path in known), None)
                if photo_id is not None:
                    newest[photo_id] = one
            if not newest:
                return
            hold(connection, newest)
            lacks = or_(entries.c.photo_id.is_(None), self._vectors.is_stale(model_key, changed_too=True))
            for photo_id, one in newest.items():
                row = {"code": one.code.value, "message": one.message}
                of_photo = (
                    select(p.c.id, *(literal(value) for value in row.values()), func.now())
                    .join_from(p, entries, entries.c.photo_id == p.c.id, isouter=True)
                    .where(p.c.id == photo_id, lacks)
                )
                since = case((refusals.c.code == one.code.value, refusals.c.at), else_=func.now())
                connection.execute(
                    upsert(refusals)
                    .from_select(["photo_id", *row, "at"], of_photo)
                    .on_conflict_do_update(index_elements=["photo_id"], set_={**row, "at": since})
                )

    def not_taken(
        self, photo_ids: Collection[int] | None = None, codes: Collection[str] | None = None
    ) -> list[NotTaken]:
        """Photos that are refused, and those whose file has changed or gone, by their ids; of these ids or codes alone
        where they are given. The code of a file is that of its PositionIssue."""
        p = self._rows.table
        of_rows = select(
            refusals.c.photo_id,
            refusals.c.code,
            refusals.c.message,
            func.coalesce(p.c.file_path, "").label("path"),
            refusals.c.at.label("since"),
        ).join_from(refusals, p, p.c.id == refusals.c.photo_id)
        of_files = select(
            entries.c.photo_id,
            func.concat("file_", entries.c.file_state).label("code"),
            literal("").label("message"),
            func.coalesce(entries.c.path, "").label("path"),
            entries.c.file_state_at.label("since"),
        ).where(_file_is_odd())
        both = union_all(of_rows, of_files).subquery()
        query = select(both).order_by(both.c.photo_id)
        if photo_ids is not None:
            query = query.where(both.c.photo_id.in_(photo_ids))
        if codes is not None:
            query = query.where(both.c.code.in_(codes))
        with self._database.begin() as connection:
            return [
                NotTaken(row.photo_id, row.code, row.message, row.path, iso(row.since))
                for row in connection.execute(query)
            ]

    def not_taken_counts(self) -> dict[str, int]:
        """How many there are of each code, which is asked without a look at any row of the table of photos."""
        of_rows = select(refusals.c.code, func.count().label("photos")).group_by(refusals.c.code)
        of_files = (
            select(func.concat("file_", entries.c.file_state).label("code"), func.count().label("photos"))
            .where(_file_is_odd())
            .group_by(entries.c.file_state)
        )
        with self._database.begin() as connection:
            return {row.code: row.photos for row in connection.execute(union_all(of_rows, of_files))}

    def count_delivery(self, task_id: str) -> int:
        """Count one more delivery of a message whose worker died, before it is tried; returns how many there were. One
        that died with contents of the message in hand is held against these."""
        with self._database.begin() as connection:
            connection.execute(delete(deliveries).where(deliveries.c.at < func.now() - text("interval '7 days'")))
            before = connection.scalar(select(deliveries.c.at).where(deliveries.c.task_id == task_id))
            since = true() if before is None else attempts.c.at > before
            held = connection.scalar(select(exists().where(attempts.c.task_id == task_id, since)))
            more = 0 if held else 1
            times = upsert(deliveries).values(task_id=task_id, times=more, at=func.now())
            return int(
                connection.scalar(
                    times.on_conflict_do_update(
                        index_elements=["task_id"], set_={"times": deliveries.c.times + more, "at": func.now()}
                    ).returning(deliveries.c.times)
                )
                or 0
            )

    # ---------------------------------------------------------------------------------------- below

    def _asking_and_noting(self) -> Select[Any]:
        died = self._asking.cte("died")
        asked = (
            func.unnest(
                CONTENTS,
                cast(bindparam("photo_ids"), ARRAY(BigInteger)),
                cast(bindparam("paths"), ARRAY(Text)),
                cast(bindparam("task_ids"), ARRAY(Text)),
            )
            .table_valued("content", "photo_id", "path", "task_id")
            .render_derived(name="asked")
        )
        deaths = select(died.c.times).where(died.c.content_sha256 == asked.c.content).scalar_subquery()
        rows = select(
            asked.c.content,
            literal(self._database.process),
            deaths.is_(None),
            *(asked.c.photo_id, asked.c.path, asked.c.task_id),
            func.now(),
        ).where(or_(deaths.is_(None), deaths < bindparam("after", type_=Integer)), _unsynced())
        noted = upsert(attempts).from_select(
            ["content_sha256", "process", "begun", "photo_id", "path", "task_id", "at"], rows
        )
        noting = noted.on_conflict_do_update(
            index_elements=["content_sha256", "process"],
            set_={"task_id": noted.excluded.task_id, "at": noted.excluded.at},
        ).returning(attempts.c.content_sha256)
        return select(died).add_cte(noting.cte("noting"))

    def _died(self, among: ColumnElement[bool], *, least: int = 1) -> Select[Any]:
        """Deaths of processes that are gone, by content."""
        newest = attempts.c.at.desc()

        def last(column: Any) -> Any:
            return func.array_agg(aggregate_order_by(column, newest))[1].label(column.name)

        return (
            select(
                attempts.c.content_sha256,
                func.count().label("times"),
                *(last(attempts.c[name]) for name in ("signal", "error", "photo_id", "path")),
                func.max(attempts.c.at).label("at"),
            )
            .where(among, attempts.c.process != self._database.process, attempts.c.begun, ~_lives())
            .group_by(attempts.c.content_sha256)
            .having(func.count() >= least)
        )


def _lives() -> ColumnElement[bool]:
    """Whether the process of a try has a connection still. One that is killed has none from then on."""
    sessions = table("pg_stat_activity", column("application_name"))
    return exists().where(sessions.c.application_name == literal(f"{SESSION} ").concat(attempts.c.process))


def _unsynced() -> ColumnElement[bool]:
    """Has the transaction not wait for the disk: a kill of ours loses nothing by that, and a crash of Postgres only
    the counts of its last moment."""
    return func.set_config("synchronous_commit", "off", True) == "off"


def _file_is_odd() -> ColumnElement[bool]:
    """Of an entry: its file has changed or gone, and nothing else is the matter with the photo."""
    return and_(
        ~entries.c.removed,
        entries.c.file_state.is_not(None),
        ~exists().where(refusals.c.photo_id == entries.c.photo_id),
    )
