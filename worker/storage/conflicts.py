"""Photos whose position something contradicts: who may be, and what was found.

A conflict is about one position of a photo. Until somebody confirms it, `filters.is_suspended` says so of the entry,
whoever reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import ConflictState, Doubt, Provenance
from producer_client.words import TRUSTED
from worker.core.conflict import Claim, Contradiction
from worker.core.geo import SAME_DEG
from worker.settings import Settings
from worker.storage.database import Database, hold
from worker.storage.filters import is_about_entry
from worker.storage.log import ChangeLog
from worker.storage.tables import conflicts, entries, examined

OPEN, CONFIRMED, REJECTED = ConflictState.OPEN, ConflictState.CONFIRMED, ConflictState.REJECTED


class Conflicts:
    """See worker.core.ports.Conflicts. A public method is a transaction."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    # ------------------------------------------------------------------------------------- what is claimed

    def claims(self, *, after_id: int, limit: int) -> list[Claim]:
        """What could be evidence, by rising id, but for what people have settled."""
        query = self._claims().where(entries.c.photo_id > after_id, _not_settled())
        with self._database.begin() as connection:
            found = connection.execute(query.order_by(entries.c.photo_id).limit(limit))
            return [_claim(row) for row in found]

    def claims_of(self, photo_ids: Collection[int]) -> list[Claim]:
        """The same of these photos."""
        query = self._claims().where(entries.c.photo_id.in_(photo_ids), _not_settled())
        with self._database.begin() as connection:
            return [_claim(row) for row in connection.execute(query.order_by(entries.c.photo_id))]

    def of_one_content(self) -> list[list[Claim]]:
        """Photos of one file each, of which not all lie at one point; none that a person has rejected."""
        e = entries.c
        spread = [func.max(of) - func.min(of) > SAME_DEG for of in (e.lat, e.lon)]
        several = self._claims(e.content_sha256).where(_not_rejected()).group_by(e.content_sha256).having(or_(*spread))
        query = self._claims().where(_not_rejected(), e.content_sha256.in_(several))
        with self._database.begin() as connection:
            found = [_claim(row) for row in connection.execute(query.order_by(e.content_sha256, e.photo_id))]
        return [list(group) for _, group in groupby(found, key=lambda claim: claim.content_sha256)]

    def of_one_point(self, least: int) -> list[list[Claim]]:
        """Photos at exactly one point each, where there are so many; none that a person has rejected."""
        e = entries.c
        shared = (
            self._claims(e.lat, e.lon)
            .where(_not_rejected())
            .group_by(e.lat, e.lon)
            .having(func.count() >= least)
            .subquery()
        )
        query = self._claims().where(_not_rejected()).join(shared, and_(e.lat == shared.c.lat, e.lon == shared.c.lon))
        with self._database.begin() as connection:
            found = [_claim(row) for row in connection.execute(query.order_by(e.lat, e.lon, e.photo_id))]
        return [list(group) for _, group in groupby(found, key=lambda claim: claim.point)]

    # ------------------------------------------------------------------------------------ what contradicts

    def suspend(self, found: Sequence[Contradiction], *, model_key: str | None = None) -> set[int]:
        """Keep what was found, each for as long as its photo has the position and the content that it had then; returns
        those that are suspended by it and were not. What people have settled stays as it is."""
        by_id = {one.claim.photo_id: one for one in found}
        with self._database.begin() as connection:
            hold(connection, by_id)
            known = connection.execute(about(by_id, conflicts.c.photo_id, conflicts.c.state))
            before: dict[int, str] = {row.photo_id: row.state for row in known}
            new = set()
            for photo_id, one in sorted(by_id.items()):
                if before.get(photo_id, OPEN.value) != OPEN.value:
                    continue
                values = _values(one, model_key)
                there = select(entries.c.photo_id, *(literal(v, conflicts.c[n].type) for n, v in values.items())).where(
                    entries.c.photo_id == photo_id,
                    ~entries.c.removed,
                    entries.c.content_sha256 == one.claim.content_sha256,
                    entries.c.lat == one.claim.lat,
                    entries.c.lon == one.claim.lon,
                )
                since = case((conflicts.c.doubt == one.doubt.value, conflicts.c.found_at), else_=func.now())
                kept = connection.execute(
                    upsert(conflicts)
                    .from_select(
                        ["photo_id", *values, "found_at"],
                        there.add_columns(func.now()),
                    )
                    .on_conflict_do_update(
                        index_elements=["photo_id"],
                        set_={
                            **values,
                            "found_at": since if photo_id in before else func.now(),
                            "settled_at": null(),
                        },
                    )
                )
                if kept.rowcount and photo_id not in before:
                    new.add(photo_id)
            ChangeLog.append(connection, sorted(new))
        return new

    def withdraw(self, photo_ids: Collection[int]) -> None:
        """What was found of these photos does not hold any more. What people have settled stays."""
        with self._database.begin() as connection:
            hold(connection, photo_ids)
            gone = connection.scalars(
                delete(conflicts)
                .where(conflicts.c.photo_id.in_(photo_ids), conflicts.c.state == OPEN.value)
                .returning(conflicts.c.photo_id)
            ).all()
            ChangeLog.append(connection, sorted(gone))

    def open_ids(self, doubts: Collection[Doubt]) -> set[int]:
        """Photos of which one of these was found, and that nobody has settled."""
        query = listed(OPEN).where(conflicts.c.doubt.in_([doubt.value for doubt in doubts]))
        with self._database.begin() as connection:
            return {row.photo_id for row in connection.execute(query)}

    def examined_up_to(self, model_key: str) -> int:
        """The photo at which the last look for conflicts ended; -1 where it came to the end, or there was none."""
        with self._database.begin() as connection:
            after_id = connection.scalar(select(examined.c.after_id).where(examined.c.model_key == model_key))
        return -1 if after_id is None else int(after_id)

    def note_examined(self, model_key: str, after_id: int) -> None:
        values = {"after_id": after_id}
        with self._database.begin() as connection:
            connection.execute(
                upsert(examined)
                .values(model_key=model_key, **values)
                .on_conflict_do_update(index_elements=["model_key"], set_=values)
            )

    # ---------------------------------------------------------------------------------------------- below

    def _claims(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """What is evidence if nothing contradicts it (see worker.place.evidence), with the conflict that does."""
        e = entries.c
        changed_at = e.file_mtime_ns / 1e9
        selected = columns or (
            *(e.photo_id, e.content_sha256, e.lat, e.lon, e.provenance, e.position_error_m),
            changed_at.label("changed_at"),
            conflicts.c.state,
        )
        agree_m = self._settings.locate_agree_m
        query = (
            select(*selected)
            .join_from(entries, conflicts, and_(conflicts.c.photo_id == e.photo_id, is_about_entry()), isouter=True)
            .where(
                ~e.removed,
                e.provenance.in_([provenance.value for provenance in sorted(TRUSTED)]),
                or_(e.lat != 0, e.lon != 0),
                or_(e.position_error_m.is_(None), e.position_error_m <= agree_m),
            )
        )
        return query if self._settings.stale_files_count else query.where(e.file_state.is_(None))


def forget_conflicts(connection: Connection, photo_ids: Sequence[int]) -> None:
    """Erase what is kept of these photos, also where they contradict others: of those the doubt stays."""
    connection.execute(delete(conflicts).where(conflicts.c.photo_id.in_(photo_ids)))
    for photo_id in photo_ids:
        connection.execute(
            update(conflicts)
            .where(conflicts.c.other_ids.contains([photo_id]))
            .values(other_ids=func.array_remove(conflicts.c.other_ids, photo_id), other_lat=None, other_lon=None)
        )


def about(photo_ids: Collection[int], *columns: Any) -> Select[Any]:
    """Conflicts about what these photos claim now."""
    return (
        select(*columns)
        .join_from(entries, conflicts, and_(conflicts.c.photo_id == entries.c.photo_id, is_about_entry()))
        .where(entries.c.photo_id.in_(photo_ids), ~entries.c.removed)
    )


def listed(state: ConflictState | None) -> Select[Any]:
    """Conflicts with the photos as they are now."""
    now = (entries.c.path, entries.c.provenance, entries.c.lat.label("lat_now"), entries.c.lon.label("lon_now"))
    query = (
        select(conflicts, *now)
        .join_from(entries, conflicts, and_(conflicts.c.photo_id == entries.c.photo_id, is_about_entry()))
        .where(~entries.c.removed)
    )
    return query if state is None else query.where(conflicts.c.state == state.value)


# ---------------------------------------------------------------------------------------------- below


def _not_settled() -> ColumnElement[bool]:
    return or_(conflicts.c.state.is_(None), conflicts.c.state == OPEN.value)


def _not_rejected() -> ColumnElement[bool]:
    return conflicts.c.state.is_distinct_from(REJECTED.value)


def _values(one: Contradiction, model_key: str | None) -> dict[str, Any]:
    lat, lon = one.point or (None, None)
    return {
        "content_sha256": one.claim.content_sha256,
        "lat": one.claim.lat,
        "lon": one.claim.lon,
        "doubt": one.doubt.value,
        "mistake": None if one.mistake is None else one.mistake.value,
        "other_ids": list(one.others),
        "other_lat": lat,
        "other_lon": lon,
        "state": OPEN.value,
        "model_key": model_key,
    }


def _claim(row: Row[Any]) -> Claim:
    return Claim(
        photo_id=row.photo_id,
        content_sha256=row.content_sha256,
        lat=row.lat,
        lon=row.lon,
        provenance=Provenance(row.provenance),
        error_m=row.position_error_m or 0.0,
        state=None if row.state is None else ConflictState(row.state),
        changed_at=row.changed_at,
    )
