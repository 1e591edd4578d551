"""Backends' tables as they are: a column of no use is named with SQL that helps, and what it makes works."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from sqlalchemy import text

from producer_client.contract import Locate, NewPhoto, Photo, Search, Stored
from tests.conftest import Scene
from worker.core.types import PhotoRow
from worker.errors import Unprepared
from worker.library import Library
from worker.settings import Settings
from worker.storage.fitting import Column, misfit
from worker.storage.store import PostgresStore

COMMON = "address_data jsonb, location_method text, created_at timestamptz DEFAULT now()"
#: Columns of a table, what the sentence names, and what stands for 55.5 and 13.25 there.
TABLES = {
    "text coordinates": (
        f"id bigserial PRIMARY KEY, file_path text, lat text, lon text, {COMMON}",
        "column lat",
        "55.5",
        "13,25",
    ),
    "a uuid key": (
        f"id uuid PRIMARY KEY DEFAULT gen_random_uuid(), file_path text, lat numeric, lon real, {COMMON}",
        "column id of {table} is uuid, and must be a whole number",
        "55.5",
        "13.25",
    ),
    "a text key and coordinates": (
        f"id text PRIMARY KEY DEFAULT gen_random_uuid()::text, file_path text, lat varchar(20), lon text, {COMMON}",
        "column id of {table} is text",
        "55,5",
        " 13.25 ",
    ),
    "camels": (
        'id bigserial PRIMARY KEY, "filePath" text, "latitude" float8, "lng" float8, "addressData" jsonb, '
        '"locationMethod" text, "createdAt" timestamptz',
        "lacks file_path, lat, lon",
        "55.5",
        "13.25",
    ),
    "nothing but files": (
        "id serial PRIMARY KEY, file_path text, lat text, lon text",
        "lacks address_data",
        "55.5",
        "13.25",
    ),
}


def sql_and_settings(sentence: str) -> tuple[list[str], dict[str, object]]:
    """What a reader of the sentence would do."""
    statements = re.findall(r"^  (.*;)$", sentence, re.MULTILINE)
    changed: dict[str, object] = {}
    if found := re.search(r"SIGHTLINE_PHOTOS_TABLE=(\w+)", sentence):
        changed["photos_table"] = found[1]
    if found := re.search(r"SIGHTLINE_PHOTOS_COLUMNS=([\w=,]+)", sentence):
        changed["photos_columns"] = dict(pair.split("=") for pair in found[1].split(","))
    return statements, changed


@pytest.mark.parametrize("kind", TABLES)
def test_the_sql_that_is_shown_makes_a_table_that_works(
    kind: str,
    settings: Settings,
    make_store: Callable[..., PostgresStore],
    make_library: Callable[..., Library],
    scenes: list[Scene],
) -> None:
    columns, said, lat, lon = TABLES[kind]
    table = f"{settings.photos_table}_theirs"
    engine = make_store().database.engine
    names = {"file": "file_path", "lat": "lat", "lon": "lon"}
    if kind == "camels":
        names = {"file": '"filePath"', "lat": "latitude", "lon": "lng"}
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {table} ({columns})"))
        insert = text(f"INSERT INTO {table} ({', '.join(names.values())}) VALUES (:file, :lat, :lon)")
        for scene in scenes[:2]:
            connection.execute(insert, {"file": str(scene.path), "lat": lat, "lon": lon})
        if "text" in kind:
            connection.execute(insert, {"file": "/odd.jpg", "lat": "abc", "lon": ""})

    store = make_store(photos_table=table)
    with pytest.raises(Unprepared) as caught:
        store.rows.get([1])
    assert said.format(table=table) in caught.value.message
    statements, changed = sql_and_settings(caught.value.message)
    assert "migrate" not in caught.value.message
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))

    chosen = settings.model_copy(update={"photos_table": table, **changed})
    store = make_store(**{"photos_table": table, **changed})
    rows: list[PhotoRow] = store.rows.after(-1, 10)
    assert [(row.lat, row.lon) for row in rows[:2]] == [(55.5, 13.25)] * 2
    assert all((row.lat, row.lon) == (None, None) for row in rows[2:])
    library = make_library(settings=chosen, store=store)
    added = library.photos.add_many([NewPhoto(str(r.photo_id), Photo(photo_id=r.photo_id)) for r in rows[:2]]).outcomes
    assert all(isinstance(outcome, Stored) for outcome in added), added
    asked = Photo(path=str(scenes[2].path))
    found = library.questions.search(Search(photo=asked, threshold=-1.0))
    assert {hit.photo_id for hit in found.hits} == {row.photo_id for row in rows[:2]}
    answer = library.questions.locate(Locate(photo=asked)).answer
    assert answer.located, "by what the files themselves say: the rows' points count as derived"
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {table} CASCADE"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"location": "point"}, ["lacks lat, lon", "location[1] AS lat", "location[0] AS lon"]),
        ({"geom": "geography(Point,4326)"}, ["ST_Y(geom::geometry) AS lat", "ST_X(geom::geometry) AS lon"]),
        ({"lat": "jsonb", "lon": "double precision"}, ["column lat of photos is jsonb, and must be a number"]),
        ({"lat": "real", "lon": "boolean"}, ["column lon of photos is boolean", "NULL::double precision AS lon"]),
        ({"Lat": "real", "LON": "real"}, ["Set SIGHTLINE_PHOTOS_COLUMNS=lat=Lat,lon=LON"]),
        (
            {"lat": "real", "lon": "real", "id": "uuid"},
            ["ALTER TABLE photos ADD COLUMN sightline_id bigint", "id=sightline_id"],
        ),
        ({"lat": "real", "lon": "real", "address_data": "hstore"}, ["to_jsonb(address_data) AS address_data"]),
        ({"lat": "real", "lon": "real", "file_path": "bytea"}, ["column file_path of photos is bytea"]),
    ],
)
def test_the_column_its_type_and_what_to_do_are_said(columns: dict[str, str], said: list[str]) -> None:
    there = {
        "id": "bigint",
        "file_path": "text",
        "address_data": "jsonb",
        "location_method": "text",
        "created_at": "date",
    }

    why = misfit("photos", [Column(*column) for column in (there | columns).items()], {})

    assert why is not None
    assert [words for words in said if words not in why] == []


@pytest.mark.parametrize("lat", ["double precision", "real", "numeric", "numeric(9,6)", "integer"])
@pytest.mark.parametrize("address", ["json", "jsonb", "text", "character varying(300)"])
@pytest.mark.parametrize("key", ["bigint", "integer", "smallint"])
def test_a_table_that_fits_is_used_as_it_is(lat: str, address: str, key: str) -> None:
    types = (key, "character varying", lat, lat, address, "some_enum", "timestamp without time zone")
    names = ("ID", "file", "lat", "lon", "address_data", "location_method", "order")

    theirs = {"id": "ID", "file_path": "file", "created_at": "order"}
    assert misfit("photos", [Column(*pair) for pair in zip(names, types, strict=True)], theirs) is None
